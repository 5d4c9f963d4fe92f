"""The random numbers of augmentation: for each training image and epoch, a pure function of the seed.

They are drawn on the CPU for all training images at once, so that neither the batch, nor the order, nor the device that
an image comes in changes its numbers.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from camlab.data.augment_steps import MIXING, Steps
from camlab.data.loader import random_stream

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "turn")
COLOURS = (
    "brightness", "saturation", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
OPERATIONS = ("identity", *GEOMETRIC, *COLOURS)  # those of RandAugment, as torchvision has them
MAGNITUDES = 30
_STRETCH = math.log(10 / 3)  # of an erased box: its sides have a ratio of at most 3.3
_LEAST_ERASED = 0.02  # share of the picture
_DOUBLE = torch.float64


class EpochTable:
    """Rows of random numbers, one for each training image, which are drawn anew for each epoch.

    Args:
        draw: Function of (number of images, epoch) that draws them: n×….
        kept: Number of epochs whose numbers are kept.
    """

    def __init__(self, draw: Callable[[int, int], Tensor], kept: int = 2) -> None:
        self._draw, self._kept = draw, kept
        self._drawn: OrderedDict[tuple[int, int, torch.device], Tensor] = OrderedDict()

    def rows(self, index: Tensor, n: int, epoch: int) -> Tensor:
        """Numbers of some of n images in an epoch, on the device of their indices."""
        key = n, epoch, index.device
        if key not in self._drawn:
            while len(self._drawn) >= self._kept:
                self._drawn.popitem(last=False)
            self._drawn[key] = self._draw(n, epoch).to(index.device)
        return self._drawn[key][index]


def epoch_geometry(steps: Steps, n: int, seed: int, epoch: int) -> Tensor:
    """Maps from places in the augmented picture to places in the original: float32, n×2×3.

    Places are (x, y, 1), where x and y go from -1 to 1 between the picture's borders. They crop, turn, shear and shift.
    """
    maps = torch.eye(2, 3, dtype=_DOUBLE).expand(n, 2, 3)
    if "crop" in steps:
        maps = _chained(maps, _windows(steps["crop"], _uniform(n, 4, seed, epoch, "crop")))
    if "rotate" in steps:
        turn = math.radians(steps["rotate"]["degrees"]) * (2 * _uniform(n, 1, seed, epoch, "rotate")[:, 0] - 1)
        maps = _chained(maps, _turned(turn))
    if "randaugment" in steps:
        chosen, signs = epoch_operations(steps["randaugment"], n, seed, epoch)
        strength = steps["randaugment"]["magnitude"] / MAGNITUDES
        for operation, sign in zip(chosen.T, signs.T, strict=True):
            for name in GEOMETRIC:
                maps = _chained(maps, _moved(name, (operation == OPERATIONS.index(name)) * sign * strength))
    return maps.float()


def epoch_operations(numbers: Mapping[str, float], n: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """Operations of RandAugment, as indices into `OPERATIONS`, and their signs, -1 or 1: both n×number."""
    count = int(numbers["number"])
    drawn = _uniform(n, 2 * count, seed, epoch, "randaugment")
    return (drawn[:, :count] * len(OPERATIONS)).long(), 2 * (drawn[:, count:] < 0.5).double() - 1


def epoch_colours(numbers: Mapping[str, float], n: int, seed: int, epoch: int) -> Tensor:
    """Factors of brightness, contrast and saturation, and the turn of the hue in radians: float32, n×4."""
    widths = torch.tensor([numbers[name] for name in ("brightness", "contrast", "saturation", "hue")], dtype=_DOUBLE)
    changes = widths * (2 * _uniform(n, 4, seed, epoch, "color") - 1)
    return (changes * torch.tensor([1, 1, 1, 2 * math.pi]) + torch.tensor([1, 1, 1, 0])).float()


def epoch_boxes(numbers: Mapping[str, float], n: int, seed: int, epoch: int) -> Tensor:
    """Boxes that are erased: top, bottom, left and right as shares of the side, float32, n×4; empty ones for no box."""
    chosen, size, shape, *place = _uniform(n, 5, seed, epoch, "erase").T
    area = _LEAST_ERASED + (numbers["area"] - _LEAST_ERASED) * size
    stretch = (_STRETCH * (2 * shape - 1)).exp()
    sides = ((area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1))
    return _boxes(sides, place, chosen < numbers["p"])


def epoch_mixing(steps: Steps, n: int, seed: int, epoch: int) -> Tensor:
    """How each image is mixed with its partner: float32, n×5.

    The first number is the image's own share in mixup, 0.5 to 1; it is 1 for an image that is not mixed in this way.
    The others are the box that cutmix replaces, as in `epoch_boxes`.
    """
    (chosen, *place), shares = _uniform(n, 3, seed, epoch, "mixing").T, {}
    for name in MIXING:
        stream = hashlib.blake2b(f"{seed}/{epoch}/{name}".encode(), digest_size=8).digest()
        alpha = steps[name]["alpha"] if name in steps else 1.0
        drawn = torch.from_numpy(np.random.default_rng(int.from_bytes(stream, "little")).beta(alpha, alpha, n))
        shares[name] = torch.maximum(drawn, 1 - drawn)
    p, other = (steps[name]["p"] if name in steps else 0.0 for name in MIXING)
    is_mixup, is_cutmix = chosen < p, (chosen >= p) & (chosen < p + other)
    side = (1 - shares["cutmix"]).sqrt()
    own = torch.where(is_mixup, shares["mixup"], 1.0).float()
    return torch.cat([own[:, None], _boxes((side, side), place, is_cutmix)], dim=1)


def _uniform(n: int, columns: int, seed: int, epoch: int, purpose: str) -> Tensor:
    return torch.rand(n, columns, dtype=_DOUBLE, generator=random_stream(seed, epoch, purpose))


def _boxes(sides: tuple[Tensor, Tensor], place: list[Tensor], there: Tensor) -> Tensor:
    """Boxes of some heights and widths, all within the picture: top, bottom, left, right; empty where not `there`."""
    ends = []
    for side, where in zip(sides, place, strict=True):
        start = where * (1 - side)
        ends += [start * there, (start + side) * there]
    return torch.stack(ends, dim=1).float()


def _windows(numbers: Mapping[str, float], drawn_N4: Tensor) -> Tensor:
    size, shape, *place = drawn_N4.T
    area = numbers["scale"] + (1 - numbers["scale"]) * size
    stretch = (math.log(numbers["ratio"]) * (2 * shape - 1)).exp().clamp(area, 1 / area)  # no side beyond the picture
    width, height = (area * stretch).sqrt(), (area / stretch).sqrt()
    zero = torch.zeros_like(width)
    (x, y) = ((2 * where - 1) * (1 - side) for where, side in zip(place, (width, height), strict=True))
    return torch.stack([width, zero, x, zero, height, y], dim=1).view(-1, 2, 3)


def _turned(radians: Tensor) -> Tensor:
    sin, cos, zero = radians.sin(), radians.cos(), torch.zeros_like(radians)
    return torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)


def _moved(name: str, strength: Tensor) -> Tensor:
    """A geometric operation of RandAugment of a strength from -1 to 1; its largest change is that of torchvision's."""
    if name == "turn":
        return _turned(math.radians(30) * strength)
    maps = torch.eye(2, 3, dtype=_DOUBLE).repeat(len(strength), 1, 1)
    row = 0 if name.endswith("_x") else 1
    if name.startswith("shear"):
        maps[:, row, 1 - row] = 0.3 * strength
    else:
        maps[:, row, 2] = 2 * 150 / 331 * strength  # 2 is the picture's side
    return maps


def _chained(first: Tensor, then: Tensor) -> Tensor:
    """The map of a place by `then`, and of the result by `first`."""
    turned = first[:, :, :2] @ then
    turned[:, :, 2] += first[:, :, 2]
    return turned
