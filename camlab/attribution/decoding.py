"""Decode picture files in threads, ahead of the network and in bounded memory."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from camlab.attribution.results import Source
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.storage.pictures import count_pixels, distinct_names, read_picture

log = logging.getLogger(__name__)

_LONGEST_SIDE = 65_500  # pixels: the most that a JPEG can have
_BATCH_PIXELS = 64_000_000  # of one batch; with one batch being drawn and one decoded ahead, this takes 0.6 GB


@dataclass(frozen=True)
class DecodedPicture:
    """A picture in memory.

    Attributes:
        source: Where it comes from.
        whole: The upright picture, RGB.
        square: What the network sees, uint8 S×S×3.
    """

    source: Source
    whole: Image.Image
    square: np.ndarray


def decode_batches(
    files: Sequence[Path], batch_size: int, preprocess: Preprocess, pool: ThreadPoolExecutor, broken: list[str]
) -> Iterator[list[DecodedPicture]]:
    """Decode pictures batch by batch; the next batch is decoded while the caller works on the current one.

    Args:
        files: Paths of the pictures.
        batch_size: Largest number of pictures in a batch; a batch of large pictures has fewer.
        preprocess: Preparation of the network's input.
        pool: Threads that decode.
        broken: List to which a message is added for each picture that cannot be read and is left out.
    """
    ahead: list[list[Future[DecodedPicture]]] = []
    names = distinct_names(files)
    for group in itertools.chain(_groups(files, batch_size), [[]]):
        ahead.append([pool.submit(_decode, number, path, names[number], preprocess) for number, path in group])
        if len(ahead) < 2:
            continue
        batch = []
        for future in ahead.pop(0):
            try:
                batch.append(future.result())
            except UserError as error:
                broken.append(str(error))
                log.warning("Skipped: %s", error)
        if batch:
            yield batch


def _decode(number: int, path: Path, name: str, preprocess: Preprocess) -> DecodedPicture:
    whole = read_picture(path)
    if max(whole.size) > _LONGEST_SIDE:
        raise UserError(
            f"{path} is {whole.width}×{whole.height}; overlays can have at most {_LONGEST_SIDE:,} pixels a side."
        )
    source = Source(path, name, number, whole.size, preprocess.visible_box(*whole.size))
    return DecodedPicture(source, whole, preprocess.prepare(whole))


def _groups(files: Sequence[Path], batch_size: int) -> Iterator[list[tuple[int, Path]]]:
    """Numbered files in groups of at most `batch_size` files and `_BATCH_PIXELS` pixels; a larger picture is alone."""
    group: list[tuple[int, Path]] = []
    pixels = 0
    for number, path in enumerate(files):
        own = count_pixels(path)
        if group and (len(group) == batch_size or pixels + own > _BATCH_PIXELS):
            yield group
            group, pixels = [], 0
        group.append((number, path))
        pixels += own
    yield group
