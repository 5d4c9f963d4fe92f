"""Arrange pictures on a sheet: side by side, one below the other, or in lines like the words of a text."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from camlab.drawing.render import PAPER

_WIDEST = 2400  # pixels: largest width of a sheet, unless a single image is wider
_SHAPE = 1.3  # preferred ratio of a sheet's height to its width


def flow(images: Sequence[np.ndarray], width: int, gap: int) -> np.ndarray:
    """Arrange images of any size in lines of at most `width` pixels, in order, like the words of a text.

    Returns:
        uint8 RGB, as wide as the longest line, with white between the images and around short ones.
    """
    lines = in_lines([image.shape[1] for image in images], width, gap)
    return below([beside([images[i] for i in numbers], gap) for numbers in lines], gap)


def in_lines(widths: Sequence[int], limit: int, gap: int) -> list[list[int]]:
    """Divide images of some widths into lines of at most `limit` pixels, in order: their indices, line by line.

    Example:
        >>> in_lines([40, 50, 30], limit=100, gap=4)
        [[0, 1], [2]]
    """
    lines: list[list[int]] = []
    taken = 0
    for number, width in enumerate(widths):
        if lines and taken + gap + width <= limit:
            lines[-1].append(number)
            taken += gap + width
        else:
            lines.append([number])
            taken = width
    return lines


def count_lines(images: Sequence[np.ndarray], width: int, gap: int) -> int:
    """How many lines `flow` needs."""
    return len(in_lines([image.shape[1] for image in images], width, gap))


def even_width(images: Sequence[np.ndarray], limit: int, gap: int) -> int:
    """Find a width that needs no more lines than `limit` does, and makes the lines nearly equal in length."""
    widths = [image.shape[1] for image in images]
    limit = max(limit, *widths)
    count = count_lines(images, limit, gap)
    if count == 1:
        return limit
    narrower = range(max(widths), limit, 4)
    return next((width for width in narrower if len(in_lines(widths, width, gap)) == count), limit)


def best_width(sizes: Sequence[tuple[int, int]], gap: int) -> int:
    """Find the width of lines that leaves little white space and gives the sheet a pleasant shape.

    Args:
        sizes: Height and width of each image.
        gap: White space between images, in pixels.
    """
    widths = [width for _, width in sizes]
    used = sum(height * width for height, width in sizes)

    def cost(limit: int) -> float:
        lines = in_lines(widths, limit, gap)
        across = max(sum(widths[i] for i in line) + gap * (len(line) - 1) for line in lines)
        down = sum(max(sizes[i][0] for i in line) for line in lines) + gap * (len(lines) - 1)
        return across * down / used + 0.15 * abs(math.log(down / across / _SHAPE))

    return min(range(max(widths), max(_WIDEST, max(widths)) + 1, 20), key=cost)


def beside(images: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Place images side by side, aligned at the top, with `gap` white pixels between them."""
    height = max(image.shape[0] for image in images)
    last = len(images) - 1
    return np.hstack([pad(image, height, image.shape[1] + gap * (i < last)) for i, image in enumerate(images)])


def below(images: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Place images one below the other, aligned at the left, with `gap` white pixels between them."""
    width = max(image.shape[1] for image in images)
    last = len(images) - 1
    return np.vstack([pad(image, image.shape[0] + gap * (i < last), width) for i, image in enumerate(images)])


def same_size(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pad images with white, at the right and below, to the largest height and width among them."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    return [pad(image, height, width) for image in images]


def pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pad an image with white, at the right and below, to a height and width."""
    bottom, right = height - image.shape[0], width - image.shape[1]
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=PAPER)


def frame(image: np.ndarray, margin: int) -> np.ndarray:
    """Add a white margin on all sides."""
    return cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=PAPER)
