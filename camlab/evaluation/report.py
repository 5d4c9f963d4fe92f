"""How good a trained network is: accuracy, per class, and what it confuses."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Report:
    """Result of an evaluation.

    Attributes:
        confusion: counts, M×M; row = true class, column = predicted.
        class_names: M names.
        metrics: all that was measured, by name.
        checkpoint, data, split: of what.
    """

    confusion: np.ndarray
    class_names: tuple[str, ...]
    metrics: dict[str, float]
    checkpoint: str
    data: str
    split: str

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def per_class(self) -> dict[str, float]:
        """Share of each class that was recognised; not a number for a class without images."""
        with np.errstate(invalid="ignore"):
            recall = np.diag(self.confusion) / self.confusion.sum(axis=1)
        return dict(zip(self.class_names, recall.tolist(), strict=True))

    def as_text(self) -> str:
        width = max(map(len, self.class_names))
        lines = [f"  {name:<{width}}  {100 * share:6.2f} %" for name, share in self.per_class.items()]
        return "\n".join([f"Accuracy on {self.data} ({self.split}): {100 * self.accuracy:.2f} %", *lines])

    def as_dict(self) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint,
            "data": self.data,
            "split": self.split,
            "images": int(self.confusion.sum()),
            "metrics": {"acc": self.accuracy, **self.metrics},
            "per_class": self.per_class,
            "class_names": list(self.class_names),
            "confusion_matrix": self.confusion.tolist(),
        }


def write_report(folder: Path, report: Report) -> None:
    """Write `evaluation.json`, `confusion_matrix.csv` and `confusion_matrix.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    with open(folder / "confusion_matrix.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true \\ predicted", *report.class_names])
        writer.writerows([name, *row] for name, row in zip(report.class_names, report.confusion.tolist(), strict=True))
    _plot_confusion(folder / "confusion_matrix.png", report)


def _plot_confusion(path: Path, report: Report) -> None:
    from matplotlib.figure import Figure

    m = len(report.class_names)
    side = max(4.0, 0.55 * m + 1.5)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    share = report.confusion / np.maximum(report.confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(m), report.class_names, rotation=45, ha="right")
    axes.set_yticks(range(m), report.class_names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{report.data} ({report.split}): accuracy {100 * report.accuracy:.2f} %", fontsize=10)
    if m <= 30:
        for (row, column), count in np.ndenumerate(report.confusion):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    figure.savefig(path)
