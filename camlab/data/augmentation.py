"""Augmentation of training images: a whole batch at once, with separate parameters for each image."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from camlab.data import augment_numbers as numbers
from camlab.data import recolouring
from camlab.data.augment_numbers import EpochTable
from camlab.data.augment_steps import MIXING, Steps
from camlab.data.loader import epoch_flips, epoch_shifts

_GEOMETRIC = ("crop", "rotate", "randaugment")


class Mixed(NamedTuple):
    """Images that are mixed with others.

    Attributes:
        images: uint8, N×3×H×W.
        masks: Masks of the own objects where they are still to be seen, bool, N×H×W; None if there are none.
        own_share: The image's own share in its mixture, float32, N, at least 0.5 but for rounding to pixels.
    """

    images: Tensor
    masks: Tensor | None
    own_share: Tensor


class Augmentation:
    """Augments training images; what an image becomes depends on the seed, the epoch and its index only.

    Flips and shifts move whole pixels. Crops, rotations and the geometric operations of RandAugment are one map, by
    which the picture is read once, bilinearly; beyond its border it is mirrored, so that no black corners draw the
    network's attention. Masks move along. Then colours change, and boxes are erased.

    Args:
        steps: Steps and their numbers, as `steps_of` returns them.
        seed: Seed of the random numbers.
        side: Largest side of an image that is cropped or turned, in pixels; larger ones shrink to it.
        fill: Colour of erased boxes, three values in [0, 1].
        kept: Number of epochs whose random numbers are kept.

    Raises:
        UserError: A step needs kornia, and it is not installed.
    """

    def __init__(
        self, steps: Steps, seed: int = 0, side: int = 224, fill: Sequence[float] = (0.5, 0.5, 0.5), kept: int = 2
    ) -> None:
        recolouring.check_kornia(steps)
        self.steps, self.side, self.fill = steps, side, tuple(fill)
        self.is_geometric = any(name in steps for name in _GEOMETRIC)
        self.mixes = any(name in steps for name in MIXING)
        self._tables = {name: EpochTable(draw, kept) for name, draw in _draws(steps, seed).items()}

    def flips(self, index: Tensor, n: int, epoch: int) -> Tensor | None:
        """Whether each of some images is mirrored, bool, N; None if none ever is."""
        return self._tables["flip"].rows(index, n, epoch) if "flip" in self.steps else None

    def __call__(
        self, images: Tensor, masks: Tensor | None, index: Tensor, n: int, epoch: int
    ) -> tuple[Tensor, Tensor | None]:
        """Augment images, all but mixing.

        Args:
            images: uint8, N×3×H×W.
            masks: Masks of their objects, bool, N×H×W, or None.
            index: Indices of the images in the training set, int64, N, on the device of the images.
            n: Number of images in the training set.
            epoch: The epoch.

        Returns:
            Images, uint8, and masks, of the given size, or of `side` if they are cropped or turned and were larger.
        """
        drawn = {name: table.rows(index, n, epoch) for name, table in self._tables.items() if name != "mixing"}
        if "flip" in drawn:
            images, masks = _both(lambda of: flip_where(of, drawn["flip"]), images, masks)
        if "shift" in drawn:
            images, masks = _both(lambda of: shift(of, drawn["shift"]), images, masks)
        if self.is_geometric or "color" in drawn:
            images, masks = self._redrawn(images, masks, drawn)
        if "erase" in drawn:
            images, masks = _erased(images, masks, drawn["erase"], self.fill)
        return images, masks

    def mix(self, images: Tensor, masks: Tensor | None, others: Tensor, index: Tensor, n: int, epoch: int) -> Mixed:
        """Mix augmented images with their partners, by mixup or cutmix; see `__call__` for the arguments.

        Args:
            images: The images, uint8.
            masks: Their masks.
            others: Their partners, uint8.
            index: Indices of the images.
            n: Number of images in the training set.
            epoch: The epoch.
        """
        drawn = self._tables["mixing"].rows(index, n, epoch)
        share, box = drawn[:, 0], in_boxes(drawn[:, 1:], images.shape[-2:])
        weight = share[:, None, None, None]
        blended = (weight * images + (1 - weight) * others).round().to(torch.uint8)
        mixed = torch.where(box[:, None], others, blended)
        replaced = box.flatten(1).sum(dim=1) / box[0].numel() if len(box) else share
        return Mixed(mixed, None if masks is None else masks & ~box, share * (1 - replaced))

    def _redrawn(self, images: Tensor, masks: Tensor | None, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        pixels = images.float().div_(255)
        if self.is_geometric:
            size = (min(self.side, images.shape[-2]), min(self.side, images.shape[-1]))
            pixels = warp(pixels, drawn["geometry"], size)
            masks = (
                None if masks is None else warp(masks[:, None].float(), drawn["geometry"], size, "nearest")[:, 0] > 0
            )
        if "color" in drawn:
            colour = self.steps["color"]
            if colour["brightness"] or colour["contrast"] or colour["saturation"]:
                pixels = recolouring.adjust(pixels, drawn["color"][:, :3])
            if colour["hue"]:
                pixels = recolouring.turn_hue(pixels, drawn["color"][:, 3])
        if "randaugment" in drawn:
            operations, signs = drawn["randaugment"].unbind(-1)
            magnitude = self.steps["randaugment"]["magnitude"]
            pixels = recolouring.apply_operations(pixels, operations, signs, magnitude)
        return pixels.mul_(255).round_().to(torch.uint8), masks


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


def warp(images: Tensor, maps_N23: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Read each image through its own map.

    Args:
        images: Float, N×C×H×W. Beyond its border, an image is mirrored.
        maps_N23: Maps from places in the result to places in the image, as `epoch_geometry` returns them.
        size: Height and width of the result. If the image is at least 1.5 times as large, several places are read for
            each pixel of the result, so that fine patterns do not alias.
        mode: `bilinear` or `nearest`.

    Example:
        >>> left_half = torch.tensor([[[0.5, 0.0, -0.5], [0.0, 1.0, 0.0]]])
        >>> warp(torch.tensor([[[[0.0, 2.0, 4.0, 6.0]]]]), left_half, (1, 4)).flatten().tolist()
        [0.0, 0.5, 1.5, 2.5]
    """
    finer = 1 if mode == "nearest" else max(1, round(images.shape[-1] / size[1]))
    y, x = ((2 * torch.arange(n * finer, device=images.device) + 1) / (n * finer) - 1 for n in size)
    maps = maps_N23[:, :, :, None, None]
    # Not by a matrix product, whose rounding can depend on the number of images.
    grid = maps[:, :, 0] * x + maps[:, :, 1] * y[:, None] + maps[:, :, 2]
    read = F.grid_sample(images, grid.permute(0, 2, 3, 1), mode, padding_mode="reflection", align_corners=False)
    return read if finer == 1 else F.avg_pool2d(read, finer)


def in_boxes(boxes_N4: Tensor, size: Sequence[int]) -> Tensor:
    """Whether each pixel is in the box of its image: bool, N×H×W.

    Args:
        boxes_N4: Top, bottom, left and right as shares of the sides; they are rounded to whole pixels.
        size: H and W.

    Example:
        >>> in_boxes(torch.tensor([[0.0, 1.0, 0.5, 1.0]]), (1, 4)).tolist()
        [[[False, False, True, True]]]
    """
    (top, bottom), (left, right) = (
        (boxes_N4[:, 2 * axis : 2 * axis + 2] * length).round().T[:, :, None] for axis, length in enumerate(size)
    )
    y, x = (torch.arange(length, device=boxes_N4.device) for length in size)
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]


def _erased(
    images: Tensor, masks: Tensor | None, boxes_N4: Tensor, fill: Sequence[float]
) -> tuple[Tensor, Tensor | None]:
    box = in_boxes(boxes_N4, images.shape[-2:])
    colour = torch.tensor([round(255 * value) for value in fill], dtype=torch.uint8, device=images.device)
    erased = torch.where(box[:, None], colour[:, None, None], images)
    return erased, None if masks is None else masks & ~box


def _both(change: Callable[[Tensor], Tensor], images: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Change images and masks in the same way."""
    return change(images), None if masks is None else change(masks[:, None])[:, 0]


def _draws(steps: Steps, seed: int) -> dict[str, Callable[[int, int], Tensor]]:
    """Functions of (number of images, epoch) that draw the numbers of the steps."""
    draws: dict[str, tuple[bool, Callable[[int, int], Tensor]]] = {
        "flip": ("flip" in steps, lambda n, epoch: epoch_flips(n, steps["flip"]["p"], seed, epoch)),
        "shift": ("shift" in steps, lambda n, epoch: epoch_shifts(n, int(steps["shift"]["pixels"]), seed, epoch)),
        "geometry": (
            any(name in steps for name in _GEOMETRIC),
            lambda n, epoch: numbers.epoch_geometry(steps, n, seed, epoch),
        ),
        "color": ("color" in steps, lambda n, epoch: numbers.epoch_colours(steps["color"], n, seed, epoch)),
        "randaugment": (
            "randaugment" in steps,
            lambda n, epoch: torch.stack(numbers.epoch_operations(steps["randaugment"], n, seed, epoch), dim=-1),
        ),
        "erase": ("erase" in steps, lambda n, epoch: numbers.epoch_boxes(steps["erase"], n, seed, epoch)),
        "mixing": (
            any(name in steps for name in MIXING),
            lambda n, epoch: numbers.epoch_mixing(steps, n, seed, epoch),
        ),
    }
    return {name: draw for name, (used, draw) in draws.items() if used}
