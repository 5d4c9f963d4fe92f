"""A user's own pictures: root/{train,val,test}/<class>/*.jpg, *.png, …, of any size."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlab.data.image_set import ImageSet
from camlab.data.module import ImageData
from camlab.errors import UserError, cut, plain
from camlab.models.preprocess import Preprocess
from camlab.storage.files import user_path
from camlab.storage.pictures import ENDINGS, MASKS, Listing, list_files, read_picture

log = logging.getLogger(__name__)

_LAYOUT = (
    "The layout is root/train/<class>/*.jpg, root/test/<class>/*.jpg and, optionally, root/val/<class>/*.jpg"
    f" (also {', '.join(sorted(ending.lstrip('.') for ending in ENDINGS - {'.jpg'}))})."
)


class Folder(ImageData):
    """Pictures in one folder per class. The square in the middle is resized to `image_size` and kept as uint8.

    If there is a folder `val/`, it is the validation split. Masks (`x_mask.png` beside `x.png`, and folders named
    `masks`) and files without the extension of a picture are left out, which is reported in one line.

    Args:
        root: Folder that contains `train/`, `test/` and, optionally, `val/`, each with one folder per class.
        **options: Options of `ImageData`.
    """

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(**options)
        self.root = user_path(root, "data.root")

    def load(self) -> tuple[ImageSet, ...]:
        if not self.root.is_dir():
            raise UserError(f"data.root={self.root}: no such folder. {_LAYOUT}")
        splits = ["train", "test", *(["val"] if (self.root / "val").is_dir() else [])]
        class_names = self._class_names(splits)
        listings = {split: [list_files(self.root / split / name) for name in class_names] for split in splits}
        self._tell_left_out(listings)
        return tuple(self._read(split, class_names, listings[split]) for split in splits)

    def _class_names(self, splits: Sequence[str]) -> tuple[str, ...]:
        class_names = _class_folders(self.root / "train")
        if len(class_names) < 2:
            found = f"only one class, {cut(class_names[0])}," if class_names else "no classes"
            raise UserError(f"data.root={self.root}: {found} in train/, but at least two are needed. {_LAYOUT}")
        for split in splits[1:]:
            if unknown := set(_class_folders(self.root / split)) - set(class_names):
                name = cut(min(unknown))
                raise UserError(f"{self.root / split}: class {name} is not in train/. Add or remove it.")
        return class_names

    def _tell_left_out(self, listings: dict[str, list[Listing]]) -> None:
        """Log in one line which files are not read as pictures."""
        every = [listing for several in listings.values() for listing in several]
        in_mask_folders = [path for split in listings for path in list_files(self.root / split / MASKS).pictures]
        masks = [path for listing in every for path in listing.masks] + in_mask_folders
        if left_out := Listing([], masks, [path for listing in every for path in listing.others]).left_out():
            log.info("data.root=%s: left out %s.", plain(str(self.root)), left_out)

    def _read(self, split: str, class_names: tuple[str, ...], listings: list[Listing]) -> ImageSet:
        empty = [name for name, listing in zip(class_names, listings, strict=True) if not listing.pictures]
        if len(empty) == len(class_names) or (split == "train" and empty):
            raise UserError(f"{self.root / split / empty[0]}: no pictures. {_LAYOUT}")
        files = [path for listing in listings for path in listing.pictures]
        labels = [label for label, listing in enumerate(listings) for _ in listing.pictures]
        return ImageSet(read_pictures(files, self.preprocess.image_size), torch.tensor(labels), class_names)


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
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. {_LAYOUT}")
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".") and name.lower() != MASKS))
