"""Runs side by side: what varied between them, how well each did, seeds together."""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from camlab.runs.records import RunRecord

SEED = "seed"
_INCIDENTAL = ("paths", "logger", "callbacks", "resume", "force", "run_name", "sweep")
Figure = Callable[[RunRecord], float | None]
FIGURES: dict[str, Figure] = {  # by their names in summary.csv
    "acc_best": lambda run: run.best,
    "acc_last": lambda run: run.last,
    "test_acc": lambda run: run.test_acc,
    "loss": lambda run: run.loss,
    "time_s": lambda run: run.seconds,
    "images_per_s": lambda run: run.images_per_second,
    "epochs": lambda run: run.epochs,
}


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only.

    Attributes:
        settings: one value for each setting that varies between groups; empty where it is not known.
        runs: of the group.
    """

    settings: tuple[str, ...]
    runs: list[RunRecord]

    def values(self, figure: str) -> list[float]:
        """A figure of all runs that have it."""
        return [value for run in self.runs if (value := FIGURES[figure](run)) is not None]

    def mean(self, figure: str) -> float:
        """Mean over the runs; NaN if none has the figure."""
        values = self.values(figure)
        return statistics.fmean(values) if values else math.nan

    def std(self, figure: str) -> float:
        """Standard deviation over the runs (n - 1); NaN for fewer than two."""
        values = self.values(figure)
        return statistics.stdev(values) if len(values) > 1 else math.nan

    @property
    def state(self) -> str:
        """How many runs are in which state."""
        states = [run.state for run in self.runs]
        return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


@dataclass(frozen=True)
class Comparison:
    """Runs in groups, the most accurate first.

    Attributes:
        varied: settings that differ between groups.
        groups: of runs.
    """

    varied: list[str]
    groups: list[Group]

    @property
    def runs(self) -> list[RunRecord]:
        """All of them, group by group."""
        return [run for group in self.groups for run in group.runs]

    @property
    def split(self) -> str:
        """Whose accuracy is compared: `val`, or `test` where no run held anything out."""
        return "val" if any(run.split == "val" for run in self.runs) else "test"

    @property
    def figure(self) -> str:
        """What ranks them: the best epoch's accuracy, but on test images, which choose nothing, the last one's."""
        return "acc_best" if self.split == "val" else "acc_last"


def side_by_side(found: Iterable[RunRecord]) -> Comparison:
    """Group runs by what varies between them but for the seed; sort by accuracy."""
    records = list(found)
    typed = sorted({key for run in records for key in run.overrides if key.partition(".")[0] not in _INCIDENTAL})
    settings = {key: [run.setting(key) or "" for run in records] for key in typed}
    varied = [key for key, values in settings.items() if len(set(values)) > 1 and key != SEED]
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for i, run in enumerate(records):
        groups.setdefault(tuple(settings[key][i] for key in varied), []).append(run)
    compared = Comparison(varied, [Group(key, members) for key, members in groups.items()])
    compared.groups.sort(key=lambda group: -group.mean(compared.figure) if group.values(compared.figure) else math.inf)
    return compared
