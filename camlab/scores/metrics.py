"""The scores as torchmetrics metrics, for any training loop: thin shells around the pure functions."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from camlab.errors import UserError
from camlab.scores.boxes import LEVELS, THRESHOLDS, box_accuracy, box_overlaps, box_thresholds, mask_boxes
from camlab.scores.catalogue import score_of
from camlab.scores.checked import check_whole, checked_masks
from camlab.scores.pixel_precision import BINS, average_precision, of_masked, pixel_counts, pxap_interval
from camlab.scores.statistics import Interval, mean_interval


class ImageScore(Metric):
    """The mean of a score that has one value for each image.

    `update` takes the arguments of the score's function. Noise and the order of ties depend on an image's number: give
    `numbers` to `update` where several processes score parts of a set; otherwise images are counted.

    Args:
        score: Name of a score, or a function that gives one value for each image.
        **options: Options of the function, such as `imputer="blur"`.

    Raises:
        UserError: The name is unknown, or the score has one value for a whole set or several methods.

    Example:
        >>> metric = ImageScore("auroc")
        >>> metric.update(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[False, True]]]))
        >>> metric.compute(), metric.interval().n
        (tensor(1.), 1)
    """

    full_state_update = True  # `forward` would otherwise number the images of each batch from 0
    values: list[Tensor]

    def __init__(self, score: str | Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        if isinstance(score, str):
            known = score_of(score)
            if known.of_set or known.name in ("mprt", "max_sensitivity", "flip_consistency"):
                raise UserError(f"score={score}: it has no single value for each image. Call camlab.scores.{score}.")
            score = known.function
        takes = inspect.signature(score).parameters
        if not any(of.kind is of.VAR_KEYWORD for of in takes.values()) and (odd := options.keys() - takes.keys()):
            raise UserError(f"{min(odd)}: the score has no such option. Available: {', '.join(takes)}.")
        self._function, self._options = score, options
        self._is_numbered = "numbers" in inspect.signature(score).parameters
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, *args: Any, **more: Any) -> None:
        """Score a batch of images; the arguments are those of the score's function."""
        if self._is_numbered and "numbers" not in more:
            images = next((given for given in (*args, *more.values()) if isinstance(given, Tensor)), None)
            if images is not None:
                more["numbers"] = torch.arange(len(images), device=images.device) + sum(map(len, self.values))
        self.values.append(self._function(*args, **{**self._options, **more}).float())

    def compute(self) -> Tensor:
        """Mean of the images that have a value."""
        return self.per_image.nanmean()

    @property
    def per_image(self) -> Tensor:
        """The value of each image so far, NaN for those without one."""
        return dim_zero_cat(self.values) if len(self.values) else torch.empty(0, device=self.device)

    def interval(self, seed: int = 0) -> Interval:
        """Mean with its bootstrap interval over images."""
        return mean_interval(self.per_image, seed=seed)


class PxAP(Metric):
    """Pixel precision over recall of all images in one pool (`camlab.scores.pxap`).

    Args:
        bins: Number of bins of the heat.

    Example:
        >>> metric = PxAP()
        >>> metric.update(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[False, True]]]))
        >>> float(metric.compute())
        1.0
    """

    full_state_update = False
    higher_is_better = True
    counts: list[Tensor]

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        check_whole(bins, "bins", 1)
        self.bins = bins
        self.add_state("counts", default=[], dist_reduce_fx="cat")

    def update(self, maps_NHW: Tensor, masks_NHW: Tensor) -> None:
        """Count the pixels of a batch of images."""
        self.counts.append(pixel_counts(maps_NHW, masks_NHW, self.bins).int())

    def compute(self) -> Tensor:
        """Area under the curve of the pooled pixels."""
        return average_precision(of_masked(self._all()).sum(dim=0))

    def interval(self, seed: int = 0) -> Interval:
        """The area with its bootstrap interval over images."""
        return pxap_interval(self._all(), seed)

    def _all(self) -> Tensor:
        none = torch.zeros(0, 2, self.bins, dtype=torch.int32, device=self.device)
        return none if isinstance(self.counts, list) and not self.counts else dim_zero_cat(self.counts)


class MaxBoxAcc(ImageScore):
    """MaxBoxAccV2 (`camlab.scores.max_box_acc`), with thresholds that other images have chosen.

    Args:
        chosen: Thresholds from `thresholds()` of a metric that has seen the validation images. None chooses them on the
            images that are scored, which flatters the maps.

    Example:
        >>> metric = MaxBoxAcc()
        >>> metric.update(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[False, True]]]))
        >>> metric.compute()
        tensor(1.)
    """

    higher_is_better = True

    def __init__(self, chosen: Tensor | None = None) -> None:
        super().__init__(_overlaps)
        self.chosen = chosen

    @property
    def per_image(self) -> Tensor:
        overlaps = super().per_image
        if len(overlaps) == 0:
            return overlaps
        return box_accuracy(overlaps, self.thresholds() if self.chosen is None else self.chosen.to(overlaps.device))

    def thresholds(self) -> Tensor:
        """Indices of the best thresholds for these images, one for each level of overlap.

        Raises:
            UserError: No images with an object have been scored.
        """
        if super().per_image.isnan().all():  # also if there are none
            raise UserError("thresholds: no images with an object have been scored. Call update first.")
        return box_thresholds(super().per_image, LEVELS)


def _overlaps(maps_NHW: Tensor, masks_NHW: Tensor) -> Tensor:
    masks = checked_masks(masks_NHW, len(maps_NHW), (maps_NHW.shape[1], maps_NHW.shape[2]))
    return box_overlaps(maps_NHW, mask_boxes(masks), (masks.shape[1], masks.shape[2]), THRESHOLDS)
