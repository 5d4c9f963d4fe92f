"""A user's own pictures: root/{train,test}/<class>/*.jpg, png, …, of any size."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlab.data.image_set import ImageSet
from camlab.data.module import ImageData
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.storage.pictures import picture_files, read_picture

_LAYOUT = "The layout is root/train/<class>/*.jpg and root/test/<class>/*.jpg (also png, webp, bmp, tiff)."


class Folder(ImageData):
    """Pictures in folders by class: shorter side resized (antialiased) to `image_size`, centre crop, kept as uint8.

    Args:
        root: holds `train/` and `test/`.
        **options: of `ImageData`.
    """

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()

    def load(self) -> tuple[ImageSet, ImageSet]:
        if not self.root.is_dir():
            raise UserError(f"data.root={self.root}: no such folder. {_LAYOUT}")
        class_names = _subfolders(self.root / "train")
        if len(class_names) < 2:
            found = f"only one class, {class_names[0]}" if class_names else "no classes"
            raise UserError(f"data.root={self.root}: {found} in train/; two at least. {_LAYOUT}")
        if strangers := set(_subfolders(self.root / "test")) - set(class_names):
            raise UserError(f"{self.root / 'test'}: class {min(strangers)} is not in train/.")
        return self._read("train", class_names), self._read("test", class_names)

    def _read(self, split: str, class_names: tuple[str, ...]) -> ImageSet:
        files = [
            (path, label) for label, name in enumerate(class_names) for path in picture_files(self.root / split / name)
        ]
        present = {label for _, label in files}
        if not files or (split == "train" and len(present) < len(class_names)):
            empty = next(name for label, name in enumerate(class_names) if label not in present)
            raise UserError(f"{self.root / split / empty}: no pictures. {_LAYOUT}")
        images = read_pictures([path for path, _ in files], self.preprocess.image_size)
        return ImageSet(images, torch.tensor([label for _, label in files]), class_names)


def read_pictures(paths: list[Path], side: int) -> Tensor:
    """Pictures of any size as uint8 RGB N×3×side×side.

    Raises:
        UserError: a file is no picture; it is named.
    """
    with ThreadPoolExecutor() as pool:
        return torch.from_numpy(np.stack(list(pool.map(lambda path: _read_square(path, side), paths))))


def _read_square(path: Path, side: int) -> np.ndarray:
    return Preprocess(side).prepare(read_picture(path)).transpose(2, 0, 1)


def _subfolders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. {_LAYOUT}")
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
