"""Read `maps.npz`, the raw maps of a set of pictures (docs/file_formats.md). The module does not import torch."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camlab.errors import UserError

FORMAT = "camlab-maps 1"


@dataclass(frozen=True)
class StoredMaps:
    """The raw maps of N pictures, as `read_maps` returns them.

    Attributes:
        files: Paths of the picture files as they were written; relative paths start from `folder`.
        folder: Absolute path of the folder that relative paths in `files` start from.
        names: Names of the pictures in captions; empty where captions give the true class alone.
        sizes: Width and height of the upright pictures in pixels, N×2.
        visible: The part that the network saw: left, top, right, bottom in pixels, N×4.
        class_names: Names of the M classes.
        class_idx: The R classes that each picture's maps are of, N×R.
        probabilities: Softmax of the logits, N×M.
        maps: Signed maps by method, N×R×h×w for each target layer.
        layers: Names of the target layers by method.
        labels: True classes, N; None if they are not known.
        cam_of_all_classes: CAM of every class, N×M×h×w; None if it was not kept.
        epoch: Number of epochs done; None outside of training.
        counterfactual: Whether the maps show the evidence against the classes.
    """

    files: list[str]
    folder: Path
    names: list[str]
    sizes: np.ndarray
    visible: np.ndarray
    class_names: list[str]
    class_idx: np.ndarray
    probabilities: np.ndarray
    maps: dict[str, list[np.ndarray]]
    layers: dict[str, tuple[str, ...]]
    labels: np.ndarray | None = None
    cam_of_all_classes: np.ndarray | None = None
    epoch: int | None = None
    counterfactual: bool = False


def read_maps(path: Path) -> StoredMaps:
    """Read a file that `camlab.drawing.maps_file.write_maps` has written.

    Raises:
        UserError: The file is not of this format, or is damaged.
        OSError: The file cannot be read.
    """
    try:
        with open(path, "rb") as content, np.load(content) as file:
            arrays = dict(file)
        if (written := str(arrays["format"])) == FORMAT:
            return _from_arrays(arrays, path.absolute().parent)
    except (ValueError, KeyError, EOFError, AttributeError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a file of raw maps ({FORMAT}), or is damaged.") from error
    raise UserError(f"{path} has the format {written}; this version of camlab reads {FORMAT}.")


def _from_arrays(arrays: dict[str, np.ndarray], place: Path) -> StoredMaps:
    layers = {str(method): tuple(arrays[f"layers.{method}"].tolist()) for method in arrays["methods"]}
    return StoredMaps(
        files=arrays["files"].tolist(),
        folder=(place / str(arrays["folder"])).resolve(),
        names=arrays["names"].tolist(),
        sizes=arrays["sizes"],
        visible=arrays["visible"],
        class_names=arrays["class_names"].tolist(),
        class_idx=arrays["class_idx"],
        probabilities=arrays["probabilities"],
        maps={method: [arrays[f"maps.{method}.{i}"] for i in range(len(names))] for method, names in layers.items()},
        layers=layers,
        labels=arrays.get("labels"),
        cam_of_all_classes=arrays.get("cam_of_all_classes"),
        epoch=int(arrays["epoch"]) if "epoch" in arrays else None,
        counterfactual=bool(arrays["counterfactual"]),
    )
