"""Means with bootstrap intervals over images, paired differences, and the scoring's check of itself.

Values of images are NaN where an image cannot be scored; they are left out, and their number is given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from camlab.attribution.network_input import described
from camlab.errors import UserError
from camlab.scores.checked import check_number, check_tensors, check_whole

LEVEL = 0.95
RESAMPLES = 2000
LEAST_FOR_CHECK = 30  # images
_MOST_ERRORS = 5.0  # standard errors from an exact chance level


class ScoringError(RuntimeError):
    """The scoring's check of itself failed: random maps do not score at chance."""


@dataclass(frozen=True)
class Interval:
    """A mean over images with its bootstrap interval; NaN if there are no images.

    Attributes:
        mean: Mean of the n images.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Number of images that have a value.
        unscored: Number of images that have none.
    """

    mean: float
    low: float
    high: float
    n: int
    unscored: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval: only then do two methods differ, if this is their difference.

        One image says nothing of the others, so its interval, which has no width, excludes nothing.
        """
        return self.n > 1 and (self.low > 0 or self.high < 0)


def mean_interval(values_N: Tensor, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean of one score over images, with a percentile bootstrap interval.

    Args:
        values_N: One value for each image; NaN for those that cannot be scored.
        level: Share of resamples in the interval.
        resamples: Number of resamples.
        seed: Random seed; torch's generators are not touched.

    Raises:
        UserError: There is not one value for each image.

    Example:
        >>> mean_interval(torch.tensor([0.5, 0.5, torch.nan]))
        Interval(mean=0.5, low=0.5, high=0.5, n=2, unscored=1)
    """
    check_tensors(values_N=values_N)
    check_number(level, "level", 0, 1)
    check_whole(resamples, "resamples", least=1)
    check_whole(seed, "seed")
    if values_N.dim() != 1:
        raise UserError(f"values: got {described(values_N)}, but one value for each image is needed.")
    values = values_N.detach().cpu().double()
    known = values[~values.isnan()]
    if len(known) == 0:
        return Interval(torch.nan, torch.nan, torch.nan, 0, len(values))
    low, high = bootstrap(lambda chosen: known[chosen].mean(dim=1), len(known), level, resamples, seed)
    return Interval(float(known.mean()), low, high, len(known), len(values) - len(known))


def paired_difference(first_N: Tensor, second_N: Tensor, seed: int = 0) -> Interval:
    """Mean of first - second over the images that both could score, with its interval.

    Two methods differ only where it `excludes_zero`.

    Example:
        >>> paired_difference(torch.tensor([0.9, 0.7, 0.8]), torch.tensor([0.5, 0.5, torch.nan])).n
        2
    """
    check_tensors(first_N=first_N, second_N=second_N)
    if first_N.shape != second_N.shape:
        raise UserError(f"values: {len(first_N)} and {len(second_N)} images. Give the values of the same images.")
    return mean_interval(first_N.detach().cpu() - second_N.detach().cpu(), seed=seed)


def bootstrap(
    statistic: Callable[[Tensor], Tensor],
    n: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of any statistic of n images, resampled with replacement.

    Args:
        statistic: Function from indices of images, R×n, to R values.
        n: Number of images.
        level: Share of resamples in the interval.
        resamples: Number of resamples; they are evaluated in blocks.
        seed: Random seed.

    Returns:
        Lower and upper end.

    Example:
        >>> bootstrap(lambda chosen: torch.ones(len(chosen)), 10)
        (1.0, 1.0)
    """
    check_whole(n, "n", 1)
    generator = torch.Generator("cpu").manual_seed(seed)
    found: list[Tensor] = []
    while (left := resamples - sum(map(len, found))) > 0:
        rows = min(left, max(1, 1_000_000 // n))
        found.append(statistic(torch.randint(n, (rows, n), generator=generator, device="cpu")).cpu().double())
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device="cpu")
    low, high = torch.cat(found).quantile(ends).tolist()
    return low, high


def check_chance(score: str, random_N: Tensor, chance: float | Tensor) -> None:
    """Check the scoring itself: random maps must score at a chance level that is known exactly.

    With fewer than 30 images nothing is checked. The bound is five standard errors, so that tables of many scores raise
    no false alarm.

    Args:
        score: Name of the score, for the message.
        random_N: Values of the pseudo-method `random`.
        chance: The chance level of all images, or of each.

    Raises:
        ScoringError: The mean is more than five standard errors from chance.

    Example:
        >>> check_chance("auroc", torch.tensor([0.4, 0.6]).repeat(20), 0.5)
        >>> check_chance("auroc", torch.tensor([0.8, 0.9]).repeat(20), 0.5)
        Traceback (most recent call last):
        ...
        camlab.scores.statistics.ScoringError: auroc: random maps score 0.35 above chance, 44 standard errors of 40 \
images, so the scoring itself is wrong.
    """
    excess = (random_N.detach() - chance).cpu().double()
    excess = excess[~excess.isnan()]
    if len(excess) < LEAST_FOR_CHECK:
        return
    mean, error = float(excess.mean()), float(excess.std()) / len(excess) ** 0.5
    if abs(mean) > _MOST_ERRORS * error + 1e-6:
        side, errors = ("above" if mean > 0 else "below"), abs(mean) / max(error, 1e-12)
        raise ScoringError(
            f"{score}: random maps score {abs(mean):.2g} {side} chance, {errors:.0f} standard errors of {len(excess)}"
            " images, so the scoring itself is wrong."
        )
