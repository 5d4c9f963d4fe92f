"""Find the images and the labels in a batch of any form, and what the data themselves say about their pictures."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camlab.errors import UserError, listed

log = logging.getLogger(__name__)

_IMAGES = ("image", "images", "pixel_values", "img", "imgs", "x", "input", "inputs", "data")
_LABELS = ("label", "labels", "target", "targets", "y", "class", "classes", "category")
_FOLLOWED = ("transform", "dataset", "augment", "normal")  # parts of names of attributes that lead to a transform
_MOST = 200  # objects that are looked at in the search for a transform

ReadBatch = Callable[[Any], Any]


def images_and_labels(batch: Any, read: ReadBatch | None = None) -> tuple[Tensor, Tensor | None]:
    """Find the network's input and the labels in a batch.

    A batch may be a tensor, a tuple or list, a mapping with the usual keys (`image`, `pixel_values`, `x`, …; `label`,
    `target`, `y`, …), a named tuple, or an object with attributes of these names; and these may contain each other.

    Args:
        batch: The batch, as `validation_step` gets it.
        read: Function that takes the images, or a pair of the images and the labels, out of a batch of another form.

    Returns:
        Images, N×C×H×W, and labels, N or N×M; None if there are no labels.

    Raises:
        UserError: There are no images in the batch, or `read` returns none.

    Example:
        >>> images, labels = images_and_labels({"img": torch.zeros(2, 3, 8, 8), "label": torch.tensor([0, 1])})
        >>> images.shape, labels
        (torch.Size([2, 3, 8, 8]), tensor([0, 1]))
    """
    found = batch if read is None else read(batch)
    images = next((value for _, value in _candidates(found, _IMAGES, _is_image)), None)
    if images is None:
        given = "read_batch returns" if read is not None else "The batch has"
        raise UserError(f"{given} no images N×C×H×W: {_described(found)}. Give read_batch=FUNCTION, batch → images.")
    return images, _labels(found, images)


def normalization_of(places: Sequence[Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Find the mean and the standard deviation by which pictures are normalised.

    They are those of a transform `Normalize` of torchvision's or a like one, or those that a network of timm names.

    Args:
        places: Data modules, loaders, data sets and networks, the most telling first.
    """
    for thing in _reachable(places):
        mean, std = _attribute(thing, "mean"), _attribute(thing, "std")
        if type(thing).__name__ == "Normalize" and mean is not None and std is not None:
            return floats(mean), floats(std)
        config = _attribute(thing, "pretrained_cfg")
        if isinstance(config, Mapping) and "mean" in config and "std" in config:
            return floats(config["mean"]), floats(config["std"])
    return None


def class_names_of(places: Sequence[Any]) -> tuple[str, ...] | None:
    """Find the names of the classes: `class_names` or `classes` of data, `config.id2label` of a network."""
    for thing in _reachable(places):
        labelled = _attribute(thing, "config", "id2label")
        named = list(labelled.values()) if isinstance(labelled, Mapping) else None
        for names in (_attribute(thing, "class_names"), _attribute(thing, "classes"), named):
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None


def floats(values: Any) -> tuple[float, ...]:
    """Convert a number, a sequence or a tensor to a tuple of numbers.

    Example:
        >>> floats(0.5), floats(torch.tensor([[0.25], [0.5]]))
        ((0.5,), (0.25, 0.5))
    """
    return tuple(torch.as_tensor(values, dtype=torch.float64).flatten().tolist())


def _labels(batch: Any, images: Tensor) -> Tensor | None:
    """The labels by their name, or the only value that may be labels: of several, one may be an index or a box."""
    candidates = list(_candidates(batch, _LABELS, lambda value: _is_labels(value, images)))
    if named := [value for is_named, value in candidates if is_named]:
        return named[0]
    if len(candidates) > 1:
        log.warning(
            "The batch has %d values that may be labels, so the heatmaps name no true classes."
            " Give read_batch=FUNCTION, batch → (images, labels).",
            len(candidates),
        )
    return candidates[0][1] if len(candidates) == 1 else None


def _candidates(
    value: Any, names: Sequence[str], fits: Callable[[Any], bool], is_named: bool = False
) -> Iterator[tuple[bool, Tensor]]:
    """All values that fit, in order, and whether they were found under one of the names; those come first."""
    if fits(value):
        yield is_named, torch.as_tensor(value)
    elif (named := _as_mapping(value)) is not None:
        for name in sorted(named, key=lambda name: names.index(name) if name in names else len(names)):
            if not isinstance(named[name], (str, bytes)):
                yield from _candidates(named[name], names, fits, is_named or name in names)
    elif isinstance(value, (tuple, list)):
        for part in value[:16]:
            yield from _candidates(part, names, fits, is_named)


def _as_mapping(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    if hasattr(value, "_asdict"):  # a named tuple
        return dict(value._asdict())
    plain = value is None or isinstance(value, (Tensor, str, bytes, int, float, list, tuple, type))
    return None if plain or not hasattr(value, "__dict__") else vars(value)


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and value.numel() > 0


def _is_labels(value: Any, images: Tensor) -> bool:
    """Whether a value may be one class, or a row of a table of classes, for each image."""
    if isinstance(value, list):
        return len(value) == len(images) and all(type(label) is int for label in value)
    return isinstance(value, Tensor) and value.dim() in (1, 2) and len(value) == len(images)


def _described(batch: Any) -> str:
    named = _as_mapping(batch)
    if named is not None:
        return f"{type(batch).__name__} of {listed(list(named), most=6) or 'nothing'}"
    if isinstance(batch, (tuple, list)):
        return f"{type(batch).__name__} of {', '.join(map(_described, batch[:4])) or 'nothing'}"
    if isinstance(batch, Tensor):
        return f"a tensor {'×'.join(map(str, batch.shape)) or 'of one number'}"
    return type(batch).__name__


def _reachable(places: Sequence[Any]) -> Iterator[Any]:
    """The objects, their parts, and what their attributes with names such as `dataset` and `transform` refer to."""
    left, seen = list(places), set[int]()
    while left and len(seen) < _MOST:
        thing = left.pop(0)
        if thing is None or id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, (list, tuple)):
            left += thing[:16]
        elif isinstance(thing, Mapping):
            left += list(thing.values())[:16]
        elif hasattr(thing, "__dict__") and not isinstance(thing, Tensor):
            left += [part for name, part in vars(thing).items() if any(word in name.lower() for word in _FOLLOWED)]
            left += thing.children() if isinstance(thing, nn.Module) else ()


def _attribute(thing: Any, *names: str) -> Any:
    """The value of an attribute of an attribute …; None if there is none, or if a property raises an error."""
    for name in names:
        try:
            thing = getattr(thing, name, None)
        except Exception:
            return None
    return thing
