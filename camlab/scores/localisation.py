"""Where is the heat? Scores of maps against masks of the objects; one value for each image.

Shape letters: N images, h and w the rows and columns of a map's own grid, H and W the picture's pixels. Heat is the
rectified map at the picture's size. A map without positive values stays in the means, as one that finds nothing. An
image without a value (NaN) cannot be scored, because its mask is empty or, for some scores, covers the whole picture;
an empty mask may stand for one that is missing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from camlab.scores.checked import check_tensors, check_whole, checked_maps, checked_masks
from camlab.scores.heat import heat, without_evidence
from camlab.scores.ranks import doubled_ranks

TOLERANCE = 2  # pixels of the masks that a hottest cell may lie beside the object


def auroc(maps_NHW: Tensor, masks_NHW: Tensor) -> Tensor:
    """Probability that a pixel of the object is hotter than one beside it: P(inside > outside) + ½ P(equal).

    This is the Mann–Whitney statistic of the heat's pixels, divided by the number of pairs. Chance is ½, whatever the
    object's size.

    Args:
        maps_NHW: Signed maps, N×h×w.
        masks_NHW: Masks of the objects, bool, N×H×W.

    Returns:
        One value in [0, 1] for each image, N; ½ for a map without positive values, NaN for an empty or full mask.

    Raises:
        UserError: The maps are not finite, or the masks do not fit them.

    Example:
        >>> masks = torch.tensor([[[False, False, True, True]]])
        >>> auroc(torch.tensor([[[0.0, 1.0]]]), masks).tolist(), auroc(torch.tensor([[[1.0, 1.0]]]), masks).tolist()
        ([1.0], [0.5])
    """
    hot, inside = _heat_and_masks(maps_NHW, masks_NHW)
    n_inside = inside.flatten(1).sum(dim=1)
    n_outside = inside.shape[1:].numel() - n_inside
    won = (doubled_ranks(hot.flatten(1)) * inside.flatten(1)).sum(dim=1) - n_inside * (n_inside + 1)
    return won / (2 * n_inside * n_outside)  # whole numbers until here, so that ½ is exact


def energy(maps_NHW: Tensor, masks_NHW: Tensor) -> Tensor:
    """Share of the heat that lies on the object: Σ H·m / Σ H (Wang et al. 2020, Score-CAM, §4.3).

    Chance is the object's share of the area (`area`).

    Args:
        maps_NHW: Signed maps, N×h×w.
        masks_NHW: Masks of the objects, bool, N×H×W.

    Returns:
        One value in [0, 1] for each image, N; 0 for a map without positive values, NaN for an empty mask.

    Raises:
        UserError: The maps are not finite, or the masks do not fit them.

    Example:
        >>> energy(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[False, True]]])).tolist()
        [0.75]
    """
    hot, inside = _heat_and_masks(maps_NHW, masks_NHW)
    total = hot.sum(dim=(1, 2))
    share = (hot * inside).sum(dim=(1, 2)) / total.where(total > 0, torch.ones_like(total))
    return share.where(inside.flatten(1).any(dim=1), torch.nan)


def energy_gain(maps_NHW: Tensor, masks_NHW: Tensor) -> Tensor:
    """Energy above chance, as a share of what is possible: (E - a) / (1 - a), where a is the object's area.

    Chance is 0. Arguments and errors as for `energy`; NaN also for a mask that covers the whole picture.

    Example:
        >>> energy_gain(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[False, True]]])).tolist()
        [0.5]
    """
    shares, covered = energy(maps_NHW, masks_NHW), area(masks_NHW)
    return ((shares - covered) / (1 - covered)).where(covered < 1, torch.nan)


def area(masks_NHW: Tensor) -> Tensor:
    """Share of each picture that its object covers, N: the chance level of `energy` and, pooled, of `pxap`.

    Example:
        >>> area(torch.tensor([[[False, True]]])).tolist()
        [0.5]
    """
    return checked_masks(masks_NHW, len(masks_NHW)).float().mean(dim=(1, 2))


def pointing_game(maps_NHW: Tensor, masks_NHW: Tensor, tolerance: int = TOLERANCE) -> Tensor:
    """Whether the highest cell of a map lies on the object (Zhang et al. 2018, §4.1).

    A hit is a cell whose centre is a pixel of the mask, dilated by `tolerance`. If several cells are highest, the share
    of them that hits counts. Chance is the dilated mask's share of the area (`pointing_game_chance`).

    Args:
        maps_NHW: Signed maps, N×h×w.
        masks_NHW: Masks of the objects, bool, N×H×W.
        tolerance: Number of pixels by which the masks are dilated in each direction.

    Returns:
        One value in [0, 1] for each image, N; 0 for a map without positive values, NaN for an empty mask.

    Raises:
        UserError: The maps are not finite, or the masks do not fit them.

    Example:
        >>> masks = torch.tensor([[[False, False, True, True]]])
        >>> pointing_game(torch.tensor([[[1.0, 2.0]]]), masks, 0).tolist()
        [1.0]
        >>> pointing_game(torch.tensor([[[2.0, 2.0]]]), masks, 0).tolist()
        [0.5]
    """
    check_whole(tolerance, "tolerance")
    signed = checked_maps(maps_NHW)
    _, rows, columns = signed.shape
    inside = checked_masks(masks_NHW, len(signed), (rows, columns)).to(signed.device)
    height, width = inside.shape[-2:]
    at_rows = (2 * torch.arange(rows, device=signed.device) + 1) * height // (2 * rows)
    at_columns = (2 * torch.arange(columns, device=signed.device) + 1) * width // (2 * columns)
    hit = dilate(inside, tolerance)[:, at_rows[:, None], at_columns]
    highest = signed == signed.amax(dim=(1, 2), keepdim=True)
    shares = (highest & hit).sum(dim=(1, 2)) / highest.sum(dim=(1, 2))
    shares = shares.where(~without_evidence(signed), torch.zeros_like(shares))
    return shares.where(inside.flatten(1).any(dim=1), torch.nan)


def pointing_game_chance(masks_NHW: Tensor, tolerance: int = TOLERANCE) -> Tensor:
    """Probability that a random pixel is a hit of the pointing game, N.

    Example:
        >>> pointing_game_chance(torch.tensor([[[False, False, False, True]]]), 1).tolist()
        [0.5]
    """
    return area(dilate(checked_masks(masks_NHW, len(masks_NHW)), tolerance))


def dilate(masks_NHW: Tensor, pixels: int) -> Tensor:
    """Grow bool masks by `pixels` in each direction, diagonals included.

    Example:
        >>> dilate(torch.tensor([[[True, False, False]]]), 1).tolist()
        [[[True, True, False]]]
    """
    check_tensors(masks=masks_NHW)
    check_whole(pixels, "pixels")
    side = 2 * pixels + 1
    return F.max_pool2d(masks_NHW.float()[:, None], side, stride=1, padding=pixels)[:, 0] > 0


def _heat_and_masks(maps_NHW: Tensor, masks_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """Heat at the picture's size, and bool masks on the same device."""
    signed = checked_maps(maps_NHW)
    inside = checked_masks(masks_NHW, len(signed), (signed.shape[1], signed.shape[2])).to(signed.device)
    return heat(signed, (inside.shape[1], inside.shape[2])), inside
