"""Boxes of objects in a CSV file: `file,left,top,right,bottom[,class]`, in pixels of the picture."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from camlab.errors import UserError, cut, did_you_mean, first_line
from camlab.storage.files import read_text

BOXES = "boxes.csv"
_SIDES = ("left", "top", "right", "bottom")


@dataclass
class BoxesOf:
    """The boxes of one picture.

    Attributes:
        boxes: (left, top, right, bottom) of each; right and bottom are not part of it.
        class_idx: The true class; None if the file does not say.
    """

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    class_idx: int | None = None


def read_boxes(path: Path, class_names: Sequence[str]) -> dict[str, BoxesOf]:
    """Read the boxes of all pictures, by the picture's path relative to the folder of the file.

    Raises:
        UserError: The file cannot be read, a column is missing, a box is none, or the network has no such class.
    """
    try:
        rows = list(csv.DictReader(read_text(path).removeprefix("\ufeff").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}). Repair or remove it.") from error
    found: dict[str, BoxesOf] = {}
    for line, row in enumerate(rows, 2):
        where = f"{path}, line {line}"
        own = found.setdefault(str(row.get("file") or ""), BoxesOf())
        own.boxes.append(_box(row, where))
        if name := row.get("class"):
            class_idx = _class(name, class_names, where)
            if own.class_idx not in (None, class_idx):
                raise UserError(f"{where}: another class than the line before. A picture has one true class.")
            own.class_idx = class_idx
    if not found or "" in found:
        raise UserError(f"{path}: no pictures are named. The first line is file,left,top,right,bottom[,class].")
    return found


def _box(row: dict[str, str], where: str) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = (float(row[side]) for side in _SIDES)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{where}: no box. The columns are file,left,top,right,bottom[,class].") from None
    if not all(map(math.isfinite, (left, top, right, bottom))) or left >= right or top >= bottom:
        raise UserError(f"{where}: {left:g},{top:g},{right:g},{bottom:g} is no box: left < right and top < bottom.")
    return left, top, right, bottom


def _class(name: str, class_names: Sequence[str], where: str) -> int:
    if name not in class_names:
        raise UserError(f"{where}: {cut(name)} is no class of the network. {did_you_mean(name, class_names)}".rstrip())
    return list(class_names).index(name)
