"""Boxes around hot regions against the objects' boxes: MaxBoxAccV2 (Choe et al. 2020, arXiv:2007.04178).

Boxes are (top, left, bottom, right) in pixels; bottom and right are not part of the box.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from camlab.errors import UserError
from camlab.scores.checked import check_shares, check_sides, check_tensors, checked_maps, checked_masks
from camlab.scores.heat import heat

THRESHOLDS = tuple(step / 20 for step in range(20))  # shares of the map's maximum
LEVELS = (0.3, 0.5, 0.7)  # of the overlap from which a box counts as right


def mask_boxes(masks_NHW: Tensor) -> Tensor:
    """Boxes around masks, int64 N×4; of zeros where a mask is empty.

    Example:
        >>> mask_boxes(torch.tensor([[[False, True, True], [False, True, False]]])).tolist()
        [[0, 1, 2, 3]]
    """
    check_tensors(masks=masks_NHW)
    masks = checked_masks(masks_NHW, len(masks_NHW))
    sides = []
    for used in (masks.any(dim=2), masks.any(dim=1)):  # rows, columns
        first = used.float().argmax(dim=1)
        last = used.shape[1] - used.flip(1).float().argmax(dim=1)
        sides += [first, last]
    found = torch.stack([sides[0], sides[2], sides[1], sides[3]], dim=1)
    return found * masks.flatten(1).any(dim=1, keepdim=True)


def box_overlaps(
    maps_NHW: Tensor, boxes: Tensor, size: tuple[int, int], thresholds: Sequence[float] = THRESHOLDS
) -> Tensor:
    """Best overlap of the box of any connected hot region with the object's box, at each threshold.

    A region is a set of pixels with H / max H above the threshold that touch each other, corners included.

    Args:
        maps_NHW: Signed maps, N×h×w.
        boxes: The objects' boxes in pixels, N×4, or N×B×4 if there are up to B of them; others are filled with zeros.
        size: (height, width) of the pictures in pixels.
        thresholds: T thresholds in [0, 1).

    Returns:
        Intersection over union, N×T; 0 where nothing is hot, NaN for an image without a box.

    Raises:
        UserError: The maps are not finite, or the boxes do not fit them.

    Example:
        >>> box_overlaps(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0, 1, 1, 2]]), (1, 2), [0.5]).tolist()
        [[1.0]]
    """
    signed = checked_maps(maps_NHW)
    check_tensors(boxes=boxes)
    check_sides(size, "size")
    check_shares(thresholds, "thresholds", "from 0 to 1")
    true = (boxes[:, None] if boxes.dim() == 2 else boxes).to(signed.device)
    if true.dim() != 3 or true.shape[::2] != (len(signed), 4):
        raise UserError(f"boxes: got {tuple(boxes.shape)}, but N×4 or N×B×4 is needed for {len(signed)} maps.")
    hot = heat(signed, size)
    hot = hot / hot.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(hot.dtype).tiny)
    best = torch.stack([_best_overlaps(hot > threshold, true) for threshold in thresholds], dim=1)
    exists = (true[..., 2] > true[..., 0]).any(dim=1)
    return best.where(exists[:, None], torch.nan)


def box_thresholds(overlaps_NT: Tensor, levels: Sequence[float] = LEVELS) -> Tensor:
    """Choose the threshold that is right for most images, for each level of overlap: indices, one for each level.

    Choose them on validation images, and give them to `box_accuracy` for the test images.

    Example:
        >>> box_thresholds(torch.tensor([[0.2, 0.8], [0.6, 0.4]]), [0.3, 0.5]).tolist()
        [1, 0]
    """
    check_tensors(overlaps=overlaps_NT)
    check_shares(levels, "levels", "from 0 to 1")
    known = overlaps_NT[~overlaps_NT.isnan().any(dim=1)]
    return torch.stack([(known >= level).float().sum(dim=0).argmax() for level in levels])


def box_accuracy(overlaps_NT: Tensor, chosen: Tensor, levels: Sequence[float] = LEVELS) -> Tensor:
    """Share of the levels of overlap that each image's box reaches, N; NaN where it has no overlap.

    Args:
        overlaps_NT: From `box_overlaps`.
        chosen: Index of the threshold for each level, from `box_thresholds` of other images.
        levels: Overlaps from which a box counts as right.

    Example:
        >>> box_accuracy(torch.tensor([[0.2, 0.6]]), torch.tensor([1, 1, 1])).tolist()
        [0.6666666865348816]
    """
    check_tensors(overlaps=overlaps_NT, chosen=chosen)
    check_shares(levels, "levels", "from 0 to 1")
    count = overlaps_NT.shape[1]
    if chosen.shape != (len(levels),) or not bool(((chosen >= 0) & (chosen < count)).all()):
        raise UserError(
            f"chosen: the index of one of {count} thresholds is needed for each of {len(levels)} levels, as from"
            " box_thresholds."
        )
    reached = overlaps_NT[:, chosen] >= torch.tensor(levels, device=overlaps_NT.device)
    return reached.float().mean(dim=1).where(~overlaps_NT.isnan().any(dim=1), torch.nan)


def max_box_acc(maps_NHW: Tensor, masks_NHW: Tensor, chosen: Tensor | None = None) -> Tensor:
    """MaxBoxAccV2: whether a hot region's box overlaps with the object's by .3, .5 and .7, averaged over the three.

    Score the pseudo-method `centre` beside it: an object in the middle is easily boxed. The map is divided by its
    maximum; the original code scales each map from its minimum to its maximum, which makes a picture of mere noise as
    hot as any other.

    Args:
        maps_NHW: Signed maps, N×h×w.
        masks_NHW: Masks of the objects, bool, N×H×W.
        chosen: Thresholds that were chosen on other images: `box_thresholds(box_overlaps(…))`. None chooses them on
            these images, which flatters the maps.

    Returns:
        One value in [0, 1] for each image, N; NaN for an empty mask.

    Raises:
        UserError: The maps are not finite, or the masks do not fit them.

    Example:
        >>> max_box_acc(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[False, True]]])).tolist()
        [1.0]
    """
    signed = checked_maps(maps_NHW)
    masks = checked_masks(masks_NHW, len(signed), (signed.shape[1], signed.shape[2]))
    overlaps = box_overlaps(signed, mask_boxes(masks), (masks.shape[1], masks.shape[2]))
    return box_accuracy(overlaps, box_thresholds(overlaps) if chosen is None else chosen)


def _best_overlaps(hot_NHW: Tensor, boxes_NB4: Tensor) -> Tensor:
    """Best intersection over union of any region's box with any of the image's boxes, N."""
    n, height, width = hot_NHW.shape
    labels = _labels(hot_NHW).flatten(1)
    pixel = torch.arange(height * width, device=hot_NHW.device)
    sides = []  # tables by label; slot 0 is the background
    for place, outside, how in (
        (pixel // width, height, "amin"),
        (pixel % width, width, "amin"),
        (pixel // width + 1, 0, "amax"),
        (pixel % width + 1, 0, "amax"),
    ):
        table = torch.full((n, height * width + 1), outside, device=hot_NHW.device)
        sides.append(table.scatter_reduce(1, labels, place.expand(n, -1), how)[:, 1:])
    top, left, bottom, right = sides
    own = (bottom - top).clamp(min=0) * (right - left).clamp(min=0)
    best = torch.zeros(n, device=hot_NHW.device)
    for box in boxes_NB4.unbind(1):  # one after the other, as there may be many in one picture
        true_top, true_left, true_bottom, true_right = box[:, None].unbind(-1)
        shared_rows = (torch.minimum(bottom, true_bottom) - torch.maximum(top, true_top)).clamp(min=0)
        shared_columns = (torch.minimum(right, true_right) - torch.maximum(left, true_left)).clamp(min=0)
        shared = shared_rows * shared_columns
        true = (true_bottom - true_top) * (true_right - true_left)
        best = torch.maximum(best, (shared / (own + true - shared).clamp(min=1)).amax(dim=1))
    return best


def _labels(on_NHW: Tensor) -> Tensor:
    """Number of the connected region of each pixel, corners connected, from 1; 0 where a pixel is off. int64, N×H×W.

    Each pixel takes the highest number around it, and a region's number passes it on to all pixels with that number,
    so that the number of rounds grows with the logarithm of a region's length.
    """
    height, width = on_NHW.shape[1:]
    exact = torch.float32 if height * width < 1 << 24 else torch.float64  # MPS has no float64
    labels = torch.arange(1, height * width + 1, device=on_NHW.device).reshape(1, height, width) * on_NHW
    while True:
        around = F.max_pool2d(labels.to(exact)[:, None], 3, stride=1, padding=1)[:, 0].long() * on_NHW
        table = F.pad(labels.flatten(1), (1, 0)).scatter_reduce(1, labels.flatten(1), around.flatten(1), "amax")
        found = table.gather(1, table.gather(1, labels.flatten(1))).reshape_as(labels)
        if torch.equal(found, labels):
            return labels
        labels = found
