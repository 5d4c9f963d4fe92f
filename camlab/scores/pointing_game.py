"""Does the hottest point lie on the object? The pointing game (Zhang et al. 2018, §4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from camlab import maps


def hits(maps_NHW: Tensor, allowed_NHW: Tensor) -> Tensor:
    """Whether each map's one highest cell has its centre on an allowed pixel, bool, N."""
    points, clear = maps.peak(maps_NHW, (allowed_NHW.shape[-2], allowed_NHW.shape[-1]))
    inside = allowed_NHW[torch.arange(len(points), device=points.device), points[:, 0], points[:, 1]]
    return clear & inside


def dilate(masks_NHW: Tensor, pixels: int) -> Tensor:
    """Grow bool masks by a square of so many pixels in each direction."""
    side = 2 * pixels + 1
    return F.max_pool2d(masks_NHW.float()[:, None], side, stride=1, padding=pixels)[:, 0] > 0
