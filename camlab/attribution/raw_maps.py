"""Compute the signed maps of each method from a recorded pass."""

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.attention_pass import AttentionPass, record_attention
from camlab.attribution.classifier import Classifier
from camlab.attribution.forward_pass import ForwardPass, record_pass
from camlab.attribution.guided import guided_gradients
from camlab.attribution.hooks import passing, replaced
from camlab.attribution.layouts import Layout
from camlab.attribution.methods import METHODS
from camlab.attribution.probing import noise_like
from camlab.attribution.relevance import legrad_maps, relevance_maps
from camlab.attribution.survey import Survey
from camlab.attribution.target_layer import layer_for_gradients
from camlab.errors import UserError

_ABLATED_AT_ONCE = 32  # channels in one pass
_KEPT_AT_ONCE = 4  # images of which the outputs of all layers are kept: for one class, 340 MB each in a small Swin

# What a network may apply between the layer and the pooling without a module (torchvision's DenseNet applies a ReLU).
_IN_BETWEEN: tuple[Callable[[Tensor], Tensor], ...] = (lambda features: features, F.relu)


class RawMaps:
    """Computes the signed maps of methods from a recorded pass, and from more passes where a method needs them.

    Args:
        classifier: The network.
        modules: Its modules by name.
        survey: Survey of the network for images of this size.
        passed: A pass with the target layers of all methods.
        sign: -1 for counterfactuals: gradients are negated; 1 otherwise.
        attention: A pass in which attention weights are recorded, if there is one already.
        all_layers: Layouts of the layers for methods that use all of them, by name.
    """

    def __init__(
        self,
        classifier: Classifier,
        modules: Mapping[str, nn.Module],
        survey: Survey,
        passed: ForwardPass,
        sign: int,
        attention: AttentionPass | None = None,
        all_layers: Mapping[str, Layout] | None = None,
    ) -> None:
        self._classifier, self._modules, self._survey = classifier, modules, survey
        self._passed, self._sign, self._attention, self._all_layers = passed, sign, attention, all_layers or {}
        self._cams: dict[str, Tensor] = {}

    def layers_of(self, name: str, layers: tuple[str, ...]) -> tuple[str, ...]:
        """What is told of a method's layers: their names, or a description of those that it takes by itself."""
        kind, every = METHODS[name].kind, list(self._all_layers)
        if kind == "attention":
            return (self.attention.where,)
        return (f"{every[0]} to {every[-1]} ({len(every)})",) if kind == "all_layers" else layers

    def of_method(self, method: str, layers: Sequence[str]) -> list[Tensor]:
        """Compute the maps of a method, N×R×h×w for each of the layers; methods that take no layers have one map.

        Raises:
            UserError: The method cannot be applied to the network or to a layer.
        """
        with passing(self._classifier.network, self._passed.images.device):
            if METHODS[method].kind == "attention":
                if method == "legrad":
                    return [legrad_maps(self._classifier, self.attention, self._sign)]
                return [relevance_maps(self.attention, self._sign)]
            if METHODS[method].kind == "all_layers":
                return [self._layer_cam_of_all()]
            return [self._at_layer(method, layer) for layer in layers]

    @property
    def attention(self) -> AttentionPass:
        """A pass in which attention weights are recorded; it is run when it is first needed."""
        if self._attention is None:
            images, class_idx = self._passed.images, self._passed.class_idx
            self._attention = record_attention(self._classifier, images, self._survey, lambda _: class_idx)
        return self._attention

    @property
    def cam_of_all_classes(self) -> Tensor | None:
        """CAM of every class, N×M×h×w; None unless CAM was computed at one layer."""
        return next(iter(self._cams.values())) if len(self._cams) == 1 else None

    def _at_layer(self, method: str, layer: str) -> Tensor:
        kind, class_idx = METHODS[method].kind, self._passed.class_idx
        if kind == "gradients":
            return self._from_gradients(method, layer)
        if kind == "weights":
            self._cams[layer] = cam_of_all_classes(self._survey.last_linear, self._passed, layer)
            return of_classes(self._cams[layer], class_idx)
        if kind == "activations":
            return maps.eigen_cam(self._passed.activations[layer])[:, None].expand(-1, class_idx.shape[1], -1, -1)
        if kind == "pixels":
            return self._guided_grad_cam(layer)
        compute = self._score_cam if method == "score_cam" else self._ablation_cam
        with torch.no_grad():
            return torch.stack([compute(layer, classes) for classes in class_idx.unbind(1)], dim=1)

    def _from_gradients(self, method: str, layer: str) -> Tensor:
        gradients = self._passed.gradients[METHODS[method].score][layer]
        if not gradients.any() and not self._ever_depend({layer: self._survey.layout(layer)}):
            raise UserError(
                f"{method} at {layer}: no class score depends on the cells of this layer (all gradients are zero), so"
                f" there is nothing to draw.{self._way_out(layer)}"
            )
        function, activations = maps.GRADIENT_METHODS[method], self._passed.activations[layer]
        return torch.stack([function(activations, self._sign * of_class) for of_class in gradients], dim=1)

    def _layer_cam_of_all(self) -> Tensor:
        """The mean of LayerCAM's maps at all layers, on the finest of their grids: N×R×h×w."""
        parts = zip(*(of.split(_KEPT_AT_ONCE) for of in (self._passed.images, self._passed.class_idx)), strict=True)
        means, depend = [], False
        for images, class_idx in parts:
            ranks = [self._mean_of_layers(images, own) for own in class_idx.split(1, dim=1)]
            means.append(torch.cat([mean for mean, _ in ranks], dim=1))
            depend |= any(own for _, own in ranks)
        if not depend and not self._ever_depend(self._all_layers):
            raise UserError("layer_cam_all: no class score depends on any layer (all gradients are zero).")
        return torch.cat(means)

    def _mean_of_layers(self, images: Tensor, class_idx: Tensor) -> tuple[Tensor, bool]:
        """The maps of a few images for a class each, N×1×h×w, and whether there is any gradient."""
        passed = record_pass(
            self._classifier, images, self._modules, None, self._all_layers, lambda _: class_idx, ["class"]
        )
        gradients = passed.gradients["class"]
        of_layers = [
            maps.layer_cam(passed.activations[at], self._sign * of_class) for at, (of_class,) in gradients.items()
        ]
        return maps.fuse(of_layers, "raw")[:, None], any(bool(of_layer.any()) for of_layer in gradients.values())

    def _ever_depend(self, layouts: Mapping[str, Layout]) -> bool:
        """Whether the scores of the explained classes depend on these layers for another picture: one of noise."""
        noise, classes = noise_like(self._passed.images), self._passed.class_idx.unique()[None]
        passed = record_pass(self._classifier, noise, self._modules, None, layouts, lambda _: classes, ["class"])
        return any(bool(of_layer.any()) for of_layer in passed.gradients["class"].values())

    def _way_out(self, layer: str) -> str:
        default = layer_for_gradients(self._classifier, noise_like(self._passed.images), self._survey)
        return "" if default == layer else f" Choose layer={default}."

    def _guided_grad_cam(self, layer: str) -> Tensor:
        images = self._passed.images
        heat = maps.normalize(self._from_gradients("grad_cam", layer), "raw")
        coarse = maps.upsample(heat, (images.shape[-2], images.shape[-1]))
        guided = guided_gradients(self._classifier, images, self._passed.class_idx, self._sign, self._passed.logits)
        ranks = zip(guided, coarse.unbind(1), strict=True)
        return torch.stack([maps.guided_grad_cam(gradients, heat) for gradients, heat in ranks], dim=1)

    def _score_cam(self, layer: str, classes: Tensor) -> Tensor:
        """Score-CAM of one class for each image, N×h×w; it takes K more forward passes for each image."""
        activations = self._passed.activations[layer]
        return maps.score_cam(self._classifier.logits, self._passed.images, activations, classes)

    def _ablation_cam(self, layer: str, classes: Tensor) -> Tensor:
        """Ablation-CAM of one class for each image, N×h×w; it takes K more forward passes for each image."""
        activations, layout = self._passed.activations[layer], self._survey.layout(layer)
        ablated = []
        for image, own in zip(self._passed.images, classes, strict=True):
            scores = []
            for channels in torch.arange(activations.shape[1], device=image.device).split(_ABLATED_AT_ONCE):
                with replaced(self._modules[layer], functools.partial(layout.without_channels, channels=channels)):
                    scores.append(self._classifier.logits(image.repeat(len(channels), 1, 1, 1))[:, own])
            ablated.append(torch.cat(scores))
        of_images = self._passed.logits.gather(1, classes[:, None])[:, 0]
        return maps.ablation_cam(activations, of_images, torch.stack(ablated))


def cam_of_all_classes(classifier: nn.Linear | None, passed: ForwardPass, layer: str) -> Tensor:
    """Compute the CAM of all classes, N×M×h×w; its mean over (h, w) plus the bias is the logit.

    Args:
        classifier: The linear layer that runs last.
        passed: A pass through the network.
        layer: Name of the layer before the pooling.

    Raises:
        UserError: The input of the last linear layer is neither the mean of the layer's output nor that of its ReLU, or
            its output is not the network's.
    """
    features = _pooled_features(passed, layer)
    others = ", ".join(maps.GRADIENT_METHODS)
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
