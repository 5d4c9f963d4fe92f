"""Turn pictures into the data URLs that the page shows."""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from camlab.viewer.content import Picture

_SHARE = 0.25  # of the file's size, above which pictures are stored as JPEG
_QUALITY = 90


def encoded(pictures: Sequence[Picture], megabytes: float, as_jpeg: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The pictures as data URLs: JPEG if that is asked for, else lossless unless they would take too much of the file.

    Args:
        pictures: The pictures.
        megabytes: Largest size of the file.
        as_jpeg: Whether the pictures are photographs, which need not be lossless.

    Returns:
        What the page gets of each picture, and sentences on what was changed.
    """
    files = [_file(picture.image, ".jpg" if as_jpeg else ".png") for picture in pictures]
    kind, notes = "jpeg" if as_jpeg else "png", []
    if not as_jpeg and sum(map(len, files)) * 4 / 3 > _SHARE * megabytes * 1e6:
        files = [_file(picture.image, ".jpg") for picture in pictures]
        kind, notes = "jpeg", ["Pictures are stored as JPEG, to limit the size of this file."]
    return [
        {
            "name": picture.name,
            "width": picture.image.shape[1],
            "height": picture.image.shape[0],
            "image": f"data:image/{kind};base64,{base64.b64encode(file).decode()}",
            "mask": None if picture.mask is None else base64.b64encode(np.packbits(picture.mask).tobytes()).decode(),
        }
        for picture, file in zip(pictures, files, strict=True)
    ], notes


def space_of(picture: dict[str, Any]) -> int:
    """Characters that an encoded picture takes."""
    return len(picture["image"]) + len(picture["mask"] or "") + len(picture["name"])


def _file(image: np.ndarray, ending: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if ending == ".jpg" else []
    made: np.ndarray = cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    return made.tobytes()
