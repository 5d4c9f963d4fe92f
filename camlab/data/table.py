"""A user's own pictures in a table: CSV, TSV, JSON lines or Parquet, with a row for each picture."""

import csv
import io
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camlab.data.coco_outlines import are_shares
from camlab.data.own_pictures import OwnPictures
from camlab.data.picture_table import SPLIT_WORDS, Picture
from camlab.data.sources import PictureFile
from camlab.data.truth import Box, MaskPicture, Outlines, Truth
from camlab.errors import UserError, cut, did_you_mean, first_line, listed, plain
from camlab.storage.files import read_text, user_path

log = logging.getLogger(__name__)

_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


class Table(OwnPictures):
    """Pictures that a table names, with their labels and, optionally, their splits, masks and boxes.

    Args:
        file: The table: .csv, .tsv, .jsonl or .parquet.
        root: Folder that the paths in the table are relative to, and that they may not leave; None for the table's.
        path_column, label_column: Names of the columns with the pictures' paths and labels.
        split_column, mask_column, box_column: Names of further columns; None for the columns `split`, `mask` and `box`
            if the table has them. A box is `left top right bottom` in pixels; several are separated by semicolons.
        multi_label: Whether a picture may have any number of labels, separated by semicolons, or none.
        **options: Options of `OwnPictures`.
    """

    def __init__(
        self,
        file: str,
        root: str | None = None,
        path_column: str = "path",
        label_column: str = "label",
        split_column: str | None = None,
        mask_column: str | None = None,
        box_column: str | None = None,
        multi_label: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.multi_label = multi_label
        self.file = user_path(file, "data.file")
        self.root = self.file.parent if root is None else user_path(root, "data.root")
        self.columns = {"path": path_column, "label": label_column}
        self.optional = {"split": split_column, "mask": mask_column, "box": box_column}

    @property
    def place(self) -> str:
        return os.path.abspath(self.file)

    def find(self) -> list[Picture]:
        rows = list(read_rows(self.file))
        if not rows:
            raise UserError(f"data.file={self.file}: the table has no rows.")
        columns = self._columns(dict.fromkeys(name for row in rows for name in row))  # a JSON line may lack some
        found, seen = [], dict[str, int]()
        for number, row in enumerate(rows, start=1):
            picture = self._picture(row, columns, number)
            if (before := seen.setdefault(picture.source.id, number)) != number:
                raise self._wrong(number, f"{cut(picture.name, 80)} is in row {before}, too. Remove one of them")
            found.append(picture)
        self._warn_of_separators(found)
        return found

    def _warn_of_separators(self, found: Sequence[Picture]) -> None:
        """Warn if the labels seem not to be meant as they are read."""
        file = plain(str(self.file))
        if self.multi_label and max(len(picture.labels) for picture in found) < 2:
            log.warning("%s: no picture has several labels. The separator is ';', as in 'cat; dog'.", file)
        if not self.multi_label and (several := sum(";" in picture.labels[0] for picture in found)):
            log.warning(
                "%s: %d labels contain a semicolon and are taken as they are. If they are several labels, give"
                " data.multi_label=true.", file, several,
            )  # fmt: skip

    def _columns(self, there: Mapping[str, Any]) -> dict[str, str]:
        """Names of the columns that the table has, by what they hold.

        Args:
            there: All names, as keys.
        """
        wanted = self.columns | {what: name for what, name in self.optional.items() if name is not None}
        for what, name in wanted.items():
            if name not in there:
                if len(there) == 1 and (sign := next((sign for sign in ";\t|" if sign in next(iter(there))), None)):
                    named = {";": "semicolons", "\t": "tabs", "|": "bars"}[sign]
                    raise UserError(
                        f"data.file={self.file}: its columns seem to be separated by {named}. Save it with commas"
                        " (.csv) or tabs (.tsv) between them."
                    )
                hint = did_you_mean(name, there)
                raise UserError(
                    f"data.file={self.file}: there is no column {cut(name)}. {hint}Give data.{what}_column=NAME, one of"
                    f" {listed(list(there))}."
                )
        return {what: what for what, name in self.optional.items() if name is None and what in there} | wanted

    def _picture(self, row: Mapping[str, Any], columns: Mapping[str, str], number: int) -> Picture:
        given = {what: row.get(column) for what, column in columns.items()}
        labels = self._labels(given["label"], number)
        split = str(given.get("split") or "").strip().lower()
        if split and split not in SPLIT_WORDS:
            raise self._wrong(number, f"split {cut(split)} is unknown. Give train, val or test")
        path = self._path(given["path"], number)
        name = path.relative_to(os.path.abspath(self.root)).as_posix()
        return Picture(name, labels, PictureFile(path), SPLIT_WORDS.get(split), self._truth(given, number))

    def _labels(self, given: Any, number: int) -> tuple[str, ...]:
        text = "" if given is None or given != given else given  # NaN is no label
        if isinstance(text, float) and text.is_integer():  # a column of whole numbers in which one is missing
            text = int(text)
        if self.multi_label:
            parts = [one for one in text if one is not None] if isinstance(text, list) else str(text).split(";")
            return tuple(dict.fromkeys(part for one in parts if (part := str(one).strip())))
        if isinstance(text, list):
            raise self._wrong(number, "its label is a list. Give data.multi_label=true if a picture has several")
        if not (label := str(text).strip()):
            raise self._wrong(number, "it has no label. Give one, or data.multi_label=true if a picture may have none")
        return (label,)

    def _truth(self, given: Mapping[str, Any], number: int) -> Truth | None:
        if given.get("mask"):
            return MaskPicture(PictureFile(self._path(given["mask"], number)))
        try:
            boxes = _boxes(given.get("box"))
        except (ValueError, TypeError, KeyError, OverflowError):
            wrong = f"box {cut(str(given['box']))} is not 'left top right bottom', with left < right and top < bottom"
            raise self._wrong(number, wrong) from None
        if any(map(are_shares, boxes)):
            raise self._wrong(number, f"box {cut(str(given['box']))} is in shares of the picture, not in pixels")
        return Outlines(boxes) if boxes else None

    def _path(self, given: Any, number: int) -> Path:
        root = os.path.abspath(self.root)
        if given is not None and given == given and not isinstance(given, str):
            raise self._wrong(number, f"its path is not a text, but {cut(str(given), 40)}")
        if not isinstance(given, str) or not given or "\0" in given:
            raise self._wrong(number, "it has no path. Give one, or remove the row")
        path = Path(os.path.normpath(os.path.join(root, given)))
        if not path.is_relative_to(root):
            raise self._wrong(number, f"{cut(given, 80)} is outside of {root}. Give data.root=FOLDER that contains it")
        return path

    def _wrong(self, number: int, what: str) -> UserError:
        return UserError(f"{self.file}, row {number}: {what}.")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a table, each as a dictionary.

    In CSV and TSV, spaces around names and values do not count.

    Args:
        path: The table; its ending says its format.

    Raises:
        UserError: The file does not exist or has another format.
    """
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise UserError(f"data.file={path}: the ending is not one of {', '.join(_ENDINGS)}.")
    try:
        if ending == ".parquet":
            yield from _parquet(path)
        elif ending == ".jsonl":
            lines = (line for line in read_text(path).splitlines() if line.strip())
            yield from (_object(json.loads(line)) for line in lines)
        else:
            yield from _separated(path, "\t" if ending == ".tsv" else ",")
    except FileNotFoundError:
        raise UserError(f"data.file={path}: no such file.") from None
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.file={path}: its text is not in UTF-8. Save it so (in Excel, as 'CSV UTF-8')."
        ) from error
    except (OSError, ValueError, TypeError, csv.Error, RecursionError) as error:
        raise UserError(f"data.file={path}: cannot be read as a table ({first_line(error)}).") from error


def _object(row: Any) -> dict[str, Any]:
    """A line of JSON, which must be an object."""
    if not isinstance(row, dict):
        raise ValueError('a line is not an object such as {"path": "a.jpg", "label": "cat"}')
    return row


def _separated(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    """Rows of a CSV or TSV file; a row that ends early lacks the last columns."""
    lines = csv.reader(
        io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""), delimiter=delimiter, strict=True
    )
    rows = ([value.strip() for value in line] for line in lines if line)
    names = next(rows, [])
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UserError(f"data.file={path}: two columns are named {cut(twice[0])}. Rename or remove one.")
    for number, values in enumerate(rows, start=1):
        if any(values[len(names) :]):
            raise UserError(
                f"{path}, row {number}: {len(values)} values for {len(names)} columns. Put a value that contains"
                f" {'tabs' if delimiter == chr(9) else 'commas'} in quotation marks."
            )
        yield dict(zip(names, values, strict=False))


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError("data.file: a Parquet file needs pyarrow. Run: pip install camlab[huggingface]") from error
    if not path.is_file():
        raise FileNotFoundError(path)
    yield from parquet.read_table(path).to_pylist()


def _boxes(given: Any) -> tuple[Box, ...]:
    """Boxes from text, `left top right bottom; …`, or from a list of four numbers or of such lists."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return ()
    if isinstance(given, str):
        several: Sequence[Any] = [part.replace(",", " ").split() for part in given.split(";") if part.strip()]
    else:
        several = given if given and isinstance(given[0], (list, tuple)) else [given] if given else []
    boxes = []
    for one in several:
        left, top, right, bottom = map(float, one)
        if not (-math.inf < left < right < math.inf and -math.inf < top < bottom < math.inf):
            raise ValueError(one)
        boxes.append((left, top, right, bottom))
    return tuple(boxes)
