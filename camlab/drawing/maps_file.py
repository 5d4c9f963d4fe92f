"""Write `maps.npz`: the raw maps of a set of pictures, of training and of `explain` (docs/file_formats.md)."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlab.attribution.results import PictureResult
from camlab.storage.files import write_atomically
from camlab.storage.maps_file import FORMAT, StoredMaps, read_maps

__all__ = ["FORMAT", "StoredMaps", "read_maps", "write_maps"]


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


def _to_arrays(
    results: Sequence[PictureResult],
    class_names: Sequence[str],
    layers: Mapping[str, Sequence[str]],
    dtype: type[np.floating[Any]],
) -> dict[str, Any]:
    """The content of the file that comes from the results."""
    arrays: dict[str, Any] = {
        "files": [str(result.source.file) for result in results],
        "names": [result.name_with_truth(class_names) for result in results],
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


def _stacked(parts: Sequence[Tensor], dtype: type[np.floating[Any]]) -> np.ndarray:
    """Stack the maps of all pictures; values outside the number format's range become its largest or smallest value."""
    largest = float(np.finfo(dtype).max)
    return torch.stack(list(parts)).clamp(-largest, largest).numpy().astype(dtype)
