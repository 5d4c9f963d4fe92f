"""Make up for classes of unequal size: weights in the loss, or an order in which each class comes equally often."""

from typing import Literal

import torch
from torch import Tensor

from camlab.data.loader import random_stream

Balance = Literal["none", "weights", "sampling"]


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weights of the classes in the loss: N / (M n_c) for a class with n_c of the N pictures. float32, M.

    All classes then have the same total weight, and the mean weight of a picture is 1.

    Args:
        labels: Class indices, int64, N.
        num_classes: M.

    Example:
        >>> class_weights(torch.tensor([0, 0, 0, 1]), 2)
        tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(labels, minlength=num_classes).clamp(min=1)
    return len(labels) / (num_classes * counts.float())


def positive_weights(labels: Tensor) -> Tensor:
    """Weights of "yes" for each label of a multi-label set: (N - n_c) / n_c for a label of n_c pictures. float32, M.

    Both answers then have the same total weight. A label that no picture or every picture has keeps the weight 1.

    Args:
        labels: Ones for the labels of each picture, N×M.

    Example:
        >>> positive_weights(torch.tensor([[1, 0], [0, 0], [0, 0]]))
        tensor([2., 1.])
    """
    yes = labels.sum(dim=0).float()
    no = len(labels) - yes
    return torch.where((yes > 0) & (no > 0), no / yes.clamp(min=1), torch.ones_like(yes))


def balanced_order(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """Order of an epoch in which each class comes equally often, to within one: N indices, int64.

    Within a class no picture comes twice before all others have come as often. Pictures of large classes are
    therefore left out in some epochs, and pictures of small classes are repeated.

    Args:
        labels: Class indices, int64, N, in main memory.
        seed: Seed of the order.
        epoch: Number of the epoch.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 0, 1])
        >>> sorted(labels[balanced_order(labels, seed=0, epoch=0)].tolist())
        [0, 0, 0, 1, 1, 1]
    """
    generator = random_stream(seed, epoch, "balanced order")
    classes = labels.unique()
    classes = classes[torch.randperm(len(classes), generator=generator)]  # which of them get the remainder is random
    n, m = len(labels), max(len(classes), 1)
    drawn = []
    for place, label in enumerate(classes.tolist()):
        own = torch.nonzero(labels == label).flatten()
        wanted = n // m + (place < n % m)
        rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-wanted // len(own)))]
        drawn += [torch.cat(rounds)[:wanted]] if rounds else []
    order = torch.cat(drawn) if drawn else torch.arange(0)
    return order[torch.randperm(n, generator=generator)]
