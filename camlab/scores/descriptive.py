"""Scores that describe maps and have no good or bad end; one value for each image."""

import torch
from torch import Tensor

from camlab.scores.checked import checked_maps
from camlab.scores.heat import enlarged
from camlab.scores.ranks import spearman


def effective_area(maps_NHW: Tensor) -> Tensor:
    """Share of the cells over which the heat is spread: exp(entropy of H / ΣH) / Z, where H is the rectified map.

    Args:
        maps_NHW: Signed maps, N×h×w, Z = h·w.

    Returns:
        One value in [1/Z, 1] for each image, N: 1 for a uniform map, 1/Z for a single cell, NaN for a map without
        positive values.

    Raises:
        UserError: The maps are not finite.

    Example:
        >>> effective_area(torch.tensor([[[1.0, 1.0, 0.0, -2.0]]])).tolist()
        [0.5]
    """
    heat = checked_maps(maps_NHW).relu().flatten(1)
    heat = heat / heat.amax(dim=1, keepdim=True)
    shares = heat / heat.sum(dim=1, keepdim=True)
    return torch.special.entr(shares).sum(dim=1).exp() / heat.shape[1]


def class_contrast(maps_NHW: Tensor, runner_up_NHW: Tensor) -> Tensor:
    """How much the map depends on the class: 1 - Spearman(map of the class, map of the class with the next best score).

    Args:
        maps_NHW: Signed maps of one class, N×h×w.
        runner_up_NHW: Signed maps of the other class, on the same grid.

    Returns:
        One value in [0, 2] for each image, N: 0 for the same order of cells, 2 for the reverse; NaN where all cells of
        a map are equal.

    Raises:
        UserError: The maps are not finite, or differ in number or grid.

    Example:
        >>> class_contrast(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 2.0]]])).tolist()
        [0.0]
    """
    return 1 - spearman(maps_NHW, runner_up_NHW)


def drift(maps_NHW: Tensor, previous_NHW: Tensor) -> Tensor:
    """How much a map has changed since the epoch before: 1 - Spearman(map, map of the epoch before).

    Args:
        maps_NHW: Signed maps of fixed images, N×h×w.
        previous_NHW: Signed maps of the same images and classes at the epoch before.

    Returns:
        As for `class_contrast`.

    Raises:
        UserError: The maps are not finite, or differ in number or grid.

    Example:
        >>> drift(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0]]])).tolist()
        [2.0]
    """
    return 1 - spearman(maps_NHW, previous_NHW)


def agreement(maps_NHW: Tensor, other_NHW: Tensor) -> Tensor:
    """Spearman's correlation of the maps of two methods, such as CAM and Grad-CAM, on the finer of their grids.

    Args:
        maps_NHW: Signed maps of one method, N×h×w.
        other_NHW: Signed maps of the other, on any grid.

    Returns:
        One value in [-1, 1] for each image, N; NaN where all cells of a map are equal.

    Raises:
        UserError: The maps are not finite, or differ in number.

    Example:
        >>> agreement(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])).tolist()
        [1.0]
    """
    one, other = checked_maps(maps_NHW), checked_maps(other_NHW)
    size = (max(one.shape[1], other.shape[1]), max(one.shape[2], other.shape[2]))
    return spearman(enlarged(one, size), enlarged(other, size))
