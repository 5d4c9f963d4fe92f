"""The network's result for one picture: what training and `explain` compute, draw and write."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from camlab.attribution.explanation import Explanation
from camlab.errors import listed

MOST_NAMED = 3  # classes of a picture that has several; more would not fit beside each other


@dataclass(frozen=True)
class Source:
    """A picture that is shown to a network.

    Attributes:
        file: Path of the picture's file.
        name: Name in captions; empty where captions give the true class alone.
        number: Index of the picture in its set, from 0.
        size: Width and height of the upright picture, in pixels.
        visible: The part that the network sees: left, top, right, bottom in the picture's pixels.
    """

    file: Path
    name: str
    number: int
    size: tuple[int, int]
    visible: tuple[float, float, float, float]

    @property
    def visible_pixels(self) -> tuple[int, int, int, int]:
        """The visible part in whole pixels, at least one in each direction.

        Example:
            >>> Source(Path("a.jpg"), "a.jpg", 0, (301, 200), (50.5, 0, 250.5, 200)).visible_pixels
            (50, 0, 250, 200)
        """
        left, top, right, bottom = map(round, self.visible)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    @property
    def is_cut(self) -> bool:
        """Whether the network sees only part of the picture."""
        return self.visible_pixels != (0, 0, *self.size)


@dataclass(frozen=True)
class PictureResult:
    """The network's result for one picture, and the raw maps of R classes; tensors are float32 and on the CPU.

    Attributes:
        source: The picture.
        class_idx: The R classes that the maps are of.
        probabilities: Softmax of the logits, M; sigmoids if there is one logit or a picture may have several classes.
        maps: Signed maps by method, R×h×w for each target layer, on the layer's own grid.
        label: The true class; None if it is not known, or if a picture may have several.
        cam_of_all_classes: CAM of every class, M×h×w; None if it is not kept.
        true_classes: All true classes, if a picture may have any number; None if they are not known.
        one_by_one: Whether each class is decided on its own, so that the probabilities are sigmoids.
    """

    source: Source
    class_idx: tuple[int, ...]
    probabilities: Tensor
    maps: dict[str, list[Tensor]]
    label: int | None = None
    cam_of_all_classes: Tensor | None = None
    true_classes: tuple[int, ...] | None = None
    one_by_one: bool = False

    def name_with_truth(self, class_names: Sequence[str]) -> str:
        """The picture's name and, if it may have any number of classes, the true ones: `a.jpg: true cat, dog`."""
        if self.true_classes is None:
            return self.source.name
        truth = f"true {listed([class_names[k] for k in self.true_classes], most=MOST_NAMED) or 'none'}"
        return ": ".join(filter(None, (self.source.name, truth)))


def of_equal_ranks(results: Sequence[PictureResult]) -> list[PictureResult]:
    """Give all pictures the same number of explained classes: one with fewer repeats its first, and that one's maps."""
    most = max(len(result.class_idx) for result in results)

    def lengthened(result: PictureResult) -> PictureResult:
        ranks = [*range(len(result.class_idx)), *[0] * (most - len(result.class_idx))]
        maps = {method: [part[ranks] for part in layers] for method, layers in result.maps.items()}
        return replace(result, class_idx=tuple(result.class_idx[rank] for rank in ranks), maps=maps)

    return [result if len(result.class_idx) == most else lengthened(result) for result in results]


def results_of(
    explanation: Explanation,
    sources: Sequence[Source],
    labels: Tensor | None = None,
    all_classes: bool = False,
    multi_label: bool = False,
) -> list[PictureResult]:
    """Split the explanation of a batch into the results of its pictures.

    Args:
        explanation: Logits and maps of the batch, on any device.
        sources: The pictures of the batch.
        labels: True classes, N, or N×M with ones for them if there may be any number.
        all_classes: Whether to keep the CAM of every class, if there is one.
        multi_label: Whether a picture may have several classes.
    """
    logits = explanation.logits.float()
    one_by_one = multi_label or logits.shape[1] == 1
    probabilities = (logits.sigmoid() if one_by_one else logits.softmax(dim=1)).cpu()
    class_idx = explanation.class_idx.tolist()
    known: list[int | None] = [None] * len(sources)
    several: list[tuple[int, ...] | None] = [None] * len(sources)
    if labels is not None and labels.dim() == 2:
        several = [tuple(torch.nonzero(row).flatten().tolist()) for row in labels]
    elif labels is not None:
        known = labels.tolist()
    maps = {method: [part.float().cpu() for part in layers] for method, layers in explanation.maps.items()}
    every = explanation.cam_of_all_classes if all_classes else None
    every = None if every is None else every.float().cpu()
    return [
        PictureResult(
            source=source,
            class_idx=tuple(class_idx[i]),
            probabilities=probabilities[i],
            maps={method: [part[i] for part in layers] for method, layers in maps.items()},
            label=known[i],
            cam_of_all_classes=None if every is None else every[i],
            true_classes=several[i],
            one_by_one=one_by_one,
        )
        for i, source in enumerate(sources)
    ]
