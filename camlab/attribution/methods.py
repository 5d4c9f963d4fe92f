"""The methods that compute heatmaps, by name. The module does not import torch, because the command line uses it."""

from collections.abc import Iterable
from dataclasses import dataclass

from camlab.errors import UserError, cut, did_you_mean


@dataclass(frozen=True)
class Method:
    """A way to compute a map.

    Attributes:
        name: Name on the command line and in Python.
        title: Name in captions.
        needs_gradients: Whether `camlab.maps.GRADIENT_METHODS` computes the map from activations and gradients.
        box_share: Threshold of the box around the object, as a share of the map's maximum. Zhou et al. 2016 take 20 %
            for CAM, Selvaraju et al. 2017 take 15 % for Grad-CAM.
    """

    name: str
    title: str
    needs_gradients: bool = True
    box_share: float = 0.15


METHODS = {
    method.name: method
    for method in (
        Method("cam", "CAM", needs_gradients=False, box_share=0.20),
        Method("grad_cam", "Grad-CAM"),
        Method("grad_cam_plus_plus", "Grad-CAM++"),
        Method("xgrad_cam", "XGrad-CAM"),
        Method("hires_cam", "HiResCAM"),
        Method("layer_cam", "LayerCAM"),
        Method("score_cam", "Score-CAM", needs_gradients=False),
    )
}


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
    for name in names:
        if not isinstance(name, str) or name not in METHODS:
            hint = did_you_mean(str(name), METHODS)
            raise UserError(f"method={cut(str(name))}: unknown method. {hint}Choose from {', '.join(METHODS)}.")
