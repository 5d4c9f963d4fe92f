"""The one rule by which raw maps become heat in [0, 1]; the same as that of `camlab.heatmaps`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from camlab import maps
from camlab.drawing.results import PictureResult
from camlab.maps import Normalization


@dataclass(frozen=True)
class ScaledMaps:
    """Heat of a set of pictures, to be drawn.

    Attributes:
        heat: By picture and method, float32 R×h×w in [0, 1].
        peaks: By method, the maximum of the set in the maps' own units, before they were scaled.
    """

    heat: list[dict[str, np.ndarray]]
    peaks: dict[str, float]


def scale(results: Sequence[PictureResult], mode: Normalization) -> ScaledMaps:
    """Fuse the layers of each method and scale the maps of a set.

    `per_image` gives the same heat for a picture alone as for it in a set; `shared` and `raw` need the whole set. Maps
    in `raw` keep their units in files and in Python; for drawing they are divided by the maximum of the set.

    Args:
        results: The set; all with the same methods and layers.
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
