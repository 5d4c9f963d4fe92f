"""The pictures that are scored, with what is known about their objects."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from camlab.data.image_set import Pictures
from camlab.errors import UserError, plain


@dataclass(frozen=True)
class PictureSet:
    """Pictures with their true classes, masks and boxes, as far as they are known.

    Attributes:
        images: Pictures, uint8 RGB, N×3×H×W.
        names: Names of the pictures in tables, N.
        numbers: Numbers of the pictures in the set that they are taken from, int64, N.
        place: Where they come from, in one short phrase.
        labels: True classes, int64, N; None if they are unknown.
        masks: Masks of the objects, bool, N×H'×W'; empty where a picture has none; None if no picture has one.
        boxes: Boxes of the objects in pixels of the masks (top, left, bottom, right), N×B×4, filled with zeros; None if
            they are those around the masks.
        notes: What the reader of a table has to know about the set, one sentence each.
        skipped: A message for each picture that could not be read.
    """

    images: Tensor
    names: tuple[str, ...]
    numbers: Tensor
    place: str
    labels: Tensor | None = None
    masks: Tensor | None = None
    boxes: Tensor | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def some(self, rows: Sequence[int]) -> "PictureSet":
        """Return the same set with some of its pictures, given by their positions, without notes."""
        chosen = list(rows)
        labels, masks, boxes = (None if of is None else of[chosen] for of in (self.labels, self.masks, self.boxes))
        names = tuple(self.names[i] for i in chosen)
        return PictureSet(self.images[chosen], names, self.numbers[chosen], self.place, labels, masks, boxes)

    def fingerprint(self) -> str:
        """Hash of the pictures and of what is known about them, 16 hex digits."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.numbers, self.labels, self.masks, self.boxes):
            digest.update(b"none" if tensor is None else repr((tensor.dtype, tuple(tensor.shape))).encode())
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def spread(total: int, n: int) -> list[int]:
    """Choose n of `total` pictures, evenly spread, so that folders sorted by class are represented alike.

    Example:
        >>> spread(10, 4), spread(3, 5)
        ([0, 2, 5, 7], [0, 1, 2])
    """
    n = min(n, total)
    return [i * total // n for i in range(n)]


def of_split(images: Pictures, n: int, place: str) -> PictureSet:
    """Take n pictures of a data set's split; masks that are empty count as missing.

    Args:
        images: The split.
        n: Number of pictures; a number above that of the split takes all of them, and a note says so.
        place: Name of the data and the split.

    Raises:
        UserError: The split is empty.
    """
    if len(images) == 0:
        raise UserError(f"{place}: there are no pictures to score.")
    numbers = torch.tensor(spread(len(images), n))
    chosen = images.subset(numbers)
    names = tuple(plain(images.names[number]) if images.names else str(number) for number in numbers.tolist())
    masks = None if chosen.masks is None or not chosen.masks.any() else chosen.masks.bool()
    return PictureSet(
        chosen.images, names, numbers, place, chosen.labels, masks, notes=notes_on(len(images), n, len(numbers), masks)
    )


def notes_on(total: int, asked: int, n: int, masks: Tensor | None) -> tuple[str, ...]:
    """Sentences about the number of pictures and about masks that are missing, empty or full."""
    there = "is" if total == 1 else "are"
    notes = [f"{asked} pictures were asked for, but there {there} only {total}."] if asked > total else []
    if masks is None:
        return (*notes, "There are no masks, so it is not scored where the heat is.")
    flat = masks.flatten(1)
    absent, full = int((~flat.any(dim=1)).sum()), int(flat.all(dim=1).sum())
    if absent:
        has = "has" if absent == 1 else "have"
        notes.append(f"{absent} of {n} pictures {has} no mask or an empty one; only the others tell where the heat is.")
    if full:
        cover = "covers" if full == 1 else "cover"
        notes.append(f"{full} of {n} masks {cover} the whole picture, which leaves nothing to tell apart.")
    return tuple(notes)
