"""Data module that loads a set, splits it, keeps it on the training device and prepares batches there."""

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from camlab.data.balance import Balance, balanced_order, class_weights, positive_weights
from camlab.data.image_set import ImageSet, Pictures, stratified_split
from camlab.data.loader import Batch, Loader, epoch_order
from camlab.data.picture_table import Split
from camlab.data.planted_set import PlantedSet, describe_marks, planted
from camlab.data.shortcut import KINDS, Shortcut, are_names, class_indices
from camlab.data.training_views import TrainingViews
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.storage.array_store import ArrayRows

log = logging.getLogger(__name__)

Placement = Literal["auto", "device", "host"]


class ImageData(L.LightningDataModule, ABC):
    """Training, validation and test images of one source. Each source is a subclass with a `load` method.

    Args:
        name: Name of the data set, used in the names of runs.
        image_size: Side length of the network's square input, in pixels.
        mean, std: Mean and standard deviation of each channel, by which pixels in [0, 1] are normalised.
        flip: Probability that a training image is flipped horizontally.
        max_shift: Largest distance in any direction by which a training image is shifted, in pixels of that image.
        augment: A preset or a list of steps, see `camlab.data.augment_steps.steps_of`; None for `flip` and `max_shift`.
        augment_views: Number of augmented views of each training image; None for new ones in every epoch.
        batch_size: Number of images in a step, over all ranks.
        val_size: Number of images that are taken from the training set for validation, with the same share of each
            class; 0 trains on all images.
        split_seed: Seed of this split, independent of `seed`.
        seed: Seed of the order and of the augmentation.
        placement: `device` keeps the set on the training device, and `host` in main memory or, if it is in a store, on
            disk. `auto` chooses the device for a GPU that the set would fill by half at most. Without a GPU it leaves
            the set where it is.
        test_each_epoch: Whether the test set, too, is evaluated after each epoch. Its result never selects a
            checkpoint.
        balance: What makes up for classes of unequal size: `weights` in the loss, or `sampling`, by which each class
            comes equally often in every epoch.
        shortcut: Kind of the mark that gives some classes away in training and validation images: `patch`, `stripe` or
            `tint`; None for no mark. Test images carry none.
        shortcut_classes: Names or indices of these classes; None for the first class.
        shortcut_strength: Share of the images of these classes that carry the mark. `split_seed` chooses them.

    Raises:
        UserError: The augmentation is not possible (see `TrainingViews`); the shortcut is none that there is, its
            strength is no share, or classes are given without it.
    """

    def __init__(
        self,
        name: str = "",
        image_size: int = 224,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        flip: float = 0.5,
        max_shift: int = 0,
        augment: Any = None,
        augment_views: int | None = None,
        batch_size: int = 128,
        val_size: int = 5000,
        split_seed: int = 0,
        seed: int = 0,
        placement: Placement = "auto",
        test_each_epoch: bool = False,
        balance: Balance = "none",
        shortcut: str | None = None,
        shortcut_classes: Sequence[str | int] | str | int | None = None,
        shortcut_strength: float = 0.95,
    ) -> None:
        super().__init__()
        self.name = name
        self.preprocess = Preprocess(image_size, tuple(mean), tuple(std))
        self.training_views = TrainingViews(augment, augment_views, flip, max_shift, seed, self.preprocess)
        self.batch_size = batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.seed = seed
        self.placement = placement
        self.test_each_epoch = test_each_epoch
        self.balance = balance
        self._shortcut = _checked_shortcut(shortcut, shortcut_classes, shortcut_strength)
        self.shortcut: Shortcut | None = None  # set by `setup`, since only the loaded images tell the classes
        self.test_split: Split = "test"  # the split that `trainer.test` uses; `camlab.evaluate` may change it
        self.splits: dict[Split, Pictures] = {}
        self.head_statistics: dict[Split, Tensor | ArrayRows] = {}  # set by `use_cached_features`
        self._fingerprints: dict[Split, str] = {}
        self._on_device: dict[Split, ImageSet] = {}

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

    def check_outputs(self, count: int | None) -> None:
        """Refuse a number of outputs that does not fit the data; None stands for the number of classes.

        Raises:
            UserError: There are more classes than outputs, or labels without pictures, on which nothing can be decided.
        """
        there = len(self.class_names)
        if count is not None and count < there:
            raise UserError(f"arch.num_classes={count}: the data has {there} classes. Leave the setting out.")
        if count is not None and count > there and self.has_several_labels:
            raise UserError(f"arch.num_classes={count}: the data has {there} labels, and no others can be decided.")

    @functools.cached_property
    def class_weights(self) -> Tensor | None:
        """Weight of each class, or of "yes" for each label, in the loss: float32, M. None if all have the same."""
        if self.balance != "weights":
            return None
        labels, classes = self.splits["train"].labels, len(self.class_names)
        return positive_weights(labels) if labels.dim() == 2 else class_weights(labels, classes)

    @property
    def validation_splits(self) -> tuple[Split, ...]:
        """Splits that are evaluated after every epoch, one per validation loader."""
        val: tuple[Split, ...] = ("val",) if "val" in self.splits else ()
        return (*val, "test") if self.test_each_epoch else val

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        train, test, *val = self._planted(*self.load())
        if val and self.val_size:
            raise UserError(
                f"data.val_size={self.val_size}: the data have validation images of their own. Give data.val_size=0."
            )
        rest, chosen = stratified_split(train.labels, self.val_size, self.split_seed)
        self.splits = {"train": train.part(rest), "test": test} if self.val_size else {"train": train, "test": test}
        if self.val_size or val:
            self.splits["val"] = val[0] if val else train.part(chosen)
        if isinstance(trained := self.splits["train"], PlantedSet):
            log.info("%s", describe_marks(trained))
        if self.has_several_labels and self.balance == "sampling":
            raise UserError("data.balance=sampling: pictures with several labels cannot be balanced so. Give weights.")

    def _planted(self, train: Pictures, test: Pictures, *val: Pictures) -> tuple[Pictures, ...]:
        """Plant the shortcut in the training and validation images."""
        if self._shortcut is None:
            return train, test, *val
        if train.labels.dim() > 1:
            raise UserError("data.shortcut: a mark stands for a class, but these pictures have several labels each.")
        kind, classes, strength = self._shortcut
        self.shortcut = Shortcut(kind, class_indices(classes, train.class_names), strength, self.split_seed)
        return planted(train, self.shortcut, "train"), test, *(planted(own, self.shortcut, "val") for own in val)

    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        return "-".join(self.split_fingerprint(split) for split in sorted(self.splits))

    def split_fingerprint(self, split: Split) -> str:
        """Hash of the content of one split. It is computed only once, since this takes seconds for a large set."""
        if split not in self._fingerprints:
            self._fingerprints[split] = self.splits[split].fingerprint()
        return self._fingerprints[split]

    @property
    def marks_by_index(self) -> bool:
        """Whether a class of the shortcut is given by its index, and so depends on the order of the classes."""
        return self._shortcut is not None and not are_names(self._shortcut[1], self.class_names)

    def forget_content(self) -> None:
        """Forget what was derived from the splits, which have been replaced."""
        self._fingerprints, self._on_device = {}, {}
        vars(self).pop("class_weights", None)

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
            trainer.strategy.root_device.type == "cuda",
            without_images=on_host and cached,
            order=self._order,
            with_partner=shuffle and self.training_views.mixes,
        )

    def order(self, epoch: int) -> Tensor:
        """Indices of the training images in the order of an epoch, int64, N; some may be missing, others repeated."""
        return self._order(self.seed, epoch)

    def _order(self, seed: int, epoch: int) -> Tensor:
        labels = self.splits["train"].labels
        return (
            balanced_order(labels, seed, epoch) if self.balance == "sampling" else epoch_order(len(labels), seed, epoch)
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn a batch on the device into the network's input.

        Training images are augmented; all images are resized, normalised and cast to the run's precision. If the
        features of the split are cached, they are looked up instead, except in tests with masks, which need maps.
        """
        assert self.trainer is not None
        training, n, epoch = bool(self.trainer.training), len(self.splits["train"]), self.trainer.current_epoch
        cached = self.head_statistics.get(self._split_of(dataloader_idx))
        if cached is not None and not (self.trainer.testing and batch.masks is not None):
            rows = batch.image_idx * cached.shape[1]
            rows = rows + self.training_views.index_of(batch.image_idx, n, epoch) if training else rows
            return batch._replace(head_statistic=self._looked_up(cached, rows))
        batch = self.training_views.augmented(batch, n, epoch) if training else batch
        return batch._replace(images=self.trainer.precision_plugin.convert_input(self.preprocess(batch.images)))

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

    def _keep_on_host(self) -> bool:
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        if self.placement != "auto" or self._on_device:
            return self.placement == "host"
        if device.type != "cuda":  # a set in a store stays there: the system keeps in memory what fits
            return not self.splits["train"].in_memory
        return sum(images.num_bytes for images in self.splits.values()) > torch.cuda.mem_get_info(device)[0] // 2


def _checked_shortcut(
    kind: str | None, classes: Sequence[str | int] | str | int | None, strength: float
) -> tuple[str, Sequence[str | int] | str | int | None, float] | None:
    """The settings of a shortcut; None if there is none."""
    if kind is None and classes is not None:
        raise UserError("data.shortcut_classes: there is no shortcut. Give data.shortcut=patch, too.")
    if kind is None:
        return None
    if kind not in KINDS:
        raise UserError(f"data.shortcut={kind}: unknown. Choose from {', '.join(KINDS)}.")
    if not 0 <= strength <= 1:
        raise UserError(f"data.shortcut_strength={strength}: it is a share. Give a number from 0 to 1.")
    return kind, classes, float(strength)
