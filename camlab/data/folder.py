"""A user's own pictures in folders: root/<class>/*.jpg or root/{train,val,test}/<class>/*.jpg, of any size."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlab.data.own_pictures import OwnPictures
from camlab.data.picture_table import SPLITS, Picture, Split
from camlab.data.sources import PictureFile
from camlab.data.truth import MaskPicture
from camlab.errors import UserError, cut, plain
from camlab.models.preprocess import Preprocess
from camlab.storage.files import user_path
from camlab.storage.pictures import ENDINGS, MASKS, Listing, list_files, read_picture

log = logging.getLogger(__name__)

_LAYOUT = (
    "The layouts are root/<class>/*.jpg and root/{train,val,test}/<class>/*.jpg"
    f" (also {', '.join(sorted(ending.lstrip('.') for ending in ENDINGS - {'.jpg'}))})."
)


class Folder(OwnPictures):
    """Pictures in one folder per class, with or without folders for the splits.

    A mask has the path of its picture in or below a folder `masks` (`masks/cat/1.png` or `cat/masks/1.png` for
    `cat/1.jpg`), or is `1_mask.png` beside `1.jpg`. Files that are left out are reported in one line.

    Args:
        root: Folder that contains one folder per class, or such folders in `train/` and, optionally, `val/`, `test/`.
        nested: Whether each folder with pictures is a class, named by its path, such as `dogs/beagle`. Otherwise the
            first folder is the class, and the pictures in its subfolders belong to it.
        **options: Options of `OwnPictures`.
    """

    def __init__(self, root: str, nested: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.root = user_path(root, "data.root")
        self.nested = nested

    @property
    def place(self) -> str:
        return os.path.abspath(self.root)

    def find(self) -> list[Picture]:
        if not self.root.is_dir():
            raise UserError(f"data.root={self.root}: no such folder. {_LAYOUT}")
        splits = [split for split in SPLITS if (self.root / split).is_dir()]
        if splits and "train" not in splits:
            raise UserError(f"{self.root / 'train'}: no such folder. {_LAYOUT}")
        listing = list_files(self.root, below=True)
        places = [(self._place_of(mask), mask) for mask in listing.masks]
        masks = {(folder, stem.removesuffix("_mask")): mask for (folder, stem), mask in places}
        found = [picture for path in listing.pictures if (picture := self._picture(path, splits, masks))]
        self._check_classes(self.root / "train" if splits else self.root, found)
        others = [path for path in listing.others if not splits or self._parts(path)[0] in splits]
        if left_out := Listing([], list(masks.values()), others).left_out():
            log.info("data.root=%s: left out %s.", plain(str(self.root)), left_out)
        return sorted(found, key=lambda picture: (picture.split or "", picture.labels, picture.name))

    def _picture(
        self, path: Path, splits: Sequence[Split], masks: dict[tuple[tuple[str, ...], str], Path]
    ) -> Picture | None:
        """A row of the table, with its mask, which is taken out of `masks`; None for a file outside of the classes."""
        parts = self._parts(path)
        split = next((split for split in splits if split == parts[0]), None)
        folders = parts[1:-1] if splits else parts[:-1]
        if not folders or (splits and split is None):
            return None
        mask = masks.pop(self._place_of(path), None)
        truth = None if mask is None else MaskPicture(PictureFile(mask))
        label = "/".join(folders) if self.nested else folders[0]
        return Picture("/".join(parts), (label,), PictureFile(path), split, truth)

    def _place_of(self, file: Path) -> tuple[tuple[str, ...], str]:
        """Folders of a file below the root, without a folder `masks`, and its stem in lower case."""
        *folders, name = self._parts(file)
        if masks := [i for i, part in enumerate(folders) if part.lower() == MASKS]:
            del folders[masks[-1]]
        return tuple(folders), os.path.splitext(name)[0].lower()

    def _parts(self, path: Path) -> tuple[str, ...]:
        return path.parts[len(self.root.parts) :]  # `relative_to` takes ten times as long

    def _check_classes(self, top: Path, found: Sequence[Picture]) -> None:
        """Refuse fewer than two classes, and classes without training pictures.

        Args:
            top: Folder that contains the folders of the classes.
            found: All pictures.
        """
        folders, where = _class_folders(top), " in train/" if top != self.root else ""
        if len(folders) < 2 and not self.nested:
            only = f"only one class, {cut(folders[0])}," if folders else "no classes"
            raise UserError(f"data.root={self.root}: {only}{where}, but at least two are needed. {_LAYOUT}")
        trained = {picture.labels for picture in found if picture.split in (None, "train")}
        if not self.nested and (empty := [name for name in folders if (name,) not in trained]):
            raise UserError(f"{top / empty[0]}: no pictures. {_LAYOUT}")
        if other := next((picture for picture in found if picture.labels not in trained), None):
            where = f"{self.root / str(other.split)}"
            raise UserError(f"{where}: class {cut(other.labels[0])} is not in train/. Add or remove it.")


def read_pictures(paths: Sequence[Path], side: int) -> Tensor:
    """Read pictures of any size and prepare them with `Preprocess.prepare`.

    Args:
        paths: Paths of the N files.
        side: Side length of the result, in pixels.

    Returns:
        uint8 RGB, N×3×side×side.

    Raises:
        UserError: A file cannot be read as a picture; the message names it.
    """
    with ThreadPoolExecutor() as pool:
        return torch.from_numpy(np.stack(list(pool.map(lambda path: _read_square(path, side), paths))))


def _read_square(path: Path, side: int) -> np.ndarray:
    return Preprocess(side).prepare(read_picture(path)).transpose(2, 0, 1)


def _class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the classes of a split: all its folders except hidden ones and one named `masks`."""
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".") and name.lower() != MASKS))
