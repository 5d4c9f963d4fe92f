"""What the viewer shows of a folder: pictures, and raw maps by epoch, method and class."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from camlab.attribution.methods import METHODS, method_of
from camlab.runs.records import Curve


@dataclass(frozen=True)
class Picture:
    """A picture whose heatmaps are shown.

    Attributes:
        name: Its name; empty if it is known by its class alone.
        label: Index of the true class; None if it is not known.
        image: uint8 RGB, H×W×3.
        mask: Mask of the object, bool H×W; None if there is none.
    """

    name: str
    label: int | None
    image: np.ndarray
    mask: np.ndarray | None


@dataclass(frozen=True)
class MapSeries:
    """The raw maps of one method at one layer, epoch by epoch.

    Attributes:
        method: Name of the method, after which `@LAYER` may stand.
        title: Name of the method for people, with the layer where the method has several.
        layer: Name of the layer.
        maps: Signed maps, float16 E×N×K×h×w.
        is_complete: Whether the K maps of a picture are those of all M classes; else of the R classes in `class_idx`.
    """

    method: str
    title: str
    layer: str
    maps: np.ndarray
    is_complete: bool

    def at_epochs(self, chosen: Sequence[int]) -> "MapSeries":
        """Return the same series with some of its epochs, given by their indices."""
        return replace(self, maps=self.maps[list(chosen)])

    def of_pictures(self, chosen: Sequence[int]) -> "MapSeries":
        """Return the same series with some of its pictures, given by their indices, in that order."""
        return replace(self, maps=self.maps[:, list(chosen)])

    @property
    def box_share(self) -> float:
        """Threshold of the box, as a share of the map's maximum."""
        method = method_of(self.method)
        return METHODS[method].box_share if method in METHODS else 0.15


@dataclass(frozen=True)
class Measure:
    """A score that each picture has, method by method.

    Attributes:
        name: Name of the score.
        title: Its name for people.
        higher_is_better: None if neither end is good.
        of_class: Which class's map is scored: `true` or `predicted`.
        values: A value for each series and picture, float32 S×N, NaN where there is none.
    """

    name: str
    title: str
    higher_is_better: bool | None
    of_class: str
    values: np.ndarray


@dataclass(frozen=True)
class RunContent:
    """What a folder holds for the viewer: E epochs, N pictures, M classes.

    Attributes:
        folder: The folder.
        epochs: Numbers of epochs done, ascending, E.
        class_names: Names of the classes, M.
        pictures: The pictures, N.
        predicted: The predicted class of each picture, E×N.
        class_idx: The R classes that each picture's maps are of: E×N×R.
        probabilities: Probabilities of the classes, float32 E×N×M.
        series: The maps by method and layer.
        measures: Scores of the pictures; empty if they were not scored.
        curves: Points (epochs done, value) of each metric.
        settings: Settings of the drawn heatmaps, such as `alpha`, as text; empty if they are not known.
        overrides: Settings that tell the run from others, such as those given on the command line.
        notes: What the page has to say about this run, in sentences.
        has_epochs: Whether the maps are of a training; else they are of one network, and E is 1.
    """

    folder: Path
    epochs: list[int]
    class_names: list[str]
    pictures: list[Picture]
    predicted: np.ndarray
    class_idx: np.ndarray
    probabilities: np.ndarray
    series: list[MapSeries]
    measures: list[Measure] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    has_epochs: bool = True

    @property
    def has_several_labels(self) -> bool:
        """Whether classes are decided one by one: the probabilities of a picture then do not add up to 1."""
        return len(self.class_names) > 1 and bool((np.abs(self.probabilities.sum(axis=-1) - 1) > 0.01).any())

    def at_epochs(self, chosen: Sequence[int]) -> "RunContent":
        """Return the same run with some of its epochs, given by their indices."""
        rows = list(chosen)
        return replace(
            self,
            epochs=[self.epochs[i] for i in rows],
            predicted=self.predicted[rows],
            class_idx=self.class_idx[rows],
            probabilities=self.probabilities[rows],
            series=[one.at_epochs(rows) for one in self.series],
        )

    def of_pictures(self, chosen: Sequence[int]) -> "RunContent":
        """Return the same run with some of its pictures, given by their indices, in that order."""
        columns = list(chosen)
        return replace(
            self,
            pictures=[self.pictures[i] for i in columns],
            predicted=self.predicted[:, columns],
            class_idx=self.class_idx[:, columns],
            probabilities=self.probabilities[:, columns],
            series=[one.of_pictures(columns) for one in self.series],
            measures=[replace(one, values=one.values[:, columns]) for one in self.measures],
        )
