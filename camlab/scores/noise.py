"""Random numbers that depend on a seed and on an image's number in its set alone.

They are the same on every device and in batches of every size, and do not touch torch's generators.
"""

import math

import torch
from torch import Tensor

from camlab.errors import UserError

_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's, as int64


def image_numbers(n: int, numbers: Tensor | None, device: torch.device) -> Tensor:
    """Return the numbers of a batch's images in their set, int64, N; 0 to N - 1 if none are given."""
    if numbers is None:
        return torch.arange(n, device=device)
    if not isinstance(numbers, Tensor) or numbers.shape != (n,) or numbers.is_floating_point():
        raise UserError(f"numbers: a whole number for each of {n} images is needed, as a tensor.")
    return numbers.to(device=device, dtype=torch.int64)


def bits(seed: int, numbers_N: Tensor, count: int) -> Tensor:
    """Return `count` random whole numbers for each image: int64, N×count (splitmix64, Steele et al. 2014).

    Example:
        >>> whole = bits(0, torch.tensor([0, 1, 2]), 4)
        >>> torch.equal(bits(0, torch.tensor([2]), 4), whole[2:])
        True
    """
    counter = torch.arange(1, count + 1, device=numbers_N.device)
    start = _mixed(_mixed(numbers_N * _GOLDEN + (seed + 1)) + seed)
    return _mixed(start[:, None] + counter * _GOLDEN)


def uniform(seed: int, numbers_N: Tensor, count: int) -> Tensor:
    """Return `count` numbers for each image, uniform in (0, 1): float32, N×count.

    Example:
        >>> drawn = uniform(0, torch.arange(100), 100)
        >>> round(float(drawn.mean()), 2), 0 < float(drawn.min()) < float(drawn.max()) < 1
        (0.5, True)
    """
    return (_shifted(bits(seed, numbers_N, count), 41).float() + 0.5) / 2**23


def normal(seed: int, numbers_N: Tensor, count: int) -> Tensor:
    """Return `count` numbers for each image, with mean 0 and standard deviation 1: float32, N×count.

    Example:
        >>> drawn = normal(0, torch.arange(100), 100)
        >>> round(abs(float(drawn.mean())), 1), round(float(drawn.std()), 1)
        (0.0, 1.0)
    """
    return torch.erfinv(2 * uniform(seed, numbers_N, count) - 1) * math.sqrt(2)


def _mixed(numbers: Tensor) -> Tensor:
    numbers = (numbers ^ _shifted(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shifted(numbers, 27)) * _SECOND
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Shift to the right without keeping the sign."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)
