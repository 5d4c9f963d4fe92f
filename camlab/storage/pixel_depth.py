"""Scale pictures of more than 8 bits to 8 bits.

Cameras and scanners store values of 10, 12 or 14 bits in files of 16 bits. White is then, for instance, 4095 instead of
65535. The value of white is taken

1. from the file, if it states the number of significant bits: in a PNG's `sBIT` (if a value has more bits than stated,
   the values were scaled to 16 bits, as the standard asks); in a TIFF's `MaxSampleValue`, or in `BitsPerSample` if that
   is less than 16; in a PNM's header;
2. otherwise from the values, as the largest number of as few bits (8, 10, 12, 14, 16, 24 or 32) as can hold the highest
   value; for floating-point values of at most 1, white is 1.

The second rule is a guess, made for each file on its own: a dark picture of 12 bits without a value above 1023 is taken
for a picture of 10 bits and becomes four times as bright. Of TIFFs with three channels of 16 bits, and of PNGs with
such channels and transparency, Pillow reads only the higher 8 bits; for these files 16 significant bits are assumed.
"""

import struct
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

_MAX_SAMPLE_VALUE, _BITS_PER_SAMPLE = 281, 258  # tags of TIFF
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits


def is_deep(picture: Image.Image) -> bool:
    """Whether an opened picture has one channel of more than 8 bits."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;")


def is_deep_rgb(picture: Image.Image) -> bool:
    """Whether an opened picture is a PNG with three channels of 16 bits, of which Pillow reads only the higher 8."""
    if not isinstance(picture, PngImageFile) or "transparency" in picture.info:
        return False
    return picture.tile[0].args == "RGB;16B"


def to_8_bits(picture: Image.Image, stated: int | None) -> Image.Image:
    """Scale a picture with one channel of more than 8 bits to 8 bits.

    Args:
        picture: The picture; negative, infinite and not-a-number values become black.
        stated: Number of significant bits that the file states; None if it states none.
    """
    values = np.asarray(picture, np.float32)
    return _scale(np.where(np.isfinite(values), values, 0), stated, picture.mode == "F")


def deep_rgb(source: Path | BinaryIO) -> Image.Image:
    """Read a PNG with three channels of 16 bits, upright and scaled to 8 bits."""
    halves = []
    for raw_mode in ("RGB;16B", "RGB;16L"):  # Pillow keeps the first byte of each value, then the second
        with Image.open(source) as file:
            file.tile = [tile._replace(args=raw_mode) for tile in file.tile]
            halves.append(np.asarray(ImageOps.exif_transpose(file), np.float32))
    return _scale(256 * halves[0] + halves[1], _png_significant_bits(source), False)


def stated_bits(source: Path | BinaryIO, picture: Image.Image) -> int | None:
    """Return the number of significant bits that a picture's file states; None if it states none."""
    if picture.format == "PNG":
        return _png_significant_bits(source)
    if picture.format == "PPM":  # Pillow scales its values to 16 bits
        return 16
    if picture.format == "TIFF":
        tags = getattr(picture, "tag_v2", {})
        highest, bits = (int(np.max(tags.get(tag, 0))) for tag in (_MAX_SAMPLE_VALUE, _BITS_PER_SAMPLE))
        return highest.bit_length() if highest > 1 else bits if 8 < bits < 16 else None
    return None


def white_value(highest: float, stated: int | None, is_fraction: bool) -> float:
    """Return the value that becomes white.

    Args:
        highest: The highest value of the picture.
        stated: Number of significant bits that the file states; None if it states none.
        is_fraction: Whether values up to 1 are fractions of white, as those of floating-point pictures are.

    Example:
        >>> white_value(3000, None, False), white_value(900, 12, False), white_value(0.7, None, True)
        (4095.0, 4095.0, 1.0)
    """
    if is_fraction and highest <= 1:
        return 1.0
    depths = (stated or 8, *(bits for bits in _DEPTHS if bits >= (16 if stated else 8)))
    return next((float(2**bits - 1) for bits in depths if highest < 2**bits), highest)


def _scale(values: np.ndarray, stated: int | None, is_fraction: bool) -> Image.Image:
    white = white_value(float(values.max(initial=0)), stated, is_fraction)
    return Image.fromarray((values.clip(0, white) * (255 / white) + 0.5).astype(np.uint8))


def _png_significant_bits(source: Path | BinaryIO) -> int | None:
    """The highest entry of the chunk `sBIT`, which comes before the pixels; None if the file has no such chunk."""
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            if name == b"sBIT":
                bits = max(file.read(min(length, 4)), default=0)
                return bits if 0 < bits <= 16 else None
            if name in (b"IDAT", b"IEND"):
                return None
            file.seek(length + 4, 1)
    return None
