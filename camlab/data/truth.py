"""Where the object is in a picture: a mask in a file, or boxes and outlines from an annotation."""

import hashlib
import json
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from camlab.data.coco_outlines import check_place, draw_outline
from camlab.data.sources import Source
from camlab.errors import UserError
from camlab.storage.mask_pictures import decode_mask

Box = tuple[float, float, float, float]


class Truth(Protocol):
    """What says where the object is."""

    def read(self, size: tuple[int, int]) -> tuple[bytes, bytes]:
        """Read what the mask is drawn from.

        Args:
            size: Width and height of the picture.

        Returns:
            A hash of 32 bytes that the mask depends on, and the content of the file, if there is one.

        Raises:
            UserError: The mask is not one of this picture. Messages name the mask, but not the picture.
        """

    def draw(self, content: bytes, size: tuple[int, int]) -> Image.Image:
        """Draw the mask, mode L, 255 on the object, in the picture's size.

        Raises:
            UserError: The mask cannot be drawn. Messages name the mask, but not the picture.
        """


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """A mask as a picture of the same size, read as `camlab.storage.mask_pictures` describes."""

    source: Source

    def read(self, size: tuple[int, int]) -> tuple[bytes, bytes]:
        try:
            content = self.source.read()
        except OSError as error:
            raise UserError(f"{self.source.id}: the mask cannot be read ({error.strerror}).") from error
        return hashlib.sha256(b"mask 2" + content).digest(), content

    def draw(self, content: bytes, size: tuple[int, int]) -> Image.Image:
        mask = decode_mask(content, self.source.id)
        height, width = mask.shape
        if (width, height) != size:
            raise UserError(
                f"{self.source.id}: the mask is {width}×{height} pixels, but its picture {size[0]}×{size[1]}."
            )
        return Image.fromarray(mask.astype(np.uint8) * 255)


@dataclass(frozen=True, slots=True)
class Outlines:
    """Boxes and outlines of objects in a picture.

    Attributes:
        boxes: Boxes (left, top, right, bottom) in pixels; right and bottom are exclusive.
        segmentations: Outlines as COCO gives them, each as text in JSON: polygons, or a run-length code.
        stated: Width and height that the annotation states of the picture; None if it states none.
    """

    boxes: tuple[Box, ...] = ()
    segmentations: tuple[str, ...] = ()
    stated: tuple[int, int] | None = None

    def read(self, size: tuple[int, int]) -> tuple[bytes, bytes]:
        if self.stated is not None and self.stated != size:
            (width, height), (own_width, own_height) = self.stated, size
            turned = " once it is turned as its EXIF data say" if self.stated == size[::-1] else ""
            raise UserError(
                f"its annotation is for {width}×{height} pixels, but the picture has {own_width}×{own_height}{turned}."
            )
        return hashlib.sha256(repr((self.boxes, self.segmentations, size)).encode()).digest(), b""

    def draw(self, content: bytes, size: tuple[int, int]) -> Image.Image:
        mask = Image.new("L", size)
        pen = ImageDraw.Draw(mask)
        for box in self.boxes:
            left, top, right, bottom = _rounded(box, size)
            pen.rectangle((left, top, right - 1, bottom - 1), fill=255)
        for text in self.segmentations:
            try:
                outline = draw_outline(json.loads(text), size)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(f"an outline cannot be drawn: {error}.") from error
            mask.paste(255, mask=Image.fromarray(outline.astype(np.uint8) * 255))
        return mask


def _rounded(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Round a box to whole pixels, at least one, and cut off what is outside of the picture.

    Raises:
        UserError: All of it is outside, or its numbers are not pixels of this picture.
    """
    left, top, right, bottom = box
    try:
        check_place(box[::2], box[1::2], size)
    except ValueError as error:
        raise UserError(f"a box cannot be drawn: {error}.") from error
    if left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0:
        place = f"{left:g} {top:g} {right:g} {bottom:g}"
        raise UserError(f"the box {place} is outside of its picture, which has {size[0]}×{size[1]} pixels.")
    x, y = (min(max(round(low), 0), side - 1) for low, side in ((left, size[0]), (top, size[1])))
    return x, y, max(min(round(right), size[0]), x + 1), max(min(round(bottom), size[1]), y + 1)
