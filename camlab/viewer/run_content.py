"""Read what a run's folder holds about its heatmaps. The module does not import torch."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from camlab.attribution.methods import METHODS
from camlab.errors import UserError, first_line, plain
from camlab.runs import run_folder
from camlab.runs.records import Curve, read_run
from camlab.storage.maps_file import StoredMaps, read_maps
from camlab.storage.pictures import read_picture

_EPOCH = re.compile(r"epoch_\d+")
_NOT_SEARCHED = frozenset(["checkpoints", "wandb", "tensorboard"])
_LARGEST = np.finfo(np.float16).max


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
        method: Name of the method.
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

    @property
    def box_share(self) -> float:
        """Threshold of the box, as a share of the map's maximum."""
        return METHODS[self.method].box_share if self.method in METHODS else 0.15


@dataclass(frozen=True)
class RunContent:
    """What a run's folder holds for the viewer: E epochs, N pictures, M classes.

    Attributes:
        folder: Folder of the run.
        epochs: Numbers of epochs done, ascending, E.
        class_names: Names of the classes, M.
        pictures: The pictures, N.
        class_idx: The R classes that each picture's maps are of, the predicted one first: E×N×R.
        probabilities: Probabilities of the classes, float32 E×N×M.
        series: The maps by method and layer.
        curves: Points (epochs done, value) of each metric.
        settings: Settings of the drawn heatmaps, such as `alpha`, as text; empty if they are not known.
        overrides: Settings that were given on the command line.
        notes: What the page has to say about this run, in sentences.
    """

    folder: Path
    epochs: list[int]
    class_names: list[str]
    pictures: list[Picture]
    class_idx: np.ndarray
    probabilities: np.ndarray
    series: list[MapSeries]
    curves: dict[str, Curve] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def at_epochs(self, chosen: Sequence[int]) -> "RunContent":
        """Return the same run with some of its epochs, given by their indices."""
        rows = list(chosen)
        return replace(
            self,
            epochs=[self.epochs[i] for i in rows],
            class_idx=self.class_idx[rows],
            probabilities=self.probabilities[rows],
            series=[replace(one, maps=one.maps[rows]) for one in self.series],
        )

    def of_pictures(self, chosen: Sequence[int]) -> "RunContent":
        """Return the same run with some of its pictures, given by their indices, in that order."""
        columns = list(chosen)
        return replace(
            self,
            pictures=[self.pictures[i] for i in columns],
            class_idx=self.class_idx[:, columns],
            probabilities=self.probabilities[:, columns],
            series=[replace(one, maps=one.maps[:, columns]) for one in self.series],
        )


def find_runs(folder: Path) -> list[Path]:
    """Find the folders with heatmaps: the given one, the one whose `heatmaps/` it is, or those below it.

    Raises:
        UserError: There are none.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder. Give the folder of a run.")
    if _epoch_files(folder):
        return [folder.absolute().parent if folder.absolute().name == run_folder.HEATMAPS else folder]
    found = []
    for place, below, _ in os.walk(folder):
        below[:] = sorted(name for name in below if name not in _NOT_SEARCHED and name[0] != ".")
        if _epoch_files(Path(place, run_folder.HEATMAPS)):
            found.append(Path(place))
            below.clear()
    if not found:
        raise UserError(f"{folder}: no heatmaps there (heatmaps/epoch_NNNN/maps.npz). Give the folder of a run.")
    return found


def read_content(folder: Path) -> RunContent:
    """Read the heatmaps of a run.

    Epochs whose pictures, classes or methods differ from those of the last epoch are left out, and the notes say so.

    Args:
        folder: Folder of the run, which holds `heatmaps/`, or the folder that holds `epoch_NNNN/`.

    Raises:
        UserError: There are no heatmaps, or a file is damaged, of another format, or missing.
    """
    place = folder / run_folder.HEATMAPS if _epoch_files(folder / run_folder.HEATMAPS) else folder
    if not (files := _epoch_files(place)):
        raise UserError(f"{folder}: no heatmaps there (heatmaps/epoch_NNNN/maps.npz). Give the folder of a run.")
    every = [_read(file) for file in files]
    stored = [one for one in every if _kind(one) == _kind(every[-1])]
    notes: tuple[str, ...] = ()
    if len(stored) < len(every):
        other = [str(one.epoch) for one in every if _kind(one) != _kind(every[-1])]
        notes = (f"Epochs with other pictures, classes or methods are left out: {', '.join(other)}.",)
    record = read_run(folder)
    settings = record.settings if record else {}
    drawn = "callbacks.heatmaps."
    return RunContent(
        folder=folder,
        epochs=[int(one.epoch or 0) for one in stored],
        class_names=[plain(name) for name in stored[-1].class_names],
        pictures=_pictures(stored[-1], place),
        class_idx=np.stack([one.class_idx for one in stored]),
        probabilities=np.stack([one.probabilities for one in stored]).astype(np.float32),
        series=_series(stored),
        curves=record.curves if record else {},
        settings={key.removeprefix(drawn): text for key, text in settings.items() if key.startswith(drawn)},
        overrides=record.overrides if record else {},
        notes=notes,
    )


def _epoch_files(folder: Path) -> list[Path]:
    """The maps of all epochs in a folder, in order."""
    files = (file for file in folder.glob("epoch_*/maps.npz") if _EPOCH.fullmatch(file.parent.name))
    return sorted(files, key=lambda file: int(file.parent.name.removeprefix("epoch_")))


def _read(file: Path) -> StoredMaps:
    try:
        stored = read_maps(file)
    except UserError as error:
        raise UserError(f"{first_line(error)} Remove {file.parent} to see the other epochs.") from error
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}. Make it readable, or remove its folder.") from error
    if not _is_sound(stored):
        raise UserError(f"{file} is damaged: its arrays do not fit each other. Remove {file.parent}.")
    return stored


def _is_sound(stored: StoredMaps) -> bool:
    """Whether the arrays have the shapes and ranges that the format states."""
    n, m = len(stored.files), len(stored.class_names)
    classes = stored.class_idx
    if n == 0 or m == 0 or classes.ndim != 2 or len(classes) != n or classes.size == 0:
        return False
    if classes.min() < 0 or classes.max() >= m or stored.probabilities.shape != (n, m) or len(stored.names) != n:
        return False
    if stored.labels is not None and (stored.labels.shape != (n,) or not np.isin(stored.labels, range(m)).all()):
        return False
    every = stored.cam_of_all_classes
    if every is not None and (every.ndim != 4 or every.shape[:2] != (n, m)):
        return False
    maps = [part for layers in stored.maps.values() for part in layers]
    return bool(maps) and all(part.ndim == 4 and part.shape[:2] == classes.shape and part.size for part in maps)


def _kind(stored: StoredMaps) -> tuple[object, ...]:
    """What must be the same in all epochs that are shown together."""
    maps = tuple((method, *(part.shape for part in layers)) for method, layers in stored.maps.items())
    labels = None if stored.labels is None else stored.labels.tolist()
    every = None if stored.cam_of_all_classes is None else stored.cam_of_all_classes.shape
    return stored.files, stored.names, stored.class_names, stored.layers, maps, repr(labels), every


def _pictures(stored: StoredMaps, place: Path) -> list[Picture]:
    """Read the pictures and, where there are any, their masks.

    Raises:
        UserError: A picture is missing or damaged, is not the one that was explained, or was shown only in part.
    """
    pictures = []
    for i, (file, name) in enumerate(zip(stored.files, stored.names, strict=True)):
        path = stored.folder / file
        if not path.is_file():
            raise UserError(f"{path} is missing; heatmaps cannot be shown without their pictures. Draw them again.")
        image = np.asarray(read_picture(path))
        height, width = image.shape[:2]
        if [width, height] != stored.sizes[i].tolist() or stored.visible[i].tolist() != [0, 0, width, height]:
            raise UserError(f"{path}: {width}×{height} is not what the network saw. Draw the heatmaps again.")
        label = None if stored.labels is None else int(stored.labels[i])
        pictures.append(Picture(plain(name), label, image, _mask(place / "masks" / Path(file).name, image)))
    return pictures


def _mask(path: Path, image: np.ndarray) -> np.ndarray | None:
    if not path.is_file():
        return None
    mask: np.ndarray = np.asarray(read_picture(path))[..., 0] > 127
    return mask if mask.shape == image.shape[:2] else None


def _series(stored: Sequence[StoredMaps]) -> list[MapSeries]:
    """The maps by method and layer; of CAM those of all classes, if they are kept."""
    last, series = stored[-1], []
    for method, layers in last.maps.items():
        title = METHODS[method].title if method in METHODS else plain(method)
        for i, layer in enumerate(map(plain, last.layers[method])):
            shown = f"{title} at {layer}" if len(layers) > 1 else title
            is_complete = method == "cam" and last.cam_of_all_classes is not None and not last.counterfactual
            parts = [one.cam_of_all_classes if is_complete else one.maps[method][i] for one in stored]
            clipped = np.clip(np.stack([part for part in parts if part is not None]), -_LARGEST, _LARGEST)
            series.append(MapSeries(method, shown, layer, clipped.astype(np.float16), is_complete))
    return series
