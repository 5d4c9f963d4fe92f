"""The data module: loads a set, splits it, keeps it on the training device and prepares batches there."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import lightning as L
import torch
from torch import Tensor

from camlab.data.image_set import ImageSet, stratified_split
from camlab.data.loader import Batch, Loader, epoch_flips
from camlab.data.preprocess import Preprocess, flip_where
from camlab.errors import UserError

Placement = Literal["auto", "device", "host"]
Split = Literal["train", "val", "test"]


class ImageData(L.LightningDataModule, ABC):
    """Train, validation and test images of one source; a source is a subclass with a `load` method.

    Args:
        name: what the set is called in runs' names.
        image_size: side of the network's input, in pixels.
        mean, std: normalisation per channel, of values in [0, 1].
        flip: probability of a horizontal flip in training.
        batch_size: global, over all ranks.
        val_size: images taken out of the training set for validation, stratified; 0 trains on all of them.
        split_seed: of that split, apart from `seed`.
        seed: of the order and the flips.
        placement: keep the set on the `device`, on the `host`, or decide by its size (`auto`: at most half the free
            memory of a GPU).
        num_workers: processes that fetch batches from the host; only for a set kept there.
        test_each_epoch: validate on the test set, too, to draw its curve. It selects nothing.
    """

    def __init__(
        self,
        name: str = "",
        image_size: int = 224,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        flip: float = 0.5,
        batch_size: int = 128,
        val_size: int = 5000,
        split_seed: int = 0,
        seed: int = 0,
        placement: Placement = "auto",
        num_workers: int = 0,
        test_each_epoch: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.preprocess = Preprocess(image_size, tuple(mean), tuple(std))
        self.flip = flip
        self.batch_size = batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.seed = seed
        self.placement = placement
        self.num_workers = num_workers
        self.test_each_epoch = test_each_epoch
        self.test_split: Split = "test"  # what a test counts; an evaluation may choose another
        self.splits: dict[Split, ImageSet] = {}
        self._on_device: dict[Split, ImageSet] = {}
        self._flips: tuple[int, Tensor] | None = None

    @abstractmethod
    def load(self) -> tuple[ImageSet, ImageSet]:
        """The whole training set and the test set, on the host.

        Raises:
            UserError: nothing there, or not what it should be.
        """

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.splits["train"].class_names

    @property
    def validation_splits(self) -> tuple[Split, ...]:
        """What is looked at after every epoch, one name per validation loader."""
        wanted: list[tuple[Split, bool]] = [("val", self.val_size > 0), ("test", self.test_each_epoch)]
        return tuple(split for split, used in wanted if used)

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        train, test = self.load()
        rest, chosen = stratified_split(train.labels, self.val_size, self.split_seed)
        self.splits = {"train": train.subset(rest), "test": test} if self.val_size else {"train": train, "test": test}
        if self.val_size:
            self.splits["val"] = train.subset(chosen)

    def fingerprint(self) -> str:
        """Hash of all splits' content."""
        return "-".join(self.splits[split].fingerprint() for split in sorted(self.splits))

    def train_dataloader(self) -> Loader:
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> list[Loader]:
        return [self.loader(split) for split in self.validation_splits]

    def test_dataloader(self) -> Loader:
        return self.loader(self.test_split)

    def loader(self, split: Split, shuffle: bool = False) -> Loader:
        """Batches of a split for this process, from the device unless the set is kept on the host.

        Raises:
            UserError: no such split.
        """
        if split not in self.splits:
            raise UserError(f"split={split}: with data.val_size=0 there is none; choose train or test.")
        trainer, on_host = self.trainer, self._keep_on_host()
        assert trainer is not None
        if not on_host and split not in self._on_device:
            self._on_device[split] = self.splits[split].to(trainer.strategy.root_device)
        return Loader(
            self.splits[split] if on_host else self._on_device[split],
            self.batch_size,
            shuffle,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            on_host,
            self.num_workers,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Flip (in training), resize and normalise on the device, the whole batch at once."""
        images = batch.images
        assert self.trainer is not None
        if self.trainer.training and self.flip > 0:
            images = flip_where(images, self._epoch_flips(self.trainer.current_epoch, images.device)[batch.image_idx])
        return batch._replace(images=self.preprocess(images))

    def _epoch_flips(self, epoch: int, device: torch.device) -> Tensor:
        if self._flips is None or self._flips[0] != epoch:
            flips = epoch_flips(len(self.splits["train"]), self.flip, self.seed, epoch)
            self._flips = epoch, flips.to(device)
        return self._flips[1]

    def _keep_on_host(self) -> bool:
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        if self.placement != "auto" or device.type != "cuda" or self._on_device:
            return self.placement == "host"
        free, _ = torch.cuda.mem_get_info(device)
        return sum(images.num_bytes for images in self.splits.values()) > free // 2
