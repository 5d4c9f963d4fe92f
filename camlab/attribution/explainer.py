"""Compute heatmaps of any image classifier: `heatmaps` for a single call, `Explainer` for repeated calls."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.attention_pass import record_attention
from camlab.attribution.classes import Chooser, choose, one_per_image
from camlab.attribution.classifier import Classifier, Output
from camlab.attribution.explanation import Explanation
from camlab.attribution.forward_pass import record_pass
from camlab.attribution.hooks import passing, unwrapped
from camlab.attribution.layouts import Layout, Reshape, check_reshape
from camlab.attribution.methods import METHODS, check_counterfactual, check_methods
from camlab.attribution.network_input import check_images, check_layers, check_maps, check_model, check_values
from camlab.attribution.probing import noise_like
from camlab.attribution.raw_maps import RawMaps
from camlab.attribution.survey import Survey
from camlab.attribution.target_layer import Layer, layer_for_cam, layer_for_gradients, layer_names, layers_with_gradient
from camlab.errors import UserError
from camlab.maps import Normalization


def heatmaps(
    model: nn.Module,
    images: Tensor,
    method: str = "auto",
    layer: Layer | Sequence[Layer] | None = None,
    target: int | Tensor | Sequence[int] | None = None,
    normalize: Normalization = "per_image",
    counterfactual: bool = False,
    output: Output | None = None,
    reshape: Reshape | None = None,
) -> Tensor:
    """Compute heatmaps that show where a classifier looks, for one class per image.

    Args:
        model: Any classifier of images, N×C×H×W → N×M logits. They may be in a tuple, a dict or an output of
            transformers. If there is one logit, as before a sigmoid, the map shows the evidence for "yes" and the
            counterfactual that for "no".
        images: The network's input, on the network's device.
        method: Name from `camlab.attribution.methods.METHODS`, or `auto`: CAM where it is exact, Grad-CAM for other
            convolutional networks, attention relevance for transformers, and LayerCAM of all layers where attention is
            not between all tokens (Swin) or kernels cover most of the cells (ConvNeXt); HiResCAM at a layer that is
            given there. `Explainer.method_for` tells which one it is.
        layer: A layer by name (`features.28`) or as a module (`model.layer4`), or several layers, whose maps are
            averaged. Its output may be N×K×H×W, N×H×W×K or tokens. None stands for the default, which
            `Explainer.default_layer` tells.
        target: The class: None for the predicted one, an index for all images, or one index per image.
        normalize: `per_image` and `shared` give [0, 1]; `raw` gives the rectified map in the units of the score.
        counterfactual: Show the evidence against the class, from negated gradients (Selvaraju et al. 2017, §3.3).
        output: Which part of an odd output is the logits: a key, an index, or a function of the output.
        reshape: How the output of `layer` is arranged, where camlab cannot find it out: a
            `camlab.attribution.layouts.Layout`, or a function that rearranges the output as N×K×H×W.

    Returns:
        Heatmaps, float32 N×H×W, on the images' device and of the images' size.

    Raises:
        UserError: The images are not a batch N×C×H×W of finite values, or the network cannot take them; its output or a
            map is not finite; the method or layer is unknown; the layer has no spatial output, or one whose layout is
            not known, or is used twice; the method cannot be applied to the network; the class score does not depend
            on the layer's cells; the targets do not fit the images or the network; `counterfactual` is given with a
            method that does not use gradients.
        ValueError: `normalize` is unknown.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head)
        >>> heatmaps(network, torch.rand(5, 3, 32, 48), layer=network[1], target=0).shape
        torch.Size([5, 32, 48])
    """
    return Explainer(model, layer, output, reshape)(images, method, target, normalize, counterfactual)


class Explainer:
    """Computes heatmaps of one network in any number of calls; no tensors are kept from one call to the next.

    Args:
        model: Any classifier of images. If it is wrapped by torch.compile, DataParallel or DistributedDataParallel, the
            module inside the wrapper is used.
        layer: As in `heatmaps`. The default is determined at the first call with each image size.
        output: As in `heatmaps`.
        reshape: As in `heatmaps`; it holds for all layers that are given.

    Attributes:
        model: The network, not wrapped.
        classifier: The same, with the choice of its logits.
        layers: Names of the layers that were given; none if the defaults are to be found.

    Raises:
        UserError: A layer is not part of the network, or the network is compiled to TorchScript; or a layout is given
            without a layer.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head)
        >>> explanation = Explainer(network).explain(torch.rand(5, 3, 32, 48), ["cam", "grad_cam"], top_k=2)
        >>> explanation.layers
        {'cam': ('1',), 'grad_cam': ('1',)}
        >>> explanation.maps["cam"][0].shape
        torch.Size([5, 2, 30, 46])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layer | Sequence[Layer] | None = None,
        output: Output | None = None,
        reshape: Reshape | None = None,
    ) -> None:
        check_model(model)
        check_layers(layer)
        if reshape is not None:
            check_reshape(reshape)
        self.model = unwrapped(model)
        self.classifier = Classifier(self.model, output)
        named = self.model.named_modules(remove_duplicate=False)  # a module may have two names
        self._modules = {name: module for name, module in named if name}
        self.layers = () if layer is None else layer_names(self._modules, layer)
        if reshape is not None and not self.layers:
            raise UserError("reshape: it states the layout of a layer's output. Give layer, too.")
        self._reshape = {} if reshape is None else dict.fromkeys(self.layers, reshape)
        self._surveys: dict[torch.Size, Survey] = {}  # by the size of the images, as the two below
        self._defaults: dict[torch.Size, str] = {}
        self._auto: dict[tuple[torch.Size, bool], str] = {}

    def __call__(
        self,
        images: Tensor,
        method: str = "auto",
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
        if method == "auto":
            method = self.method_for(images, counterfactual)
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
        if len(images) == 0:
            raise UserError("images: there are none to explain.")
        check_values(images)
        check_methods(methods)
        check_counterfactual(methods if counterfactual else ())
        survey, layers = self.survey(images), self._layers_by_method(methods, images)
        chosen = functools.partial(choose, class_idx=class_idx, top_k=top_k)
        attention = None
        if any(METHODS[name].kind != "attention" for name in methods):
            targets = [layer for name, names in layers.items() if METHODS[name].takes_layers for layer in names]
            layouts = {layer: survey.layout(layer) for layer in targets}
            by_gradients = [METHODS[name] for name in methods if METHODS[name].kind in ("gradients", "pixels")]
            scores = sorted({method.score for method in by_gradients})
            passed = record_pass(self.classifier, images, self._modules, survey.last_linear, layouts, chosen, scores)
        else:
            with passing(self.model, images.device):
                attention = record_attention(self.classifier, images, survey, chosen)
            passed = attention.detached()
        sign, takes_all = -1 if counterfactual else 1, any(METHODS[name].kind == "all_layers" for name in methods)
        every = self.all_layers(images) if takes_all else {}
        computed = RawMaps(self.classifier, self._modules, survey, passed, sign, attention, every)
        found = {name: computed.of_method(name, layers[name]) for name in methods}
        for name, of_layers in found.items():
            layers[name] = computed.layers_of(name, layers[name])
            for layer, signed in zip(layers[name], of_layers, strict=True):
                check_maps(signed, f"{name} at {layer}")
        return Explanation(passed.logits, passed.class_idx, found, layers, computed.cam_of_all_classes)

    def method_for(self, images: Tensor, counterfactual: bool = False) -> str:
        """Return the name of the method that `auto` stands for; noise runs through the network to find it."""
        check_images(images)
        key = (images.shape[1:], counterfactual)
        if key not in self._auto:
            self._auto[key] = self._best_method(images, counterfactual)
        return self._auto[key]

    def _best_method(self, images: Tensor, counterfactual: bool) -> str:
        survey = self.survey(images)
        if survey.is_convolutional and survey.layout(layer := self.default_layer(images)).order == "NCHW":
            if not counterfactual and self.supports("cam", images):
                return "cam"
            if self.layers or not survey.mixing_kernel(layer):
                return "grad_cam"
        return (
            "hires_cam" if self.layers else "attention_relevance" if self._attends_to_all(images) else "layer_cam_all"
        )

    def supports(self, method: str, images: Tensor) -> bool:
        """Return whether a method can be applied to the network; a picture of noise is tried."""
        try:
            self.explain(noise_like(images), (method,))
        except UserError:
            return False
        return True

    def _attends_to_all(self, images: Tensor) -> bool:
        """Whether the network's attention is between all tokens of one grid; noise is tried."""
        survey, noise, one = self.survey(images), noise_like(images), functools.partial(choose, class_idx=None, top_k=1)
        try:
            with passing(self.model, images.device):
                record_attention(self.classifier, noise, survey, one)
        except UserError:
            return False
        return True

    def default_layer(self, images: Tensor) -> str:
        """Return the name of the default layer for gradient methods; noise runs through the network to find it."""
        survey, size = self.survey(images), images.shape[1:]
        if (named := self._named("grad_cam_layer")) is not None:
            return named
        if size not in self._defaults:
            with passing(self.model, images.device):
                self._defaults[size] = layer_for_gradients(self.classifier, noise_like(images), survey)
        return self._defaults[size]

    def all_layers(self, images: Tensor) -> dict[str, Layout]:
        """Return the layouts of the layers for methods that use them all, by name, for images of this size.

        They are found anew in each call, so that a training that was resumed finds what it would have found.

        Raises:
            UserError: The layouts of the last layers are not known.
        """
        with passing(self.model, images.device), torch.no_grad():
            noise = noise_like(images)
            return layers_with_gradient(self.classifier, noise, Survey(self.model, noise))

    def layout_of(self, layer: str, images: Tensor) -> Layout:
        """Return how the output of a layer is arranged for images of this size.

        Raises:
            UserError: The network has no such layer, its layout is not known, or it is not used exactly once.
        """
        check_layers(layer)
        return self.survey(images).layout(layer_names(self._modules, layer)[0])

    def survey(self, images: Tensor) -> Survey:
        """Return the survey of the network for images of this size; noise runs through the network to make it."""
        if not (isinstance(images, Tensor) and images.is_meta):  # shapes alone will do
            check_images(images)
        size = images.shape[1:]
        if size not in self._surveys:
            with passing(self.model, images.device), torch.no_grad():
                self._surveys[size] = Survey(self.model, noise_like(images), self._reshape)
        return self._surveys[size]

    def _layers_by_method(self, methods: Sequence[str], images: Tensor) -> dict[str, tuple[str, ...]]:
        """Names of the target layers: those that were given, else the defaults; none for methods that use all."""
        found: dict[str, tuple[str, ...]] = {}
        for name in methods:
            if not METHODS[name].takes_layers:
                if self.layers:
                    raise UserError(f"{name}: it uses all layers. Leave layer out.")
                found[name] = ()
            elif self.layers:
                found[name] = self.layers
            elif name == "cam":
                found[name] = (self._named("cam_layer") or layer_for_cam(self.survey(images)),)
            else:
                found[name] = (self.default_layer(images),)
        return found

    def _named(self, attribute: str) -> str | None:
        """The layer that the network itself names in an attribute; a module of this name is an ordinary layer."""
        own = getattr(self.model, attribute, None)
        return own if isinstance(own, str) else None
