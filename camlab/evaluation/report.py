"""The result of an evaluation: accuracy, accuracy per class, confusion matrix, as text and as files."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camlab.errors import cut
from camlab.evaluation.confusion_plot import draw_confusion
from camlab.storage.files import write_atomically


@dataclass(frozen=True)
class Report:
    """Result of an evaluation.

    Attributes:
        confusion: Counts of images, M×M; row = true class, column = predicted class.
        class_names: M names.
        metrics: Other metrics by name, such as `loss`.
        checkpoint: Path of the checkpoint file; empty if there is none.
        data: Name of the data set.
        split: Split of the data set.

    Example:
        >>> report = Report(np.array([[8, 2], [1, 9]]), ("cat", "dog"))
        >>> report.accuracy, report.per_class
        (0.85, {'cat': 0.8, 'dog': 0.9})
    """

    confusion: np.ndarray
    class_names: tuple[str, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    checkpoint: str = ""
    data: str = ""
    split: str = "test"

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of the images whose class was recognised; NaN if there are no images."""
        with np.errstate(invalid="ignore"):
            return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def per_class(self) -> dict[str, float]:
        """Share of each class's images that were recognised; classes without images are left out."""
        counts = zip(
            self.class_names, np.diag(self.confusion).tolist(), self.confusion.sum(axis=1).tolist(), strict=True
        )
        return {name: recognised / images for name, recognised, images in counts if images}

    @property
    def title(self) -> str:
        """One line with the data, the number of images and the accuracy."""
        images = f"{self.split}, {self.images:,} image{'' if self.images == 1 else 's'}"
        place = f"{cut(self.data)} ({images})" if self.data else images
        return f"{place}: accuracy {100 * self.accuracy:.2f} %"

    def as_text(self) -> str:
        """The accuracy, one line for each class that has images, and one for each further result."""
        shares = [(cut(name), share) for name, share in self.per_class.items()]
        width = max((len(name) for name, _ in shares), default=0)
        lines = [f"  {name:<{width}}  {100 * share:6.2f} %" for name, share in shares]
        return "\n".join([self.title, *lines, *metric_lines(self.metrics)])

    def as_dict(self) -> dict[str, Any]:
        """Content of `evaluation.json`, as plain values."""
        return {
            "checkpoint": self.checkpoint,
            "data": self.data,
            "split": self.split,
            "images": self.images,
            "metrics": {"acc": self.accuracy, **self.metrics},
            "per_class": self.per_class,
            "class_names": list(self.class_names),
            "confusion_matrix": self.confusion.tolist(),
        }

    def files(self) -> dict[str, bytes]:
        """Content of the other files by name: `confusion_matrix.csv` and `confusion_matrix.png`."""
        table, picture = io.StringIO(newline=""), io.BytesIO()
        writer = csv.writer(table)
        writer.writerow(["true \\ predicted", *self.class_names])
        writer.writerows([name, *row] for name, row in zip(self.class_names, self.confusion.tolist(), strict=True))
        Image.fromarray(self.confusion_picture()).save(picture, "png")
        return {"confusion_matrix.png": picture.getvalue(), "confusion_matrix.csv": table.getvalue().encode()}

    def confusion_picture(self) -> np.ndarray:
        """The confusion matrix as a picture, uint8 RGB H×W×3."""
        return draw_confusion(self.confusion, self.class_names, self.title)


def metric_lines(metrics: Mapping[str, float], prefix: str = "") -> list[str]:
    """Describe the results beside the accuracy: a line for the mean over classes, and one for the pointing game.

    Results that are missing have no line.

    Args:
        metrics: Metrics by name.
        prefix: Beginning of the names, such as `test/`.

    Example:
        >>> metric_lines({"balanced_acc": 0.8, "f1": 0.7})
        ['Balanced accuracy 80.00 % (mean over the classes), macro F1 0.700.']
        >>> metric_lines({"map": 0.75})
        ['Mean average precision 0.750.']
        >>> metric_lines({"pointing_game": 0.8, "pointing_game_random": 0.2, "pointing_game_center": 0.5})
        ["Pointing game 80.0 % (a random point scores 20.0 %, the image's centre 50.0 %)."]
    """
    found = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    lines = []
    if {"balanced_acc", "f1"} <= found.keys():
        balanced, f1 = 100 * found["balanced_acc"], found["f1"]
        lines.append(f"Balanced accuracy {balanced:.2f} % (mean over the classes), macro F1 {f1:.3f}.")
    if "map" in found:
        lines.append(f"Mean average precision {found['map']:.3f}.")
    game = [f"pointing_game{kind}" for kind in ("", "_random", "_center")]
    if found.keys() >= set(game):
        own, random, center = (100 * found[name] for name in game)
        lines.append(
            f"Pointing game {own:.1f} % (a random point scores {random:.1f} %, the image's centre {center:.1f} %)."
        )
    return lines


def write_report(folder: Path, report: Report) -> list[str]:
    """Write `evaluation.json` and the report's other files, and return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"evaluation.json": (json.dumps(report.as_dict(), indent=2) + "\n").encode(), **report.files()}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return list(files)
