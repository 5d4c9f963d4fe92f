"""Read what a folder of `camlab.explain` holds about its heatmaps. The module does not import torch."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camlab.errors import UserError, plain
from camlab.storage.documents import read_json
from camlab.storage.maps_file import StoredMaps
from camlab.storage.pictures import read_picture
from camlab.viewer.content import Picture, RunContent
from camlab.viewer.stored import class_names_of, read_sound, series_of

MAPS, ABOUT = "maps.npz", "explain.json"
MOST_PICTURES = 200
_SHORTER, _LONGER = 320, 960  # pixels; larger photographs are reduced


def is_explained(folder: Path) -> bool:
    """Whether `camlab.explain` has written its files into a folder."""
    return (folder / MAPS).is_file() and (folder / ABOUT).is_file()


def read_explained(folder: Path) -> RunContent:
    """Read the heatmaps of a folder of `camlab.explain`, with reduced copies of the photographs.

    Pictures show the part that the network saw. Photographs that are missing or have changed are left out, as are those
    after the first 200, and the notes say so.

    Args:
        folder: Output folder of `camlab.explain`.

    Raises:
        UserError: A file is damaged or of another format, or none of the photographs is where it was.
    """
    again = "Repeat the command camlab.explain."
    stored = read_sound(folder / MAPS, again)
    settings = _about(folder / ABOUT, again)
    first = range(min(len(stored.files), MOST_PICTURES))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda i: _picture(stored, i), first))
    pictures = {i: picture for i, picture in zip(first, found, strict=True) if picture is not None}
    if not pictures:
        raise UserError(
            f"{folder}: none of its photographs is where it was, such as {_place(stored, 0)}. Put them back, or"
            " repeat the command camlab.explain."
        )
    shown = list(pictures)
    probabilities = stored.probabilities.astype(np.float32)[None]
    return RunContent(
        folder=folder,
        epochs=[0],
        class_names=class_names_of(stored),
        pictures=list(pictures.values()),
        predicted=np.nan_to_num(probabilities).argmax(axis=-1)[:, shown],
        class_idx=stored.class_idx[None][:, shown],
        probabilities=probabilities[:, shown],
        series=[one.of_pictures(shown) for one in series_of([stored])],
        settings={key: plain(str(value)) for key, value in settings["settings"].items() if value is not None},
        overrides={"network": str(settings["network"]["name"]), "images": str(settings.get("images", ""))},
        notes=_notes(stored, shown, len(first)),
        has_epochs=False,
    )


def _about(path: Path, way_out: str) -> dict[str, Any]:
    """The content of `explain.json`.

    Raises:
        UserError: It is damaged.
    """
    try:
        about = read_json(path)
        if isinstance(about["settings"], dict) and isinstance(about["network"]["name"], str):
            return dict(about)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is damaged. {way_out}")


def _place(stored: StoredMaps, number: int) -> Path:
    return stored.folder / stored.files[number]


def _picture(stored: StoredMaps, number: int) -> Picture | None:
    """The part of a photograph that the network saw, reduced; None if the photograph is not what it was."""
    try:
        picture = read_picture(_place(stored, number))
    except UserError:
        return None
    if list(picture.size) != stored.sizes[number].tolist():
        return None
    left, top, right, bottom = _visible(stored.visible[number])
    width, height = right - left, bottom - top
    factor = min(1.0, _SHORTER / min(width, height), _LONGER / max(width, height))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    image = picture.resize(size, Image.Resampling.LANCZOS, (left, top, right, bottom))
    label = None if stored.labels is None else int(stored.labels[number])
    return Picture(plain(stored.names[number]), label, np.asarray(image), None)


def _visible(box: np.ndarray) -> tuple[int, int, int, int]:
    """The visible part in whole pixels, at least one in each direction, as overlays have it."""
    left, top, right, bottom = (round(float(edge)) for edge in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _notes(stored: StoredMaps, shown: Sequence[int], tried: int) -> tuple[str, ...]:
    larger = any(stored.sizes[i].min() > _SHORTER or stored.sizes[i].max() > _LONGER for i in shown)
    notes = ["Large photographs are reduced, to limit the size of this file."] if larger else []
    if any(_visible(stored.visible[i]) != (0, 0, *stored.sizes[i].tolist()) for i in shown):
        notes.append("Pictures show the part that the network saw.")
    if tried < len(stored.files):
        notes.append(f"Of {len(stored.files)} pictures, the first {tried} are here.")
    if len(shown) < tried:
        notes.append(f"Pictures whose files are missing or have changed are left out: {tried - len(shown)}.")
    return tuple(notes)
