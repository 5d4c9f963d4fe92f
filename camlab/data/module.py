"""Data module that loads a set, splits it, keeps it on the training device and prepares batches there."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import lightning as L
import torch
from torch import Tensor

from camlab.data.augmentation import flip_where, shift
from camlab.data.balance import Balance, balanced_order, class_weights, positive_weights
from camlab.data.image_set import ImageSet, Pictures, stratified_split
from camlab.data.loader import Batch, Loader, epoch_flips, epoch_shifts
from camlab.data.picture_table import Split
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.storage.array_store import ArrayRows

Placement = Literal["auto", "device", "host"]


class ImageData(L.LightningDataModule, ABC):
    """Training, validation and test images of one source. Each source is a subclass with a `load` method.

    Args:
        name: Name of the data set, used in the names of runs.
        image_size: Side length of the network's square input, in pixels.
        mean, std: Mean and standard deviation of each channel, by which pixels in [0, 1] are normalised.
        flip: Probability that a training image is flipped horizontally.
        max_shift: Largest distance in any direction by which a training image is shifted, in pixels of that image.
        batch_size: Number of images in a step, over all ranks.
        val_size: Number of images that are taken from the training set for validation, with the same share of each
            class; 0 trains on all images.
        split_seed: Seed of this split, independent of `seed`.
        seed: Seed of the order, the flips and the shifts.
        placement: `device` keeps the set on the training device, and `host` in main memory or, if it is in a store, on
            disk. `auto` chooses the device for a GPU that the set would fill by half at most. Without a GPU it leaves
            the set where it is.
        test_each_epoch: Whether the test set, too, is evaluated after each epoch. Its result never selects a
            checkpoint.
        balance: What makes up for classes of unequal size: `weights` in the loss, or `sampling`, by which each class
            comes equally often in every epoch.
    """

    def __init__(
        self,
        name: str = "",
        image_size: int = 224,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        flip: float = 0.5,
        max_shift: int = 0,
        batch_size: int = 128,
        val_size: int = 5000,
        split_seed: int = 0,
        seed: int = 0,
        placement: Placement = "auto",
        test_each_epoch: bool = False,
        balance: Balance = "none",
    ) -> None:
        super().__init__()
        self.name = name
        self.preprocess = Preprocess(image_size, tuple(mean), tuple(std))
        self.flip = flip
        self.max_shift = max_shift
        self.batch_size = batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.seed = seed
        self.placement = placement
        self.test_each_epoch = test_each_epoch
        self.balance = balance
        self.test_split: Split = "test"  # the split that `trainer.test` uses; `camlab.evaluate` may change it
        self.splits: dict[Split, Pictures] = {}
        self.head_statistics: dict[Split, Tensor | ArrayRows] = {}  # set by `use_cached_features`
        self._fingerprints: dict[Split, str] = {}
        self._on_device: dict[Split, ImageSet] = {}
        self._drawn: dict[Callable[..., Tensor], tuple[int, Tensor]] = {}

    @abstractmethod
    def load(self) -> tuple[Pictures, ...]:
        """Load the training images, the test images and, if the source has them, validation images.

        Raises:
            UserError: The data are missing or invalid.
        """

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.splits["train"].class_names

    @property
    def has_several_labels(self) -> bool:
        """Whether a picture may have any number of labels (a multi-label set)."""
        return self.splits["train"].labels.dim() == 2

    @functools.cached_property
    def class_weights(self) -> Tensor | None:
        """Weight of each class, or of "yes" for each label, in the loss: float32, M. None if all have the same."""
        if self.balance != "weights":
            return None
        labels = self.splits["train"].labels
        return positive_weights(labels) if self.has_several_labels else class_weights(labels, len(self.class_names))

    @property
    def validation_splits(self) -> tuple[Split, ...]:
        """Splits that are evaluated after every epoch, one per validation loader."""
        wanted: list[tuple[Split, bool]] = [("val", "val" in self.splits), ("test", self.test_each_epoch)]
        return tuple(split for split, used in wanted if used)

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        train, test, *val = self.load()
        if val and self.val_size:
            raise UserError(
                f"data.val_size={self.val_size}: the data have validation images of their own. Give data.val_size=0."
            )
        rest, chosen = stratified_split(train.labels, self.val_size, self.split_seed)
        self.splits = {"train": train.part(rest), "test": test} if self.val_size else {"train": train, "test": test}
        if self.val_size or val:
            self.splits["val"] = val[0] if val else train.part(chosen)
        if self.has_several_labels and self.balance == "sampling":
            raise UserError("data.balance=sampling: pictures with several labels cannot be balanced so. Give weights.")

    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        return "-".join(self.split_fingerprint(split) for split in sorted(self.splits))

    def split_fingerprint(self, split: Split) -> str:
        """Hash of the content of one split. It is computed only once, since this takes seconds for a large set."""
        if split not in self._fingerprints:
            self._fingerprints[split] = self.splits[split].fingerprint()
        return self._fingerprints[split]

    def use_cached_features(self, split: Split, head_statistics: Tensor | ArrayRows) -> None:
        """Replace the images of a split by cached features of a frozen backbone.

        Args:
            split: Split that the features belong to.
            head_statistics: `Network.head_statistic` of each image, in the order of the split, and of its mirror image
                if V is 2; N×V×…, on the training device, or float32 on disk.
        """
        self.head_statistics[split] = head_statistics

    def train_dataloader(self) -> Loader:
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> list[Loader]:
        return [self.loader(split) for split in self.validation_splits]

    def test_dataloader(self) -> Loader:
        return self.loader(self.test_split)

    def loader(self, split: Split, shuffle: bool = False) -> Loader:
        """Make a loader of this process's part of each batch of a split.

        Raises:
            UserError: The data have no such split.
        """
        if split not in self.splits:
            raise UserError(f"split={split}: data.val_size=0 leaves no validation images. Choose train or test.")
        trainer, on_host = self.trainer, self._keep_on_host()
        assert trainer is not None
        cached = split in self.head_statistics and self.splits[split].masks is None
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
            without_images=on_host and cached,
            order=functools.partial(balanced_order, self.splits[split].labels) if self.balance == "sampling" else None,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn a batch on the device into the network's input.

        Training images are flipped and shifted; all images are resized, normalised and cast to the run's precision. If
        the features of the split are cached, they are looked up instead, except in tests with masks, which need maps.
        """
        assert self.trainer is not None
        training = bool(self.trainer.training)
        flipped = self._of_epoch(epoch_flips, self.flip, batch.image_idx) if training and self.flip > 0 else None
        cached = self.head_statistics.get(self._split_of(dataloader_idx))
        if cached is not None and not (self.trainer.testing and batch.masks is not None):
            rows = batch.image_idx * cached.shape[1]
            rows = rows if flipped is None else rows + flipped
            return batch._replace(head_statistic=self._looked_up(cached, rows))
        images = batch.images if flipped is None else flip_where(batch.images, flipped)
        if training and self.max_shift > 0:
            images = shift(images, self._of_epoch(epoch_shifts, self.max_shift, batch.image_idx))
        return batch._replace(images=self.trainer.precision_plugin.convert_input(self.preprocess(images)))

    def _looked_up(self, cached: Tensor | ArrayRows, rows: Tensor) -> Tensor:
        if isinstance(cached, Tensor):
            return cached.flatten(0, 1).index_select(0, rows)
        assert self.trainer is not None
        read = self.trainer.precision_plugin.convert_input(torch.from_numpy(cached.read(rows.cpu().numpy())))
        found: Tensor = read.to(rows.device)
        return found

    def _split_of(self, dataloader_idx: int) -> Split:
        assert self.trainer is not None
        if self.trainer.training:
            return "train"
        return self.test_split if self.trainer.testing else self.validation_splits[dataloader_idx]

    def _of_epoch(self, draw: Callable[..., Tensor], amount: float, image_idx: Tensor) -> Tensor:
        """This epoch's random parameters of some images. They are drawn once an epoch, for all training images."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        if self._drawn.get(draw, (-1,))[0] != epoch:
            drawn = draw(len(self.splits["train"]), amount, self.seed, epoch)
            self._drawn[draw] = epoch, drawn.to(image_idx.device)
        return self._drawn[draw][1][image_idx]

    def _keep_on_host(self) -> bool:
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        if self.placement != "auto" or self._on_device:
            return self.placement == "host"
        if device.type != "cuda":  # a set in a store stays there: the system keeps in memory what fits
            return not isinstance(self.splits["train"], ImageSet)
        free, _ = torch.cuda.mem_get_info(device)
        return sum(images.num_bytes for images in self.splits.values()) > free // 2
