"""Augmentation of training images: a whole batch at once, with separate parameters for each image."""

import torch
from torch import Tensor


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror some of the images of a batch horizontally.

    Args:
        images: N×C×H×W.
        flipped: Whether to mirror each image, bool, N.

    Example:
        >>> flip_where(torch.tensor([[[[1, 2]]], [[[3, 4]]]]), torch.tensor([True, False])).flatten().tolist()
        [2, 1, 3, 4]
    """
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, by_N2: Tensor) -> Tensor:
    """Shift each image by its own distance; the gap is filled by repeating the border pixels.

    Args:
        images: N×C×H×W.
        by_N2: Distance down and right in pixels, int64, N×2; negative distances shift up and left.

    Example:
        >>> shift(torch.tensor([[[[1, 2, 3]]]]), torch.tensor([[0, 1]])).flatten().tolist()
        [1, 1, 2]
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - by_N2[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - by_N2[:, 1:]).clamp(0, width - 1)
    n = torch.arange(len(images), device=images.device)
    return images.permute(0, 2, 3, 1)[n[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
