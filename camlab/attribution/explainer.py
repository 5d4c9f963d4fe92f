"""Heatmaps of any image classifier, at any moment: one forward pass, cut at the target layer, and the head's gradient.

The pass runs without a graph up to the target layer; a forward hook replaces that layer's output by a leaf, and what
follows is recorded. Nothing before the layer is differentiated, no parameter gets a gradient, and weights, flags,
hooks and RNG are left as they were. Works under `no_grad`, `inference_mode` and autocast, with frozen parameters,
in-place ReLUs, compiled and DDP-wrapped modules.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.hooks import cut, eager, reading, unwrapped
from camlab.attribution.methods import METHODS, check_methods
from camlab.attribution.target_layer import find_layers
from camlab.errors import UserError
from camlab.maps import Normalization
from camlab.models.evaluating import evaluating


def heatmaps(
    model: nn.Module,
    images: Tensor,
    method: str = "grad_cam",
    layer: str | Sequence[str] | None = None,
    target: int | Tensor | Sequence[int] | None = None,
    normalize: Normalization = "per_image",
    counterfactual: bool = False,
) -> Tensor:
    """Where a classifier looks, for one class per image.

    Args:
        model: any classifier of images, N×C×H×W → N×M logits.
        images: its input, on its device.
        method: one of `camlab.attribution.methods.METHODS`.
        layer: a module's name (`features.28`), several to be averaged, or None for the default: the ReLU after the last
            convolution, else the last layer with an output larger than 1×1.
        target: the class: None = the predicted one, an index for all images, or one per image.
        normalize: `per_image` and `shared` give [0, 1]; `raw` the rectified map in its own units.
        counterfactual: the evidence against the class instead, from negated gradients (Selvaraju et al. 2017, §3.3).

    Returns:
        float32 N×H×W on the images' device and at their size.

    Raises:
        UserError: unknown method or layer, a layer without spatial output or used twice, `cam` on a network that has no
            global average pooling before one linear layer, targets that do not fit,
            `counterfactual` with a method that has no gradients.
    """
    return Explainer(model, layer)(images, method, target, normalize, counterfactual)


@dataclass(frozen=True)
class Explanation:
    """The network's answer to a batch of N images, and the raw maps of R classes for each image.

    Attributes:
        logits: The network's output, N×M.
        class_idx: The classes that the maps are of, N×R.
        maps: Signed maps by method, one tensor N×R×h×w for each target layer, on the layer's own grid.
        layers: Names of the target layers by method.
        cam_of_all_classes: CAM of every class, N×M×h×w, where `cam` is one of the methods.
    """

    logits: Tensor
    class_idx: Tensor
    maps: dict[str, list[Tensor]]
    layers: dict[str, tuple[str, ...]]
    cam_of_all_classes: Tensor | None = None


@dataclass(frozen=True)
class ForwardPass:
    """What one pass through the network recorded, detached.

    Attributes:
        logits: The network's output, N×M.
        class_idx: The classes to explain, N×R.
        activations: Output of each target layer, N×K×H×W.
        gradients: Gradient of each class's score with respect to each layer's activations, R×N×K×H×W.
        pooled: Inputs of the network's last linear layer, one for each call.
    """

    logits: Tensor
    class_idx: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    pooled: list[Tensor]


class Explainer:
    """A network and where to look into it; reusable, and nothing of a call stays alive after it.

    Args:
        model: any classifier of images; compiled and (D)DP wrappers are looked through.
        layer: as in `heatmaps`; the default is found at the first call.

    Raises:
        UserError: no such layer.
    """

    def __init__(self, model: nn.Module, layer: str | Sequence[str] | None = None) -> None:
        self.model = unwrapped(model)
        modules = self.model.named_modules(remove_duplicate=False)  # one may have two names
        self._modules = {name: module for name, module in modules if name}
        self._layers = () if layer is None else (layer,) if isinstance(layer, str) else tuple(layer)
        for name in self._layers:
            if name not in self._modules:
                near = difflib.get_close_matches(name, list(self._modules), n=5, cutoff=0.3)
                near = near or [name for name, _ in self.model.named_children()]
                raise UserError(f"layer={name}: no such layer. Near: {', '.join(near)}.")
        self._found: tuple[str, str] | None = None

    def __call__(
        self,
        images: Tensor,
        method: str = "grad_cam",
        target: int | Tensor | Sequence[int] | None = None,
        normalize: Normalization = "per_image",
        counterfactual: bool = False,
    ) -> Tensor:
        """`heatmaps` of this network: float32 N×H×W."""
        check_methods([method])
        if counterfactual and not METHODS[method].needs_gradients:
            raise UserError(f"counterfactual: not with {method}; choose of {', '.join(maps.GRADIENT_METHODS)}.")
        class_idx = None if target is None else _one_per_image(target, images)[:, None]
        if len(images) == 0:
            return images.new_zeros((0, *images.shape[-2:]), dtype=torch.float32)
        (signed,) = self.explain(images, (method,), class_idx, counterfactual=counterfactual).maps.values()
        fused = maps.fuse([part[:, 0] for part in signed], normalize)
        return maps.upsample(maps.normalize(fused, normalize), (images.shape[-2], images.shape[-1]))

    def explain(
        self,
        images: Tensor,
        methods: Sequence[str],
        class_idx: Tensor | Callable[[Tensor], Tensor] | None = None,
        top_k: int = 1,
        counterfactual: bool = False,
    ) -> Explanation:
        """Compute raw maps of several methods from as few passes as they need.

        Args:
            images: The network's input, N×C×H×W.
            methods: Names from `camlab.attribution.methods.METHODS`.
            class_idx: The R classes to explain for each image, N×R, or a function that chooses them from the logits,
                N×M → N×R; None: the `top_k` classes with the highest scores.
            top_k: R where `class_idx` is None.
            counterfactual: Negate the gradients.

        Raises:
            UserError: As `heatmaps`.
        """
        check_methods(methods)
        default, last = ("", "") if self._layers else self._default_layers(images)
        layers = {name: self._layers or ((last,) if name == "cam" else (default,)) for name in methods}
        wanted = tuple(dict.fromkeys(layer for chosen in layers.values() for layer in chosen))
        differentiate = any(METHODS[name].needs_gradients for name in methods)
        done = self._run(images, wanted, class_idx, top_k, differentiate)
        found: dict[str, list[Tensor]] = {}
        every: Tensor | None = None
        for name in methods:
            if name == "cam":
                all_classes = [self._cam(images, done, layer) for layer in layers[name]]
                every = all_classes[0] if len(all_classes) == 1 else None
                found[name] = [_of_classes(cams, done.class_idx) for cams in all_classes]
            elif name == "score_cam":
                found[name] = [self._score_cam(images, done, layer) for layer in layers[name]]
            else:
                found[name] = [_gradient_maps(name, done, layer, counterfactual) for layer in layers[name]]
        return Explanation(done.logits, done.class_idx, found, layers, every)

    def default_layer(self, images: Tensor) -> str:
        """The layer that gradient methods look at unless another is given; runs one image through the network."""
        return self._default_layers(images)[0]

    def _default_layers(self, images: Tensor) -> tuple[str, str]:
        """For gradient methods, and for CAM: what the global average pooling reads."""
        if self._found is None:
            with torch.inference_mode(False), torch.no_grad(), eager(), evaluating(self.model):
                self._found = find_layers(self.model, images[:1].clone())
        return getattr(self.model, "grad_cam_layer", self._found[0]), self._found[1]

    def _classifier(self) -> nn.Linear | None:
        """The last linear layer in the order of definition: of a network with CAMs, the only one behind the pooling."""
        return next((m for m in reversed(list(self.model.modules())) if isinstance(m, nn.Linear)), None)

    def _run(
        self,
        images: Tensor,
        layers: Sequence[str],
        class_idx: Tensor | Callable[[Tensor], Tensor] | None,
        top_k: int,
        differentiate: bool,
        record: bool = False,
    ) -> ForwardPass:
        device = images.device.type
        autocast = torch.autocast(  # weights that autocast has cached in inference mode could not be used here
            device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device), cache_enabled=False
        )
        pooled: list[Tensor] = []
        grad_mode = torch.enable_grad() if record else torch.no_grad()
        with torch.inference_mode(False), grad_mode, autocast, eager(), evaluating(self.model):
            inputs = images.clone() if images.is_inference() else images
            with cut(self._modules, layers, differentiate) as kept, reading(self._classifier(), pooled):
                logits = _logits(self.model(inputs))
            for layer in layers:
                if layer not in kept:
                    raise UserError(f"layer={layer}: the network does not use it for these images.")
            if differentiate and not logits.requires_grad and not record:
                # A network that runs its backbone in no_grad goes back to this pass's grad mode when it leaves it.
                return self._run(images, layers, class_idx, top_k, differentiate, record=True)
            chosen = _chosen(logits, class_idx, top_k, len(images))
            gradients = _gradients(logits, chosen, kept) if differentiate else {}
        activations = {name: tensor.detach() for name, tensor in kept.items()}
        return ForwardPass(logits.detach(), chosen, activations, gradients, pooled)

    def _cam(self, images: Tensor, done: ForwardPass, layer: str) -> Tensor:
        """CAM of all classes, N×M×h×w."""
        features, classifier, pooled = done.activations[layer], self._classifier(), done.pooled
        means = features.mean(dim=(2, 3))
        if (
            classifier is None
            or len(pooled) != 1
            or pooled[0].shape != means.shape
            or classifier.out_features != done.logits.shape[1]
            or not torch.allclose(pooled[0].to(means.dtype), means, rtol=1e-2, atol=1e-3 * float(means.abs().max()))
        ):
            others = ", ".join(name for name in METHODS if name != "cam")
            raise UserError(
                f"cam: the network does not end in global average pooling of {layer} and one linear layer, or what it"
                f" pools is 1×1 for images of {images.shape[-2]}×{images.shape[-1]}. These methods apply: {others}."
            )
        with torch.no_grad():
            return maps.cam(features, classifier.weight)

    def _score_cam(self, images: Tensor, done: ForwardPass, layer: str) -> Tensor:
        activations = done.activations[layer]
        with torch.inference_mode(False), torch.no_grad(), eager(), evaluating(self.model):
            inputs = images.clone() if images.is_inference() else images
            ranks = [
                maps.score_cam(lambda x: _logits(self.model(x)), inputs, activations, classes)
                for classes in done.class_idx.unbind(1)
            ]
        return torch.stack(ranks, dim=1)


def _of_classes(every: Tensor, class_idx: Tensor) -> Tensor:
    """The maps of chosen classes: N×M×h×w and N×R → N×R×h×w."""
    return every.gather(1, class_idx[:, :, None, None].expand(-1, -1, *every.shape[2:]))


def _gradient_maps(method: str, done: ForwardPass, layer: str, counterfactual: bool) -> Tensor:
    sign = -1 if counterfactual else 1
    function, activations = maps.GRADIENT_METHODS[method], done.activations[layer]
    return torch.stack([function(activations, sign * gradients) for gradients in done.gradients[layer]], dim=1)


def _gradients(logits: Tensor, class_idx: Tensor, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each class's score, R×N×K×H×W for each layer; images do not depend on each other in eval mode."""
    ranks = []
    with torch.enable_grad():
        scores = logits.gather(1, class_idx).sum(dim=0)
    for rank, score in enumerate(scores):
        more = rank + 1 < len(scores)
        parts: Sequence[Tensor | None] = [None] * len(kept)
        if score.requires_grad:
            parts = torch.autograd.grad(score, list(kept.values()), retain_graph=more, allow_unused=True)
        for name, part in zip(kept, parts, strict=True):
            if part is None:
                raise UserError(f"layer={name}: no gradient gets there; the network cuts it off (detach or no_grad).")
        ranks.append(parts)
    return {name: torch.stack(parts) for name, parts in zip(kept, zip(*ranks, strict=True), strict=True)}


def _chosen(logits: Tensor, class_idx: Tensor | Callable[[Tensor], Tensor] | None, top_k: int, n: int) -> Tensor:
    """The classes to explain, N×R."""
    count = logits.shape[1]
    if class_idx is None:
        return logits.detach().topk(min(top_k, count), dim=1).indices
    chosen = class_idx if isinstance(class_idx, Tensor) else class_idx(logits.detach())
    if chosen.shape[0] != n:
        raise UserError(f"target: {n} images need one class each (or one for all), not {chosen.shape[0]}.")
    if int(chosen.min()) < 0 or int(chosen.max()) >= count:
        raise UserError(f"target: the network has the classes 0 to {count - 1}.")
    return chosen.clone()  # one made in inference mode cannot be used for a gradient


def _one_per_image(target: int | Tensor | Sequence[int], images: Tensor) -> Tensor:
    classes = torch.as_tensor(target, device=images.device)
    if classes.is_floating_point() or classes.dtype == torch.bool or classes.dim() > 1:
        raise UserError("target: a class index, or one for each image.")
    return classes.long().expand(len(images)).clone() if classes.dim() == 0 else classes.long()


def _logits(output: object) -> Tensor:
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UserError(f"The network gives {type(output).__name__} instead of N×M logits; is it a classifier?")
    return logits
