"""Reasons to doubt maps that can be computed: cells that are too few, and kernels that mix most of them."""

from collections.abc import Sequence

from torch import Tensor, nn

from camlab.attribution.explainer import Explanation
from camlab.attribution.methods import METHODS
from camlab.attribution.survey import Survey
from camlab.errors import UserError

LEAST_SIDE = 3  # cells: a coarser map cannot tell one place from another
_SMALL_KERNEL = 3  # cells: the ResNet of the study has these kernels on 4×4 cells, and its maps are right
_MOST = 0.75  # share of the cells that a kernel covers


def too_coarse(maps: Sequence[Tensor], survey: Survey) -> str | None:
    """Why the maps of a method cannot show a place, with the way out; None if they have cells enough.

    Args:
        maps: Maps …×h×w, one tensor for each target layer.
        survey: Survey of the network for images of this size.
    """
    height, width = max((signed.shape[-2:] for signed in maps), key=min)
    if min(height, width) >= LEAST_SIDE:
        return None
    finer = [name for name, layout in survey.layouts.items() if min(layout.grid) >= LEAST_SIDE]
    earlier = f", or an earlier layer such as {finer[-1]}" if finer else ""
    return f"Maps are {height}×{width}, too coarse to show a place, and are not scored. Give larger pictures{earlier}."


def mixed_cells(method: str, layer: str, survey: Survey) -> str | None:
    """Why the heat need not lie where the evidence is, though `auto` chooses this method at this layer; None if it may.

    Where a kernel covers most of the cells, a cell's features are of the whole picture. In ConvNeXt, where
    kernels are so wide, Grad-CAM at the default layer was at chance (experiments/architectures).

    Args:
        method: Name of the method.
        layer: Name of its target layer.
        survey: Survey of the network for images of this size.
    """
    if layer not in survey.layouts:
        return None
    grid = survey.layouts[layer].grid
    names = [call.name for call in survey.calls]
    before = survey.calls[: names.index(layer) + 1]
    widths = [_width(call.module) for call in before if isinstance(call.module, nn.Conv2d) and call.shape[-2:] == grid]
    widest = max(widths, default=0)
    if widest <= _SMALL_KERNEL or widest**2 < _MOST * grid[0] * grid[1]:
        return None
    return (
        f"{METHODS[method].title} at {layer} may be wrong: kernels of {widest}×{widest} cover most of the"
        f" {grid[0]}×{grid[1]} cells, so that a cell is no place. camlab.score tells whether it finds the object."
    )


def _width(convolution: nn.Conv2d) -> int:
    """Side of the square that a kernel covers, in cells."""
    sides = zip(convolution.kernel_size, convolution.dilation, strict=True)
    return min(dilation * (side - 1) + 1 for side, dilation in sides)


def doubts_of(explanation: Explanation, survey: Survey, is_auto: bool) -> list[str]:
    """All reasons to doubt the maps of an explanation, each once.

    Args:
        explanation: The maps.
        survey: Survey of the network for images of this size.
        is_auto: Whether `auto` has chosen the methods.
    """
    found = [too_coarse(of_layers, survey) for of_layers in explanation.maps.values()]
    if is_auto:
        found += [mixed_cells(method, explanation.layers[method][0], survey) for method in explanation.maps]
    return list(dict.fromkeys(filter(None, found)))


def check_grids(explanation: Explanation, survey: Survey) -> None:
    """Refuse to score maps that are too coarse to show a place.

    Raises:
        UserError: The maps of a method have fewer than 3×3 cells.
    """
    for of_layers in explanation.maps.values():
        if reason := too_coarse(of_layers, survey):
            raise UserError(reason)
