"""Compute heatmaps of any image classifier: `heatmaps` for a single call, `Explainer` for repeated calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.classes import Chooser, choose, one_per_image
from camlab.attribution.forward_pass import ForwardPass, record_pass
from camlab.attribution.hooks import passing, unwrapped
from camlab.attribution.methods import METHODS, check_methods
from camlab.attribution.network_input import check_images, check_maps, check_values
from camlab.attribution.raw_maps import cam_of_all_classes, gradient_maps, of_classes, score_maps
from camlab.attribution.target_layer import Layer, find_layers, layer_names
from camlab.errors import UserError
from camlab.maps import Normalization


def heatmaps(
    model: nn.Module,
    images: Tensor,
    method: str = "grad_cam",
    layer: Layer | Sequence[Layer] | None = None,
    target: int | Tensor | Sequence[int] | None = None,
    normalize: Normalization = "per_image",
    counterfactual: bool = False,
) -> Tensor:
    """Compute heatmaps that show where a classifier looks, for one class per image.

    Args:
        model: Any classifier of images, N×C×H×W → N×M logits.
        images: The network's input, on the network's device.
        method: Name from `camlab.attribution.methods.METHODS`.
        layer: A layer by name (`features.28`) or as a module (`model.layer4`), or several layers, whose maps are
            averaged. None stands for the default: the activation after the last convolution or, if there is none, the
            last layer with an output larger than 1×1. For `cam` the default is always the latter.
        target: The class: None for the predicted one, an index for all images, or one index per image.
        normalize: `per_image` and `shared` give [0, 1]; `raw` gives the rectified map in the units of the score.
        counterfactual: Show the evidence against the class, from negated gradients (Selvaraju et al. 2017, §3.3).

    Returns:
        Heatmaps, float32 N×H×W, on the images' device and of the images' size.

    Raises:
        UserError: The images are not a batch N×C×H×W of finite values, or the network cannot take them; its output or a
            map is not finite; the method or layer is unknown; the layer has no spatial output or is used twice; the
            method is `cam` and the network does not end in global average pooling and one linear layer; the targets do
            not fit the images or the network; `counterfactual` is given with a method that does not use gradients.
        ValueError: `normalize` is unknown.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head)
        >>> heatmaps(network, torch.rand(5, 3, 32, 48), layer=network[1], target=0).shape
        torch.Size([5, 32, 48])
    """
    return Explainer(model, layer)(images, method, target, normalize, counterfactual)


@dataclass(frozen=True)
class Explanation:
    """Logits of a batch of N images, and the raw maps of R classes for each image.

    Attributes:
        logits: The network's output, N×M.
        class_idx: The classes that the maps are of, N×R.
        maps: Signed maps by method, one tensor N×R×h×w for each target layer, on the layer's own grid.
        layers: Names of the target layers by method.
        cam_of_all_classes: CAM of every class, N×M×h×w; None unless `cam` is one of the methods and has one layer.
    """

    logits: Tensor
    class_idx: Tensor
    maps: dict[str, list[Tensor]]
    layers: dict[str, tuple[str, ...]]
    cam_of_all_classes: Tensor | None = None


class Explainer:
    """Computes heatmaps of one network in any number of calls; no tensors are kept from one call to the next.

    Args:
        model: Any classifier of images. If it is wrapped by torch.compile, DataParallel or DistributedDataParallel, the
            module inside the wrapper is used.
        layer: As in `heatmaps`. The default is determined at the first call with each image size.

    Raises:
        UserError: A layer is not part of the network.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head)
        >>> explanation = Explainer(network).explain(torch.rand(5, 3, 32, 48), ["cam", "grad_cam"], top_k=2)
        >>> explanation.layers
        {'cam': ('1',), 'grad_cam': ('1',)}
        >>> explanation.maps["cam"][0].shape
        torch.Size([5, 2, 30, 46])
    """

    def __init__(self, model: nn.Module, layer: Layer | Sequence[Layer] | None = None) -> None:
        self.model = unwrapped(model)
        named = self.model.named_modules(remove_duplicate=False)  # a module may have two names
        self._modules = {name: module for name, module in named if name}
        self._layers = () if layer is None else layer_names(self._modules, layer)
        self._defaults: dict[torch.Size, tuple[str, str]] = {}  # by the size of the images

    def __call__(
        self,
        images: Tensor,
        method: str = "grad_cam",
        target: int | Tensor | Sequence[int] | None = None,
        normalize: Normalization = "per_image",
        counterfactual: bool = False,
    ) -> Tensor:
        """Compute heatmaps as `heatmaps` does: float32 N×H×W."""
        check_images(images)
        class_idx = None if target is None else one_per_image(target, images)
        size = (images.shape[-2], images.shape[-1])
        if len(images) == 0:
            return images.new_zeros((0, *size), dtype=torch.float32)
        layers = self.explain(images, (method,), class_idx, counterfactual=counterfactual).maps[method]
        fused = maps.fuse([signed[:, 0] for signed in layers], normalize)
        return maps.upsample(maps.normalize(fused, normalize), size)

    def explain(
        self,
        images: Tensor,
        methods: Sequence[str],
        class_idx: Tensor | Chooser | None = None,
        top_k: int = 1,
        counterfactual: bool = False,
    ) -> Explanation:
        """Compute raw maps of several methods with as few passes as possible.

        Args:
            images: The network's input, N×C×H×W.
            methods: Names from `camlab.attribution.methods.METHODS`.
            class_idx: The R classes to explain for each image, N×R, or a function that chooses them from the logits,
                N×M → N×R. None chooses the `top_k` classes with the highest scores.
            top_k: Number R of classes if `class_idx` is None.
            counterfactual: Negate the gradients; allowed only if all methods use gradients.

        Raises:
            UserError: As for `heatmaps`.
        """
        check_images(images)
        check_values(images)
        check_methods(methods)
        for name in methods if counterfactual else ():
            if not METHODS[name].needs_gradients:
                choices = ", ".join(maps.GRADIENT_METHODS)
                raise UserError(f"counterfactual: {name} does not use gradients. Choose from {choices}.")
        layers = self._layers_by_method(methods, images)
        passed = record_pass(
            self.model,
            images,
            self._modules,
            layers=tuple(dict.fromkeys(layer for chosen in layers.values() for layer in chosen)),
            choose=lambda logits: choose(logits, class_idx, top_k),
            differentiate=any(METHODS[name].needs_gradients for name in methods),
        )
        cams = {layer: cam_of_all_classes(self.model, passed, layer) for layer in layers.get("cam", ())}
        found = {
            name: [self._maps(name, passed, layer, cams, counterfactual) for layer in layers[name]] for name in methods
        }
        for name, of_layers in found.items():
            for layer, signed in zip(layers[name], of_layers, strict=True):
                check_maps(signed, f"{name} at {layer}")
        every = next(iter(cams.values())) if len(cams) == 1 else None
        return Explanation(passed.logits, passed.class_idx, found, layers, every)

    def default_layer(self, images: Tensor) -> str:
        """Return the name of the default layer for gradient methods; one image runs through the network to find it."""
        return self._default_layers(images)[0]

    def _layers_by_method(self, methods: Sequence[str], images: Tensor) -> dict[str, tuple[str, ...]]:
        """Names of the target layers: those that were given, else the defaults for images of this size."""
        if self._layers:
            return dict.fromkeys(methods, self._layers)
        for_gradients, for_cam = self._default_layers(images)
        return {name: (for_cam if name == "cam" else for_gradients,) for name in methods}

    def _default_layers(self, images: Tensor) -> tuple[str, str]:
        """Names of the default layers: for gradient methods, and for CAM (the input of the global average pooling)."""
        size = images.shape[1:]
        if size not in self._defaults:
            with passing(self.model, images.device), torch.no_grad():
                self._defaults[size] = find_layers(self.model, images[:1].clone())
        named = (getattr(self.model, name, None) for name in ("grad_cam_layer", "cam_layer"))
        for_gradients, for_cam = (  # a module of this name is an ordinary layer
            own if isinstance(own, str) else default for own, default in zip(named, self._defaults[size], strict=True)
        )
        return for_gradients, for_cam

    def _maps(
        self, method: str, passed: ForwardPass, layer: str, cams: dict[str, Tensor], counterfactual: bool
    ) -> Tensor:
        """Signed maps of a method at one layer, N×R×h×w; `cams` holds the CAM of all classes by layer."""
        if method == "cam":
            return of_classes(cams[layer], passed.class_idx)
        if method == "score_cam":
            return score_maps(self.model, passed, layer)
        return gradient_maps(method, passed, layer, counterfactual)
