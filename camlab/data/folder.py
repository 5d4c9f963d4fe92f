"""A user's own pictures in folders: root/<class>/*.jpg or root/{train,val,test}/<class>/*.jpg, of any size."""

import logging
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlab.data.own_pictures import OwnPictures
from camlab.data.picture_table import SPLIT_WORDS, SPLITS, Picture, Split
from camlab.data.sources import PictureFile
from camlab.data.truth import MaskPicture
from camlab.errors import UserError, cut, listed, plain
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
        splits = self._splits()
        listing = list_files(self.root, below=True)
        places = [(self._place_of(mask), mask) for mask in listing.masks]
        masks = {(folder, stem.removesuffix("_mask")): mask for (folder, stem), mask in places}
        all_masks = set(masks.values())
        rows = {path: self._picture(path, splits, masks) for path in listing.pictures}
        found = [picture for picture in rows.values() if picture]
        others = [path for path in listing.others if not splits or self._parts(path)[0] in splits]
        self._tell(
            replace(listing, masks=list(masks.values()), others=others), [path for path in rows if not rows[path]]
        )
        self._check_classes(self.root / "train" if splits else self.root, found, listing.again)
        self._check_masks(splits, masks.values(), all_masks)
        return sorted(found, key=lambda picture: (picture.split or "", picture.labels, picture.name))

    def _splits(self) -> list[Split]:
        """Splits that have folders.

        Raises:
            UserError: There is none for training, or a folder is named nearly as one for a split.
        """
        names = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        meant = {name: SPLIT_WORDS[name.lower()] for name in names if name.lower() in SPLIT_WORDS}
        if len(meant) > 1 or "train" in meant.values():  # a single folder `valid` may be a class
            for name in (name for name in meant if name not in SPLITS):
                raise UserError(
                    f"{self.root / name}: if this is a split, name it {meant[name]}; if it is a class, give it a name"
                    " that is not a split's."
                )
        splits = [split for split in SPLITS if split in names]
        if splits and "train" not in splits:
            raise UserError(f"{self.root / 'train'}: no such folder. {_LAYOUT}")
        return splits

    def _tell(self, left_out: Listing, outside: Sequence[Path]) -> None:
        """Say in one line what is left out.

        Args:
            left_out: Masks without a picture, files that are no pictures, and links that were not followed.
            outside: Pictures outside of the folders of the classes.
        """
        places = {parts[0] + ("/" if len(parts) > 1 else ""): None for parts in map(self._parts, outside)}
        pictures = "1 picture" if len(outside) == 1 else f"{len(outside)} pictures"
        parts = [f"{pictures} outside of the folders of the classes ({listed(list(places), 3)})"] if outside else []
        if parts := parts + [text for text in [left_out.left_out()] if text]:
            log.info("data.root=%s: left out %s.", plain(str(self.root)), " and ".join(parts))

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

    def _check_classes(self, top: Path, found: Sequence[Picture], again: Sequence[Path]) -> None:
        """Refuse fewer than two classes, and classes without training pictures.

        Args:
            top: Folder that contains the folders of the classes.
            found: All pictures.
            again: Links that were not followed.
        """
        folders, where = _class_folders(top), " in train/" if top != self.root else ""
        if len(folders) < 2 and not self.nested:
            only = f"only one class{where}, {cut(folders[0])}" if folders else f"no classes{where}"
            raise UserError(f"data.root={self.root}: {only}; at least two are needed. {_LAYOUT}")
        trained = {picture.labels for picture in found if picture.split in (None, "train")}
        if not self.nested and (empty := [name for name in folders if (name,) not in trained]):
            wrong = "a link to a folder that is read already" if top / empty[0] in again else "no pictures"
            raise UserError(f"{top / empty[0]}: {wrong}. {_LAYOUT}")
        if other := next((picture for picture in found if picture.labels not in trained), None):
            where = f"{self.root / str(other.split)}"
            raise UserError(f"{where}: class {cut(other.labels[0])} is not in train/. Add or remove it.")

    def _check_masks(self, splits: Sequence[Split], unused: Collection[Path], masks: Collection[Path]) -> None:
        """Refuse a folder `masks` that is in the place of a class and in which no file is the mask of a picture."""
        without = set(unused)
        for top in [self.root / split for split in splits] if splits else [self.root]:
            places = {path.parent for path in masks if path.parent.parent == top and path.parent.name.lower() == MASKS}
            for place in places:
                inside = [path for path in masks if path.is_relative_to(place)]
                if without.issuperset(inside):
                    raise UserError(
                        f"{place}: none of its {len(inside)} pictures is the mask of a picture: masks/<class>/x.png for"
                        " <class>/x.jpg. If it is a class, give the folder another name."
                    )


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
