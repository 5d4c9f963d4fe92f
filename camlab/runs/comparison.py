"""Compare runs: which settings differ, how well each run did, and mean and spread over seeds."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from camlab.runs.records import RunRecord
from camlab.runs.short_names import shorten
from camlab.runs.watchers import DRAWING

SEED = "seed"
UNKNOWN = "–"  # a missing value in the table
# Settings that do not change what a run learns: places of files, loggers, how it starts, callbacks that draw.
_FILES = ("paths", "out", "run_name", "sweep", "logger")
_START = ("launcher", "sweeper", "hydra", "resume", "force", "checkpoint_every")
_INCIDENTAL = frozenset((*_FILES, *_START, *(f"callbacks.{name}" for name in DRAWING)))
# Settings whose differences are ignored unless some run was given them on its command line.
_SHOWN_IF_GIVEN = frozenset(["cache", "data.placement", "data.num_workers", "data.test_each_epoch", f"data.{SEED}"])

Measure = Callable[[RunRecord], float | None]
MEASURES: dict[str, Measure] = {  # by column of summary.csv
    "val_acc_best": lambda run: _best(run, "val"),
    "val_acc_last": lambda run: _last(run, "val"),
    "test_acc": lambda run: _last(run, "test") if run.split == "test" else _tested(run),
    "test_acc_best": lambda run: _best(run, "test") if len(run.curve) > 1 else None,
    "val_balanced_acc": lambda run: run.metrics.get("val/balanced_acc"),
    "test_balanced_acc": lambda run: run.metrics.get("test/balanced_acc"),
    "val_f1": lambda run: run.metrics.get("val/f1"),
    "test_f1": lambda run: run.metrics.get("test/f1"),
    "val_loss": lambda run: run.metrics.get("val/loss"),
    "test_loss": lambda run: run.metrics.get("test/loss"),
    "time_s": lambda run: run.seconds,
    "images_per_s": lambda run: run.metrics.get("train/images_per_second"),
    "epochs": lambda run: run.epochs,
}
_RANKED_BY = ("val_acc_best", "test_acc")  # groups that have the first come before those that have only the second
_IN_MEASURES = frozenset(
    f"{split}/{name}" for split in ("val", "test") for name in ("acc", "best_acc", "balanced_acc", "f1", "loss")
)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        settings: One value for each setting that differs between groups; empty where it is unknown.
        runs: The runs of the group.
    """

    settings: tuple[str, ...]
    runs: list[RunRecord]

    def values(self, name: str) -> list[float]:
        """Values of a measure, or of a metric such as `test/pointing_game`, for the runs that have it.

        If some runs are finished, the others do not count: one of them may be the beginning of a finished run.
        """
        measure = MEASURES.get(name, lambda run: run.metrics.get(name))
        finished = [run for run in self.runs if run.state == "finished"]
        return [value for run in finished or self.runs if (value := measure(run)) is not None]

    def mean(self, name: str) -> float:
        """Mean over the runs; NaN if none has the value."""
        values = self.values(name)
        return statistics.fmean(values) if values else math.nan

    def std(self, name: str) -> float:
        """Standard deviation over the runs (n - 1); NaN for fewer than two, or if a value is not finite."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan

    @property
    def state(self) -> str:
        """Number of runs in each state, such as `2 finished, 1 failed`."""
        states = [run.state for run in self.runs]
        return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


@dataclass(frozen=True)
class Comparison:
    """Runs in groups, the most accurate first.

    Groups with a validation accuracy come first and are ranked by it; the others are ranked by test accuracy.

    Attributes:
        varied: Settings that differ between groups.
        groups: Groups of runs, in the order of their rank.
    """

    varied: list[str]
    groups: list[Group]

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]

    @property
    def short_settings(self) -> list[tuple[str, ...]]:
        """The settings of each group, shortened as far as they can still be told apart."""
        columns = zip(*(group.settings for group in self.groups), strict=True)
        shortened = [[short or UNKNOWN for short in shorten(column)] for column in columns]
        return list(zip(*shortened, strict=True)) or [()] * len(self.groups)

    @property
    def ranked_by(self) -> str:
        """The measure that ranks the first groups: `val_acc_best`, or `test_acc` if no run has validation images."""
        return next((name for name in _RANKED_BY if any(group.values(name) for group in self.groups)), _RANKED_BY[0])

    @property
    def scores(self) -> list[str]:
        """Metrics of the splits `test` and `val` that are not among the measures, such as `test/pointing_game`."""
        names = {name for run in self.runs for name in run.metrics if name.startswith(("test/", "val/"))}
        return sorted(names - _IN_MEASURES)


def side_by_side(found: Iterable[RunRecord]) -> Comparison:
    """Group runs by their settings, and rank the groups.

    Settings are compared by the values that the runs used, whether given or default. The seed and settings that do not
    change the outcome (logger, launcher, paths, …) do not separate runs.
    """
    runs = list(found)
    varied = _differing(runs, _given(runs))
    varied += [key for key in _differing_unasked(runs, varied) if key not in varied]
    groups = [Group(settings, members) for settings, members in _grouped(runs, varied).items()]
    return Comparison(varied, sorted(groups, key=_rank))


def _given(runs: Sequence[RunRecord]) -> list[str]:
    """Settings that at least one run was given on its command line."""
    keys = {key for run in runs for key in run.overrides}
    return sorted(key for key in keys if not _is_incidental(key) and key != SEED)


def _differing(runs: Sequence[RunRecord], keys: Iterable[str]) -> list[str]:
    return [key for key in keys if len({run.setting(key) for run in runs}) > 1]


def _differing_unasked(runs: Sequence[RunRecord], varied: Sequence[str]) -> list[str]:
    """Settings that differ within a group though no command line names them, because defaults have been edited."""
    found: set[str] = set()
    for members in _grouped(runs, varied).values():
        known = [run.settings for run in members if run.settings]
        keys = {key for settings in known for key in settings} - _SHOWN_IF_GIVEN - {SEED}
        values = {key: {settings[key] for settings in known if key in settings} for key in keys}
        found |= {key for key, several in values.items() if len(several) > 1 and not _is_incidental(key)}
    return sorted(found)


def _grouped(runs: Sequence[RunRecord], varied: Sequence[str]) -> dict[tuple[str, ...], list[RunRecord]]:
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(tuple(run.setting(key) or "" for key in varied), []).append(run)
    return groups


def _is_incidental(key: str) -> bool:
    first, *further = key.partition("/")[0].split(".")
    return first in _INCIDENTAL or ".".join([first, *further[:1]]) in _INCIDENTAL or key == "callbacks"


def _rank(group: Group) -> tuple[int, float]:
    for place, name in enumerate(_RANKED_BY):
        if not math.isnan(mean := group.mean(name)):
            return place, -mean
    return len(_RANKED_BY), 0.0


def _best(run: RunRecord, split: str) -> float | None:
    """Highest accuracy after any epoch; NaN if all are NaN."""
    if run.split != split or not run.curve:
        return None
    accuracies = [*(accuracy for _, accuracy in run.curve), run.metrics.get(f"{split}/best_acc", math.nan)]
    return max((accuracy for accuracy in accuracies if not math.isnan(accuracy)), default=math.nan)


def _last(run: RunRecord, split: str) -> float | None:
    return run.curve[-1][1] if run.split == split and run.curve else None


def _tested(run: RunRecord) -> float | None:
    """Test accuracy of the chosen weights, which only a finished run has."""
    return run.metrics.get("test/acc") if run.state == "finished" else None
