"""Pixel precision and recall of the heat, pooled over all images: PxAP (Choe et al. 2020, arXiv:2007.04178)."""

import math

import torch
from torch import Tensor

from camlab.scores.checked import check_tensors, checked_maps, checked_masks
from camlab.scores.heat import heat
from camlab.scores.statistics import Interval, bootstrap

BINS = 1000


def pixel_counts(maps_NHW: Tensor, masks_NHW: Tensor, bins: int = BINS) -> Tensor:
    """Count the pixels of each image by their heat.

    Args:
        maps_NHW: Signed maps, N×h×w.
        masks_NHW: Masks of the objects, bool, N×H×W.
        bins: Number of bins between no heat and the map's maximum.

    Returns:
        Pixels of the object, and all pixels, by heat from low to high: int64, N×2×bins. Counts of several batches can
        be joined, and those of several images added.

    Raises:
        UserError: The maps are not finite, or the masks do not fit them.

    Example:
        >>> pixel_counts(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[False, True]]]), bins=2).tolist()
        [[[0, 1], [1, 1]]]
    """
    signed = checked_maps(maps_NHW)
    inside = checked_masks(masks_NHW, len(signed), (signed.shape[1], signed.shape[2])).to(signed.device).flatten(1)
    hot = heat(signed, (masks_NHW.shape[1], masks_NHW.shape[2])).flatten(1)
    binned = (hot * bins).long().clamp(max=bins - 1)
    empty = torch.zeros(len(signed), bins, dtype=torch.int64, device=signed.device)
    return torch.stack(
        [empty.scatter_add(1, binned, which) for which in (inside.long(), torch.ones_like(binned))], dim=1
    )


def average_precision(counts: Tensor) -> Tensor:
    """Area under the curve of precision over recall: Σ (r_i - r_{i-1}) p_i.

    Args:
        counts: From `pixel_counts`, summed over images, …×2×bins.

    Returns:
        Values in [0, 1] on the CPU, NaN where no pixel belongs to an object.

    Example:
        >>> average_precision(torch.tensor([[0, 1], [1, 1]])).item()
        1.0
    """
    check_tensors(counts=counts)
    true, found = counts.cpu().double().flip(-1).cumsum(dim=-1).unbind(-2)
    recall = true / true[..., -1:]
    gained = recall.diff(dim=-1, prepend=torch.zeros_like(recall[..., :1]))
    return (gained * true / found.clamp(min=1)).sum(dim=-1)


def pxap(maps_NHW: Tensor, masks_NHW: Tensor) -> Tensor:
    """PxAP: area under the curve of pixel precision over recall, with the pixels of all images in one pool.

    Chance is the share of all pixels that belong to objects, `area(masks).mean()`. For an interval, resample images:
    `bootstrap(lambda chosen: average_precision(…), n)` of `pixel_counts`; `PxAP` of `camlab.scores.metrics` does.

    Args:
        maps_NHW: Signed maps, N×h×w.
        masks_NHW: Masks of the objects, bool, N×H×W. Images whose mask is empty are left out.

    Returns:
        One value in [0, 1] for the whole set; heat is rounded to a thousandth of each map's maximum.

    Raises:
        UserError: The maps are not finite, or the masks do not fit them.

    Example:
        >>> pxap(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[False, True]]])).item()
        1.0
    """
    return average_precision(of_masked(pixel_counts(maps_NHW, masks_NHW)).sum(dim=0))


def of_masked(counts: Tensor) -> Tensor:
    """The counts of images whose mask is not empty; of the others, it is not known which pixels are the object's.

    Args:
        counts: From `pixel_counts`, N×2×bins.

    Example:
        >>> of_masked(torch.tensor([[[0, 1], [1, 1]], [[0, 0], [1, 1]]])).shape
        torch.Size([1, 2, 2])
    """
    return counts[counts[:, 0].any(dim=1)]


def pxap_interval(counts: Tensor, seed: int = 0) -> Interval:
    """PxAP with its bootstrap interval over images; those whose mask is empty are counted as unscored.

    Args:
        counts: From `pixel_counts`, N×2×bins.
        seed: Random seed.

    Example:
        >>> pxap_interval(torch.tensor([[[0, 1], [1, 1]]])).mean
        1.0
    """
    every, counts = len(counts), of_masked(counts)
    n, flat = len(counts), counts.cpu().double().flatten(1)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, every)

    def areas(chosen: Tensor) -> Tensor:
        once = torch.ones_like(chosen, dtype=flat.dtype)
        times = torch.zeros(len(chosen), n, dtype=flat.dtype).scatter_add(1, chosen, once)
        return average_precision((times @ flat).unflatten(1, counts.shape[1:]))

    low, high = bootstrap(areas, n, seed=seed)
    return Interval(float(average_precision(counts.sum(dim=0))), low, high, n, every - n)
