"""Turn pictures into the data URLs that the page shows."""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from camlab.viewer.content import Picture

_SHARE = 0.25  # of the file's size, above which pictures are stored as JPEG
_QUALITY = 90
_SMALL = 100  # pixels of the shorter side


def encoded(pictures: Sequence[Picture], megabytes: float, as_jpeg: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The pictures as data URLs: JPEG if that is asked for, else lossless unless they would take too much of the file.

    Small pictures, whose pixels the page enlarges, are lossless unless they would take too much.

    Args:
        pictures: The pictures.
        megabytes: Largest size of the file.
        as_jpeg: Whether the pictures are photographs, which need not be lossless.

    Returns:
        What the page gets of each picture, and sentences on what was changed.
    """
    kinds = ["jpeg" if as_jpeg and min(picture.image.shape[:2]) > _SMALL else "png" for picture in pictures]
    files = [_file(picture.image, kind) for picture, kind in zip(pictures, kinds, strict=True)]
    if (
        sum(len(file) for file, kind in zip(files, kinds, strict=True) if kind == "png") * 4 / 3
        > _SHARE * megabytes * 1e6
    ):
        kinds = ["jpeg"] * len(pictures)
        files = [_file(picture.image, "jpeg") for picture in pictures]
    notes = ["Pictures are stored as JPEG, to limit the size of this file."] if "jpeg" in kinds else []
    return [
        {
            "name": picture.name,
            "width": picture.image.shape[1],
            "height": picture.image.shape[0],
            "image": f"data:image/{kind};base64,{base64.b64encode(file).decode()}",
            "mask": None if picture.mask is None else base64.b64encode(np.packbits(picture.mask).tobytes()).decode(),
        }
        for picture, file, kind in zip(pictures, files, kinds, strict=True)
    ], notes


def space_of(picture: dict[str, Any]) -> int:
    """Characters that an encoded picture takes."""
    return len(picture["image"]) + len(picture["mask"] or "") + len(picture["name"])


def _file(image: np.ndarray, kind: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if kind == "jpeg" else []
    made: np.ndarray = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    return made.tobytes()
