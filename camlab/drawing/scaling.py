"""Scale raw maps to heat in [0, 1], by the same rule as `camlab.heatmaps`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from camlab import maps
from camlab.attribution.results import PictureResult
from camlab.maps import Normalization


@dataclass(frozen=True)
class ScaledMaps:
    """The heat of a set of pictures, ready to be drawn.

    Attributes:
        heat: Scaled maps by picture and method, float32 R×h×w in [0, 1].
        peaks: Maximum of each method's maps over the whole set, in the maps' own units, that is, before scaling.
    """

    heat: list[dict[str, np.ndarray]]
    peaks: dict[str, float]


def scale(results: Sequence[PictureResult], mode: Normalization) -> ScaledMaps:
    """Fuse the layers of each method and scale the maps of a set.

    With `per_image`, a picture's heat does not depend on the rest of the set; with `shared` and `raw` it does. Because
    heat must lie in [0, 1], maps are divided by the maximum of the set with `raw`, too. The maps' own units are kept by
    `camlab.heatmaps` and in `maps.npz`.

    Args:
        results: Results of the set, all with the same methods and layers.
        mode: `per_image`, `shared` or `raw`.
    """
    heat: list[dict[str, np.ndarray]] = [{} for _ in results]
    peaks = {}
    ranks = [len(result.class_idx) for result in results]
    for method, of_layers in results[0].maps.items():
        layers = [torch.cat([result.maps[method][i] for result in results]) for i in range(len(of_layers))]
        fused = maps.fuse(layers, mode)
        peaks[method] = float(maps.normalize(fused, "raw").max())
        scaled = maps.normalize(fused, "shared" if mode == "raw" else mode)
        for own, part in zip(heat, scaled.split(ranks), strict=True):
            own[method] = part.numpy()
    return ScaledMaps(heat, peaks)
