"""Interpolate missing pixels so that each is the weighted mean of its eight neighbours: ROAD's linear system, batched.

A missing pixel x satisfies Σ_j w_j (x - x_j) = 0 over its neighbours j in the picture, with w = 1/6 for those at its
sides and 1/12 for those at its corners (Rong et al. 2022, arXiv:2202.00449). All pictures of a batch are solved at
once by conjugate gradients, on the pictures' device. The preconditioner adds up the residuals of blocks of 2, 4, 8, …
pixels (after Bramble, Pasciak and Xu 1990), so that the number of rounds grows slowly with the size of the gaps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_ROUNDS = 2000
_ROUNDS_PER_CHECK = 10
_SMALLEST = 4  # pixels, to which pictures are halved


def interpolated(images: Tensor, missing_NHW: Tensor, tolerance: float = 1e-4) -> Tensor:
    """Fill in missing pixels.

    Args:
        images: N×C×H×W, float32.
        missing_NHW: Pixels to fill in, bool, N×H×W.
        tolerance: Residual at which the solution is good enough, relative to that of zeros.

    Returns:
        Images of the same shape; the pixels that are not missing are unchanged. An image without any becomes 0.

    Example:
        >>> row = torch.tensor([[[[0.0, 9.0, 9.0, 3.0]]]])
        >>> interpolated(row, torch.tensor([[[False, True, True, False]]])).round(decimals=4).tolist()
        [[[[0.0, 1.0, 2.0, 3.0]]]]
    """
    free = missing_NHW[:, None].to(images.dtype)
    known = images * (1 - free)
    own = _neighbours(torch.ones_like(images[:1, :1]))  # sum of the weights of the neighbours inside the picture
    right = _neighbours(known) * free
    return known + _conjugate_gradients(free, own, right, tolerance)


def _conjugate_gradients(free: Tensor, own: Tensor, right: Tensor, tolerance: float) -> Tensor:
    """Solve own · x - neighbours(x) = right for the free pixels."""
    x, residual = torch.zeros_like(right), right
    direction = _over_blocks(residual, own) * free
    size = _dot(residual, direction)
    enough = tolerance**2 * size
    for round_ in range(_MOST_ROUNDS):
        if round_ % _ROUNDS_PER_CHECK == 0 and bool((size <= enough).all()):
            break
        applied = (own * direction - _neighbours(direction)) * free
        step = _ratio(size, _dot(direction, applied))
        x = x + step * direction
        residual = residual - step * applied
        preconditioned = _over_blocks(residual, own) * free
        new_size = _dot(residual, preconditioned)
        direction = preconditioned + _ratio(new_size, size) * direction
        size = new_size
    return x


def _over_blocks(residual: Tensor, own: Tensor | float) -> Tensor:
    """Precondition: divide by the diagonal, and add the same of the residuals summed over ever larger blocks."""
    scaled = residual / own
    height, width = residual.shape[-2:]
    if min(height, width) < _SMALLEST:
        return scaled
    summed = 4 * F.avg_pool2d(F.pad(residual, (0, width % 2, 0, height % 2)), 2)
    block = own * 2 if isinstance(own, float) else 2.0  # a block's connections grow with its side
    coarse = F.interpolate(_over_blocks(summed, block), scale_factor=2.0, mode="nearest")
    return scaled + coarse[..., :height, :width]


def _neighbours(x: Tensor) -> Tensor:
    """Weighted sum of the eight neighbours; those outside the picture count as 0.

    The weights are (1, 2, 1) × (1, 2, 1) without the centre, so sums of shifted pictures are faster than a convolution.
    """
    padded = F.pad(x, (1, 1, 1, 1))
    rows = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return (rows[..., :-2, :] + 2 * rows[..., 1:-1, :] + rows[..., 2:, :] - 4 * x) / 12


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Quotient, 0 where the divisor is 0: there the solution has been reached."""
    return torch.where(b > 0, a / b.where(b > 0, torch.ones_like(b)), torch.zeros_like(a))
