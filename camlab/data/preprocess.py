"""From uint8 pixels to what a network reads, batched, on whatever device the pixels are."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Preprocess:
    """Bilinear resize to a square, scaling to [0, 1], normalisation.

    Within 1.5/255 of torchvision's Resize + ToTensor on PIL images, which round the resized pixels.

    Attributes:
        image_size: side of the network's input, in pixels.
        mean, std: per channel, of values in [0, 1]; the report's are 0.5.
    """

    image_size: int = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 RGB N×3×H×W → float32 N×3×S×S."""
        mean = torch.tensor(self.mean, device=images.device)[:, None, None] * 255
        std = torch.tensor(self.std, device=images.device)[:, None, None] * 255
        return self.resize((images - mean) / std)

    def resize(self, images: Tensor) -> Tensor:
        """Float N×3×H×W → N×3×S×S; the low-pass filter is needed (and paid for) only when pictures shrink."""
        size = (self.image_size, self.image_size)
        if images.shape[-2:] == size:
            return images
        shrinks = max(images.shape[-2:]) > self.image_size
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=shrinks)

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, as a checkpoint keeps them."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        return cls(values["image_size"], tuple(values["mean"]), tuple(values["std"]))


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror those images of N×C×H×W whose entry in the bool `flipped` (N) is True."""
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)
