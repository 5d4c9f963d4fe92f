"""`maps.npz`: the raw maps of a set of pictures, as training and `explain` write them (docs/file_formats.md)."""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlab.attribution.results import PictureResult
from camlab.errors import UserError
from camlab.storage.files import write_atomically

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


def write_maps(
    path: Path,
    results: Sequence[PictureResult],
    class_names: Sequence[str],
    layers: Mapping[str, Sequence[str]],
    folder: Path,
    dtype: type[np.floating[Any]] = np.float32,
    epoch: int | None = None,
    counterfactual: bool = False,
) -> None:
    """Write the raw maps of a set of pictures; a reader finds the whole file or none.

    Args:
        path: The file, `maps.npz`.
        results: The pictures' results.
        class_names: Names of all classes.
        layers: Names of the target layers by method.
        folder: Folder that relative paths of the pictures start from: absolute, or relative to the folder of `path`.
        dtype: Number format of the maps; float16 keeps three digits and values of up to 65504.
        epoch: Number of epochs done; None outside of training.
        counterfactual: Whether the maps show the evidence against the classes.

    Raises:
        OSError: The file cannot be written.
    """
    about: dict[str, Any] = {"format": FORMAT, "folder": str(folder), "counterfactual": counterfactual}
    if epoch is not None:
        about["epoch"] = epoch
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **about, **_to_arrays(results, class_names, layers, dtype))
    write_atomically(path, buffer.getvalue())


def read_maps(path: Path) -> StoredMaps:
    """Read a file that `write_maps` has written.

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


def _to_arrays(
    results: Sequence[PictureResult],
    class_names: Sequence[str],
    layers: Mapping[str, Sequence[str]],
    dtype: type[np.floating[Any]],
) -> dict[str, Any]:
    """The content of the file that comes from the results."""
    arrays: dict[str, Any] = {
        "files": [str(result.source.file) for result in results],
        "names": [result.source.name for result in results],
        "sizes": [result.source.size for result in results],
        "visible": [result.source.visible for result in results],
        "class_names": list(class_names),
        "class_idx": [result.class_idx for result in results],
        "probabilities": torch.stack([result.probabilities for result in results]).numpy(),
        "methods": list(layers),
    }
    if results[0].label is not None:
        arrays["labels"] = [result.label for result in results]
    for method, names in layers.items():
        arrays[f"layers.{method}"] = list(names)
        for i in range(len(names)):
            arrays[f"maps.{method}.{i}"] = _stacked([result.maps[method][i] for result in results], dtype)
    every = [result.cam_of_all_classes for result in results if result.cam_of_all_classes is not None]
    if every:
        arrays["cam_of_all_classes"] = _stacked(every, dtype)
    return arrays


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


def _stacked(parts: Sequence[Tensor], dtype: type[np.floating[Any]]) -> np.ndarray:
    """Stack the maps of all pictures; values outside the number format's range become its largest or smallest value."""
    largest = float(np.finfo(dtype).max)
    return torch.stack(list(parts)).clamp(-largest, largest).numpy().astype(dtype)
