"""Checks of the maps and masks that are to be scored: what makes no sense is refused in one line."""

import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor

from camlab.attribution.network_input import check_values, described
from camlab.errors import UserError, cut


def checked_maps(maps_NHW: Tensor, name: str = "maps") -> Tensor:
    """Return maps in float32, or in float64 if they are given so.

    Args:
        maps_NHW: Signed maps on a grid of their own, N×h×w.
        name: Name of the argument, for messages.

    Raises:
        UserError: They are no tensor N×h×w with cells, or have values that are not finite.

    Example:
        >>> checked_maps(torch.zeros(2, 7, 7, dtype=torch.float16)).dtype
        torch.float32
        >>> checked_maps(torch.zeros(7, 7))
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: maps: got float32 7×7, but N×h×w is needed, one map for each image.
    """
    if not isinstance(maps_NHW, Tensor):
        raise UserError(f"{name}: got {type(maps_NHW).__name__}, but a tensor N×h×w is needed.")
    if maps_NHW.dim() != 3 or maps_NHW.shape[1:].numel() == 0:
        raise UserError(f"{name}: got {described(maps_NHW)}, but N×h×w is needed, one map for each image.")
    if maps_NHW.is_complex():
        raise UserError(f"{name}: got complex numbers, but real ones are needed.")
    check_values(maps_NHW, name)
    found = maps_NHW.detach()
    return found if found.dtype == torch.float64 else found.float()


def check_tensors(**values: object) -> None:
    """Refuse arguments that are no tensors.

    Example:
        >>> check_tensors(values_N=[0.5])
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: values_N: got list, but a tensor is needed.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{name}: got {type(value).__name__}, but a tensor is needed.")


def check_number(value: object, name: str, low: float, high: float = math.inf) -> None:
    """Refuse what is no finite number from `low` to `high`.

    Example:
        >>> check_number(-1.0, "sigma", 0)
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: sigma=-1.0: must be a number of at least 0.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or math.isinf(value):  # type: ignore[operator, arg-type]
        bounds = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise UserError(f"{name}={cut(str(value), 60)}: must be a number {bounds}.")


def check_whole(value: object, name: str, least: int = 0) -> None:
    """Refuse what is no whole number of at least `least`.

    Example:
        >>> check_whole(1.5, "seed")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: seed=1.5: must be a whole number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"{name}={cut(str(value), 60)}: must be a whole number of at least {least}.")


def check_sides(sides: object, name: str) -> None:
    """Refuse what is no pair of positive whole numbers: height and width, or rows and columns.

    Example:
        >>> check_sides((0, 8), "size")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: size=(0, 8): must be two whole numbers of at least 1, for rows and columns.
    """
    each = tuple(sides) if isinstance(sides, (tuple, list)) else ()
    if len(each) != 2 or not all(isinstance(side, int) and side >= 1 for side in each):
        raise UserError(f"{name}={cut(str(sides), 60)}: must be two whole numbers of at least 1, for rows and columns.")


def check_shares(shares: object, name: str, ends: str = "between 0 and 1") -> None:
    """Refuse what is no sequence of numbers between 0 and 1: at least one, 0 and 1 left out.

    Args:
        shares: What is given.
        name: Name of the argument, for the message.
        ends: `from 0 to 1` if both may be given.

    Example:
        >>> check_shares([10, 50], "shares")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: shares=[10, 50]: must be numbers between 0 and 1, at least one.
    """
    each = list(shares) if isinstance(shares, Iterable) and not isinstance(shares, (str, Tensor)) else []
    right = [isinstance(share, Real) and 0 <= float(share) <= 1 for share in each]
    if ends == "between 0 and 1":
        right = [is_share and 0 < share < 1 for is_share, share in zip(right, each, strict=True)]
    if not right or not all(right):
        raise UserError(f"{name}={cut(str(shares), 60)}: must be numbers {ends}, at least one.")


def checked_masks(masks_NHW: Tensor, n: int, grid: tuple[int, int] = (1, 1)) -> Tensor:
    """Return masks as bool.

    Args:
        masks_NHW: Masks of the objects at the pictures' size, N×H×W, bool or zeros and ones.
        n: Number of maps.
        grid: (rows, columns) of the maps; a mask has at least as many pixels.

    Raises:
        UserError: They are no tensor N×H×W with one mask for each map, are smaller than the maps, or hold other values.

    Example:
        >>> checked_masks(torch.tensor([[[0, 1]]]), 1).tolist()
        [[[False, True]]]
    """
    if not isinstance(masks_NHW, Tensor):
        raise UserError(f"masks: got {type(masks_NHW).__name__}, but a tensor N×H×W is needed.")
    if masks_NHW.dim() != 3 or len(masks_NHW) != n:
        raise UserError(f"masks: got {described(masks_NHW)}, but N×H×W is needed, one mask for each of {n} maps.")
    if masks_NHW.shape[1] < grid[0] or masks_NHW.shape[2] < grid[1]:
        size = f"{masks_NHW.shape[1]}×{masks_NHW.shape[2]}"
        raise UserError(
            f"masks: {size} pixels for maps of {grid[0]}×{grid[1]} cells. Give masks of the pictures' size."
        )
    if masks_NHW.dtype != torch.bool and not ((masks_NHW == 0) | (masks_NHW == 1)).all():
        raise UserError("masks: values other than 0 and 1. Give bool masks, such as masks > 127.")
    return masks_NHW.bool()


def check_same_images(first: Tensor, second: Tensor, names: str) -> None:
    """Refuse two sets of maps, or maps and images, that are not of the same number of images.

    Raises:
        UserError: The message gives both numbers.
    """
    if len(first) != len(second):
        raise UserError(f"{names}: {len(first)} and {len(second)}, but both must be of the same images.")
