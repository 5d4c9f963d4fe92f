"""Means with intervals, chance levels, ranks and verdicts of all rows; and the scoring's check of itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from camlab.evaluation.scoring.picture_set import PictureSet
from camlab.evaluation.scoring.request import is_of_true_class, score_of_measure
from camlab.evaluation.scoring.rows import Row
from camlab.scores.boxes import box_accuracy, box_thresholds
from camlab.scores.catalogue import SCORES, Score
from camlab.scores.pixel_precision import pxap_interval
from camlab.scores.randomisation import Randomised, Verdict, gate
from camlab.scores.statistics import (
    LEAST_FOR_CHECK,
    Interval,
    ScoringError,
    check_chance,
    mean_interval,
    paired_difference,
)

LEAST = 10  # pictures; with fewer, nothing is ranked and no verdict is given


@dataclass(frozen=True)
class Cell:
    """One score of one row.

    Attributes:
        interval: Mean with its interval and the number of pictures.
        none: Number of pictures whose map has no positive value.
        chance: The chance level; None if only the pseudo-methods tell it.
        rank: One more than the number of rows that are better beyond doubt; None if the score is not ranked.
    """

    interval: Interval
    none: int
    chance: float | None
    rank: int | None = None


@dataclass(frozen=True)
class Summary:
    """What a scoring has found.

    Attributes:
        pictures: The pictures.
        rows: The rows, pseudo-methods first.
        measures: Names of the scores, in the order of the tables.
        values: One value for each picture, by row and measure; without measures of whole sets.
        cells: By row and measure.
        verdicts: The sanity gate by row; of pseudo-methods, only that of `edges`.
        curves: Mean curves by row and imputer, 2×(steps + 1): highest and lowest cells first, NaN at unused points.
        refused: The reason for each method that could not be scored.
    """

    pictures: PictureSet
    rows: Sequence[Row]
    measures: Sequence[str]
    values: Mapping[str, Mapping[str, Tensor]]
    cells: Mapping[str, Mapping[str, Cell]]
    verdicts: Mapping[str, Verdict]
    curves: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def methods(self) -> list[Row]:
        """The rows that explain the network."""
        return [row for row in self.rows if not row.is_pseudo]

    def beside(self, method: str, row: Row) -> str | None:
        """Name of the row of a pseudo-method on the grid of another row."""
        return next((other.name for other in self.rows if other.method == method and other.grid == row.grid), None)

    def difference(self, measure: str, row: str, other: str) -> Interval | None:
        """Paired difference row - other; None if there are too few pictures that both could score."""
        first, second = (self.values[name].get(measure) for name in (row, other))
        return None if first is None or second is None else difference(first, second)


def difference(first_N: Tensor, second_N: Tensor) -> Interval | None:
    """Paired difference with its interval; None with fewer than `LEAST` pictures that have both values.

    Example:
        >>> difference(torch.ones(3), torch.zeros(3)) is None
        True
    """
    both = int((~(first_N - second_N).isnan()).sum())
    return paired_difference(first_N, second_N) if both >= LEAST else None


def check_scoring(pictures: PictureSet, row: Row, measured: Mapping[str, Tensor]) -> None:
    """Check the scoring itself: random maps must score at chance, and an edge detector must fail the sanity gate.

    Raises:
        ScoringError: It does not, so that no table can be trusted.
    """
    if row.method == "random":
        for measure, values in measured.items():
            score = _score(measure)
            if score is not None and score.exact:
                assert isinstance(score.chance, float)
                check_chance(measure, values, score.chance)
    if row.method == "edges" and len(pictures) >= LEAST_FOR_CHECK:
        verdict = _verdict(measured)
        if verdict.passes is not False and verdict.similarity.n >= LEAST_FOR_CHECK:
            raise ScoringError(
                f"mprt: an edge detector passes the sanity gate (Spearman {verdict.similarity.mean:.2f}), though it"
                " knows nothing of the network, so the scoring itself is wrong."
            )


def summarise(
    pictures: PictureSet,
    measures: Sequence[str],
    measured: Mapping[Row, Mapping[str, Tensor]],
    refused: dict[str, str],
    overlaps: Mapping[str, Tensor] | None = None,
) -> Summary:
    """Summarise the values of all rows.

    Args:
        pictures: The pictures.
        measures: Names of the scores in tables.
        measured: The columns of each row.
        refused: The reason for each method that could not be scored.
        overlaps: Overlaps of other pictures by row, which choose the thresholds of `max_box_acc`; without them, each
            half of the pictures chooses for the other.
    """
    chosen = {name: box_thresholds(of) for name, of in (overlaps or {}).items()}
    own = {
        row: {name: _of_images(name, columns[name], chosen.get(row.name)) for name in measures}
        for row, columns in measured.items()
    }
    values = {row.name: {name: v for name, v in of.items() if v is not None} for row, of in own.items()}
    ranks = {name: _ranks(name, {row: of[name] for row, of in values.items() if name in of}) for name in measures}
    chances = {name: _chance(name, pictures) for name in measures}
    cells = {
        row.name: {
            name: Cell(
                _interval(columns[name], values[row.name].get(name)),
                _count_none(name, columns, values[row.name].get(name)),
                chances[name],
                ranks[name].get(row.name),
            )
            for name in measures
        }
        for row, columns in measured.items()
    }
    verdicts = {row.name: _verdict(of) for row, of in measured.items() if not row.is_pseudo or row.method == "edges"}
    curves = {
        row.name: {
            name.removeprefix("curves_"): of_all.unflatten(1, (2, -1)).nanmean(dim=0)
            for name, of_all in columns.items()
            if name.startswith("curves_")
        }
        for row, columns in measured.items()
    }
    return Summary(pictures, list(measured), measures, values, cells, verdicts, curves, refused)


def _score(measure: str) -> Score | None:
    name = "srg" if measure.startswith("srg_") else measure
    return SCORES.get(name)


def _of_images(measure: str, columns: Tensor, chosen: Tensor | None) -> Tensor | None:
    """One value for each picture; None for a measure of a whole set."""
    if measure == "max_box_acc":
        return _box_accuracy(columns) if chosen is None else box_accuracy(columns, chosen)
    return None if score_of_measure(measure).of_set else columns


def _box_accuracy(overlaps_NT: Tensor) -> Tensor:
    """MaxBoxAccV2; each half of the pictures with boxes, every second one, is scored as the other half chose."""
    found = torch.full((len(overlaps_NT),), math.nan)
    known = torch.nonzero(~overlaps_NT.isnan().any(dim=1)).flatten()
    for part, others in ((known[::2], known[1::2]), (known[1::2], known[::2])):
        if len(others):
            found[part] = box_accuracy(overlaps_NT[part], box_thresholds(overlaps_NT[others]))
    return found


def _interval(columns: Tensor, values: Tensor | None) -> Interval:
    if values is not None:
        return mean_interval(values)
    return pxap_interval(columns.unflatten(1, (2, -1)).long())


def _count_none(measure: str, columns: Mapping[str, Tensor], values: Tensor | None) -> int:
    """Number of the pictures in the mean whose map has no positive value."""
    none = columns["none_of_true" if is_of_true_class(measure) else "none"]
    scored = columns[measure].flatten(1).any(dim=1) if values is None else ~values.isnan()
    return int((none[scored] > 0).sum())


def _chance(measure: str, pictures: PictureSet) -> float | None:
    chance = score_of_measure(measure).chance
    if chance is None or isinstance(chance, float):
        return chance
    assert pictures.masks is not None
    known = pictures.masks[pictures.masks.flatten(1).any(dim=1)]
    return float(chance(known).mean()) if len(known) else None


def _ranks(measure: str, values: Mapping[str, Tensor]) -> dict[str, int]:
    """One more than the number of rows whose paired difference says that they are better."""
    better = score_of_measure(measure).higher_is_better
    if better is None:
        return {}
    known = {row: of for row, of in values.items() if int((~of.isnan()).sum()) >= LEAST}
    ranks = dict.fromkeys(known, 1)
    names = list(known)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            found = difference(known[one], known[other])
            if found is not None and found.excludes_zero:
                ranks[other if (found.mean > 0) == better else one] += 1
    return ranks


def _verdict(columns: Mapping[str, Tensor]) -> Verdict:
    nothing = torch.empty(0)
    found = gate(Randomised((), columns["mprt"][:, None], columns["pair"], nothing, nothing))
    if found.similarity.n >= LEAST:
        return found
    return Verdict(None, found.similarity, found.of_random_pair)
