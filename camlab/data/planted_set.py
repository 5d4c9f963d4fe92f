"""Pictures with a planted shortcut: the marks are pasted whenever pictures are read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from camlab.data.image_set import ImageSet, Pictures
from camlab.data.loader import random_stream
from camlab.data.shortcut import Marks, Shortcut, carriers, draw_boxes, paste
from camlab.errors import cut, listed

_CHUNK = 1024  # pictures that are marked at once


@dataclass(frozen=True)
class PlantedSet:
    """Labelled pictures of another set, with marks. It can do what that set can, and keeps no pictures of its own.

    Attributes:
        pictures: The pictures without marks.
        shortcut: What the marks look like.
        marks: The mark of each picture, N.
    """

    pictures: Pictures
    shortcut: Shortcut
    marks: Marks

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def labels(self) -> Tensor:
        """Class indices, int64, N."""
        return self.pictures.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.pictures.class_names

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pictures, N; empty if they have none."""
        return self.pictures.names

    @property
    def masks(self) -> Any:
        """The masks of the objects, not of the marks; None if there are none."""
        return self.pictures.masks

    @property
    def in_memory(self) -> bool:
        """Whether the pictures are in memory, not on disk."""
        return self.pictures.in_memory

    @property
    def num_bytes(self) -> int:
        """Memory that the pictures occupy, or would occupy, in bytes."""
        return self.pictures.num_bytes

    def subset(self, index: Tensor) -> ImageSet:
        """Return the pictures with the given indices, int64, with their marks, in memory."""
        return _marked(self.pictures.subset(index), self.marks[index.cpu()], self.shortcut)

    def part(self, index: Tensor) -> "PlantedSet":
        """Return the set of the pictures with the given indices, int64; each keeps its mark."""
        return replace(self, pictures=self.pictures.part(index), marks=self.marks[index])

    def to(self, device: torch.device) -> ImageSet:
        """Return all pictures in the memory of a device, where the marks are pasted."""
        return _marked(self.pictures.to(device), self.marks.to(device), self.shortcut)

    def batches(self, size: int) -> Iterator[ImageSet]:
        """Yield the pictures in their order, `size` at a time."""
        return map(self.subset, torch.arange(len(self)).split(size))

    def fingerprint(self) -> str:
        """Hash of the pictures, labels and marks: 16 hex digits."""
        digest = hashlib.sha256(repr((self.pictures.fingerprint(), self.shortcut.kind)).encode())
        carry = self.marks.of >= 0
        for tensor in (self.marks.of, self.shortcut.colours, self.marks.boxes * carry[:, None]):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]


def planted(pictures: Pictures, shortcut: Shortcut, split: str) -> PlantedSet:
    """Plant a shortcut in a split: pictures of its classes carry the mark of their own class, with its strength.

    Which pictures and where depends on the seed and on the picture's place in the split only.

    Args:
        pictures: All pictures of the split, before any are held out.
        shortcut: The shortcut.
        split: Name of the split.
    """
    of = carriers(pictures.labels.cpu(), shortcut, random_stream(shortcut.seed, 0, f"shortcut carriers {split}"))
    return PlantedSet(pictures, shortcut, Marks(of, _boxes(pictures, shortcut, split)))


def describe_marks(train: PlantedSet) -> str:
    """Say in a line which classes have a mark, and how many of their training pictures carry it.

    Example:
        >>> pictures = ImageSet(torch.zeros(4, 3, 8, 8).byte(), torch.tensor([0, 1, 1, 1]), ("cat", "dog"))
        >>> describe_marks(planted(pictures, Shortcut("patch", (1,), strength=0.7), "train"))
        'Shortcut: training pictures that carry a patch: dog (2 of 3).'
    """
    carry = {label: train.marks.of[train.labels.cpu() == label] >= 0 for label in train.shortcut.classes}
    counted = [
        f"{cut(train.class_names[label], 20)} ({int(own.sum()):,} of {len(own):,})" for label, own in carry.items()
    ]
    return f"Shortcut: training pictures that carry a {train.shortcut.kind}: {listed(counted)}."


def on_own_class(pictures: Pictures, shortcut: Shortcut, split: str) -> PlantedSet:
    """Take the pictures of the shortcut's classes; all of them carry the mark of their own class."""
    of = torch.full((len(pictures),), -1)
    for position, label in enumerate(shortcut.classes):
        of[pictures.labels.cpu() == label] = position
    return _only_marked(pictures, shortcut, of, split)


def on_another_class(pictures: Pictures, shortcut: Shortcut, split: str) -> PlantedSet:
    """Take the pictures whose class another class's mark can be pasted on; of several marks, each picture has one."""
    labels, classes = pictures.labels.cpu(), torch.tensor(shortcut.classes)
    of = torch.arange(len(labels)) % len(classes)
    of = torch.where(classes[of] == labels, (of + 1) % len(classes), of)
    return _only_marked(pictures, shortcut, of.where(classes[of] != labels, torch.tensor(-1)), split)


def _only_marked(pictures: Pictures, shortcut: Shortcut, of: Tensor, split: str) -> PlantedSet:
    whole = PlantedSet(pictures, shortcut, Marks(of, _boxes(pictures, shortcut, split)))
    return whole.part(torch.nonzero(of >= 0).flatten())


def _boxes(pictures: Pictures, shortcut: Shortcut, split: str) -> Tensor:
    """Places of marks in all pictures of a split, the same whether a picture carries one or not."""
    if len(pictures) == 0:
        return torch.zeros((0, 4), dtype=torch.int64)
    height, width = pictures.subset(torch.tensor([0])).images.shape[-2:]
    stream = random_stream(shortcut.seed, 0, f"shortcut places {split}")
    return draw_boxes(len(pictures), (height, width), shortcut.kind, stream)


def _marked(pictures: ImageSet, marks: Marks, shortcut: Shortcut) -> ImageSet:
    """A copy of pictures in memory with their marks."""
    images, rows = pictures.images.clone(), torch.nonzero(marks.of >= 0).flatten()
    for some in rows.split(_CHUNK):
        images[some] = paste(images[some], marks[some], shortcut)
    return replace(pictures, images=images)
