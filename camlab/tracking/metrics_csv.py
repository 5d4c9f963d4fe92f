"""Logger for `metrics.csv`, the table of a run's metrics in its folder."""

import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from camlab.runs.run_folder import METRICS
from camlab.storage.files import write_atomically

log = logging.getLogger(__name__)


class MetricsCsv(Logger):
    """Writes `metrics.csv` in a run's folder: one line for each call of `log_metrics`.

    Args:
        run_dir: Folder of the run.

    Attributes:
        rows: Logged rows, in order. Checkpoints keep them, so that the file of a resumed run has each row once.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = run_dir / METRICS
        self.rows: list[dict[str, float]] = []
        self._known: list[str] = []  # columns that the file has now

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": float(step or 0), **{key: float(value) for key, value in metrics.items()}}
        known, self._known = self._known, []
        self.rows.append(row)
        try:
            if self._columns() != known:
                self._write_all()
            else:
                with open(self.path, "a", newline="", encoding="utf-8", opener=_no_link) as file:
                    csv.DictWriter(file, known).writerow(_whole_numbers(row))
            self._known = self._columns()
        except OSError as error:  # the last line may be incomplete: the next call writes the whole file again
            log.warning("%s cannot be written (%s).", self.path, error.strerror)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing, because the run's folder already holds `config.yaml`."""

    @rank_zero_only
    def restore(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace all rows with those of a checkpoint; what was logged after it will be logged again."""
        self.rows, self._known = [dict(row) for row in rows], []
        if self.rows:
            self._write_all()
        else:
            self.path.unlink(missing_ok=True)

    def _columns(self) -> list[str]:
        return sorted({key for row in self.rows for key in row})

    def _write_all(self) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self._columns())
        writer.writeheader()
        writer.writerows(map(_whole_numbers, self.rows))
        write_atomically(self.path, table.getvalue())


def _no_link(path: str, flags: int) -> int:
    """Open a file, and refuse a symbolic link in its place."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _whole_numbers(row: Mapping[str, float]) -> dict[str, float]:
    """A row with its step as a whole number: 3, not 3.0."""
    return {**row, "step": int(row["step"])}
