"""What chance does to training images, a whole batch at once, each image by parameters of its own."""

import torch
from torch import Tensor


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror those images of N×C×H×W whose entry in the bool `flipped` (N) is True."""
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, by_N2: Tensor) -> Tensor:
    """Move each image of N×C×H×W down and right by so many pixels; its border is repeated into the gap."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - by_N2[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - by_N2[:, 1:]).clamp(0, width - 1)
    n = torch.arange(len(images), device=images.device)
    return images.permute(0, 2, 3, 1)[n[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
