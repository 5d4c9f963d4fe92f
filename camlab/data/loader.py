"""Loader that fetches whole batches by index from a set, usually in the memory of the training device.

The order of an epoch depends on the seed and the epoch only, and a flip on the seed, the epoch and the image only. A
resumed run, or a run on two ranks, therefore sees exactly the images that an uninterrupted single process would see.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from camlab.data.image_set import Pictures
from camlab.storage.ahead import map_ahead

_AHEAD = 3  # batches that a thread reads before they are needed


class Batch(NamedTuple):
    """The images that one rank processes in a step.

    Attributes:
        images: uint8, N×3×H×W, as they come from the loader. The data module's transfer hook turns them into the
            network's float input, except in batches with a head statistic, which may have no images. If training images
            are mixed, the loader's batch has one image more, with its label and index: the partner of the last one.
        labels: Class indices, int64, N; in a multi-label set ones for the labels of each picture, int64, N×M.
        image_idx: Positions of the images in their set, int64, N.
        global_size: Number of images in this step over all ranks, by which a loss summed over N must be divided.
        masks: Masks of the objects, bool, N×H×W; None if the set has no masks.
        head_statistic: Input of `Network.forward_head_statistic`. It replaces the images if the features of a frozen
            backbone are cached; else it is None.
        partner_labels: Labels of the images that the images are mixed with, N; None if they are not mixed.
        own_share: Each image's own share in its mixture, float32, N, at least 0.5 but for rounding; None
            without mixing.
    """

    images: Tensor
    labels: Tensor
    image_idx: Tensor
    global_size: int
    masks: Tensor | None = None
    head_statistic: Tensor | None = None
    partner_labels: Tensor | None = None
    own_share: Tensor | None = None


def random_stream(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Make a random generator that depends on (seed, epoch, purpose) only, not on other random numbers."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Order of n images in an epoch, the same for all ranks: a permutation, int64, n."""
    return torch.randperm(n, generator=random_stream(seed, epoch, "order"))


def epoch_flips(n: int, probability: float, seed: int, epoch: int) -> Tensor:
    """Whether each of n images is mirrored in an epoch, bool, n."""
    return torch.rand(n, generator=random_stream(seed, epoch, "flip")) < probability


def epoch_shifts(n: int, pixels: int, seed: int, epoch: int) -> Tensor:
    """Shift of each of n images in an epoch, down and right, from -pixels to pixels, int64, n×2."""
    return torch.randint(-pixels, pixels + 1, (n, 2), generator=random_stream(seed, epoch, "shift"))


class Loader:
    """Iterates over one rank's part of each global batch. Lightning saves and restores the position.

    Args:
        images: Set on the training device, or in main memory or on disk for `on_host=True`.
        batch_size: Size of a global batch, which the ranks divide among them. The last batch of an epoch may be
            smaller, and the parts may differ in size.
        shuffle: Whether each epoch has a new random order; otherwise the order is that of the set.
        seed: Seed of the random order.
        rank: Index of this process.
        world_size: Number of processes that share the work.
        on_host: Whether a thread fetches batches ahead; for sets that are too large for the device, or are on disk.
        pinned: Whether it fetches them into pinned memory, from which they are copied to a CUDA device faster.
        without_images: Whether the images are left out, because their cached features replace them.
        order: Function of the seed and the epoch that gives the order of a shuffled epoch, N indices; None for a
            permutation of all images.
        with_partner: Whether each share ends with one image more, the next one in the order of the epoch. The partner
            with which an image is mixed is the next one, and that of the epoch's last image is its first.
    """

    def __init__(
        self,
        images: Pictures,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        on_host: bool = False,
        pinned: bool = False,
        without_images: bool = False,
        order: Callable[[int, int], Tensor] | None = None,
        with_partner: bool = False,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.on_host = on_host
        self.pinned = pinned
        self.without_images = without_images
        self.order = order or functools.partial(epoch_order, len(images))
        self.with_partner = with_partner
        self.sampler = self  # Lightning calls `loader.sampler.set_epoch(epoch)` before each epoch
        self.batch_sampler = None  # Lightning reads this attribute as well
        self._epoch = 0
        self._start = 0
        self._position = 0

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # Lightning stops after len(self) batches and never exhausts this generator: no code may follow the last yield.
        self._position, self._start = self._start, 0
        for batch in self._fetch(self._global_batches()[self._position :]):
            self._position += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch = state["epoch"]
        self._start = state["position"] if state["position"] < len(self) else 0

    def _global_batches(self) -> list[Tensor]:
        n = len(self.images)
        order = self.order(self.seed, self._epoch) if self.shuffle else torch.arange(n)
        order = order if self.on_host else order.to(self.images.labels.device)
        if not self.with_partner:
            return list(order.split(self.batch_size))
        circle = torch.cat([order, order[:1]])
        return [circle[start : start + self.batch_size + 1] for start in range(0, n, self.batch_size)]

    def _fetch(self, global_batches: list[Tensor]) -> Iterator[Batch]:
        if not self.on_host:
            return map(self.fetch_share, global_batches)
        return map_ahead(self._fetch_for_transfer, global_batches, threads=1, ahead=_AHEAD)

    def _fetch_for_transfer(self, global_batch: Tensor) -> Batch:
        batch = self.fetch_share(global_batch)
        if not self.pinned:
            return batch
        pinned = {name: part.pin_memory() for name, part in batch._asdict().items() if isinstance(part, Tensor)}
        return batch._replace(**pinned)  # type: ignore[arg-type]

    def fetch_share(self, global_batch: Tensor) -> Batch:
        """Fetch this rank's part of a global batch.

        Args:
            global_batch: Indices of the images in the global batch, int64, and of the next one if `with_partner`.
        """
        size = len(global_batch) - self.with_partner
        index = global_batch[:size].tensor_split(self.world_size)[self.rank]
        if self.with_partner and len(index):
            end = sum(len(part) for part in global_batch[:size].tensor_split(self.world_size)[: self.rank + 1])
            index = global_batch[end - len(index) : end + 1]
        if self.without_images:
            return Batch(torch.empty(0), self.images.labels[index], index, size)
        share = self.images.subset(index)
        return Batch(share.images, share.labels, index, size, share.masks)
