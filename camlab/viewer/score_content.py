"""Read what a folder of `camlab.score` holds about its heatmaps. The module does not import torch."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from camlab.errors import UserError, plain
from camlab.runs import run_folder
from camlab.storage.documents import read_json
from camlab.storage.files import read_text
from camlab.storage.maps_file import StoredMaps
from camlab.viewer.content import Measure, RunContent
from camlab.viewer.stored import class_names_of, pictures_of, read_sound, series_of

MAPS, ABOUT, VALUES = f"{run_folder.HEATMAPS}/maps.npz", "scores.json", "scores.csv"
_AGAIN = "Repeat the command camlab.score."


def is_scored(folder: Path) -> bool:
    """Whether `camlab.score` has written its files into a folder, maps among them."""
    return (folder / MAPS).is_file() and (folder / ABOUT).is_file()


def read_scored(folder: Path) -> RunContent:
    """Read the heatmaps of a folder of `camlab.score`, with the scores of each picture.

    Args:
        folder: Output folder of `camlab.score`.

    Raises:
        UserError: A file is damaged, of another format, or missing.
    """
    stored = read_sound(folder / MAPS, _AGAIN)
    about = _about(folder / ABOUT)
    probabilities = stored.probabilities.astype(np.float32)[None]
    scored = about["pictures"]
    return RunContent(
        folder=folder,
        epochs=[0],
        class_names=class_names_of(stored),
        pictures=pictures_of(stored, folder / run_folder.HEATMAPS, _AGAIN),
        predicted=np.nan_to_num(probabilities).argmax(axis=-1),
        class_idx=stored.class_idx[None],
        probabilities=probabilities,
        series=series_of([stored]),
        measures=_measures(folder / VALUES, stored, about["measures"]),
        overrides={"network": str(about["network"]["name"]), "pictures": str(scored["place"])},
        notes=(*_notes(stored, int(scored["number"])), *(plain(str(line)) for line in about["sentences"])),
        has_epochs=False,
    )


def _about(path: Path) -> dict[str, Any]:
    """The content of `scores.json`.

    Raises:
        UserError: It is damaged.
    """
    try:
        about: dict[str, Any] = dict(read_json(path))
        texts = [about["network"]["name"], about["pictures"]["place"], *about["sentences"]]
        texts += [of[key] for of in about["measures"].values() for key in ("title", "class")]
        ends = [of["higher_is_better"] for of in about["measures"].values()]
        is_right = all(isinstance(text, str) for text in texts) and all(end in (True, False, None) for end in ends)
        if is_right and type(about["pictures"]["number"]) is int:
            return about
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} is damaged. {_AGAIN}")


def _measures(path: Path, stored: StoredMaps, titles: dict[str, dict[str, Any]]) -> list[Measure]:
    """The scores of the pictures that are shown, by method.

    Raises:
        UserError: The file is damaged.
    """
    try:
        positions = [int(Path(file).stem) for file in stored.files]
        rows: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(read_text(path, "surrogateescape").splitlines()):
            rows.setdefault(row["method"], []).append(row)
        return [
            Measure(
                name,
                plain(of["title"]),
                of["higher_is_better"],
                plain(of["class"]),
                np.array([[_number(rows[row][i][name]) for i in positions] for row in stored.maps], np.float32),
            )
            for name, of in titles.items()
        ]
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged. {_AGAIN}") from error


def _number(text: str) -> float:
    """A value of the table; NaN where there is none.

    Raises:
        ValueError: It is no finite number.
    """
    if not text:
        return math.nan
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _notes(stored: StoredMaps, scored: int) -> tuple[str, ...]:
    n = len(stored.files)
    return (f"Of {scored} pictures that were scored, {n} are here, evenly chosen.",) if n < scored else ()
