"""Draw outlines as COCO gives them: polygons, and run-length codes, which are checked before anything is drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from camlab.errors import UserError, cut


def draw_outline(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Draw an outline: bool H×W, True on the object.

    Args:
        segmentation: A list of polygons [x, y, x, y, …] in pixels, or a dictionary with the picture's `size` [H, W] and
            `counts`: the lengths of the runs, column by column, as numbers or in COCO's compressed text.
        size: Width and height of the picture.

    Raises:
        ValueError: This is no outline of a picture of this size; the message says why.
        UserError: pycocotools, which draws polygons, is missing.

    Example:
        >>> draw_outline({"size": [2, 3], "counts": [2, 3, 1]}, (3, 2)).astype(int)
        array([[0, 1, 1],
               [0, 1, 0]])
    """
    if isinstance(segmentation, dict):
        return _of_runs(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it is neither a list of polygons nor a run-length code")
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon is not a list of at least three points x, y")
        check_place(polygon[::2], polygon[1::2], size)
    return _of_polygons(segmentation, size)


def check_place(x: Sequence[Any], y: Sequence[Any], size: tuple[int, int]) -> None:
    """Check the coordinates of points, before anything computes with them.

    Args:
        x: Their columns, in pixels.
        y: Their rows.
        size: Width and height of the picture.

    Raises:
        ValueError: One is no number or further away from the picture than it is wide or high, or all are shares.

    Example:
        >>> check_place([0.25, 0.5], [0, 1], (640, 480))
        Traceback (most recent call last):
        ValueError: its numbers are shares of the picture, from 0 to 1, not pixels
    """
    for values, side in ((x, size[0]), (y, size[1])):
        for value in values:
            if type(value) not in (int, float) or not -side <= value <= 2 * side:  # NaN fails, too
                raise ValueError(
                    f"{cut(str(value), 20)} is far outside of its picture, which has {size[0]}×{size[1]} pixels"
                )
    if are_shares([*x, *y]):
        raise ValueError("its numbers are shares of the picture, from 0 to 1, not pixels")


def are_shares(values: Sequence[float]) -> bool:
    """Whether coordinates are shares of a picture: they are between 0 and 1, and not all of them whole.

    Example:
        >>> are_shares([0, 0, 0.5, 1]), are_shares([0, 0, 1, 1]), are_shares([0, 0, 2.5, 1])
        (True, False, False)
    """
    return all(0 <= value <= 1 for value in values) and any(value % 1 for value in values)


def _of_polygons(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise UserError(
            "data.annotations: outlines in COCO's format need pycocotools. Run: pip install camlab[coco]"
        ) from error
    width, height = size
    codes = coco.frPyObjects(polygons, height, width)
    return np.asarray(coco.decode(coco.merge(codes))).astype(bool)


def _of_runs(code: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    width, height = size
    counts = code.get("counts")
    if code.get("size") != [height, width]:
        raise ValueError(f"it is for {cut(str(code.get('size')))} pixels, its picture has {[height, width]}")
    if isinstance(counts, str):
        counts = _uncompressed(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("its runs are not whole numbers from 0")
    if sum(counts) != width * height:
        raise ValueError(f"its runs have {cut(str(sum(counts)), 20)} pixels, its picture has {width * height}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Lengths of the runs of COCO's compressed text: 5 bits in each letter, from the third on less the last but one.

    Example:
        >>> _uncompressed("231")
        [2, 3, 1]
    """
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its compressed runs are damaged")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits & 16) and 1 << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("its compressed runs end too early")
    return counts
