"""Read what a run's folder holds about its heatmaps. The module does not import torch."""

import re
from pathlib import Path

import numpy as np

from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.runs.records import read_run
from camlab.storage.maps_file import StoredMaps
from camlab.viewer.content import RunContent
from camlab.viewer.stored import class_names_of, pictures_of, read_sound, series_of

_EPOCH = re.compile(r"epoch_\d+")


def read_content(folder: Path) -> RunContent:
    """Read the heatmaps of a run.

    Epochs whose pictures, classes or methods differ from those of the last epoch are left out, and the notes say so.

    Args:
        folder: Folder of the run, which holds `heatmaps/`, or the folder that holds `epoch_NNNN/`.

    Raises:
        UserError: There are no heatmaps, or a file is damaged, of another format, or missing.
    """
    place = folder / run_folder.HEATMAPS if has_epochs(folder / run_folder.HEATMAPS) else folder
    if not (files := _epoch_files(place)):
        raise UserError(f"{folder}: no heatmaps there (heatmaps/epoch_NNNN/maps.npz). Give the folder of a run.")
    every = [read_sound(file, f"Remove {file.parent} to see the other epochs.") for file in files]
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
        class_names=class_names_of(stored[-1]),
        pictures=pictures_of(stored[-1], place, "Draw the heatmaps again."),
        predicted=np.stack([one.class_idx[:, 0] for one in stored]),
        class_idx=np.stack([one.class_idx for one in stored]),
        probabilities=np.stack([one.probabilities for one in stored]).astype(np.float32),
        series=series_of(stored),
        curves=record.curves if record else {},
        settings={key.removeprefix(drawn): text for key, text in settings.items() if key.startswith(drawn)},
        overrides=record.overrides if record else {},
        notes=notes,
    )


def has_epochs(folder: Path) -> bool:
    """Whether a folder holds `epoch_NNNN/maps.npz`."""
    return bool(_epoch_files(folder))


def _epoch_files(folder: Path) -> list[Path]:
    """The maps of all epochs in a folder, in order."""
    files = (file for file in folder.glob("epoch_*/maps.npz") if _EPOCH.fullmatch(file.parent.name))
    return sorted(files, key=lambda file: int(file.parent.name.removeprefix("epoch_")))


def _kind(stored: StoredMaps) -> tuple[object, ...]:
    """What must be the same in all epochs that are shown together."""
    maps = tuple((method, *(part.shape for part in layers)) for method, layers in stored.maps.items())
    labels = None if stored.labels is None else stored.labels.tolist()
    every = None if stored.cam_of_all_classes is None else stored.cam_of_all_classes.shape
    return stored.files, stored.names, stored.class_names, stored.layers, maps, repr(labels), every
