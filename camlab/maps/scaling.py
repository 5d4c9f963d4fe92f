"""Scale maps to [0, 1], resize them to the size of a picture, and join those of several layers."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalization = Literal["per_image", "shared", "raw"]


def normalize(maps: Tensor, mode: Normalization = "per_image") -> Tensor:
    """Set negative values to zero (ReLU) and scale the rest. A map without positive values becomes zero.

    Args:
        maps: Signed maps, …×H×W.
        mode: `per_image` divides each map by its own maximum, `shared` divides all maps by their common maximum, and
            `raw` does not divide.

    Returns:
        Maps of the same shape, float32, in [0, 1] unless the mode is `raw`. NaN becomes zero.

    Raises:
        ValueError: The mode is unknown.

    Example:
        >>> maps = torch.tensor([[[-1.0, 2.0]], [[1.0, 4.0]]])
        >>> normalize(maps).tolist()
        [[[0.0, 1.0]], [[0.25, 1.0]]]
        >>> normalize(maps, "shared").tolist()
        [[[0.0, 0.5]], [[0.25, 1.0]]]
        >>> normalize(maps, "raw").tolist()
        [[[0.0, 2.0]], [[1.0, 4.0]]]
    """
    heat = torch.nan_to_num(maps.float(), nan=0.0, posinf=torch.finfo(torch.float32).max).relu()
    if mode == "raw":
        return heat
    if mode not in ("per_image", "shared"):
        raise ValueError(f"normalize={mode}: unknown mode. Choose from per_image, shared, raw.")
    peak = heat.amax(dim=(-2, -1), keepdim=True) if mode == "per_image" else heat.max()
    return torch.where(peak > 0, heat / peak, torch.zeros_like(heat))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps with bilinear interpolation (`align_corners=False`).

    Args:
        maps: Maps, …×h×w.
        size: (height, width) of the result in pixels.

    Returns:
        Maps, …×height×width.

    Example:
        >>> upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4)).tolist()
        [[[0.0, 1.0, 3.0, 4.0]]]
    """
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    return F.interpolate(flat, size=size, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)


def fuse(layers: Sequence[Tensor], mode: Normalization = "per_image") -> Tensor:
    """Average the maps of several layers on the finest of their grids.

    The maps of each layer are first normalised by `mode`, so that every layer has the same weight with `per_image` and
    `shared`. Normalise the result again: `normalize(fuse(layers, mode), mode)`.

    Args:
        layers: Signed maps of each layer, …×h×w; h and w may differ from layer to layer.
        mode: As in `normalize`.

    Returns:
        For a single layer, its signed maps, unchanged. For several layers, float32 maps without negative values, on the
        grid with the most cells.

    Example:
        >>> fine, coarse = torch.tensor([[[4.0, -1.0]]]), torch.tensor([[[2.0]]])
        >>> fuse([fine]).tolist()
        [[[4.0, -1.0]]]
        >>> fuse([fine, coarse]).tolist()
        [[[1.0, 0.5]]]
        >>> fuse([fine, coarse], "raw").tolist()
        [[[3.0, 1.0]]]
    """
    if len(layers) == 1:
        return layers[0]
    height, width = max((maps.shape[-2:] for maps in layers), key=lambda size: size.numel())
    return torch.stack([upsample(normalize(maps, mode), (height, width)) for maps in layers]).mean(dim=0)
