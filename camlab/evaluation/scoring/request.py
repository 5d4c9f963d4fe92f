"""What is asked of a scoring, and the columns that hold the answer for each picture."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from camlab.runs.score_names import SCORES_OF_AUTO
from camlab.scores.boxes import THRESHOLDS
from camlab.scores.catalogue import Score, score_of
from camlab.scores.pixel_precision import BINS
from camlab.scores.removal import STEPS


@dataclass(frozen=True)
class Request:
    """What is to be scored, and how.

    Attributes:
        methods: Names of heatmap methods; None tries those of `METHODS_OF_AUTO` and takes all that apply.
        layers: Names of target layers, each of which is scored on its own; none stands for the default layer.
        scores: Names of scores (`camlab.runs.score_names.SCORES`). The sanity gate is always applied.
        imputers: What replaces removed pixels for `srg`; two at least, since they may rank methods differently.
        steps: Number of steps in which cells are removed.
        seed: Seed of random maps, the order of ties, noise and random weights. Intervals always resample alike.
        batch_size: Number of pictures in a pass.
        gate: Whether the sanity gate is applied; not where pictures only choose the thresholds of `max_box_acc`.
    """

    methods: tuple[str, ...] | None = None
    layers: tuple[str, ...] = ()
    scores: tuple[str, ...] = SCORES_OF_AUTO
    imputers: tuple[str, ...] = ("mean", "blur")
    steps: int = STEPS
    seed: int = 0
    batch_size: int = 64
    gate: bool = True

    def columns(self, with_masks: bool) -> dict[str, int]:
        """Names and widths of the values that are kept for each picture.

        Args:
            with_masks: Whether any picture has a mask.

        Example:
            >>> Request(scores=("auroc", "srg"), imputers=("blur",), steps=2).columns(with_masks=True)
            {'none_of_true': 1, 'none': 1, 'mprt': 1, 'pair': 1, 'auroc': 1, 'srg_blur': 1, 'curves_blur': 6}
        """
        found = {"none_of_true": 1, "none": 1, "mprt": 1, "pair": 1}
        for name in self.measures(with_masks):
            found[name] = {"pxap": 2 * BINS, "max_box_acc": len(THRESHOLDS)}.get(name, 1)
        if "srg" in self.scores:
            found |= {f"curves_{imputer}": 2 * (self.steps + 1) for imputer in self.imputers}
        return found

    def measures(self, with_masks: bool) -> tuple[str, ...]:
        """Names of the measures in tables: the scores, and `srg` once for each imputer."""
        wanted = [name for name in self.scores if with_masks or not score_of(name).needs_masks]
        each = [[f"srg_{imputer}" for imputer in self.imputers] if name == "srg" else [name] for name in wanted]
        return tuple(name for names in each for name in names)


def score_of_measure(measure: str) -> Score:
    """Return the score that a measure in a table belongs to.

    Example:
        >>> score_of_measure("srg_blur").name, score_of_measure("auroc").name
        ('srg', 'auroc')
    """
    return score_of("srg" if measure.startswith("srg_") else measure)


def is_of_true_class(measure: str) -> bool:
    """Whether a measure scores the map of the true class, where that is known; else it is of the predicted class.

    Example:
        >>> is_of_true_class("auroc"), is_of_true_class("srg_blur")
        (True, False)
    """
    return score_of_measure(measure).question in ("place", "description")


def titled(measure: str) -> str:
    """A measure in words.

    Example:
        >>> titled("srg_blur"), titled("energy_gain")
        ('srg (blur)', 'energy gain')
    """
    return f"srg ({measure.removeprefix('srg_')})" if measure.startswith("srg_") else measure.replace("_", " ")


def packed(values: dict[str, Tensor], columns: dict[str, int], n: int) -> Tensor:
    """Put the values of n pictures side by side, NaN where there are none: float32, n×columns.

    Example:
        >>> packed({"b": torch.ones(1)}, {"a": 1, "b": 1}, 1).tolist()
        [[nan, 1.0]]
    """
    parts = []
    for name, width in columns.items():
        part = values.get(name, torch.empty(n, 0)).detach().float().cpu().reshape(n, -1)
        parts.append(torch.nn.functional.pad(part, (0, width - part.shape[1]), value=math.nan))
    return torch.cat(parts, dim=1)


def unpacked(table: Tensor, columns: dict[str, int]) -> dict[str, Tensor]:
    """Return the values by name, N for a width of 1 and N×width otherwise.

    Example:
        >>> unpacked(torch.tensor([[1.0, 2.0, 3.0]]), {"a": 1, "b": 2})["b"].tolist()
        [[2.0, 3.0]]
    """
    parts = table.split(list(columns.values()), dim=1)
    return {name: part[:, 0] if part.shape[1] == 1 else part for name, part in zip(columns, parts, strict=True)}


def signed(value: float) -> str:
    """A score with its sign and two digits; a value that is rounded to 0 has no minus.

    Example:
        >>> signed(-0.002), signed(0.25)
        ('+0.00', '+0.25')
    """
    return f"{round(value, 2) + 0.0:+.2f}"
