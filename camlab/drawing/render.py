"""Turn maps into colours, overlays, boxes and picture files, with NumPy and OpenCV only.

Images are uint8 RGB, H×W×3 (batches N×H×W×3); heat is float in [0, 1], H×W, as `camlab.maps.normalize` returns it.
"""

import functools
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from camlab.drawing.colormaps import COLORMAPS
from camlab.storage.files import write_atomically

PAPER = (255, 255, 255)  # colour of the background
_LIGHTER = 0.35  # share of a picture's contrast that is left in the parts that the network does not see

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are exclusive


def colorize(heat: np.ndarray, colormap: str = "jet") -> np.ndarray:
    """Colour heat with one of OpenCV's colour maps: …×H×W → uint8 RGB …×H×W×3.

    In `jet`, blue is 0 (no evidence) and red is 1. Heat outside of [0, 1] gets the colour of the nearer end.

    Args:
        heat: Float, …×H×W.
        colormap: One of `camlab.drawing.colormaps.COLORMAPS`.

    Example:
        >>> colorize(np.array([[0.0, 1.0]])).tolist()
        [[[0, 0, 128], [128, 0, 0]]]
    """
    rows = heat.reshape(-1, heat.shape[-1])
    level = cv2.addWeighted(rows, 255, rows, 0, 0, dtype=cv2.CV_8U)  # rounds and stays within 0 to 255
    return cv2.applyColorMap(level, _table(colormap)).reshape(*heat.shape, 3)


def overlay(images: np.ndarray, heat: np.ndarray, alpha: float = 0.5, colormap: str = "jet") -> np.ndarray:
    """Blend images with their heatmaps: (1 - alpha) · image + alpha · colour(heat), rounded.

    Args:
        images: uint8 RGB, …×H×W×3.
        heat: Float in [0, 1], …×H×W, at the images' own size.
        alpha: The heatmap's share.
        colormap: One of `camlab.drawing.colormaps.COLORMAPS`.

    Returns:
        uint8 RGB of the images' shape. Heat is not rescaled: a colour means the same heat in every picture.

    Raises:
        ValueError: The sizes differ, or the images are not uint8.
    """
    if images.shape[:-1] != heat.shape:
        raise ValueError(f"heat {heat.shape} is not of the images' size {images.shape[:-1]}")
    if images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype}; they must be uint8 RGB")
    colours = colorize(heat, colormap)
    flat = (-1, images.shape[-2] * 3)
    blended = colours.reshape(flat)
    cv2.addWeighted(images.reshape(flat), 1 - alpha, blended, alpha, 0.0, dst=blended)
    return colours


def resize(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize one map as `camlab.maps.upsample` does, float32 h×w → H×W, but in the calling thread alone."""
    return cv2.resize(heat, size[::-1], interpolation=cv2.INTER_LINEAR)


def fade(image: np.ndarray) -> np.ndarray:
    """Make a picture grey and light, to mark it as not seen by the network."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    light = cv2.addWeighted(grey, _LIGHTER, grey, 0, 255 * (1 - _LIGHTER))
    return cv2.cvtColor(light, cv2.COLOR_GRAY2RGB)


def largest_box(heat: np.ndarray, share: float) -> Box | None:
    """Find the box around the largest connected region that is hotter than a share of the maximum.

    The papers localise objects in this way: Zhou et al. 2016, §3.2 take 20 % of the maximum for CAM, Selvaraju et al.
    2017, §4.1 take 15 % for Grad-CAM.

    Args:
        heat: Float, H×W, not negative.
        share: Threshold as a share of the maximum, 0 to 1.

    Returns:
        The box in pixels; None for a map without heat.
    """
    _, hottest, _, _ = cv2.minMaxLoc(heat)
    if hottest <= 0:
        return None
    hot = (heat > share * hottest).view(np.uint8)
    outlines, tree = cv2.findContours(hot, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    largest = max(_pixels(outlines, tree[0]).items(), key=lambda region: region[1])[0]
    left, top, width, height = cv2.boundingRect(outlines[largest])
    return left, top, left + width, top + height


def _pixels(outlines: Sequence[np.ndarray], tree: np.ndarray) -> dict[int, float]:
    """Number of pixels of each region, by the index of its outline.

    It is computed from the outlines by Pick's theorem, in a fifth of the time that counting takes. Outlines, also those
    of holes, are closed paths over the region's own pixels; `tree` is OpenCV's hierarchy of two levels.
    """
    pixels: dict[int, float] = defaultdict(float)
    for i, (outline, (*_, parent)) in enumerate(zip(outlines, tree, strict=True)):
        area, on_path = cv2.contourArea(outline), len(outline)
        if parent < 0:
            pixels[i] += area + on_path / 2 + 1  # pixels inside and on the path
        else:
            pixels[parent] -= area - on_path / 2 + 1  # pixels inside the hole's path
    return pixels


def draw_box(image: np.ndarray, box: Box) -> np.ndarray:
    """Return a copy of a uint8 RGB image with a white, black-edged box drawn on it."""
    left, top, right, bottom = box
    width = max(1, round(min(image.shape[:2]) / 150))
    drawn = cv2.rectangle(image.copy(), (left, top), (right - 1, bottom - 1), (0, 0, 0), 3 * width)
    return cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), (255, 255, 255), width)


def draw_outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a copy of a uint8 RGB image with a white, black-edged line around the object.

    Args:
        image: uint8 RGB, H×W×3.
        mask: bool h×w, True on the object; it covers the same part of the picture as the image, at any size.

    Example:
        >>> int(draw_outline(np.full((9, 9, 3), 128, np.uint8), np.eye(3) > 0).max())
        255
    """
    own = cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(own, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    drawn = cv2.drawContours(image.copy(), outlines, -1, (0, 0, 0), 3)
    return cv2.drawContours(drawn, outlines, -1, (255, 255, 255), 1)


def thumbnail(image: np.ndarray, height: int) -> np.ndarray:
    """Resize a picture to a height and keep its proportions, but make it at most twice as wide as that height.

    A smaller picture is first enlarged by repeating pixels.
    """
    scale = min(height / image.shape[0], 2 * height / image.shape[1])
    size = [max(1, round(scale * side)) for side in image.shape[:2]]
    if scale > 1:
        image = enlarge(image, math.ceil(scale) * min(image.shape[:2]))
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """Repeat pixels until the shorter side is at least `side`, so that a 32×32 picture is large enough to look at."""
    factor = max(1, -(-side // min(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 RGB as PNG or JPEG, depending on the path's ending. A file at the path is replaced.

    The path may contain any characters.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix in (".jpg", ".jpeg") else []
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    write_atomically(path, encoded.tobytes(), durable=False)


@functools.cache
def _table(colormap: str) -> np.ndarray:
    """The 256 colours of a colour map, RGB."""
    if colormap not in COLORMAPS:
        raise ValueError(f"colormap {colormap!r}: choose from {', '.join(COLORMAPS)}")
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{colormap.upper()}"))[..., ::-1].copy()
