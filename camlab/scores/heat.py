"""The heat that localisation scores: the rectified map at the picture's size."""

import torch
from torch import Tensor

from camlab import maps
from camlab.scores.checked import check_sides, checked_maps


def heat(maps_NHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Rectify maps, divide each by its maximum, and resize them to the size of the pictures.

    Args:
        maps_NHW: Signed maps, N×h×w.
        size: (height, width) of the pictures in pixels.

    Returns:
        Heat in [0, 1], N×height×width; zero for a map without positive values.

    Example:
        >>> heat(torch.tensor([[[-1.0, 4.0]]]), (1, 4)).tolist()
        [[[0.0, 0.25, 0.75, 1.0]]]
    """
    check_sides(size, "size")
    return enlarged(maps.normalize(checked_maps(maps_NHW)), size)


def without_evidence(maps_NHW: Tensor) -> Tensor:
    """Whether a map has no positive value, so that it shows nothing (`none` in tables): bool, N.

    Example:
        >>> without_evidence(torch.tensor([[[0.0, -1.0]], [[0.0, 1.0]]])).tolist()
        [True, False]
    """
    return checked_maps(maps_NHW).flatten(1).amax(dim=1) <= 0


def masks_for(masks_NHW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masks with at least as many pixels as maps have cells: each pixel of a smaller mask is repeated.

    Args:
        masks_NHW: Masks, N×H×W.
        grid: (rows, columns) of the maps.

    Example:
        >>> masks_for(torch.tensor([[[False, True]]]), (1, 3)).tolist()
        [[[False, False, True, True], [False, False, True, True]]]
    """
    times = max(-(-cells // pixels) for cells, pixels in zip(grid, masks_NHW.shape[1:], strict=True))
    return masks_NHW if times == 1 else masks_NHW.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)


def enlarged(maps_NHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps with bilinear interpolation (`align_corners=False`), so that equal cells give exactly equal pixels.

    `camlab.maps.upsample` gives the same up to rounding. Its rounding makes ties of the map different in the picture,
    so that a constant map has hottest pixels; here one axis is interpolated after the other, as a + t (b - a).

    Args:
        maps_NHW: Maps, N×h×w.
        size: (height, width) of the result in pixels.

    Example:
        >>> enlarged(torch.tensor([[[0.0, 4.0]]]), (1, 4)).tolist()
        [[[0.0, 1.0, 3.0, 4.0]]]
    """
    for axis, pixels in ((1, size[0]), (2, size[1])):
        cells = maps_NHW.shape[axis]
        where = torch.arange(pixels, device=maps_NHW.device, dtype=torch.float32)
        where = ((where + 0.5) * (cells / pixels) - 0.5).clamp(0, cells - 1)
        low = where.floor().long()
        share = (where - low).to(maps_NHW.dtype).unflatten(0, (-1, 1) if axis == 1 else (1, -1))
        below, above = (maps_NHW.index_select(axis, i) for i in (low, (low + 1).clamp(max=cells - 1)))
        maps_NHW = torch.lerp(below, above, share)
    return maps_NHW


def in_cells(size: tuple[int, int], grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the row of cells that each row of pixels lies in, and the same for columns: int64, height and width.

    Example:
        >>> [of.tolist() for of in in_cells((2, 4), (1, 2), torch.device("cpu"))]
        [[0, 0], [0, 0, 1, 1]]
    """
    rows, columns = (
        torch.arange(pixels, device=device) * cells // pixels for pixels, cells in zip(size, grid, strict=True)
    )
    return rows, columns
