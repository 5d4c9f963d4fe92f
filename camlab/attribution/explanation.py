"""The maps of a batch: what an `Explainer` returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Explanation:
    """Logits of a batch of N images, and the raw maps of R classes for each image.

    Attributes:
        logits: The network's output, N×M.
        class_idx: The classes that the maps are of, N×R.
        maps: Signed maps by method, one tensor N×R×h×w for each target layer, on the layer's own grid.
        layers: Names of the target layers by method; of methods that use all layers, a description of these.
        cam_of_all_classes: CAM of every class, N×M×h×w; None unless `cam` is one of the methods and has one layer.
    """

    logits: Tensor
    class_idx: Tensor
    maps: dict[str, list[Tensor]]
    layers: dict[str, tuple[str, ...]]
    cam_of_all_classes: Tensor | None = None
