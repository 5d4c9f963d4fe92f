"""Labelled pictures on disk, in a store of decoded pictures, of which only the batches are read into memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from camlab.data.image_set import ImageSet, plain_names
from camlab.data.picture_table import Picture
from camlab.storage.record_store import RecordStore

_CHUNK = 256  # pictures that are read at once when a whole set is copied


@dataclass(frozen=True)
class StoredMasks:
    """Masks of the objects in a store: one bit for each pixel.

    Attributes:
        store: The store.
        rows: Position of each picture's mask, int64, N; -1 for a picture without one.
        side: Side length of the masks, in pixels.
    """

    store: RecordStore
    rows: np.ndarray
    side: int

    def read(self, index: np.ndarray) -> Tensor:
        """Read masks, bool n×side×side; the mask of a picture without one is False everywhere."""
        rows = self.rows[index]
        bits = np.zeros((len(rows), self.store.record_bytes), np.uint8)
        there = rows >= 0
        read = bits[there]
        self.store.read(rows[there], read)
        bits[there] = read
        masks = np.unpackbits(bits, axis=1, count=self.side**2).astype(bool)
        return torch.from_numpy(masks.reshape(-1, self.side, self.side))


@dataclass(frozen=True)
class StoredSet:
    """Labelled pictures in a store. It can do what an `ImageSet` can, but keeps no pictures in memory.

    Attributes:
        store: The store of decoded pictures.
        rows: Position of each picture in the store, int64, N.
        side: Side length of the pictures, in pixels.
        labels: Class indices, int64, N; in a multi-label set ones for the labels of each picture, int64, N×M.
        class_names: Names of the classes, all different, in the form that `camlab.errors.plain` gives them.
        pictures: Where the pictures come from, N.
        masks: Masks of the objects; None if there are none.

    Raises:
        UserError: Two classes have the same name.
    """

    store: RecordStore
    rows: np.ndarray
    side: int
    labels: Tensor
    class_names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    masks: StoredMasks | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", plain_names(self.class_names))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pictures in their data set, such as `cat/1.jpg`, N."""
        return tuple(picture.name for picture in self.pictures)

    @property
    def in_memory(self) -> bool:
        """False: the pictures are on disk."""
        return False

    def subset(self, index: Tensor) -> ImageSet:
        """Read the pictures with the given indices, int64, into memory."""
        chosen = index.cpu().numpy()
        images = torch.empty((len(chosen), 3, self.side, self.side), dtype=torch.uint8)
        self.store.read(self.rows[chosen], images.numpy().reshape(len(chosen), self.store.record_bytes))
        masks = None if self.masks is None else self.masks.read(chosen)
        return ImageSet(images, self.labels[chosen], self.class_names, masks)

    def part(self, index: Tensor) -> "StoredSet":
        """Return the set of the pictures with the given indices, int64; they stay on disk."""
        chosen = index.numpy()
        masks = None if self.masks is None else replace(self.masks, rows=self.masks.rows[chosen])
        pictures = tuple(self.pictures[i] for i in chosen)
        return replace(self, rows=self.rows[chosen], labels=self.labels[index], pictures=pictures, masks=masks)

    def to(self, device: torch.device) -> ImageSet:
        """Read all pictures into the memory of a device."""
        n, has_masks = len(self), self.masks is not None
        images = torch.empty((n, 3, self.side, self.side), dtype=torch.uint8, device=device)
        masks = torch.empty((n, self.side, self.side), dtype=torch.bool, device=device) if has_masks else None
        start = 0
        for some in self.batches(_CHUNK):
            images[start : start + len(some)] = some.images
            if masks is not None and some.masks is not None:
                masks[start : start + len(some)] = some.masks
            start += len(some)
        return ImageSet(images, self.labels.to(device), self.class_names, masks)

    def batches(self, size: int) -> Iterator[ImageSet]:
        """Read the pictures in their order, `size` at a time."""
        return map(self.subset, torch.arange(len(self)).split(size))

    @property
    def num_bytes(self) -> int:
        """Memory that the set would occupy, in bytes."""
        return len(self) * (self.store.record_bytes + 8 + (0 if self.masks is None else self.side**2))

    def fingerprint(self) -> str:
        """Hash of the files' contents, their labels, class names and masks, and of how they are decoded: 16 digits."""
        digest = hashlib.sha256(repr((self.class_names, self.store.id)).encode())
        digest.update(self.store.keys(self.rows))
        digest.update(self.labels.numpy().data)
        if self.masks is not None:
            digest.update(self.masks.rows.__ge__(0).tobytes())
            digest.update(self.masks.store.keys(self.masks.rows[self.masks.rows >= 0]))
        return digest.hexdigest()[:16]
