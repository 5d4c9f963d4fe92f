"""Drawing: maps become heatmaps, overlays, captioned panels and contact sheets. NumPy and OpenCV only.

Images are uint8 RGB, H×W×3 (batches N×H×W×3); heat is float in [0, 1], H×W, as `camlab.maps.normalize` makes it.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

_JET_RGB = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET)[..., ::-1].copy()
_FONT, _TEXT_HEIGHT, _MARGIN = cv2.FONT_HERSHEY_SIMPLEX, 18, 6
_INK, _PAPER = (30, 30, 30), 255


def colorize(heat: np.ndarray) -> np.ndarray:
    """JET colours of heat (OpenCV's table): blue = 0, no evidence; red = 1, attended. …×H×W → uint8 RGB …×H×W×3."""
    rows = heat.reshape(-1, heat.shape[-1])
    level = cv2.addWeighted(rows, 255, rows, 0, 0, dtype=cv2.CV_8U)  # rounds and stays within 0 to 255
    return cv2.applyColorMap(level, _JET_RGB).reshape(*heat.shape, 3)


def overlay(images: np.ndarray, heat: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Blend images with their heatmaps: (1 - alpha) · image + alpha · JET(heat), rounded.

    Args:
        images: uint8 RGB, …×H×W×3.
        heat: float in [0, 1], …×H×W: the images' own size.
        alpha: the heatmap's share.

    Returns:
        uint8 RGB of the images' shape. A colour means the same heat in every picture: nothing is rescaled.
    """
    if images.shape[:-1] != heat.shape:
        raise ValueError(f"heat {heat.shape} is not of the images' size {images.shape[:-1]}")
    if images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype}; uint8 RGB is drawn")
    colours = colorize(heat)
    flat = (-1, images.shape[-2] * 3)
    blended = colours.reshape(flat)
    cv2.addWeighted(images.reshape(flat), 1 - alpha, blended, alpha, 0.0, dst=blended)
    return colours


def resize(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`camlab.maps.upsample` of one map, float32 h×w → H×W, in the calling thread alone."""
    return cv2.resize(heat, size[::-1], interpolation=cv2.INTER_LINEAR)


def largest_box(heat: np.ndarray, share: float) -> tuple[int, int, int, int] | None:
    """The box around the largest connected region hotter than `share` of the maximum: the papers' way to localise.

    Zhou et al. 2016, §3.2 take 20 % for CAM, Selvaraju et al. 2017, §4.1 take 15 % for Grad-CAM.

    Args:
        heat: float, H×W, not negative.
        share: of the maximum, 0 to 1.

    Returns:
        (left, top, right, bottom) in pixels, right and bottom exclusive; None for a map without heat.
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
    """How many pixels each region has, by its outline's index: Pick's theorem, a fifth of the time of counting them.

    Outlines are closed paths over the region's own pixels, a hole's too; `tree` is OpenCV's, of two levels.
    """
    pixels: dict[int, float] = defaultdict(float)
    for i, (outline, (*_, parent)) in enumerate(zip(outlines, tree, strict=True)):
        area, on_path = cv2.contourArea(outline), len(outline)
        if parent < 0:
            pixels[i] += area + on_path / 2 + 1  # inside and on the path
        else:
            pixels[parent] -= area - on_path / 2 + 1  # inside the hole's path
    return pixels


def draw_box(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A copy of a uint8 RGB image with a box in white, edged black."""
    left, top, right, bottom = box
    width = max(1, round(min(image.shape[:2]) / 150))
    drawn = cv2.rectangle(image.copy(), (left, top), (right - 1, bottom - 1), (0, 0, 0), 3 * width)
    return cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), (255, 255, 255), width)


def thumbnail(image: np.ndarray, height: int) -> np.ndarray:
    """Bring to a height, keeping the shape; one that would be wider than four times that gets white above and below.

    A smaller picture is enlarged by repeating pixels, then cut to size.
    """
    scale = min(height / image.shape[0], 4 * height / image.shape[1])
    size = [max(1, round(scale * side)) for side in image.shape[:2]]
    if scale > 1:
        image = enlarge(image, math.ceil(scale) * min(image.shape[:2]))
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    above = (height - size[0]) // 2
    below = height - size[0] - above
    return cv2.copyMakeBorder(small, above, below, 0, 0, cv2.BORDER_CONSTANT, value=(_PAPER,) * 3)


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """Repeat pixels until the shorter side is at least `side`, so that a 32×32 picture can be looked at."""
    factor = max(1, -(-side // min(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def panel(tiles: Sequence[tuple[str, np.ndarray]], caption: str = "", side: int = 160) -> np.ndarray:
    """Pictures of one height side by side, each under its title, with one caption above them all.

    Args:
        tiles: (title, uint8 RGB image); images of one height.
        caption: a line above; letters outside ASCII become `?`, which OpenCV's font does not have.
        side: images are enlarged to at least so many pixels.
    """
    columns = [np.vstack([_text_strip(title, image.shape[1]), image]) for title, image in _enlarged(tiles, side)]
    row = _beside(columns)
    return np.vstack([_text_strip(caption, row.shape[1]), row]) if caption else row


def contact_sheet(panels: Sequence[np.ndarray], columns: int = 2) -> np.ndarray:
    """Panels in a grid, row by row, on white; the smaller ones are padded to the largest."""
    cells = same_size(panels)
    cells += [np.full_like(cells[0], _PAPER)] * (-len(cells) % columns)
    rows = [_beside(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    gap = np.full((_MARGIN, rows[0].shape[1], 3), _PAPER, np.uint8)
    return np.vstack([part for row in rows for part in (gap, row)] + [gap])


def same_size(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pad images with white, at the right and below, to the largest height and width among them."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    return [_pad(image, height, width) for image in images]


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 RGB as PNG or JPEG, by the path's ending (any characters in the path).

    Raises:
        OSError: the file cannot be written.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix in (".jpg", ".jpeg") else []
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    path.write_bytes(encoded.data)


def _enlarged(tiles: Sequence[tuple[str, np.ndarray]], side: int) -> list[tuple[str, np.ndarray]]:
    return [(title, enlarge(image, side)) for title, image in tiles]


def _beside(images: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((images[0].shape[0], _MARGIN, 3), _PAPER, np.uint8)
    return np.hstack([part for image in images for part in (gap, image)] + [gap])


def _pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    bottom, right = height - image.shape[0], width - image.shape[1]
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(_PAPER,) * 3)


def _text_strip(text: str, width: int) -> np.ndarray:
    """One line of text on white, shrunk where the width demands it."""
    strip = np.full((_TEXT_HEIGHT, width, 3), _PAPER, np.uint8)
    text = text.encode("ascii", "replace").decode()
    (natural, _), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    scale = 0.45 * min(1.0, (width - 4) / max(natural, 1))
    return cv2.putText(strip, text, (2, _TEXT_HEIGHT - 5), _FONT, scale, _INK, 1, cv2.LINE_AA)
