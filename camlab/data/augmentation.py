"""Random changes of training images: a whole batch at once, each image by its own parameters."""

import torch
from torch import Tensor


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror those images of N×C×H×W whose entry in the bool `flipped` (N) is True.

    Example:
        >>> flip_where(torch.tensor([[[[1, 2]]], [[[3, 4]]]]), torch.tensor([True, False])).flatten().tolist()
        [2, 1, 3, 4]
    """
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, by_N2: Tensor) -> Tensor:
    """Move each image down and right; its border is repeated into the gap.

    Args:
        images: N×C×H×W.
        by_N2: Pixels down and pixels right, int64, N×2; negative ones move up and left.

    Example:
        >>> shift(torch.tensor([[[[1, 2, 3]]]]), torch.tensor([[0, 1]])).flatten().tolist()
        [1, 1, 2]
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - by_N2[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - by_N2[:, 1:]).clamp(0, width - 1)
    n = torch.arange(len(images), device=images.device)
    return images.permute(0, 2, 3, 1)[n[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
