"""The images whose heatmaps are scored in a training of others: given, or taken from the first validation batches."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from camlab.attribution.network_input import check_images
from camlab.data.any_batch import ReadBatch, images_and_labels
from camlab.errors import UserError
from camlab.scores.checked import checked_masks
from camlab.training.heat_values import ScoredSet
from camlab.training.probe_set import checked_labels, copied

log = logging.getLogger(__name__)


def given_images(
    images: Tensor | None, labels: Tensor | Sequence[int] | None, masks: Tensor | None
) -> ScoredSet | None:
    """Copies of the images that a user gives; None if there are none.

    Args:
        images: N×C×H×W.
        labels: True classes, N.
        masks: Masks of the objects, N×H×W, bool or zeros and ones.

    Raises:
        UserError: They do not fit each other, or there are no images.

    Example:
        >>> given_images(torch.rand(2, 3, 8, 8), [0, 1], torch.zeros(2, 8, 4))
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: masks: 8×4 pixels for images of 8×8. Give masks of the same shape.
    """
    if images is None:
        if labels is not None or masks is not None:
            raise UserError("labels, masks: they are given without images. Give images, too.")
        return None
    check_images(images)
    if len(images) == 0:
        raise UserError("images: there are none to score.")
    if labels is not None and len(labels) != len(images):
        raise UserError(f"labels: {len(labels)} labels for {len(images)} images. Give one for each.")
    if masks is not None:
        masks = copied(checked_masks(masks, len(images)))
        (height, width), (rows, columns) = images.shape[-2:], masks.shape[1:]
        if height * columns != width * rows:
            raise UserError(
                f"masks: {rows}×{columns} pixels for images of {height}×{width}. Give masks of the same shape."
            )
    return ScoredSet(copied(images), None if labels is None else copied(torch.as_tensor(labels)), masks)


def with_classes(images: ScoredSet, count: int) -> ScoredSet:
    """The images with one true class each, in a form that suits a network of `count` outputs.

    Where a picture may have several classes or none, as with a single logit, no single one is its true class: the maps
    are then of the predicted class, and masks, of which it is not known which class they are of, are not used.

    Raises:
        UserError: A label is no class of the network.
    """
    if images.labels is None:
        return images
    labels, several = checked_labels(images.labels, count)
    if not several:
        return replace(images, labels=labels)
    if images.masks is not None:
        log.info("The masks are not used for scores of heatmaps: a picture may have several classes, or none.")
    return replace(images, labels=None, masks=None)


class ImageCollector:
    """Collects the first images of validation batches.

    Args:
        count: Number of images that are collected.
        read_batch: Function that takes the images, or a pair of the images and the labels, out of a batch.

    Attributes:
        images: The images, once there are enough or a validation has ended; None before.
    """

    def __init__(self, count: int, read_batch: ReadBatch | None = None) -> None:
        self.images: ScoredSet | None = None
        self._count, self._read_batch = count, read_batch
        self.begin()

    def begin(self) -> None:
        """Begin with the first batch: a test before training may have seen some."""
        self._missing, self._parts = self._count, list[ScoredSet]()

    def add(self, batch: Any) -> None:
        """Keep the images of a batch, as far as they are needed.

        Raises:
            UserError: There are no images in the batch.
        """
        if self.images is not None:
            return
        images, labels = images_and_labels(batch, self._read_batch)
        some = slice(self._missing)
        with torch.inference_mode(False):  # a tensor made in inference mode could not be used for gradients
            part = ScoredSet(copied(images[some]), None if labels is None else copied(labels[some]))
        self._parts.append(part)
        self._missing -= len(part.inputs)
        if self._missing == 0:
            self.end()

    def end(self) -> None:
        """Make do with the images that there are, if there are any."""
        if self.images is None and self._parts:
            labels = [part.labels for part in self._parts if part.labels is not None]
            has_labels = len(labels) == len(self._parts)
            inputs = torch.cat([part.inputs for part in self._parts])
            self.images = ScoredSet(inputs, torch.cat(labels) if has_labels else None)
            self._parts = []
