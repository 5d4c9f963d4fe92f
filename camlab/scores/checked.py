"""Checks of the maps and masks that are to be scored: what makes no sense is refused in one line."""

import torch
from torch import Tensor

from camlab.attribution.network_input import check_values, described
from camlab.errors import UserError


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


def check_count(count: int, name: str) -> None:
    """Refuse a number of steps, copies or the like that is not a positive whole number.

    Example:
        >>> check_count(0, "steps")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: steps=0: must be a whole number of at least 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UserError(f"{name}={count}: must be a whole number of at least 1.")


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
