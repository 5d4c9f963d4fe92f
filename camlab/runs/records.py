"""Read the folders of finished and unfinished runs: settings, curves, metrics. The module does not import torch."""

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from camlab.runs import run_folder
from camlab.storage import documents
from camlab.storage.files import read_text

Curve = list[tuple[float, float]]

_NOT_SEARCHED = frozenset(["checkpoints", run_folder.HEATMAPS, "wandb", "tensorboard"])


@dataclass(frozen=True)
class RunRecord:
    """The content of one run folder.

    Attributes:
        folder: Folder of the run.
        state: `finished`, `failed` or `unfinished` (still running, or interrupted).
        overrides: Values given on the command line, by setting.
        curves: Points (epochs done, value) of each column of `metrics.csv`.
        metrics: Last value of each metric; for a finished run, that of `result.json`.
        epochs: Number of epochs done; None if unknown.
        seconds: Wall time of a finished run, else None.
        failure: Reason for the failure; empty for a run that did not fail.
    """

    folder: Path
    state: str
    overrides: dict[str, str] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: float | None = None
    seconds: float | None = None
    failure: str = ""

    @property
    def split(self) -> str:
        """The split that ranks the run: `val`, or `test` if the run has no validation images."""
        return "val" if "val/acc" in self.metrics else "test"

    @property
    def curve(self) -> Curve:
        """Accuracy on `split` by epochs done, 0 to 1."""
        name = f"{self.split}/acc"
        if name in self.curves or name not in self.metrics or self.epochs is None:
            return self.curves.get(name, [])
        return [(self.epochs, self.metrics[name])]

    def setting(self, key: str) -> str | None:
        """Return the value, given or default, that the run used for a setting; None if the folder does not record it.

        Args:
            key: A dotted name such as `optimizer.lr`, or a group such as `data`.
        """
        if key in self.settings:
            return self.settings[key]
        if key in self.overrides:
            return self.overrides[key]
        return self._choices.get(key)

    @cached_property
    def settings(self) -> dict[str, str]:
        """All values of `config.yaml`, by dotted name; empty if it is missing, damaged or has been changed."""
        try:
            return dict(_leaves(run_folder.read_config(self.folder), ""))
        except (OSError, ValueError):
            return {}

    @cached_property
    def _choices(self) -> dict[str, str]:
        """The option chosen in each group, as Hydra records it."""
        node = _read_yaml(self.folder / ".hydra" / "hydra.yaml")
        for key in ("hydra", "runtime", "choices"):
            node = node.get(key) if isinstance(node, dict) else None
        return dict(_leaves(node, ""))


def read_runs(folders: Iterable[Path]) -> Iterator[RunRecord]:
    """Yield all runs in some folders and their subfolders; anything else there is ignored."""
    for top in folders:
        for folder, below, files in os.walk(top):
            below[:] = sorted(name for name in below if name not in _NOT_SEARCHED and name[0] != ".")
            if {run_folder.CONFIG, run_folder.RESULT, run_folder.FAILURE} & set(files) and (
                record := read_run(Path(folder))
            ):
                yield record


def read_run(folder: Path) -> RunRecord | None:
    """The run of a folder; None if the folder is not a run's."""
    result, failure = run_folder.read_result(folder), run_folder.read_failure(folder)
    if not (result or failure or run_folder.read_config_hash(folder)):
        return None
    curves = read_curves(folder / run_folder.METRICS)
    final = result or {"metrics": {}, "wall_time_s": None, "epochs": None}
    metrics = {name: curve[-1][1] for name, curve in curves.items()}
    metrics |= {name: number for name, value in final["metrics"].items() if (number := _number(value)) is not None}
    last_row = max((curve[-1][0] for curve in curves.values()), default=None)
    return RunRecord(
        folder=folder,
        state="finished" if result else "failed" if failure else "unfinished",
        overrides=_read_overrides(folder),
        curves=curves,
        metrics=metrics,
        epochs=last_row if (epochs := _number(final["epochs"])) is None else epochs,
        seconds=_number(final["wall_time_s"]),
        failure=failure.message if failure and not result else "",
    )


def read_curves(path: Path) -> dict[str, Curve]:
    """Read (epochs done, value) of each column of `metrics.csv`; damaged and half-written rows are left out."""
    columns: dict[str, Curve] = {}
    try:
        rows = csv.reader(line.replace("\0", "") for line in read_text(path, errors="replace").splitlines())
        names = next(rows, [])
        place = names.index("epoch")
        for row in rows:
            _read_row(names, row, place, columns)
    except (OSError, ValueError, csv.Error):
        return columns
    return columns


def _read_row(names: list[str], row: list[str], place: int, columns: dict[str, Curve]) -> None:
    if len(row) != len(names) or not row[place]:
        return
    try:
        values = {name: float(text) for name, text in zip(names, row, strict=True) if text}
    except ValueError:
        return
    for name, value in values.items():
        columns.setdefault(name, []).append((values["epoch"], value))


def _read_overrides(folder: Path) -> dict[str, str]:
    listed = _read_yaml(folder / ".hydra" / "overrides.yaml")
    pairs = (str(item).partition("=") for item in listed) if isinstance(listed, list) else ()
    return {key.lstrip("+~"): _plain(value) for key, _, value in pairs}


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Dotted names and values of all settings in nested dictionaries."""
    if isinstance(node, dict) and (node or not path):
        for key, child in node.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, _plain(_as_typed(node))


def _as_typed(value: Any) -> str:
    """A value of a YAML file as it is written on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_as_typed, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _plain(value: str) -> str:
    """A value in one spelling, without Hydra's quotes: 1e-3 and 0.001 become equal, and so do true and True."""
    try:
        number = float(value)
    except ValueError:
        return value.lower() if value in ("True", "False") else value.strip("'\"")
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.10g}"


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:  # for example, an integer of 400 digits
        return None


def _read_yaml(path: Path) -> Any:
    """Content of a YAML file; None if it cannot be read."""
    try:
        return documents.read_yaml(path)
    except (OSError, ValueError):
        return None
