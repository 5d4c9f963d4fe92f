"""Interpolate missing pixels so that each is the weighted mean of its eight neighbours: ROAD's linear system, batched.

A missing pixel x satisfies Σ_j w_j (x - x_j) = 0 over its neighbours j in the picture, with w = 1/6 for those at its
sides and 1/12 for those at its corners (Rong et al. 2022, arXiv:2202.00449).

All pictures of a batch are solved at once, on their device, by conjugate gradients with a multigrid cycle as the
preconditioner: about ten rounds, whatever the size of the gaps. The same equation holds at every size of the picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_ROUNDS = 200
_ROUNDS_PER_CHECK = 2
_SMALLEST = 4  # pixels, to which pictures are halved
_DAMPING = 0.8  # of Jacobi's steps, which smooth the error


def interpolated(images: Tensor, missing_NHW: Tensor, tolerance: float = 1e-3) -> Tensor:
    """Fill in missing pixels.

    Args:
        images: N×C×H×W, float32.
        missing_NHW: Pixels to fill in, bool, N×H×W.
        tolerance: Residual at which the solution is good enough, relative to that of zeros. At 1e-3 pixels are right to
            about 0.004 times the standard deviation of the picture.

    Returns:
        Images of the same shape; the pixels that are not missing are unchanged. An image without any becomes 0.

    Example:
        >>> row = torch.tensor([[[[0.0, 9.0, 9.0, 3.0]]]])
        >>> interpolated(row, torch.tensor([[[False, True, True, False]]])).round(decimals=4).tolist()
        [[[[0.0, 1.0, 2.0, 3.0]]]]
    """
    free = missing_NHW[:, None].to(images.dtype)
    known = images * (1 - free)
    right = _neighbours(known) * free
    return known + _conjugate_gradients(_halved(free), right, tolerance)


def _conjugate_gradients(levels: list[tuple[Tensor, Tensor]], right: Tensor, tolerance: float) -> Tensor:
    """Solve weights · x - neighbours(x) = right for the free pixels.

    Args:
        levels: From `_halved`.
        right: Right-hand side, 0 where a pixel is known.
        tolerance: As in `interpolated`.
    """
    x, residual = torch.zeros_like(right), right
    direction = _cycle(residual, levels)
    size = _dot(residual, direction)
    enough = tolerance**2 * size
    for round_ in range(_MOST_ROUNDS):
        if round_ % _ROUNDS_PER_CHECK == 0 and bool((size <= enough).all()):
            break
        applied = _left(direction, *levels[0])
        step = _ratio(size, _dot(direction, applied))
        x = x + step * direction
        residual = residual - step * applied
        preconditioned = _cycle(residual, levels)
        new_size = _dot(residual, preconditioned)
        direction = preconditioned + _ratio(new_size, size) * direction
        size = new_size
    return x


def _halved(free: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Free pixels, and the sum of the weights of each pixel's neighbours, at the full size, at half of it, and so on.

    A coarse pixel is free if all pixels in it are.
    """
    levels = []
    while True:
        height, width = free.shape[-2:]
        levels.append((free, _neighbours(torch.ones_like(free[:1]))))
        if min(height, width) < _SMALLEST:
            return levels
        free = 1 - F.max_pool2d(F.pad(1 - free, (0, width % 2, 0, height % 2), value=1.0), 2)


def _cycle(residual: Tensor, levels: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Solve roughly: smooth, correct by a solution at half the size, smooth again (a symmetric V-cycle)."""
    free, weights = levels[0]
    inverse = _DAMPING * free / weights
    x = inverse * residual
    if len(levels) > 1:
        height, width = residual.shape[-2:]
        left = F.pad(residual * free - _left(x, free, weights), (0, width % 2, 0, height % 2))
        coarse = _cycle(4 * F.avg_pool2d(left, 2), levels[1:])
        x = x + F.interpolate(coarse, scale_factor=2.0, mode="nearest")[..., :height, :width] * free
    return x + inverse * (residual - _left(x, free, weights))


def _left(x: Tensor, free: Tensor, weights: Tensor) -> Tensor:
    """Left-hand side of the equation at the free pixels."""
    return (weights * x - _neighbours(x)) * free


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
