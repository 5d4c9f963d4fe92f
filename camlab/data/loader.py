"""Loader of whole batches by index: a set that lives on the device is never copied or decoded again.

The order of an epoch is a pure function of (seed, epoch), and a flip is one of (seed, epoch, image). A resumed run, or
the same run on two ranks, therefore sees exactly the images that an uninterrupted single process would have seen.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from camlab.data.image_set import ImageSet


class Batch(NamedTuple):
    """One rank's share of a step.

    Attributes:
        images: uint8 N×3×H×W from the loader. The data module's transfer hook makes the network's float input of them,
            except in batches with a head statistic.
        labels: Class indices, int64, N.
        image_idx: Positions of the images in their set, int64, N.
        global_size: Number of images in this step over all ranks; a loss summed over N must be divided by it.
        masks: Masks of the objects, bool, N×H×W; None where they are unknown.
        head_statistic: Input of `CamNet.forward_head_statistic`, which replaces the images where a frozen backbone's
            features are cached; else None.
    """

    images: Tensor
    labels: Tensor
    image_idx: Tensor
    global_size: int
    masks: Tensor | None = None
    head_statistic: Tensor | None = None


def random_stream(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """A generator for (seed, epoch, purpose) alone, whatever else has drawn random numbers."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Permutation of n images that all ranks share in an epoch, int64, N."""
    return torch.randperm(n, generator=random_stream(seed, epoch, "order"))


def epoch_flips(n: int, probability: float, seed: int, epoch: int) -> Tensor:
    """Which of n images are mirrored in an epoch, bool, N."""
    return torch.rand(n, generator=random_stream(seed, epoch, "flip")) < probability


def epoch_shifts(n: int, pixels: int, seed: int, epoch: int) -> Tensor:
    """Pixels that each of n images is moved down and right in an epoch, -pixels to pixels, int64, N×2."""
    return torch.randint(-pixels, pixels + 1, (n, 2), generator=random_stream(seed, epoch, "shift"))


class Loader:
    """Iterates over one rank's share of each global batch; Lightning saves and restores its position.

    Args:
        images: Set on the training device, or on the host for `on_host=True`.
        batch_size: Global size, which the ranks divide. An epoch's last batch may be smaller, and shares uneven.
        shuffle: Draw a new order for each epoch; otherwise the set's own order.
        seed: Seed of the order.
        rank: Index of this process.
        world_size: Number of processes that share the work.
        on_host: Fetch through a torch DataLoader with pinned memory, for sets too large for the device.
        num_workers: Number of processes of that DataLoader.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        on_host: bool = False,
        num_workers: int = 0,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.on_host = on_host
        self.num_workers = num_workers
        self.sampler = self  # Lightning calls `loader.sampler.set_epoch(epoch)` before each epoch
        self.batch_sampler = None  # Lightning reads this attribute as well
        self._epoch = 0
        self._start = 0
        self._position = 0

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # Lightning stops at len(self) and never exhausts this generator: nothing may follow the last yield.
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
        order = epoch_order(n, self.seed, self._epoch) if self.shuffle else torch.arange(n)
        return list((order if self.on_host else order.to(self.images.labels.device)).split(self.batch_size))

    def _fetch(self, global_batches: list[Tensor]) -> Iterator[Batch]:
        if not self.on_host:
            return map(self.fetch_share, global_batches)
        pin = torch.cuda.is_available()
        return iter(
            DataLoader(
                _Shares(self),  # type: ignore[arg-type]
                batch_sampler=global_batches,  # type: ignore[arg-type]
                collate_fn=lambda share: share,
                num_workers=self.num_workers,
                pin_memory=pin,
                generator=torch.Generator(),  # its own, so that making an iterator draws nothing from the global one
            )
        )

    def fetch_share(self, global_batch: Tensor) -> Batch:
        """This rank's part of a global batch, which is given by its indices, int64, N."""
        index = global_batch.tensor_split(self.world_size)[self.rank]
        share = self.images.subset(index)
        return Batch(share.images, share.labels, index, len(global_batch), share.masks)


class _Shares:
    """A loader in the form of a torch dataset that returns whole batches."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader.images)

    def __getitems__(self, global_batch: Tensor) -> Batch:
        return self.loader.fetch_share(global_batch)
