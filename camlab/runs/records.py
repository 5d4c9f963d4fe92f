"""What runs' folders tell about them, finished or not: settings, curve, figures. No torch is imported to read it."""

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from camlab.runs import run_folder

_OWN_FOLDERS = frozenset(["checkpoints", run_folder.HEATMAPS, "wandb", "tensorboard"])
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        folder: of the run.
        state: `finished`, `failed` or `unfinished` (under way, or interrupted).
        overrides: what was typed for it, by setting.
        split: whose accuracy the curve is, `val` or `test`.
        curve: (epochs done, accuracy from 0 to 1).
        loss: of that split, last.
        test_acc: of the weights chosen at the end, from 0 to 1.
        seconds: from start to end.
        images_per_second: of training, last epoch.
        why: it failed.
    """

    folder: Path
    state: str
    overrides: dict[str, str]
    split: str
    curve: list[tuple[float, float]]
    loss: float | None
    test_acc: float | None
    seconds: float | None
    images_per_second: float | None
    why: str = ""

    @property
    def best(self) -> float | None:
        """The highest accuracy of the curve."""
        return max((accuracy for _, accuracy in self.curve), default=None)

    @property
    def last(self) -> float | None:
        """The accuracy after the last epoch."""
        return self.curve[-1][1] if self.curve else None

    @property
    def epochs(self) -> float | None:
        """Epochs done."""
        return self.curve[-1][0] if self.curve else None

    def setting(self, key: str) -> str | None:
        """What was typed for a setting, else what the run's configuration says, else None."""
        if key in self.overrides:
            return self.overrides[key]
        node = self._config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return None if node is None or isinstance(node, dict) else _plain(str(node))

    @cached_property
    def _config(self) -> Any:
        return _read_yaml(self.folder / run_folder.CONFIG)


def read_runs(folders: Iterable[Path]) -> Iterator[RunRecord]:
    """All runs in folders and below, whatever else lies there."""
    for top in folders:
        for folder, below, files in os.walk(top):
            below[:] = sorted(name for name in below if name not in _OWN_FOLDERS and name[0] != ".")
            if {run_folder.CONFIG, run_folder.RESULT, run_folder.FAILURE} & set(files) and (
                record := _read_run(Path(folder))
            ):
                yield record


def _read_run(folder: Path) -> RunRecord | None:
    """One run; None if the folder is something else."""
    result, failure = run_folder.read_result(folder), run_folder.read_failure(folder)
    if not (result or failure or run_folder.read_config_hash(folder)):
        return None
    columns = _read_metrics(folder / run_folder.METRICS)
    split = "val" if columns.get("val/acc") else "test"
    curve = columns.get(f"{split}/acc", [])
    metrics = result["metrics"] if result else {}
    if result and not curve and "test/acc" in metrics:
        curve = [(float(result["epochs"]), metrics["test/acc"])]
    return RunRecord(
        folder=folder,
        state="finished" if result else "failed" if failure else "unfinished",
        overrides=_read_overrides(folder),
        split=split,
        curve=curve,
        loss=_last(columns.get(f"{split}/loss")),
        test_acc=metrics.get("test/acc"),
        seconds=result["wall_time_s"] if result else None,
        images_per_second=_last(columns.get("train/images_per_second")),
        why=failure.message if failure and not result else "",
    )


def _read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """(epoch, value) of each column of `metrics.csv`; rows that do not fit (being written, damaged) are left out."""
    columns: dict[str, list[tuple[float, float]]] = {}
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.reader(line.replace("\0", "") for line in file)
            names = next(rows, [])
            place = names.index("epoch")
            for row in rows:
                _read_row(names, row, place, columns)
    except (OSError, ValueError, csv.Error):
        return columns
    return columns


def _read_row(names: list[str], row: list[str], place: int, columns: dict[str, list[tuple[float, float]]]) -> None:
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


def _plain(value: str) -> str:
    """A value as one reads it: 1e-3 and 0.001 are the same, quotes are Hydra's."""
    try:
        return f"{float(value):g}"
    except ValueError:
        return value.strip("'\"")


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _last(values: list[tuple[float, float]] | None) -> float | None:
    return values[-1][1] if values else None
