"""Checks of the arguments of `HeatmapCallback` and `HeatmapScores`."""

from collections.abc import Sequence
from typing import get_args

from camlab.data.any_batch import floats
from camlab.drawing.colormaps import COLORMAPS
from camlab.drawing.tiles import Style
from camlab.errors import UserError, did_you_mean
from camlab.maps import Normalization
from camlab.runs.watchers import HEAT_SCORES
from camlab.training.probe_set import Normalizer


def check_counts(least: int = 1, **counts: int) -> None:
    """Refuse counts that are not whole numbers of at least `least`."""
    for name, count in counts.items():
        if type(count) is not int or count < least:
            raise UserError(f"{name}={count!r}: must be a whole number, at least {least}.")


def check_names(**lists: object) -> None:
    """Refuse what is no list of names, such as one name or a number; None is allowed.

    Example:
        >>> check_names(class_names="cat")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: class_names: got str, but a list of names is needed.
    """
    for what, names in lists.items():
        if names is None:
            continue
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise UserError(f"{what}: got {type(names).__name__}, but a list of names is needed.")
        for name in names:
            if not isinstance(name, str):
                raise UserError(f"{what}: got {type(name).__name__}, but each name must be text.")


def check_scores(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of scores that a training can log, in their usual order; None stands for all.

    Raises:
        UserError: There is no such score, or no name.

    Example:
        >>> check_scores(["srg", "auroc"])
        ('auroc', 'srg')
    """
    if names is None:
        return HEAT_SCORES
    given = [names] if isinstance(names, str) else list(names)
    if not given:
        raise UserError("scores=[]: there is none. Name some, or leave the callback out.")
    for name in given:
        if name not in HEAT_SCORES:
            hint = did_you_mean(str(name), HEAT_SCORES)
            raise UserError(f"scores={name}: unknown in training. {hint}Choose from {', '.join(HEAT_SCORES)}.")
    return tuple(name for name in HEAT_SCORES if name in given)


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
