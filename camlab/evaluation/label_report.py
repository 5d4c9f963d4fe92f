"""The result of an evaluation of a multi-label set: each label is a decision of its own."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from camlab.errors import cut
from camlab.evaluation.report import Report, metric_lines


@dataclass(frozen=True)
class LabelReport(Report):
    """Result of an evaluation in which a picture may have any number of labels.

    Attributes:
        confusion: Counts of decisions by label, M×2×2: the first index is the label; row = whether the picture has it,
            column = whether it is predicted.

    Example:
        >>> report = LabelReport(np.array([[[6, 1], [1, 2]], [[8, 0], [2, 0]]]), ("cat", "dog"))
        >>> report.accuracy, report.per_class
        (0.8, {'cat': 0.6666666666666666, 'dog': 0.0})
    """

    @property
    def images(self) -> int:
        return int(self.confusion[0].sum())

    @property
    def accuracy(self) -> float:
        """Share of all decisions that are right; NaN if there are no images."""
        with np.errstate(invalid="ignore"):
            return float(np.trace(self.confusion, axis1=1, axis2=2).sum() / self.confusion.sum())

    @property
    def per_class(self) -> dict[str, float]:
        """Share of each label's images in which it is found (recall); labels without images are left out."""
        counts = zip(self.class_names, self.confusion[:, 1].tolist(), strict=True)
        return {name: found / (missed + found) for name, (missed, found) in counts if missed + found}

    @property
    def title(self) -> str:
        return f"{super().title} (of the decisions label by label)"

    def as_text(self) -> str:
        width = max(len(cut(name)) for name in self.class_names)
        lines = [
            f"  {cut(name):<{width}}  {images:5,} images, recall {_percent(recall)}, precision {_percent(precision)}"
            for name, images, recall, precision, _ in self._rows()
        ]
        return "\n".join([self.title, *lines, *metric_lines(self.metrics)])

    def as_dict(self) -> dict[str, Any]:
        plain = super().as_dict()
        counts = plain.pop("confusion_matrix")
        return {**plain, "multi_label": True, "confusion_of_labels": counts}

    def files(self) -> dict[str, bytes]:
        """`labels.csv`, a line for each label. A matrix of one class against another would need one label a picture."""
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(["label", "images", "recall", "precision", "f1"])
        writer.writerows([name, *("" if value is None else value for value in row)] for name, *row in self._rows())
        return {"labels.csv": table.getvalue().encode()}

    def _rows(self) -> list[tuple[str, int, float | None, float | None, float | None]]:
        """Name, images, recall, precision and F1 score of each label; None where there is nothing to divide by."""
        rows = []
        for name, ((_, wrong), (missed, found)) in zip(self.class_names, self.confusion.tolist(), strict=True):
            recall, precision, f1 = (
                part / whole if whole else None
                for part, whole in (
                    (found, found + missed), (found, found + wrong), (2 * found, 2 * found + wrong + missed)
                )
            )  # fmt: skip
            rows.append((name, found + missed, recall, precision, f1))
        return rows


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
