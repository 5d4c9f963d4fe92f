"""The input contract of a network: from pictures of any size to the tensor that it reads."""

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """Centre crop, resize to a square, scaling to [0, 1], normalisation.

    `prepare` cuts a square out of a picture file; calling the object turns batches of such squares into the network's
    input. Within 1.5/255 of torchvision's Resize + CenterCrop + ToTensor on PIL images, which round the resized pixels.

    Attributes:
        image_size: Side of the network's input, in pixels.
        mean, std: Normalisation per channel, of values in [0, 1]; the report's are 0.5.
        resize_size: Length of a picture's shorter side, in pixels, when the square of `image_size` is cut out of its
            centre; None: `image_size`, so that the square spans the shorter side.
        interpolation: Interpolation of `prepare`, `bilinear` or `bicubic`; both with antialiasing.
    """

    image_size: int = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize_size: int | None = None
    interpolation: str = "bilinear"

    def visible_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a picture that the network sees: (left, top, right, bottom) in the picture's pixels.

        Example:
            >>> Preprocess(224).visible_box(300, 200)
            (50.0, 0.0, 250.0, 200.0)
            >>> Preprocess(224, resize_size=256).visible_box(256, 256)
            (16.0, 16.0, 240.0, 240.0)
        """
        side = min(width, height) * self.image_size / (self.resize_size or self.image_size)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Cut the visible square out of an RGB picture and resize it: uint8 S×S×3."""
        size = (self.image_size, self.image_size)
        box = self.visible_box(*picture.size)
        return np.asarray(picture.resize(size, _INTERPOLATIONS[self.interpolation], box=box))

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
        """The inverse of `as_dict`."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


@functools.lru_cache
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(pixel / 255 - mean) / std as one product and one sum; kept, since copying them to a GPU would wait for it."""
    with torch.inference_mode(False):
        std_C11 = torch.tensor(std)[:, None, None]
        mean_C11 = torch.tensor(mean)[:, None, None]
        return (1 / (255 * std_C11)).to(device), (-mean_C11 / std_C11).to(device)
