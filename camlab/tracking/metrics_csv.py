"""`metrics.csv`: what a run logs, as a table in its folder."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from camlab.runs.run_folder import METRICS
from camlab.storage.files import write_atomically

log = logging.getLogger(__name__)


class MetricsCsv(Logger):
    """`metrics.csv` straight in a run's folder: a line for each time that something is logged.

    Args:
        run_dir: of the run.

    Attributes:
        rows: what was logged, in order; checkpoints keep them, so that a resumed run has each once.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = run_dir / METRICS
        self.rows: list[dict[str, float]] = []
        self._known: list[str] = []  # columns of the file

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
                with open(self.path, "a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, known).writerow(_whole_numbers(row))
            self._known = self._columns()
        except OSError as error:  # half a line may stand there: the next time all are written anew
            log.warning("%s cannot be written (%s).", self.path, error.strerror)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Left out: the run's folder has its `config.yaml`."""

    @rank_zero_only
    def restore(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Start from these rows, whatever the file holds: what was logged behind a checkpoint comes again."""
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


def _whole_numbers(row: Mapping[str, float]) -> dict[str, float]:
    """Steps as one counts them: 3, not 3.0."""
    return {**row, "step": int(row["step"])}
