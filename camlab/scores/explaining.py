"""The methods whose maps are computed again, of changed images or of a changed network."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from camlab import maps
from camlab.attribution.classifier import Output
from camlab.attribution.explainer import Explainer
from camlab.attribution.hooks import unwrapped
from camlab.attribution.layouts import Reshape
from camlab.attribution.target_layer import Layer
from camlab.errors import UserError
from camlab.scores.checked import checked_maps

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""A method of one's own: (network, images N×C×H×W, class indices N) → signed maps N×h×w."""


class Explaining:
    """Computes signed maps of several methods for the same network, images and classes, with as few passes as possible.

    The target layers are chosen at the first call, and stay the same when the network's weights change.

    Args:
        methods: Names of camlab's methods, or methods of one's own by name.
        layer: As in `camlab.heatmaps`, for camlab's methods.
        output: As in `camlab.heatmaps`.
        reshape: As in `camlab.heatmaps`.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> explaining = Explaining(["cam", "grad_cam"])
        >>> found = explaining(network, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
        >>> {name: tuple(signed.shape) for name, signed in found.items()}
        {'cam': (2, 6, 6), 'grad_cam': (2, 6, 6)}
    """

    def __init__(
        self,
        methods: str | Sequence[str] | Mapping[str, Explain],
        layer: Layer | Sequence[Layer] | None = None,
        output: Output | None = None,
        reshape: Reshape | None = None,
    ) -> None:
        if not isinstance(methods, (str, list, tuple, Mapping)):
            raise UserError(
                f"methods: got {type(methods).__name__}, but names of methods, or functions by name, are needed."
            )
        names = [methods] if isinstance(methods, str) else list(methods)
        self.names = tuple(names)
        self._own = dict(methods) if isinstance(methods, Mapping) else {}
        for name, function in self._own.items():
            if not callable(function):
                raise UserError(f"{name}: got {type(function).__name__}, but a function that computes maps is needed.")
        self._options = (layer, output, reshape)
        self._explainer: Explainer | None = None

    def __call__(self, model: nn.Module, images: Tensor, class_idx_N: Tensor) -> dict[str, Tensor]:
        """Signed maps by method, N×h×w each.

        Raises:
            UserError: As for `camlab.heatmaps`; a method of one's own gives something else than N maps, or values
                that are not finite.
        """
        found = {name: explain(model, images, class_idx_N) for name, explain in self._own.items()}
        for name, own in found.items():
            if not isinstance(own, Tensor) or own.dim() != 3 or len(own) != len(images):
                got = tuple(own.shape) if isinstance(own, Tensor) else type(own).__name__
                raise UserError(f"{name}: gives {got} for {len(images)} images, but N×h×w signed maps are needed.")
            found[name] = checked_maps(own, name)
        if len(found) < len(self.names):
            found.update(self._by_camlab(model, images, class_idx_N))
        return found

    def _by_camlab(self, model: nn.Module, images: Tensor, class_idx_N: Tensor) -> dict[str, Tensor]:
        if self._explainer is None or self._explainer.model is not unwrapped(model):
            self._explainer = Explainer(model, *self._options)
        names = {name: self._explainer.method_for(images) if name == "auto" else name for name in self.names}
        explanation = self._explainer.explain(images, list(dict.fromkeys(names.values())), class_idx_N[:, None])
        return {
            name: maps.fuse([signed[:, 0].float() for signed in explanation.maps[method]])
            for name, method in names.items()
        }


Methods = str | Sequence[str] | Mapping[str, Explain] | Explaining


def explaining_of(methods: Methods, output: Output | None = None) -> Explaining:
    """Return what computes the maps of methods."""
    return methods if isinstance(methods, Explaining) else Explaining(methods, output=output)
