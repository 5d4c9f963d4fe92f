"""The methods that compute heatmaps, by name. The module does not import torch, because the command line uses it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from camlab.errors import UserError, cut, did_you_mean


@dataclass(frozen=True)
class Method:
    """A way to compute a map.

    Attributes:
        name: Name on the command line and in Python.
        title: Name in captions.
        kind: What the map is computed from. `weights`: activations and the classifier's weights. `gradients`:
            activations of a layer and gradients, by a function of `camlab.maps.GRADIENT_METHODS`. `activations`:
            activations alone. `passes`: activations and more passes through the network. `attention`: the attention
            weights of all layers and their gradients. `pixels`: gradients with respect to the picture. `all_layers`:
            activations and gradients of all layers whose layout is known.
        box_share: Threshold of the box around the object, as a share of the map's maximum. Zhou et al. 2016 take 20 %
            for CAM, Selvaraju et al. 2017 take 15 % for Grad-CAM.
        score: What is differentiated: the class score, or how far it is above those of similar classes.
    """

    name: str
    title: str
    kind: Literal["weights", "gradients", "activations", "passes", "attention", "pixels", "all_layers"] = "gradients"
    box_share: float = 0.15
    score: Literal["class", "finer"] = "class"

    @property
    def needs_gradients(self) -> bool:
        """Whether gradients of class scores are needed; only then can the evidence against a class be shown."""
        return self.kind in ("gradients", "attention", "pixels", "all_layers")

    @property
    def takes_layers(self) -> bool:
        """Whether the map is computed at target layers, which can be chosen."""
        return self.kind not in ("attention", "all_layers")


METHODS = {
    method.name: method
    for method in (
        Method("cam", "CAM", "weights", box_share=0.20),
        Method("grad_cam", "Grad-CAM"),
        Method("grad_cam_plus_plus", "Grad-CAM++"),
        Method("xgrad_cam", "XGrad-CAM"),
        Method("hires_cam", "HiResCAM"),
        Method("layer_cam", "LayerCAM"),
        Method("layer_cam_all", "Mean LayerCAM", "all_layers"),
        Method("finer_cam", "Finer-CAM", score="finer"),
        Method("score_cam", "Score-CAM", "passes"),
        Method("ablation_cam", "Ablation-CAM", "passes"),
        Method("eigen_cam", "Eigen-CAM", "activations"),
        Method("guided_grad_cam", "Guided Grad-CAM", "pixels"),
        Method("attention_relevance", "Attention relevance", "attention"),
        Method("legrad", "LeGrad", "attention"),
    )
}


def method_of(name: str) -> str:
    """The method in a name that may also give its layer.

    Example:
        >>> method_of("grad_cam@features.10"), method_of("cam")
        ('grad_cam', 'cam')
    """
    return name.partition("@")[0]


def title_of(name: str) -> str:
    """The name for people of a method, with the layer that its name may give; a name that is not known stays.

    Example:
        >>> title_of("grad_cam@features.10"), title_of("random")
        ('Grad-CAM at features.10', 'random')
    """
    method, at, layer = name.partition("@")
    title = METHODS[method].title if method in METHODS else method
    return f"{title} at {layer}" if at else title


def check_methods(names: Iterable[str]) -> None:
    """Refuse unknown method names.

    Raises:
        UserError: A name is unknown; the message lists the known ones.

    Example:
        >>> check_methods(["cam", "grad_cam"])
        >>> check_methods(["gradcam"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: method=gradcam: unknown method. Did you mean grad_cam? Choose from cam, ...
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UserError(f"methods: got {type(names).__name__}, but a list of names is needed.")
    for name in names:
        if not isinstance(name, str) or name not in METHODS:
            hint = did_you_mean(str(name), METHODS)
            raise UserError(f"method={cut(str(name))}: unknown method. {hint}Choose from {', '.join(METHODS)}.")


def check_counterfactual(names: Iterable[str]) -> None:
    """Refuse methods that cannot show the evidence against a class, because they do not use gradients.

    Raises:
        UserError: The message lists the methods that can.
    """
    for name in names:
        if not METHODS[name].needs_gradients:
            choices = ", ".join(method.name for method in METHODS.values() if method.needs_gradients)
            raise UserError(f"counterfactual: {name} does not use gradients. Choose from {choices}.")
