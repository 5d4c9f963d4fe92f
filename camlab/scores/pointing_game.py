"""The pointing game: whether the highest point of a map lies on the object (Zhang et al. 2018, §4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from camlab import maps


def hits(maps_NHW: Tensor, allowed_NHW: Tensor) -> Tensor:
    """Whether each map has a single highest cell and the cell's centre is an allowed pixel: bool, N.

    Args:
        maps_NHW: Signed maps, on a grid of their own.
        allowed_NHW: Pixels that count as a hit, bool, on the grid of the pictures.

    Example:
        >>> allowed = torch.tensor([[[False, False, True, True]]])
        >>> hits(torch.tensor([[[0.0, 1.0]]]), allowed).tolist(), hits(torch.tensor([[[1.0, 0.0]]]), allowed).tolist()
        ([True], [False])
    """
    points, clear = maps.peak(maps_NHW, (allowed_NHW.shape[-2], allowed_NHW.shape[-1]))
    inside = allowed_NHW[torch.arange(len(points), device=points.device), points[:, 0], points[:, 1]]
    return clear & inside


def dilate(masks_NHW: Tensor, pixels: int) -> Tensor:
    """Grow bool masks by `pixels` in each direction, diagonals included.

    Example:
        >>> dilate(torch.tensor([[[True, False, False]]]), 1).tolist()
        [[[True, True, False]]]
    """
    side = 2 * pixels + 1
    return F.max_pool2d(masks_NHW.float()[:, None], side, stride=1, padding=pixels)[:, 0] > 0
