"""Tiny real networks whose maps and probabilities are known, for the tests of scores."""

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Global average pooling and a linear layer."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(features.mean(dim=(2, 3)))


def small_network(classes: int = 3, seed: int = 0, padding_mode: str = "zeros") -> nn.Sequential:
    """Conv → ReLU → conv → ReLU → GAP → linear, 3×H×W → classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode=padding_mode),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3, stride=2, padding=1, padding_mode=padding_mode),
            nn.ReLU(),
            Head(6, classes),
        )
    return network.eval()


def images(n: int = 4, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def maps(n: int = 4, rows: int = 4, columns: int = 4, seed: int = 1) -> Tensor:
    """Signed maps without ties."""
    return torch.randn(n, rows, columns, generator=torch.Generator().manual_seed(seed))


def squares(n: int = 4, side: int = 16, seed: int = 2) -> Tensor:
    """Masks of squares of a quarter of the side, at random places."""
    generator = torch.Generator().manual_seed(seed)
    found, width = torch.zeros(n, side, side, dtype=torch.bool), side // 4
    for mask in found:
        top, left = torch.randint(0, side - width + 1, (2,), generator=generator).tolist()
        mask[top : top + width, left : left + width] = True
    return found
