"""The input that a network expects, and its preparation from pictures of any size."""

import functools
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from camlab.models.backbones import LARGEST_IMAGE_SIZE

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """Prepares pictures for a network: centre crop, resize to a square, scaling to [0, 1], normalisation.

    `prepare` cuts a square out of a picture; calling the object turns batches of such squares into the network's input.
    The two give what torchvision's Resize, CenterCrop, ToTensor and Normalize give for a PIL image, within rounding
    (1.5/255 before the normalisation). Squares of another size than the input's are resized as tensors.

    Attributes:
        image_size: Side of the network's input, in pixels.
        mean: Mean of each channel, for values in [0, 1]; 0.5 in the report.
        std: Standard deviation of each channel, for values in [0, 1]; 0.5 in the report.
        resize_size: Length in pixels to which a picture's shorter side is resized before the square of `image_size` is
            cut out of its centre. None stands for `image_size`: the square spans the shorter side.
        interpolation: Interpolation of `prepare`, `bilinear` or `bicubic`; both with antialiasing.
    """

    image_size: int = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize_size: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if type(self.image_size) is not int or not 1 <= self.image_size <= LARGEST_IMAGE_SIZE:
            raise ValueError(
                f"image_size must be a whole number of pixels, 1 to {LARGEST_IMAGE_SIZE}, not {self.image_size!r}"
            )
        resized = self.resize_size
        if resized is not None and (
            type(resized) is not int or not self.image_size <= resized <= 2 * LARGEST_IMAGE_SIZE
        ):
            raise ValueError(f"resize_size must be a whole number of pixels, image_size or more, not {resized!r}")
        for name in ("mean", "std"):
            if not _are_numbers(getattr(self, name)):
                raise ValueError(f"{name} must hold one number per channel, not {getattr(self, name)!r}")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(f"std must hold as many numbers as mean, all above 0, not {self.std!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")

    def visible_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of a picture that the network sees: (left, top, right, bottom) in the picture's pixels.

        It is cut as torchvision's Resize and CenterCrop do, which round to whole pixels of the resized picture.

        Example:
            >>> Preprocess(224).visible_box(300, 200)
            (50.0, 0.0, 250.0, 200.0)
            >>> Preprocess(224, resize_size=256).visible_box(256, 256)
            (16.0, 16.0, 240.0, 240.0)
        """
        shorter, side = self.resize_size or self.image_size, self.image_size
        resized = [shorter * length // min(width, height) for length in (width, height)]
        left, top = (round((length - side) / 2) for length in resized)
        return (
            left * width / resized[0],
            top * height / resized[1],
            (left + side) * width / resized[0],
            (top + side) * height / resized[1],
        )

    def at_size(self, side: int) -> "Preprocess":
        """Return the preparation that cuts the same part out of a picture, but resizes it to another side length.

        Example:
            >>> Preprocess(224, resize_size=256).at_size(448).resize_size
            512
        """
        resized = self.resize_size
        if resized is not None:
            resized = min(round(resized * side / self.image_size), 2 * LARGEST_IMAGE_SIZE)
        return replace(self, image_size=side, resize_size=resized)

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Cut the visible square out of an RGB picture and resize it: uint8 S×S×3.

        Example:
            >>> Preprocess(224, resize_size=256).prepare(Image.new("RGB", (640, 480))).shape
            (224, 224, 3)
        """
        size = (self.image_size, self.image_size)
        box = self.visible_box(*picture.size)
        return np.asarray(picture.resize(size, INTERPOLATIONS[self.interpolation], box=box))

    def __call__(self, images: Tensor) -> Tensor:
        """Turn pictures into the network's input: uint8 RGB N×3×H×W → float32 N×3×S×S.

        Example:
            >>> Preprocess(2)(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).mean().item()  # (1 - 0.5) / 0.5
            1.0
        """
        scale, shift = _scale_and_shift(self.mean, self.std, images.device)
        # Both steps are linear, so that their order does not matter: small pictures are normalised before they grow.
        return self.resize(images * scale + shift)

    def resize(self, images: Tensor) -> Tensor:
        """Resize float N×3×H×W → N×3×S×S, antialiased if pictures shrink (else it has no effect and costs time)."""
        size = (self.image_size, self.image_size)
        if images.shape[-2:] == size:
            return images
        shrinks = max(images.shape[-2:]) > self.image_size
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=shrinks)

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, as a checkpoint keeps them.

        Example:
            >>> Preprocess.from_dict(Preprocess(64).as_dict()) == Preprocess(64)
            True
        """
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """Make a `Preprocess` from the values that `as_dict` returns.

        Raises:
            ValueError: A name is unknown, or a value has the wrong type or is out of range.
        """
        if not isinstance(values, dict) or not values.keys() <= {field.name for field in fields(cls)}:
            raise ValueError(f"the preparation of pictures cannot be {values!r}")
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


def _are_numbers(values: object) -> bool:
    """Whether this is a tuple of finite numbers, at least one."""
    if not isinstance(values, tuple) or not values:
        return False
    return all(type(number) in (int, float) and math.isfinite(number) for number in values)


@functools.lru_cache
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and summand that express (pixel / 255 - mean) / std as pixel · factor + summand.

    They are cached, because each copy to a GPU waits for the GPU.
    """
    with torch.inference_mode(False):
        std_C11 = torch.tensor(std)[:, None, None]
        mean_C11 = torch.tensor(mean)[:, None, None]
        return (1 / (255 * std_C11)).to(device), (-mean_C11 / std_C11).to(device)
