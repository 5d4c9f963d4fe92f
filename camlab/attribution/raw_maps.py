"""Compute the signed maps of each method from a recorded pass."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.classes import logits_of
from camlab.attribution.forward_pass import ForwardPass, last_linear
from camlab.attribution.hooks import passing
from camlab.attribution.methods import METHODS
from camlab.errors import UserError

# What a network may apply between the layer and the pooling without a module (torchvision's DenseNet applies a ReLU).
_IN_BETWEEN: tuple[Callable[[Tensor], Tensor], ...] = (lambda features: features, F.relu)


def cam_of_all_classes(model: nn.Module, passed: ForwardPass, layer: str) -> Tensor:
    """Compute the CAM of all classes, N×M×h×w; its mean over (h, w) plus the bias is the logit.

    Args:
        model: The network.
        passed: A pass through it.
        layer: Name of the layer before the pooling.

    Raises:
        UserError: The input of the last linear layer is neither the mean of the layer's output nor that of its ReLU, or
            its output is not the network's.
    """
    classifier, features = last_linear(model), _pooled_features(passed, layer)
    others = ", ".join(name for name in METHODS if name != "cam")
    if classifier is None or features is None or classifier.out_features != passed.logits.shape[1]:
        height, width = passed.images.shape[-2:]
        raise UserError(
            f"cam: the network does not end in global average pooling of {layer} and one linear layer, or the pooled"
            f" features are 1×1 for images of {height}×{width}. Choose from {others}."
        )
    with torch.no_grad():
        signed = maps.cam(features, classifier.weight)
        scores = signed.mean(dim=(2, 3)) + (0 if classifier.bias is None else classifier.bias)
    tolerance = 1e-2 * float(scores.abs().max())  # wide enough for half precision
    if not torch.allclose(scores, passed.logits.to(scores.dtype), rtol=1e-2, atol=tolerance):
        raise UserError(
            "cam: the network's output is not that of its last linear layer, so its maps would not be exact."
            f" Choose from {others}."
        )
    return signed


def of_classes(maps_NMHW: Tensor, class_idx: Tensor) -> Tensor:
    """Select the maps of chosen classes: N×M×h×w and N×R → N×R×h×w.

    Example:
        >>> of_classes(torch.tensor([[[[1.0]], [[2.0]], [[3.0]]]]), torch.tensor([[2, 0]])).flatten().tolist()
        [3.0, 1.0]
    """
    return maps_NMHW.gather(1, class_idx[:, :, None, None].expand(-1, -1, *maps_NMHW.shape[2:]))


def gradient_maps(method: str, passed: ForwardPass, layer: str, counterfactual: bool) -> Tensor:
    """Signed maps of a method of `camlab.maps.GRADIENT_METHODS`, N×R×h×w; from negated gradients if counterfactual."""
    sign = -1 if counterfactual else 1
    function, activations = maps.GRADIENT_METHODS[method], passed.activations[layer]
    return torch.stack([function(activations, sign * gradients) for gradients in passed.gradients[layer]], dim=1)


def score_maps(model: nn.Module, passed: ForwardPass, layer: str) -> Tensor:
    """Signed maps of Score-CAM, N×R×h×w; they take K more forward passes for each image and class."""
    with passing(model, passed.images.device), torch.no_grad():
        ranks = [
            maps.score_cam(lambda x: logits_of(model(x)), passed.images, passed.activations[layer], class_idx)
            for class_idx in passed.class_idx.unbind(1)
        ]
    return torch.stack(ranks, dim=1)


def _pooled_features(passed: ForwardPass, layer: str) -> Tensor | None:
    """The tensor whose mean over (h, w) is the input of the last linear layer.

    None if there is no such tensor, or if the linear layer is not called exactly once.
    """
    activations = passed.activations[layer]
    if len(passed.classifier_inputs) != 1 or passed.classifier_inputs[0].shape != activations.shape[:2]:
        return None
    pooled = passed.classifier_inputs[0].to(activations.dtype)
    candidates = [function(activations) for function in _IN_BETWEEN]
    means = [features.mean(dim=(2, 3)) for features in candidates]
    nearest = int(torch.stack([(pooled - mean).abs().max() for mean in means]).argmin())
    tolerance = 1e-3 * float(means[nearest].abs().max())  # wide enough for half precision
    return candidates[nearest] if torch.allclose(pooled, means[nearest], rtol=1e-2, atol=tolerance) else None
