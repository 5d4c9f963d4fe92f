"""Checks of the arguments of `HeatmapCallback`."""

from collections.abc import Sequence
from typing import get_args

from camlab.data.any_batch import floats
from camlab.drawing.colormaps import COLORMAPS
from camlab.drawing.tiles import Style
from camlab.errors import UserError
from camlab.maps import Normalization
from camlab.training.probe_set import Normalizer


def check_counts(**counts: int) -> None:
    """Refuse counts that are not whole numbers of at least 1."""
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise UserError(f"{name}={count!r}: must be a whole number, at least 1.")


def normalizer_of(mean: float | Sequence[float] | None, std: float | Sequence[float] | None) -> Normalizer | None:
    """Mean and standard deviation as tuples; None if neither is given.

    Raises:
        UserError: One of them is missing, or a standard deviation is not above 0.
    """
    if mean is None or std is None:
        if mean is not std:
            raise UserError("mean, std: one of them is missing. Give both.")
        return None
    normalizer = floats(mean), floats(std)
    if min(normalizer[1]) <= 0:
        raise UserError(f"std={normalizer[1]}: must be numbers above 0.")
    return normalizer


def check_style(style: Style) -> None:
    """Refuse a scaling or a colour map that does not exist, and an opacity that is none."""
    if style.normalize not in (scalings := get_args(Normalization)):
        raise UserError(f"normalize={style.normalize}: unknown scaling. Choose from {', '.join(scalings)}.")
    if style.colormap not in COLORMAPS:
        raise UserError(f"colormap={style.colormap}: unknown colour map. Choose from {', '.join(COLORMAPS)}.")
    if not 0 <= style.alpha <= 1:
        raise UserError(f"alpha={style.alpha}: must be a number from 0 to 1.")
