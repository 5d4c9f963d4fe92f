"""Image sets of Hugging Face's datasets: from the hub, or from a local folder or Parquet files."""

import os
import time
from pathlib import Path
from typing import Any

from camlab.data.own_pictures import OwnPictures
from camlab.data.picture_table import SPLIT_WORDS, Picture
from camlab.data.sources import EmbeddedPicture, PictureFile
from camlab.data.truth import MaskPicture
from camlab.errors import UserError, cut, first_line, listed
from camlab.storage.files import user_path
from camlab.storage.manifest import Stamp


class HuggingFace(OwnPictures):
    """Pictures of a data set with a column of images and one of labels.

    Args:
        path: A folder that `save_to_disk` has written, a folder of pictures or of Parquet files, a Parquet file, or the
            name of a data set on the hub.
        config: Name of a configuration of the data set; None for the only one.
        image_column, label_column: Names of the columns; None for the only column of images, and for the only column of
            classes or the column `label`.
        mask_column: Name of a column of masks; None for none.
        download: Whether a data set may be downloaded from the hub.
        **options: Options of `OwnPictures`.
    """

    def __init__(
        self,
        path: str,
        config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        mask_column: str | None = None,
        download: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.config, self.download = path, config, download
        self.image_column, self.label_column, self.mask_column = image_column, label_column, mask_column

    @property
    def place(self) -> str:
        local = user_path(self.path, "data.path")
        return os.path.abspath(local) if local.exists() else self.path

    def find(self) -> list[Picture]:
        sets = self._load()
        if unknown := [name for name in sets if name not in SPLIT_WORDS]:
            raise UserError(
                f"data.path={self.path}: split {cut(unknown[0])} is unknown. Name it train, validation or test."
            )
        if "train" not in sets:
            raise UserError(f"data.path={self.path}: it has {listed(list(sets))}, but no split train.")
        return [picture for name, rows in sets.items() for picture in self._pictures(rows, name)]

    def _load(self) -> dict[str, Any]:
        """Load the data set, each split by its name."""
        try:
            import datasets
        except ImportError as error:
            raise UserError("data=huggingface: not installed. Run: pip install camlab[huggingface]") from error
        local = user_path(self.path, "data.path")
        if not local.exists() and (not self.download or self.path.startswith(("/", "~", "."))):
            raise UserError(f"data.path={self.path}: no such file or folder. Give another, or data.download=true.")
        if local.exists() and self.config is not None:
            raise UserError(f"data.config={self.config}: only data sets of the hub have configurations. Leave it out.")
        try:
            found = _load_local(local) if local.exists() else datasets.load_dataset(self.path, self.config)
        except Exception as error:  # datasets raises any exception
            raise UserError(f"data.path={self.path}: cannot be loaded ({first_line(error)}).") from error
        return dict(found) if isinstance(found, dict) else {"train": found}

    def _pictures(self, rows: Any, name: str) -> list[Picture]:
        image, label = self._image_column(rows), self._label_column(rows)
        names = getattr(rows.features[label], "names", None)
        if names is not None:
            self.class_order = tuple(names)
        config = "" if self.config is None else f" ({self.config})"
        stamp, place = _stamp(rows), f"{self.place}{config}: {name}"
        pictures = _undecoded(rows, image)
        files = _files(pictures, image)
        mask = None if self.mask_column is None else self._named(rows, self.mask_column, "mask")
        masks = None if mask is None else _undecoded(rows, mask)
        mask_files = [None] * len(rows) if mask is None else _files(masks, mask)
        found = []
        for i, value in enumerate(rows[label]):
            if value is None or (names is not None and not 0 <= value < len(names)):
                raise UserError(f"{place}, row {i}: it has no label. Remove the row, or the split.")
            truth = None if mask is None else MaskPicture(EmbeddedPicture(masks, mask, i, place, stamp, mask_files[i]))
            source = EmbeddedPicture(pictures, image, i, place, stamp, files[i])
            text = names[value] if names is not None else str(value)
            found.append(Picture(f"{name}/{i}", (text,), source, SPLIT_WORDS[name], truth))
        return found

    def _image_column(self, rows: Any) -> str:
        if self.image_column is not None:
            return self._named(rows, self.image_column, "image")
        images = [name for name, kind in rows.features.items() if type(kind).__name__ == "Image"]
        images = [name for name in images if name != self.mask_column]
        if len(images) != 1:
            raise UserError(
                f"data.path={self.path}: its columns of images are {listed(images) or 'none'}."
                " Give data.image_column=NAME."
            )
        return images[0]

    def _label_column(self, rows: Any) -> str:
        if self.label_column is not None:
            return self._named(rows, self.label_column, "label")
        classes = [name for name, kind in rows.features.items() if type(kind).__name__ == "ClassLabel"]
        if len(classes) == 1:
            return classes[0]
        if not classes and "label" in rows.features:
            return "label"
        raise UserError(
            f"data.path={self.path}: its columns of classes are {listed(classes) or 'none'}, its columns"
            f" {listed(list(rows.features))}. Give data.label_column=NAME."
        )

    def _named(self, rows: Any, column: str, what: str) -> str:
        if column not in rows.features:
            raise UserError(
                f"data.{what}_column={column}: no such column. The data set has {listed(list(rows.features))}."
            )
        return column


def _load_local(place: Path) -> Any:
    """Load a data set from a file or folder. A folder's README is not read: it may name addresses and other files."""
    import datasets

    if any((place / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return datasets.load_from_disk(str(place))
    if place.is_file():
        return datasets.load_dataset("parquet", data_files=str(place))
    kind = "parquet" if any(place.rglob("*.parquet")) else "imagefolder"
    return datasets.load_dataset(kind, data_dir=str(place))


def _undecoded(rows: Any, column: str) -> Any:
    """A data set with one column, whose items are dictionaries with the bytes or the path of a picture."""
    import datasets

    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _files(rows: Any, column: str) -> list[PictureFile | None]:
    """The files of pictures whose whole path is in the column, and that may change while the data set does not."""
    paths = rows.flatten()[f"{column}.path"]
    return [
        PictureFile(Path(path)) if path and os.path.isabs(path) and os.path.isfile(path) else None for path in paths
    ]


def _stamp(rows: Any) -> Stamp:
    """What reveals a change of a data set: the size and the time of its Arrow files, made from the original files."""
    status = [os.stat(one["filename"]) for one in rows.cache_files]
    if not status:  # it is in memory: nobody knows whether it has changed
        return Stamp(-1, time.time_ns(), 0, 0)
    return Stamp(
        sum(one.st_size for one in status),
        max(one.st_mtime_ns for one in status),
        max(one.st_ctime_ns for one in status),
        sum(one.st_ino for one in status),
    )
