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
        ['The hottest point lies on the object in 80.0 % of pictures (pointing game; random 20.0 %, centre 50.0 %).']
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
            f"The hottest point lies on the object in {own:.1f} % of pictures (pointing game; random"
            f" {random:.1f} %, centre {center:.1f} %)."
        )
    return [*lines, *_background_lines(found), *shortcut_lines(found)]


def _background_lines(metrics: Mapping[str, float]) -> list[str]:
    """Describe relative foreground sensitivity, if it was measured.

    Example:
        >>> _background_lines({"rfs": 0.5, "acc_noise_background": 0.75, "acc_noise_object": 0.25})
        ['Accuracy with noise in the background 75.0 %, on the object 25.0 % (rfs +0.50; the \
larger area holds more noise, so compare networks on these pictures only).']
    """
    names = ("rfs", "acc_noise_background", "acc_noise_object")
    if not metrics.keys() >= set(names):
        return []
    value, background, on_object = (metrics[name] for name in names)
    return [
        f"Accuracy with noise in the background {100 * background:.1f} %, on the object {100 * on_object:.1f} %"
        f" (rfs {value:+.2f}; the larger area holds more noise, so compare networks on these pictures only)."
    ]


def shortcut_lines(metrics: Mapping[str, float]) -> list[str]:
    """Describe the test of a planted shortcut; without one, there is no line.

    Example:
        >>> shortcut_lines({"reliance": 0.9, "acc_absent": 0.1, "acc_present": 1.0, "acc_elsewhere": 0.2})
        ['Shortcut: on another class, the mark moves 90.0 % of the predictions to its class (reliance). \
Accuracy on other classes with it 20.0 %; on its own class without the mark 10.0 %, with it 100.0 %.']
    """
    figures = {name: f"{100 * value:.1f} %" for name, value in metrics.items()}
    told = []
    if "reliance" in figures:
        told.append(
            f"on another class, the mark moves {figures['reliance']} of the predictions to its class (reliance)."
            f" Accuracy on other classes with it {figures['acc_elsewhere']}"
        )
    if "acc_absent" in figures:
        told.append(f"on its own class without the mark {figures['acc_absent']}, with it {figures['acc_present']}")
    elif told:
        told.append("no test picture is of a class with a mark")
    if not told:
        return []
    lines = [f"Shortcut: {'; '.join(told)}."]
    start = "heat_on_mark/"
    heats = [f"{name[len(start) :]} {100 * metrics[name]:.1f} %" for name in metrics if name.startswith(start)]
    if heats:
        chance = 100 * metrics["heat_on_mark_chance"]
        lines.append(f"Energy (share of the heat) on the mark: {', '.join(heats)}; chance {chance:.1f} %, its area.")
    return lines


def write_report(folder: Path, report: Report) -> list[str]:
    """Write `evaluation.json` and the report's other files, and return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"evaluation.json": (json.dumps(report.as_dict(), indent=2) + "\n").encode(), **report.files()}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return list(files)
