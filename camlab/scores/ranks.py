"""Ranks with ties, and Spearman's correlation, of a batch at once."""

import torch
from torch import Tensor

from camlab.errors import UserError
from camlab.scores.checked import check_same_images, checked_maps


def doubled_ranks(values_NZ: Tensor) -> Tensor:
    """Twice the rank of each value in its row, from 1; tied values share the mean of their ranks. int64, N×Z.

    Example:
        >>> doubled_ranks(torch.tensor([[3.0, 1.0, 3.0]])).tolist()  # ranks 2.5, 1, 2.5
        [[5, 2, 5]]
    """
    values = values_NZ.contiguous()
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    return below + torch.searchsorted(ordered, values, right=True) + 1


def spearman(first_NHW: Tensor, second_NHW: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps of each image: Pearson's correlation of their ranks.

    Args:
        first_NHW: Signed maps, N×h×w.
        second_NHW: Other maps of the same images, on the same grid.

    Returns:
        One value in [-1, 1] for each image, N; NaN where all cells of a map are equal.

    Raises:
        UserError: The maps are not finite, or differ in number or grid.

    Example:
        >>> spearman(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[9.0, 4.0, 1.0]]])).tolist()
        [-1.0]
    """
    first, second = checked_maps(first_NHW), checked_maps(second_NHW).to(first_NHW.device)
    check_same_images(first, second, "maps")
    if first.shape != second.shape:
        one, other = (f"{maps.shape[1]}×{maps.shape[2]}" for maps in (first, second))
        raise UserError(
            f"maps: grids of {one} and {other} cells. Resize them to one grid, as camlab.maps.upsample does."
        )
    centred = []
    for maps in (first, second):
        ranks = doubled_ranks(maps.flatten(1))
        centred.append(((ranks - (ranks.shape[1] + 1)) / ranks.shape[1]).to(maps.dtype))  # their mean is Z + 1
    a, b = centred
    norms = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    return ((a * b).sum(dim=1) / norms).clamp(-1, 1)
