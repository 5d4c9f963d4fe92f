"""Read masks of objects from picture files, by one rule for all formats."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from camlab.errors import UserError

_LOSSY = frozenset(["JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"])  # formats whose compression changes values
_HALF = 127


def decode_mask(content: bytes, name: str) -> np.ndarray:
    """Decode a mask: the object is what is not black.

    Where the picture is transparent is background; apart from that, alpha does not count. A palette counts by its
    colours, but if its first colour is black, every other entry is the object, whatever its colour. Compression changes
    values, so in JPEG, WebP, JPEG 2000 and AVIF the object is what is brighter than 127 in one channel. EXIF turns are
    applied.

    Args:
        content: The file's content.
        name: What the mask is called in messages.

    Returns:
        bool H×W, True on the object.

    Raises:
        UserError: This is not a picture, or its format changes values and it is nowhere brighter than 127, but not
            black, so that nobody knows what the object is.

    Example:
        >>> file = io.BytesIO()
        >>> Image.merge("LA", [Image.new("L", (2, 1), 2), Image.new("L", (2, 1), 255)]).save(file, "png")
        >>> decode_mask(file.getvalue(), "x_mask.png")
        array([[ True,  True]])
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            lossy = file.format in _LOSSY or file.info.get("compression") == "jpeg"
            upright = ImageOps.exif_transpose(file)
            values, visible = _brightness(upright), _visible(upright)
    except Exception as error:  # a damaged picture can raise any exception
        raise UserError(f"{name}: the mask is not a readable picture ({type(error).__name__}).") from error
    if lossy and 0 < values.max() <= _HALF:
        raise UserError(
            f"{name}: the mask has values up to {values.max()} only, which its compression may have changed. Save it"
            " white on black, or as PNG."
        )
    return (values > (_HALF if lossy else 0)) & visible


def read_mask(path: Path) -> np.ndarray:
    """Read a mask from a file, as `decode_mask` does.

    Raises:
        UserError: As for `decode_mask`, or the file cannot be read.
    """
    if not path.is_file():  # reading a pipe would wait for a writer, and a device may never end
        raise UserError(f"{path} is not a file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the mask cannot be read ({error.strerror}).") from error
    return decode_mask(content, path.name)


def _brightness(picture: Image.Image) -> np.ndarray:
    """The largest colour channel, H×W; of a palette that begins with black, its indices."""
    if picture.mode == "P" and _first_colour(picture) == (0, 0, 0):
        return np.asarray(picture)
    if len(picture.getbands()) == 1 and picture.mode != "P":
        return np.asarray(picture)  # grey, also of 16 bits or more
    return np.asarray(picture.convert("RGB")).max(axis=2)


def _first_colour(picture: Image.Image) -> tuple[int, ...]:
    return tuple((picture.getpalette("RGB") or [0, 0, 0])[:3])


def _visible(picture: Image.Image) -> np.ndarray:
    """Where the picture is not transparent, bool H×W."""
    if "A" in picture.getbands() or "transparency" in picture.info:
        return np.asarray(picture.convert("RGBA").getchannel("A")) > 0
    return np.ones((picture.height, picture.width), bool)
