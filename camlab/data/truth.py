"""Where the object is in a picture: a mask in a file, or boxes and outlines from an annotation."""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from camlab.data.sources import Source
from camlab.errors import UserError, first_line

Box = tuple[float, float, float, float]


class Truth(Protocol):
    """What says where the object is."""

    def read(self, size: tuple[int, int]) -> tuple[bytes, bytes]:
        """Read what the mask is drawn from.

        Args:
            size: Width and height of the picture.

        Returns:
            A hash of 32 bytes that the mask depends on, and the content of the file, if there is one.
        """

    def draw(self, content: bytes, size: tuple[int, int]) -> Image.Image:
        """Draw the mask, mode L, 255 on the object, in the picture's size."""


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """A mask as a picture of the same size: 0 is background, all other values are the object.

    In a JPEG, whose compression changes values, the object is what is brighter than 127.
    """

    source: Source

    def read(self, size: tuple[int, int]) -> tuple[bytes, bytes]:
        try:
            content = self.source.read()
        except OSError as error:
            raise UserError(f"{self.source.id}: the mask cannot be read ({error.strerror}).") from error
        return hashlib.sha256(b"mask" + content).digest(), content

    def draw(self, content: bytes, size: tuple[int, int]) -> Image.Image:
        try:
            with Image.open(io.BytesIO(content)) as file:
                least = 127 if file.format == "JPEG" else 0
                values = np.asarray(ImageOps.exif_transpose(file))
        except Exception as error:  # a damaged picture can raise any exception
            raise UserError(
                f"{self.source.id}: the mask is not a readable picture ({type(error).__name__})."
            ) from error
        values = values if values.ndim == 2 else values[..., :3].max(axis=2)  # a fourth channel is transparency
        height, width = values.shape
        if (width, height) != size:
            raise UserError(
                f"{self.source.id}: the mask is {width}×{height} pixels, but its picture {size[0]}×{size[1]}."
            )
        return Image.fromarray((values > least).astype(np.uint8) * 255)


@dataclass(frozen=True, slots=True)
class Outlines:
    """Boxes and outlines of objects in a picture.

    Attributes:
        boxes: Boxes (left, top, right, bottom) in pixels; right and bottom are exclusive.
        segmentations: Outlines as COCO gives them, each as text in JSON: polygons, or a run-length code.
    """

    boxes: tuple[Box, ...] = ()
    segmentations: tuple[str, ...] = ()

    def read(self, size: tuple[int, int]) -> tuple[bytes, bytes]:
        return hashlib.sha256(repr((self.boxes, self.segmentations, size)).encode()).digest(), b""

    def draw(self, content: bytes, size: tuple[int, int]) -> Image.Image:
        mask = Image.new("L", size)
        pen = ImageDraw.Draw(mask)
        for left, top, right, bottom in self.boxes:
            if left < right and top < bottom:
                pen.rectangle((round(left), round(top), round(right) - 1, round(bottom) - 1), fill=255)
        for text in self.segmentations:
            mask.paste(255, mask=Image.fromarray(_decoded(json.loads(text), size)))
        return mask


def _decoded(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Draw an outline of COCO's: uint8 H×W, 255 on the object."""
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise UserError(
            "data.annotations: outlines in COCO's format need pycocotools. Run: pip install camlab[coco]"
        ) from error
    width, height = size
    try:
        if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
            code = coco.frPyObjects(segmentation, height, width)
        elif isinstance(segmentation, dict):
            code = segmentation
        else:
            code = coco.merge(coco.frPyObjects(segmentation, height, width))
        if list(code["size"]) != [height, width]:
            raise UserError(f"data.annotations: an outline is for {code['size']} pixels, its picture {height, width}.")
        return np.asarray(coco.decode(code)) * np.uint8(255)
    except UserError:
        raise
    except Exception as error:  # pycocotools raises any exception
        raise UserError(f"data.annotations: an outline cannot be read ({first_line(error)}).") from error
