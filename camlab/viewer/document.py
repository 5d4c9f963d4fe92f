"""Turn the content of runs into the data that the page reads: a JSON document, and blocks of base64 by name."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from camlab.drawing import render
from camlab.errors import UserError, plain
from camlab.runs.short_names import shorten
from camlab.runs.watchers import HEAT
from camlab.tracking.panels import SCORES
from camlab.viewer import measures
from camlab.viewer.content import MapSeries, Measure, Picture, RunContent
from camlab.viewer.pictures import encoded, space_of

COLORMAPS = ("jet", "viridis", "cividis")
_SIGNED = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"  # ColorBrewer's RdBu
_FEWEST_EPOCHS = 10  # with fewer, the maps of classes other than the predicted and true ones are left out instead
_PAGE = 200_000  # characters for everything but pictures, maps and probabilities
_TOO_LARGE = "The page would be too large. Allow more with max_mb=100, or give fewer runs."


@dataclass(frozen=True)
class Document:
    """The data of a page.

    Attributes:
        about: Everything but the arrays, as plain values for JSON.
        blocks: Base64 by name: `maps-RUN-SERIES-EPOCH`, `probabilities-RUN` (float16, little-endian).
    """

    about: dict[str, Any]
    blocks: dict[str, str]


def make_document(runs: Sequence[RunContent], megabytes: float) -> Document:
    """Make the data of a page with one run or several, side by side.

    Pictures that are not in all of the runs are left out. If the maps take too much space, epochs are left out evenly;
    if fewer than ten would be left, the maps of classes other than the predicted and true ones are left out as well.

    Args:
        runs: The runs.
        megabytes: Largest size of the file.

    Raises:
        UserError: The runs have no picture in common, or the file would be too large.
    """
    _check_alike(runs)
    runs, notes = _common_pictures(runs)
    pictures, told = encoded(runs[0].pictures, megabytes, as_jpeg=not runs[0].has_epochs)
    space = megabytes * 1e6 - _PAGE
    if not runs[0].has_epochs:
        runs, pictures, left_out = _first_pictures(runs, pictures, space)
        told = [*told, *left_out]
    runs, thinned = _fitted(runs, space - sum(map(space_of, pictures)))
    names = _names(runs)
    classes = list(dict.fromkeys(name for run in runs for name in run.class_names))
    own = [f"{name}: {note}" for run, name in zip(runs, names, strict=True) for note in run.notes]
    if any(run.has_several_labels for run in runs):
        own.append("A picture may have several labels or none; the predicted class is the likeliest one, even below ½.")
    about = {
        "title": " and ".join(names),
        "classes": classes,
        "pictures": pictures,
        "epochs": sorted({epoch for run in runs for epoch in run.epochs}),
        "hasEpochs": runs[0].has_epochs,
        "runs": [_about_run(run, name, classes) for run, name in zip(runs, names, strict=True)],
        "colours": {**{name: _table(name) for name in COLORMAPS}, "signed": _base64(_signed_table())},
        "style": _style(runs[0]),
        "scoreTitles": {name.removeprefix(HEAT): title for title, (name,) in SCORES.items()},
        "notes": [*notes, *told, *thinned, *own],
    }
    return Document(about, {key: block for i, run in enumerate(runs) for key, block in _blocks(run, i).items()})


def _about_run(run: RunContent, name: str, classes: list[str]) -> dict[str, Any]:
    first, labels = run.series[0], _labels(run)
    return {
        "name": name,
        "overrides": [f"{plain(key)}={plain(value)}" for key, value in run.overrides.items()],
        "epochs": run.epochs,
        "classes": [classes.index(name) for name in run.class_names],
        "labels": [None if label is None else classes.index(label) for label in labels],
        "predicted": run.predicted.tolist(),
        "explained": run.class_idx.tolist(),
        "reference": measures.reference_classes(run).tolist(),
        "runnersUp": measures.runners_up(run).tolist(),
        "series": [_about_series(series, run) for series in run.series],
        "curves": {
            plain(key): [point for point in curve if all(map(math.isfinite, point))]
            for key, curve in run.curves.items()
        },
        "shift": _rounded(measures.shift(first, run)),
        "onObject": _mean_on_object(first, run),
        "measures": [_about_measure(measure) for measure in run.measures],
    }


def _labels(run: RunContent) -> list[str | None]:
    """The true class of each picture, as the run names it; None where it is not known."""
    return [None if picture.label is None else run.class_names[picture.label] for picture in run.pictures]


def _mean_on_object(series: MapSeries, run: RunContent) -> list[tuple[int, float]] | None:
    """Points (epochs done, mean share of the heat on the object); None if no picture has a mask."""
    every = measures.heat_on_object(series, run)
    if every is None:
        return None
    known = [[value for value in values if value is not None] for values in every]
    return [(epoch, round(sum(own) / len(own), 4)) for epoch, own in zip(run.epochs, known, strict=True)]


def _about_series(series: MapSeries, run: RunContent) -> dict[str, Any]:
    return {
        "method": series.method,
        "title": series.title,
        "layer": series.layer,
        "isComplete": series.is_complete,
        "grid": list(series.maps.shape[-2:]),
        "boxShare": series.box_share,
        "peaks": measures.peaks(series, run),
        "signedPeaks": measures.signed_peaks(series, run),
    }


def _about_measure(measure: Measure) -> dict[str, Any]:
    values = [[None if math.isnan(value) else value for value in of] for of in measure.values.tolist()]
    return {
        "name": measure.name,
        "title": measure.title,
        "higherIsBetter": measure.higher_is_better,
        "ofClass": measure.of_class,
        "values": _rounded(values),
    }


def _blocks(run: RunContent, number: int) -> dict[str, str]:
    blocks = {f"probabilities-{number}": _base64(run.probabilities.astype("<f2"))}
    for i, series in enumerate(run.series):
        for e, maps in enumerate(series.maps):
            blocks[f"maps-{number}-{i}-{e}"] = _base64(maps.astype("<f2"))
    return blocks


# ---- what several runs have in common, and how much fits


def _check_alike(runs: Sequence[RunContent]) -> None:
    """Refuse runs beside folders without epochs, such as those of `explain`."""
    if len({run.has_epochs for run in runs}) > 1:
        explained = next(run.folder for run in runs if not run.has_epochs)
        raise UserError(
            f"{explained} has no epochs and cannot share a page with runs. Give only runs, or only such folders."
        )


def _common_pictures(runs: Sequence[RunContent]) -> tuple[list[RunContent], list[str]]:
    """The runs with the pictures that all of them have, in the first one's order."""
    if len(runs) == 1:
        return list(runs), []
    keys = [_keys(run.pictures) for run in runs]
    common = [key for key in dict.fromkeys(keys[0]) if all(key in others for others in keys[1:])]
    if not common:
        raise UserError("These runs explain different pictures and cannot be compared. Give one run at a time.")
    largest = max(len(own) for own in keys)
    notes = [f"{len(common)} of {largest} pictures are in all runs and shown."] if len(common) < largest else []
    if any(run.class_names != runs[0].class_names for run in runs):
        notes.append("The runs have different classes. A class that a run does not have has no map there.")
    runs = [run.of_pictures([own.index(key) for key in common]) for run, own in zip(runs, keys, strict=True)]
    known = [set(labels) - {None} for labels in zip(*map(_labels, runs), strict=True)]
    if differing := sum(len(labels) > 1 for labels in known):
        notes.append(
            f"The runs have different true classes for {differing} of these pictures; each is judged by its own."
        )
    return runs, notes


def _keys(pictures: Sequence[Picture]) -> list[tuple[str, int]]:
    """What each picture is known by in all runs: its content, and the how-manieth picture of this content it is."""
    hashes = [f"{one.image.shape} {hashlib.sha256(one.image.tobytes()).hexdigest()}" for one in pictures]
    return [(own, hashes[:i].count(own)) for i, own in enumerate(hashes)]


def _first_pictures(
    runs: list[RunContent], pictures: list[dict[str, Any]], space: float
) -> tuple[list[RunContent], list[dict[str, Any]], list[str]]:
    """The runs with as many of the first pictures as fit with their maps, and sentences on what is left out."""
    each = _size(runs, 1) / len(pictures)
    taken = np.cumsum([space_of(picture) + each for picture in pictures])
    fitting = int((taken <= space).sum())
    if fitting == len(pictures):
        return runs, pictures, []
    if fitting == 0:
        raise UserError(_TOO_LARGE)
    notes = [f"Of {len(pictures)} pictures, the first {fitting} are here, to limit the size of this file."]
    return [run.of_pictures(range(fitting)) for run in runs], pictures[:fitting], notes


def _fitted(runs: list[RunContent], space: float) -> tuple[list[RunContent], list[str]]:
    """The runs with as many of their epochs as fit, and sentences on what is left out."""
    notes = []
    longest = max(len(run.epochs) for run in runs)
    if (fitting := _fitting_epochs(runs, space)) < min(longest, _FEWEST_EPOCHS):
        smaller = [replace(run, series=[_explained_only(one, run) for one in run.series]) for run in runs]
        if _size(smaller, 1) < _size(runs, 1):
            runs, fitting = smaller, _fitting_epochs(smaller, space)
            notes.append("To save space, maps are those of the predicted and true classes only.")
    if fitting < min(longest, 2):
        raise UserError(_TOO_LARGE)
    if fitting < longest:
        notes.append(f"Of {longest} epochs, {fitting} are here, evenly chosen, to limit the size of this file.")
    return [run.at_epochs(_evenly(len(run.epochs), fitting)) for run in runs], notes


def _fitting_epochs(runs: Sequence[RunContent], space: float) -> int:
    longest = max(len(run.epochs) for run in runs)
    return next((count for count in range(longest, 0, -1) if _size(runs, count) <= space), 0)


def _size(runs: Sequence[RunContent], epochs: int) -> float:
    """Characters that the maps, probabilities and class indices of some epochs take, and the scores of pictures."""
    total = 0.0
    for run in runs:
        each = sum(one.maps[0].nbytes for one in run.series) + 2 * run.probabilities[0].size
        total += min(epochs, len(run.epochs)) * (each * 4 / 3 + 16 * len(run.pictures) + 100 * len(run.series))
        total += 8 * sum(measure.values.size for measure in run.measures)
    return total


def _evenly(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` of `count` things, evenly spread from the first to the last."""
    return sorted({round(float(place)) for place in np.linspace(0, count - 1, min(count, wanted))})


def _explained_only(series: MapSeries, run: RunContent) -> MapSeries:
    """The same maps without those of classes other than `class_idx`."""
    if not series.is_complete:
        return series
    maps = np.take_along_axis(series.maps, run.class_idx[..., None, None], axis=2)
    return replace(series, maps=maps, is_complete=False)


# ---- parts


def _names(runs: Sequence[RunContent]) -> list[str]:
    paths = [str(run.folder.resolve()) for run in runs]
    return [plain(runs[0].folder.resolve().name)] if len(runs) == 1 else [plain(name) for name in shorten(paths)]


def _style(run: RunContent) -> dict[str, Any]:
    """How the page draws at first: as the run did, as far as that is known."""
    given = run.settings
    colormap, normalize = given.get("colormap"), given.get("normalize")
    try:
        opacity = min(1.0, max(0.0, float(given["alpha"])))
    except (KeyError, ValueError):
        opacity = 0.5
    target = given.get("target", "")
    return {
        "klass": f"name:{run.class_names[int(target)]}"
        if target.isdecimal() and int(target) < len(run.class_names)
        else "predicted",
        "box": given.get("boxes") == "True",
        "colours": colormap if colormap in COLORMAPS else "jet",
        "scale": normalize if normalize in ("per_image", "shared", "raw") else "per_image",
        "opacity": opacity,
    }


def _table(name: str) -> str:
    """The 256 colours that `render` uses, RGB, as base64."""
    return _base64(render.colorize(np.arange(256, dtype=np.float32)[None] / 255, name))


def _signed_table() -> np.ndarray:
    """The 256 colours for signed maps, from blue (negative) over white to red, uint8 256×3."""
    anchors = np.array([list(bytes.fromhex(code)) for code in _SIGNED.split()], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _rounded(value: Any) -> Any:
    """Round the floats in nested lists to three digits, which suffice for sorting and for curves."""
    if isinstance(value, list):
        return [_rounded(child) for child in value]
    return round(value, 3) if isinstance(value, float) else value
