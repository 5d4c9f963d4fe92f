"""Number the classes of a data set as a trained network numbers them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from camlab.data.image_set import ImageSet, Pictures
from camlab.data.module import ImageData
from camlab.data.planted_set import PlantedSet
from camlab.data.shortcut import Shortcut
from camlab.data.stored_set import StoredSet
from camlab.errors import UserError


def number_classes(data: ImageData, class_names: Sequence[str]) -> None:
    """Give the classes of a data set that has been set up, and is not used yet, the indices that they have in a list.

    Args:
        data: The data set, whose splits and shortcut are replaced.
        class_names: The names of its classes, in their new order.

    Raises:
        UserError: The classes of a shortcut are given by index, which would mark others than in the new order.
    """
    if data.marks_by_index:
        raise UserError(
            "data.shortcut_classes: the classes of the data are in another order than those of the network, so an index"
            " marks another class. Give names of classes."
        )
    own, names = data.class_names, tuple(class_names)
    assert sorted(own) == sorted(names)
    new = torch.tensor([names.index(name) for name in own])
    data.splits = {split: _numbered(pictures, new, names) for split, pictures in data.splits.items()}
    data.shortcut = None if data.shortcut is None else _moved(data.shortcut, new)
    data.forget_content()


def _numbered(pictures: Pictures, new: Tensor, names: tuple[str, ...]) -> Pictures:
    """The same pictures, whose classes have new indices.

    Args:
        pictures: The pictures.
        new: New index of each class, int64, M.
        names: Names of the classes in their new order.
    """
    if isinstance(pictures, PlantedSet):
        inner = _numbered(pictures.pictures, new, names)
        return replace(pictures, pictures=inner, shortcut=_moved(pictures.shortcut, new))
    assert isinstance(pictures, (ImageSet, StoredSet))
    labels = pictures.labels
    return replace(pictures, labels=labels[:, new.argsort()] if labels.dim() == 2 else new[labels], class_names=names)


def _moved(shortcut: Shortcut, new: Tensor) -> Shortcut:
    return replace(shortcut, classes=tuple(int(new[label]) for label in shortcut.classes))
