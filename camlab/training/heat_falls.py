"""Epochs in which a network becomes more accurate while its heatmaps become worse."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from camlab.runs.watchers import HEADLINES, HEAT
from camlab.scores import paired_difference

WATCHED = dict(zip(HEADLINES, ("localisation", "faithfulness"), strict=True))  # and what falls with them
LEAST = 10  # images; an interval of fewer would be too narrow


@dataclass(frozen=True)
class Measured:
    """A score at one moment of a training.

    Attributes:
        epoch: Epochs done.
        accuracy: Accuracy then, 0 to 1.
        values: The score of each image, N.
    """

    epoch: int
    accuracy: float
    values: Tensor


@dataclass(frozen=True)
class Fall:
    """A fall of a score beyond the noise, while the accuracy rises; `result.json` lists these under `heat_falls`.

    Attributes:
        score: Name of the metric, such as `val/heat/auroc`.
        epoch: Epochs done.
        since: Epochs done at the scoring before.
        accuracy_before, accuracy: The accuracies, 0 to 1.
        before, after: Means of the score over the images that both times could score.
        low, high: Ends of the 95 % interval of the paired difference of these images, after - before.
        n: Number of these images.
    """

    score: str
    epoch: int
    since: int
    accuracy_before: float
    accuracy: float
    before: float
    after: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        name = self.score.removeprefix(HEAT)
        return (
            f"Epoch {self.epoch}: accuracy rises ({100 * self.accuracy_before:.1f} % → {100 * self.accuracy:.1f} %),"
            f" but {WATCHED[name]} falls ({name} {self.before:.3f} → {self.after:.3f} on the same {self.n} images;"
            f" 95 % interval of the difference {self.low:.3f} to {self.high:.3f})."
        )

    def as_dict(self) -> dict[str, Any]:
        """The attributes, as plain values."""
        return asdict(self)


def fall_of(name: str, before: Measured, after: Measured) -> Fall | None:
    """Compare a score with its previous values, image by image; None if it has not fallen while the accuracy rose.

    Args:
        name: Name of the score, one of `WATCHED`.
        before: The score at the previous scoring.
        after: The score of the same images now.

    Example:
        >>> import torch
        >>> before = Measured(1, 0.8, torch.linspace(0.8, 0.9, 20))
        >>> fall_of("auroc", before, Measured(2, 0.9, before.values - 0.1)).n
        20
        >>> fall_of("auroc", before, Measured(2, 0.7, before.values - 0.1)) is None
        True
    """
    if not after.accuracy > before.accuracy or len(before.values) != len(after.values):
        return None
    both = ~(before.values.isnan() | after.values.isnan())
    first, second = before.values[both], after.values[both]
    if len(first) < LEAST or second.mean() >= first.mean():
        return None
    change = paired_difference(second, first)
    if not change.high < 0:
        return None
    return Fall(
        f"{HEAT}{name}", after.epoch, before.epoch, before.accuracy, after.accuracy,
        float(first.mean()), float(second.mean()), change.low, change.high, change.n,
    )  # fmt: skip


def falls_from(plain: Any) -> list[Fall]:
    """Falls from the plain values that a checkpoint holds.

    Raises:
        ValueError: They are damaged.
    """
    found = []
    for entry in plain:
        if not isinstance(entry, Mapping) or set(entry) != set(Fall.__annotations__):
            raise ValueError("an entry of heat_falls is damaged")
        numbers = [value for key, value in entry.items() if key != "score"]
        if entry["score"] not in {f"{HEAT}{name}" for name in WATCHED}:
            raise ValueError("an entry of heat_falls is of another score")
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError("an entry of heat_falls is no number")
        found.append(Fall(**entry))
    return found
