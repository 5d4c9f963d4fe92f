"""Labelled pictures in memory, as uint8 tensors."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from camlab.errors import UserError, cut, plain


class Pictures(Protocol):
    """Labelled pictures, in memory or on disk."""

    @property
    def labels(self) -> Tensor:
        """Class indices, int64, N; in a multi-label set ones for the labels of each picture, int64, N×M."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pictures in their data set, such as `cat/1.jpg`, N; empty if they have none."""

    @property
    def masks(self) -> Any:
        """The masks of the objects; None if there are none."""

    @property
    def in_memory(self) -> bool:
        """Whether the pictures are in memory, not on disk."""

    @property
    def num_bytes(self) -> int:
        """Memory that the pictures occupy, or would occupy, in bytes."""

    def __len__(self) -> int: ...

    def subset(self, index: Tensor) -> "ImageSet":
        """Return the pictures with the given indices, int64, in memory."""

    def part(self, index: Tensor) -> "Pictures":
        """Return the set of the pictures with the given indices, int64, which stay where they are."""

    def to(self, device: torch.device) -> "ImageSet":
        """Return all pictures in the memory of a device."""

    def batches(self, size: int) -> Iterator["ImageSet"]:
        """Yield the pictures in their order, `size` at a time."""

    def fingerprint(self) -> str:
        """Hash of the content, 16 hex digits."""


@dataclass(frozen=True)
class ImageSet:
    """Pictures with their classes and, if there are any, the masks of their objects.

    Attributes:
        images: Pictures, uint8 RGB, N×3×H×W.
        labels: Class indices, int64, N; in a multi-label set ones for the labels of each picture, int64, N×M.
        class_names: Names of the classes, all different, in the form that `camlab.errors.plain` gives them.
        masks: Masks, bool, N×H×W, True on the object; None if the set has no masks.

    Raises:
        UserError: Two classes have the same name.

    Example:
        >>> pictures = ImageSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("cat", "dog"))
        >>> pictures.subset(torch.tensor([2, 0])).labels
        tensor([1, 0])
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", plain_names(self.class_names))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Empty: the pictures have no names."""
        return ()

    @property
    def in_memory(self) -> bool:
        """True: the pictures are in memory."""
        return True

    def subset(self, index: Tensor) -> "ImageSet":
        """Return a copy of the pictures with the given indices, int64."""
        # index_select copies whole rows, which on a CPU is four times as fast as indexing
        masks = None if self.masks is None else self.masks.index_select(0, index)
        return replace(self, images=self.images.index_select(0, index), labels=self.labels[index], masks=masks)

    def part(self, index: Tensor) -> "ImageSet":
        """The same as `subset`: the pictures are in memory anyway."""
        return self.subset(index)

    def batches(self, size: int) -> Iterator["ImageSet"]:
        """Yield the pictures in their order, `size` at a time; they are views."""
        n = len(self)
        for rows in (slice(start, start + size) for start in range(0, n, size)):
            masks = None if self.masks is None else self.masks[rows]
            yield replace(self, images=self.images[rows], labels=self.labels[rows], masks=masks)

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), masks=masks)

    @property
    def num_bytes(self) -> int:
        """Memory that the set occupies, in bytes."""
        return self.images.nbytes + self.labels.nbytes + (0 if self.masks is None else self.masks.nbytes)

    def fingerprint(self) -> str:
        """Hash of the pictures, labels and class names, in their order: 16 hex digits."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for tensor in (self.images, self.labels):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]


def plain_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Convert names of classes with `camlab.errors.plain`.

    Raises:
        UserError: Two classes have the same name then.
    """
    names = tuple(map(plain, class_names))
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"Two classes of the data have the same name, {cut(twice[0])}. Give them different names.")
    return names


def stratified_split(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split the indices of images into two parts; each class has the same share in both, to within one image.

    Args:
        labels: Class indices, N, or ones for the labels of each picture, N×M.
        size: Size of the second part, 0 to N - 1.
        seed: Seed of the split, which no other random numbers influence.

    Returns:
        (rest, chosen): Indices of the two parts in ascending order, int64; len(chosen) == size.

    Raises:
        UserError: No images would be left to train on.

    Example:
        >>> rest, chosen = stratified_split(torch.tensor([0, 0, 0, 1, 1, 1]), size=2, seed=0)
        >>> len(rest), len(chosen)
        (4, 2)
    """
    n = len(labels)
    if size >= n:
        raise UserError(f"data.val_size={size}: there are only {n} training images. Give a smaller number.")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    if labels.dim() == 2:  # pictures with the same labels are taken for a class
        labels = torch.unique(labels, dim=0, return_inverse=True)[1]
    order = order[torch.argsort(labels[order], stable=True)]  # class by class, shuffled within a class
    # Every (n / size)-th image in that order is chosen, so each class contributes its share.
    picks = (torch.arange(size) * n + n // 2) // max(size, 1)
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[order[picks]] = True
    return torch.nonzero(~chosen).flatten(), torch.nonzero(chosen).flatten()
