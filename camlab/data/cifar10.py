"""CIFAR-10 (Krizhevsky 2009), as torchvision downloads it; no code in its pickle files is run."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.datasets import CIFAR10 as Archive
from torchvision.datasets.utils import download_and_extract_archive

from camlab.data.image_set import ImageSet
from camlab.data.module import ImageData
from camlab.errors import UserError
from camlab.storage.files import user_path
from camlab.storage.locks import locked


class Cifar10(ImageData):
    """CIFAR-10: 50,000 training images and 10,000 test images of 32×32 pixels in ten classes.

    Args:
        root: Folder that contains `cifar-10-batches-py/` or `cifar-10-python.tar.gz`. If it contains neither, the
            archive is downloaded into it.
        verify: Whether the files must have the checksums of the originals. False accepts another copy with the same
            layout.
        download: Whether to download the archive, or to unpack it, if `cifar-10-batches-py/` does not exist.
        **options: Options of `ImageData`.
    """

    def __init__(self, root: str, verify: bool = True, download: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.root = user_path(root, "data.root")
        self.verify, self.download = verify, download

    def load(self) -> tuple[ImageSet, ImageSet]:
        folder = self.root / Archive.base_folder
        if not folder.is_dir():
            self._download()
        names = _read_class_names(folder / Archive.meta["filename"])
        return self._read(folder, Archive.train_list, names), self._read(folder, Archive.test_list, names)

    def _read(self, folder: Path, files: list[list[str]], class_names: tuple[str, ...]) -> ImageSet:
        parts = [_read_batch(folder / name, md5 if self.verify else None, len(class_names)) for name, md5 in files]
        images = np.concatenate([images for images, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), class_names)

    def _download(self) -> None:
        if not self.download:
            raise UserError(f"CIFAR-10 is not in {self.root}. Give data=cifar10 or data.root=FOLDER.")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root / ".download.lock"):  # only one of the jobs of a sweep downloads
                if not (self.root / Archive.base_folder).is_dir():
                    download_and_extract_archive(Archive.url, str(self.root), md5=Archive.tgz_md5)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"CIFAR-10 is not in {self.root} and could not be downloaded ({str(error).splitlines()[0]}).",
                f"Put {Archive.filename} into {self.root}, or give data.root=FOLDER with {Archive.base_folder}/ in it,"
                " or train on data=shapes, which needs no download.",
            ) from error


def _read_batch(path: Path, md5: str | None, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the images (uint8, N×3×32×32) and the labels (int64, N) of a batch file."""
    content = _read_pickle(path, md5)
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise UserError(f"{path}: the data is {found}; in CIFAR-10 it is uint8 (N, 3072).")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(isinstance(k, int) for k in labels):
        raise UserError(f"{path}: the labels are not a list of {len(data)} integers, one for each image.")
    if bad := [k for k in labels if not 0 <= k < num_classes]:
        raise UserError(f"{path}: the label {bad[0]} is not in the range 0 to {num_classes - 1}.")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def _read_class_names(path: Path) -> tuple[str, ...]:
    names = _read_pickle(path, None).get("label_names")
    if not isinstance(names, list) or len(names) != 10 or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: label_names is not a list of ten names.")
    return tuple(names)


def _read_pickle(path: Path, md5: str | None) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror})."
            f" Delete {path.parent} to download it again, or give data.root=FOLDER."
        ) from error
    if md5 is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise UserError(
            f"{path} does not have the checksum of the original. Delete {path.parent} to download it again,"
            " or accept this copy with data.verify=false."
        )
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise any exception
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else "it is truncated or damaged"
        raise UserError(f"{path} cannot be read: {reason}. Delete {path.parent} and download it again.") from error
    if not isinstance(batch, dict):
        raise UserError(f"{path}: this file contains {type(batch).__name__}, not a CIFAR-10 batch.")
    return batch


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that reads NumPy arrays and plain values only, and refuses a file that names any other function."""

    _ADMITTED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),  # in pickle protocol 5
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in pickle protocol 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in self._ADMITTED:
            raise pickle.UnpicklingError(f"it would run {module}.{name}, but only arrays are allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
