"""The maps that are scored during training: of the true class, the predicted one and a rival, for fixed images.

Shape letters: N images, M classes, h and w the rows and columns of a map's own grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.classifier import Output
from camlab.attribution.doubts import check_grids
from camlab.attribution.explainer import Explainer
from camlab.attribution.explanation import Explanation
from camlab.attribution.layouts import Reshape
from camlab.errors import UserError
from camlab.models.cam_net import CamNet


@dataclass(frozen=True)
class ScoredMaps:
    """Signed maps of N images at one moment of a training; all but those of the other method are on one grid.

    Attributes:
        logits: The network's output, N×M.
        class_idx: The class of `own`: the true class or, where it is not known, the predicted one; N.
        own: Maps of that class, N×h×w.
        predicted: Maps of the predicted class, N×h×w.
        rival: Maps of the best class other than that of `own`, N×h×w; None if there is one logit only.
        all_classes: CAM of every class, N×M×h×w; None where CAM is not exact.
        grad_cam: Grad-CAM of the predicted class on a grid of its own; None where the other maps are not CAM.
    """

    logits: Tensor
    class_idx: Tensor
    own: Tensor
    predicted: Tensor
    rival: Tensor | None = None
    all_classes: Tensor | None = None
    grad_cam: Tensor | None = None

    @property
    def bias(self) -> Tensor:
        """Bias of the last layer, M: what the logits have beside the mean of the CAM."""
        assert self.all_classes is not None
        return (self.logits - self.all_classes.flatten(2).mean(dim=2)).mean(dim=0)


class MapSource:
    """Computes the maps of batches with the method that suits the network: CAM with Grad-CAM beside it, or another.

    Args:
        network: Any classifier.
        layers: Names of the network's layers, or None for the default.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.
        reshape: Layout of the layers' outputs where it cannot be found out, as in `camlab.heatmaps`.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> found = MapSource(network)(torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 0, 1, 0]))
        >>> found.own.shape, found.all_classes.shape
        (torch.Size([5, 6, 6]), torch.Size([5, 2, 6, 6]))
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] | None = None,
        output: Output | None = None,
        reshape: Reshape | None = None,
    ) -> None:
        self._explainer = Explainer(network, layers, output, reshape)
        self._method: str | None = None

    def method(self, images: Tensor) -> str:
        """Name of the method."""
        if self._method is None:
            self._method = self._explainer.method_for(images[:1])
        return self._method

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> ScoredMaps:
        """Compute the maps of a batch.

        Args:
            images: The network's input, N×C×H×W.
            labels: True classes, N; None if they are not known.

        Raises:
            UserError: As for `camlab.heatmaps`; a label is no class of the network; or the maps are too coarse.
        """
        method = self.method(images)
        methods = ("cam", "grad_cam") if method == "cam" else (method,)
        explanation = self._explainer.explain(images, methods, _chooser(labels))
        check_grids(explanation, self._explainer.survey(images))
        return _scored_maps(explanation, method)

    def own(self, images: Tensor, class_idx: Tensor) -> Tensor:
        """Maps of one class for each image, N×h×w."""
        method = self.method(images)
        return _fused(self._explainer.explain(images, (method,), class_idx[:, None]), method)[:, 0]


def _chooser(labels: Tensor | None) -> Callable[[Tensor], Tensor]:
    def choose(logits: Tensor) -> Tensor:
        best = logits.topk(min(2, logits.shape[1]), dim=1).indices
        own = best[:, 0] if labels is None else labels.to(best.device)
        classes = [own, best[:, 0]]
        if best.shape[1] > 1:
            classes.append(torch.where(best[:, 0] == own, best[:, 1], best[:, 0]))
        return torch.stack(classes, dim=1)

    return choose


def _scored_maps(explanation: Explanation, method: str) -> ScoredMaps:
    signed, every = _fused(explanation, method), explanation.cam_of_all_classes
    beside = _fused(explanation, "grad_cam")[:, 1] if method == "cam" else None
    return ScoredMaps(
        logits=explanation.logits.float(),
        class_idx=explanation.class_idx[:, 0],
        own=signed[:, 0],
        predicted=signed[:, 1],
        rival=signed[:, 2] if signed.shape[1] > 2 else None,
        all_classes=every.float() if every is not None and method == "cam" else None,
        grad_cam=beside,
    )


def _fused(explanation: Explanation, method: str) -> Tensor:
    """The maps of a method, those of several layers averaged: float32, N×R×h×w."""
    of_layers = [signed.float() for signed in explanation.maps[method]]
    fused = maps.fuse([signed.flatten(0, 1) for signed in of_layers])
    return fused.unflatten(0, of_layers[0].shape[:2])


class KeptBackbone(nn.Module):
    """The part of a CamNet after its backbone; its input are features that have been kept (`forward_last_relu`).

    It gives the maps and logits of the whole network, which is not changed, without a pass of the backbone.

    Args:
        network: A CamNet, whose head is used as it is at any time.

    Example:
        >>> network = CamNet("alexnet", weights=None).eval()
        >>> images = torch.rand(2, 3, 96, 96)
        >>> with torch.no_grad():
        ...     kept = network.forward_last_relu(images)
        ...     torch.equal(KeptBackbone(network)(kept), network(images))
        True
    """

    def __init__(self, network: CamNet) -> None:
        super().__init__()
        self.backbone = nn.Identity()
        self.pool, self.cam_conv, self.cam_relu = network.pool, network.cam_conv, network.cam_relu
        self.global_pool, self.fc = network.global_pool, network.fc
        self.grad_cam_layer, self.cam_layer = network.grad_cam_layer, network.cam_layer

    def forward(self, last_relu: Tensor) -> Tensor:
        features = self.cam_relu(self.cam_conv(self.pool(self.backbone(last_relu))))
        return self.fc(self.global_pool(features).flatten(1))


def kept_features(network: CamNet, images: Tensor, batch_size: int) -> Tensor:
    """Output of a CamNet's backbone for images on its device, in batches: N×K×h×w.

    Raises:
        UserError: The features are not finite.
    """
    with torch.no_grad():
        found = torch.cat([network.forward_last_relu(some) for some in images.split(batch_size)])
    if not found.isfinite().all():
        raise UserError("The backbone's features are not finite, so that no map can be scored.")
    return found
