"""From uint8 pixels to what a network reads, batched, on whatever device the pixels are."""

import functools
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
        scale, shift = _scale_and_shift(self.mean, self.std, images.device)
        return self.resize(images * scale + shift)  # the resize is linear: the smaller pictures are normalised

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


@functools.lru_cache
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(pixel / 255 - mean) / std as one product and one sum; kept, since copying them to a GPU would wait for it."""
    with torch.inference_mode(False):
        std_C11 = torch.tensor(std)[:, None, None]
        mean_C11 = torch.tensor(mean)[:, None, None]
        return (1 / (255 * std_C11)).to(device), (-mean_C11 / std_C11).to(device)
