"""The pictures whose heatmaps are drawn during training: as the network sees them, and as people do."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from camlab.attribution.network_input import check_images
from camlab.data.any_batch import class_names_of
from camlab.data.folder import read_pictures
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import output_names
from camlab.storage.files import user_path
from camlab.storage.pictures import picture_files
from camlab.tracking.wandb_logger import IMAGES_PER_KEY

log = logging.getLogger(__name__)

Normalizer = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel

_ROUNDING = 0.02  # of values that should lie within [0, 1]


@dataclass(frozen=True)
class ProbeSet:
    """N pictures.

    Attributes:
        inputs: The network's input, N×C×H×W.
        pictures: The pictures, uint8 RGB N×3×H×W; of any size, but the network sees the whole of each.
        names: Names in captions, N; empty where captions give the true classes alone.
        labels: True classes, N, or N×M with ones for them if there may be several; None if they are not known.
        class_names: Names of the classes; None if they are not known.
        masks: Masks of the objects in the pictures, bool N×H×W; None if there are none.
    """

    inputs: Tensor
    pictures: Tensor
    names: Sequence[str]
    labels: Tensor | None = None
    class_names: Sequence[str] | None = None
    masks: Tensor | None = None


def of_inputs(inputs: Tensor, labels: Tensor | None, given: Normalizer | None, found: Normalizer | None) -> ProbeSet:
    """Make a probe set from the network's own inputs.

    Args:
        inputs: N×C×H×W.
        labels: As in `ProbeSet`.
        given: Mean and standard deviation that the user gives.
        found: Those that the data's transforms or the network name; they are used if the pictures then make sense.

    Raises:
        UserError: `given` has numbers for another number of channels.
    """
    return ProbeSet(inputs, pictures_of(inputs, given, found), [""] * len(inputs), labels)


def of_files(
    files: Sequence[Path], like: Tensor, labels: Tensor | None, given: Normalizer | None, found: Normalizer | None
) -> ProbeSet:
    """Make a probe set from picture files, which are prepared like the inputs of a batch.

    Args:
        files: Paths of the pictures.
        like: Images of a batch, N×C×S×S.
        labels: As in `ProbeSet`.
        given: As in `of_inputs`.
        found: As in `of_inputs`.

    Raises:
        UserError: A file cannot be read; the batch's images are not square or have other than one or three channels;
            the mean and standard deviation are not known.
    """
    channels, height, width = like.shape[1:]
    if height != width or channels not in (1, 3):
        raise UserError(
            f"images: the network takes images of {channels}×{height}×{width}, and files are prepared for 1×S×S or"
            " 3×S×S only. Give a tensor of the network's inputs instead."
        )
    normalizer = _checked(given, channels) or _plausible(like, found)
    if normalizer is None:
        raise UserError("images: it is not known how files are normalised for this network. Give mean= and std=.")
    pictures = read_pictures(files, max(height, 64))
    grey = rgb_to_grayscale(pictures) if channels == 1 else pictures
    mean, std = (tuple(values * (channels // len(values))) for values in normalizer)
    return ProbeSet(Preprocess(height, mean, std)(grey), pictures, [file.name for file in files], labels)


def pictures_of(inputs: Tensor, given: Normalizer | None, found: Normalizer | None) -> Tensor:
    """Turn the network's inputs back into pictures: N×C×H×W → uint8 RGB N×3×H×W.

    One channel is drawn in grey; of two it is the first, and of more than three the first three are drawn in colours.
    If the mean and the standard deviation are not known, the contrast of each picture is stretched.

    Example:
        >>> inputs = torch.tensor([-1.0, 0.0, 1.0]).expand(1, 1, 1, 3)
        >>> pictures_of(inputs, ((0.5,), (0.5,)), None)[0, :, 0].tolist()
        [[0, 128, 255], [0, 128, 255], [0, 128, 255]]
    """
    normalizer = _checked(given, inputs.shape[1]) or _plausible(inputs, found)
    values = _stretched(inputs.float()) if normalizer is None else _undone(inputs, normalizer)
    if normalizer is None:
        log.info("The mean and the std of the images are not known, so contrast is stretched. Give mean= and std=.")
    if (channels := inputs.shape[1]) not in (1, 3):
        values = values[:, : 3 if channels > 3 else 1]
        log.info("Of the %d channels of the images, %s drawn.", channels, "three are" if channels > 3 else "one is")
    drawn = (values.clamp(0, 1) * 255).round().to(torch.uint8)
    return drawn.expand(-1, 3, -1, -1).contiguous()


def checked_labels(labels: Tensor, count: int, several: bool = False) -> tuple[Tensor, bool]:
    """Bring labels of any form into the form of `ProbeSet`.

    Args:
        labels: Class indices, N or N×1; or one number for each class, N×M: one-hot, soft, or ones and zeros.
        count: Number M of the network's outputs. A single output is one class, which a picture has or has not.
        several: Whether a picture may have several classes, even if each of these has one.

    Returns:
        The labels, int64, and whether a picture may have several classes or none.

    Raises:
        UserError: There are labels that are no class of the network's.

    Example:
        >>> checked_labels(torch.tensor([[0.0, 1.0, 1.0]]), 3)
        (tensor([[0, 1, 1]]), True)
    """
    labels = labels.detach().cpu()
    if labels.dim() == 2 and labels.shape[1] == count > 1:
        if not several and torch.allclose(labels.sum(dim=1).float(), torch.ones(len(labels))):
            log.info(
                "Each picture's labels add up to 1, so it has one class; with multi_label=True it may have several."
            )
            return labels.argmax(dim=1), False
        return (labels > 0.5).long(), True
    if labels.dim() == 2 and labels.shape[1] != 1:
        raise UserError(f"labels: {labels.shape[1]} numbers for each image, but the network has {count} outputs.")
    labels = labels.flatten().long()
    classes = max(count, 2)
    if len(wrong := labels[(labels < 0) | (labels >= classes)]):
        raise UserError(
            f"labels: {int(wrong[0])} is no class of the network, which has the classes 0 to {classes - 1}."
        )
    return (labels[:, None], True) if count == 1 else (labels, False)


def class_names_for(given: Sequence[str] | None, places: Sequence[Any], count: int) -> tuple[str, ...]:
    """Names of the network's outputs: those that are given, else those that are found, else numbers."""
    if given is not None and count == 1 and len(given) == 2:  # the one output is for the second class
        given = given[1:]
    if given is not None and len(given) > count:
        raise UserError(f"class_names: {len(given)} names, but the network has {count} outputs. Leave some out.")
    found = class_names_of(places) if given is None else tuple(given)
    if found is None or len(found) > count:
        return tuple(f"class {k}" for k in range(count))
    return output_names(found, count)


def checked_images(
    images: object, labels: Tensor | Sequence[int] | None
) -> tuple[Tensor | list[Path] | None, Tensor | None]:
    """The images that are given, at most as many as W&B takes, or the files of a folder; and their labels."""
    if images is None:
        if labels is not None:
            raise UserError("labels: they are given without images. Give both, or neither.")
        return None, None
    if isinstance(images, (str, os.PathLike)):
        place = os.fspath(images)
        chosen: Tensor | list[Path] = picture_files(user_path(place, "images"))
        if not chosen:
            raise UserError(f"images={place}: no pictures there. Give another folder.")
    else:
        check_images(images)
        assert isinstance(images, Tensor)
        chosen = copied(images)
    if labels is not None and len(labels) != len(chosen):
        raise UserError(f"labels: {len(labels)} labels for {len(chosen)} images. Give one for each.")
    some = slice(IMAGES_PER_KEY)
    return chosen[some], None if labels is None else copied(torch.as_tensor(labels))[some]


def copied(tensor: Tensor) -> Tensor:
    """Copy a tensor to main memory, outside of the graph."""
    return tensor.detach().clone().cpu()


def _checked(given: Normalizer | None, channels: int) -> Normalizer | None:
    if given is not None and not {len(values) for values in given} <= {1, channels}:
        raise UserError(f"mean, std: the images have {channels} channels. Give one number for each, or one for all.")
    return given


def _plausible(inputs: Tensor, found: Normalizer | None) -> Normalizer | None:
    """The normalisation without which all values lie in [0, 1]: none, a factor of 255, or the one that was found."""
    channels, low, high = inputs.shape[1], float(inputs.min()), float(inputs.max())
    if inputs.dtype == torch.uint8 or (low >= 0 and 1.5 < high <= 255):
        return (0.0,), (1 / 255,)
    if low >= 0 and high <= 1:
        return (0.0,), (1.0,)
    if found is not None and {len(values) for values in found} <= {1, channels}:
        values = _undone(inputs, found)
        if float(values.min()) >= -_ROUNDING and float(values.max()) <= 1 + _ROUNDING:
            return found
    return None


def _undone(inputs: Tensor, normalizer: Normalizer) -> Tensor:
    mean, std = (torch.tensor(values, device=inputs.device)[:, None, None] for values in normalizer)
    return inputs.float() * std + mean


def _stretched(values: Tensor) -> Tensor:
    low, high = (extreme[:, None, None, None] for extreme in values.flatten(1).aminmax(dim=1))
    return (values - low) / (high - low).clamp(min=1e-12)
