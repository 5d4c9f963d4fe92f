"""Figures about maps that the viewer sorts by and draws as curves, with NumPy and OpenCV only."""

import numpy as np

from camlab.drawing import render
from camlab.viewer.content import MapSeries, RunContent


def reference_classes(run: RunContent) -> np.ndarray:
    """The class by which a picture is judged: the true one, or the predicted one where it is not known. E×N."""
    labels = np.array([-1 if picture.label is None else picture.label for picture in run.pictures])
    return np.where(labels >= 0, labels, run.predicted)


def runners_up(run: RunContent) -> np.ndarray:
    """The most probable class other than the reference class, E×N; the reference itself if there is only one class."""
    others = np.where(np.isnan(run.probabilities), 0, run.probabilities)
    np.put_along_axis(others, reference_classes(run)[..., None], -1.0, axis=-1)
    return others.argmax(axis=-1)


def maps_of(series: MapSeries, run: RunContent, classes: np.ndarray) -> np.ndarray:
    """The maps of one class for each picture and epoch, float32 E×N×h×w; NaN where that map is not stored.

    Args:
        series: The maps of a method.
        run: The run that they belong to.
        classes: Class indices, E×N.
    """
    if series.is_complete:
        rank, known = classes, np.ones(classes.shape, bool)
    else:
        same = run.class_idx == classes[..., None]
        rank, known = same.argmax(axis=-1), same.any(axis=-1)
    chosen = np.take_along_axis(series.maps, rank[..., None, None, None], axis=2)[:, :, 0].astype(np.float32)
    return np.where(known[..., None, None], chosen, np.float32(np.nan))


def peaks(series: MapSeries, run: RunContent) -> list[float]:
    """Maximum of the predicted and true classes' maps over all pictures of each epoch, E: the divisor of `shared`."""
    every = [maps_of(series, run, run.class_idx[:, :, rank]) for rank in range(run.class_idx.shape[-1])]
    return [float(value) for value in np.nan_to_num(np.stack(every, 1)).max(axis=(1, 2, 3, 4), initial=0)]


def signed_peaks(series: MapSeries, run: RunContent) -> list[float]:
    """Largest absolute difference between the reference class's map and the runner-up's, of each epoch, E."""
    difference = maps_of(series, run, reference_classes(run)) - maps_of(series, run, runners_up(run))
    return [float(value) for value in np.abs(np.nan_to_num(difference)).max(axis=(1, 2, 3), initial=0)]


def shift(series: MapSeries, run: RunContent) -> list[float]:
    """How much each picture's heat moves on average from one epoch to the next, N: 0 stays, 1 moves altogether.

    The heat of the reference class is scaled to a sum of 1; the figure is half the absolute difference.
    """
    heat = np.maximum(np.nan_to_num(maps_of(series, run, reference_classes(run))), 0)
    total = heat.sum(axis=(2, 3), keepdims=True)
    share = np.divide(heat, total, out=np.zeros_like(heat), where=total > 0)
    moved = np.abs(np.diff(share, axis=0)).sum(axis=(2, 3)) / 2
    return [float(value) for value in moved.mean(axis=0)] if len(moved) else [0.0] * len(run.pictures)


def heat_on_object(series: MapSeries, run: RunContent) -> list[list[float | None]] | None:
    """Share of the reference class's heat that lies inside the object's mask, E×N; None for pictures without a mask.

    This is the energy-based pointing game of Wang et al. 2020 (Score-CAM), §4.3. A map without heat scores 0.

    Returns:
        None if no picture has a mask.
    """
    if all(picture.mask is None for picture in run.pictures):
        return None
    heat = np.maximum(np.nan_to_num(maps_of(series, run, reference_classes(run))), 0)
    return [[_inside(one, picture.mask) for one, picture in zip(epoch, run.pictures, strict=True)] for epoch in heat]


def _inside(heat: np.ndarray, mask: np.ndarray | None) -> float | None:
    if mask is None:
        return None
    height, width = mask.shape
    large = render.resize(heat, (height, width))
    total = float(large.sum())
    return float(large[mask].sum()) / total if total > 0 else 0.0
