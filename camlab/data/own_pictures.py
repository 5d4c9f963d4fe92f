"""One's own pictures, of any number and size, from a folder, a table or a data set: decoded once into a store."""

import logging
import shutil
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from camlab.data.annotations import with_annotations
from camlab.data.description import MORE_IN_A_SPLIT, describe
from camlab.data.first_pass import FirstPass, Stored
from camlab.data.image_set import Pictures
from camlab.data.module import ImageData
from camlab.data.picture_table import SPLITS, Picture, Split, class_names_of, with_splits
from camlab.data.planted_set import PlantedSet
from camlab.data.sources import PictureFile, written
from camlab.data.stored_set import StoredSet
from camlab.errors import UserError, plain

log = logging.getLogger(__name__)


class OwnPictures(ImageData):
    """Pictures of the user's. The square in the middle of each is resized and kept on disk as uint8.

    Args:
        split: Shares of the pictures for training, validation and test; they decide what the source leaves open.
        cache: Folder `paths.cache`, which keeps the decoded pictures; None for one that lasts as long as this object.
        store_size: Side length of the stored squares, in pixels; None for `image_size`.
        skip_broken: Whether to go on without pictures that cannot be read.
        annotations: File or folder with boxes or outlines of the objects, in the format of COCO or Pascal VOC.
        **options: Options of `ImageData`. If `val_size` is above 0, validation images are chosen by it, not by `split`.

    Raises:
        UserError: The shares are not shares, or `store_size` is less than `image_size`.
    """

    def __init__(
        self,
        split: Sequence[float] = (0.8, 0.1, 0.1),
        cache: str | None = None,
        store_size: int | None = None,
        skip_broken: bool = False,
        annotations: str | None = None,
        **options: Any,
    ) -> None:
        self.multi_label = False  # whether a picture may have any number of classes; a source may set it
        super().__init__(**{"val_size": 0, **options})
        shares = tuple(float(share) for share in split)
        if len(shares) != len(SPLITS) or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0 or shares[0] == 0:
            raise UserError(f"data.split={list(split)}: give shares of train, val and test whose sum is 1.")
        if store_size is not None and store_size < self.preprocess.image_size:
            raise UserError(
                f"data.store_size={store_size}: must be at least data.image_size={self.preprocess.image_size}, or null."
            )
        self.shares = shares if self.val_size == 0 else (shares[0] + shares[1], 0.0, shares[2])
        self.cache, self.store_size = cache, store_size
        self.skip_broken, self.annotations = skip_broken, annotations
        self.class_order: tuple[str, ...] = ()  # set by `find` if the source states the order of the classes

    @property
    @abstractmethod
    def place(self) -> str:
        """The folder, file or name that the pictures come from."""

    @abstractmethod
    def find(self) -> list[Picture]:
        """Find the pictures, without reading them.

        Raises:
            UserError: The place does not exist, or is not what this source expects.
        """

    def load(self) -> tuple[StoredSet, ...]:
        found = with_splits(self.find(), self.shares, self.split_seed)
        class_names_of(found, self.class_order)  # refuses what is wrong before anything is decoded
        self._check_test(found)
        if self.annotations is not None:
            found = with_annotations(found, self.annotations)
        stored = self._first_pass().run(found)
        class_names = class_names_of(stored.pictures, self.class_order)
        for level, line in describe(self.place, class_names, stored):
            log.log(level, "%s", plain(line))
        return self._sets(stored, class_names)

    def files(self, split: Split, folder: Path) -> tuple[list[Path], list[tuple[str, ...]]]:
        """Find the files of a split's pictures, and the names of the classes of each.

        The pictures are decoded into the store only if their splits depend on it: with `val_size` or `skip_broken`.

        Args:
            split: The split.
            folder: Folder to which pictures without a file of their own are written.

        Raises:
            UserError: There are none, or a picture cannot be read.
        """
        if self.val_size or self.skip_broken:
            self.setup()
            pictures = list(_rows_of(self.splits[split])) if split in self.splits else []
        else:
            found = with_splits(self.find(), self.shares, self.split_seed)
            pictures = [picture for picture in found if picture.split == split]
        if not pictures:
            raise UserError(
                f"{self.place}: no pictures in split={split}. Choose another, or give other shares: data.split."
            )
        files = [
            source.path if isinstance(source := picture.source, PictureFile) else written(source, folder, i)
            for i, picture in enumerate(pictures)
        ]
        return files, [picture.labels for picture in pictures]

    def _check_test(self, pictures: Sequence[Picture]) -> None:
        """Refuse a data set without test pictures."""
        if not any(picture.split == "test" for picture in pictures):
            raise UserError(f"{self.place}: no pictures to test on. {MORE_IN_A_SPLIT}")

    def _first_pass(self) -> FirstPass:
        if self.cache is None:
            self.cache = tempfile.mkdtemp(prefix="camlab-")
            weakref.finalize(self, shutil.rmtree, self.cache, ignore_errors=True)
        return FirstPass(self.cache, self.place, self.preprocess.at_size(self._side), self.skip_broken)

    @property
    def _side(self) -> int:
        """Side length of the stored squares. The network of a checkpoint may need larger ones than `store_size`."""
        return max(self.store_size or 0, self.preprocess.image_size)

    def _sets(self, stored: Stored, class_names: tuple[str, ...]) -> tuple[StoredSet, ...]:
        """The training and the test pictures and, if there are any, the validation pictures."""
        label_of = {name: label for label, name in enumerate(class_names)}
        if self.multi_label:
            labels = torch.tensor([[name in picture.labels for name in class_names] for picture in stored.pictures])
            labels = labels.long()
        else:
            labels = torch.tensor([label_of[picture.labels[0]] for picture in stored.pictures])
        whole = StoredSet(stored.store, stored.rows, self._side, labels, class_names, stored.pictures, stored.masks)
        index = {split: [i for i, own in enumerate(stored.pictures) if own.split == split] for split in SPLITS}
        self._check_test(stored.pictures)  # pictures that cannot be read are left out by now
        if not index["val"] and self.shares[1] > 0:
            log.warning("No picture was drawn for validation, so there is no best.ckpt. Give data.val_size=N for some.")
        wanted = ["train", "test", *(["val"] if index["val"] else [])]
        return tuple(whole.part(torch.from_numpy(np.array(index[split], np.int64))) for split in wanted)  # type: ignore[index]


def _rows_of(pictures: Pictures) -> Sequence[Picture]:
    """Rows of the table that a split was made of."""
    inner = pictures.pictures if isinstance(pictures, PlantedSet) else pictures
    assert isinstance(inner, StoredSet)
    return inner.pictures
