"""What is measured in each split beside the loss; the counts stay on the device until an epoch ends."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.functional.classification import multilabel_average_precision
from torchmetrics.utilities import dim_zero_cat


class ClassCounts(Metric):
    """Counts pictures by class: how many there are, how often each class is predicted, and how often rightly.

    `compute` returns the accuracy `acc`, the balanced accuracy `balanced_acc`, which is the mean share of pictures
    that are recognised over the classes that occur, and `f1`, the mean F1 score over the classes that occur or are
    predicted (macro F1).

    Args:
        num_classes: Number M of the network's outputs.

    Example:
        >>> counts = ClassCounts(2)
        >>> counts.update(torch.tensor([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [2.0, 1.0]]), torch.tensor([0, 0, 1, 1]))
        >>> {name: round(float(value), 3) for name, value in counts.compute().items()}
        {'acc': 0.75, 'balanced_acc': 0.75, 'f1': 0.733}
    """

    full_state_update = False
    true: Tensor
    predicted: Tensor
    right: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("true", "predicted", "right"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum", persistent=True)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count pictures.

        Args:
            logits: N×M.
            labels: Class indices, N.
        """
        classes = torch.arange(len(self.true), device=logits.device)  # compared, so that nothing is read back
        true, predicted = labels[:, None] == classes, logits.argmax(dim=1)[:, None] == classes
        self.true += true.sum(dim=0)
        self.predicted += predicted.sum(dim=0)
        self.right += (true & predicted).sum(dim=0)

    def compute(self) -> dict[str, Tensor]:
        """The figures, each a number from 0 to 1; NaN without pictures."""
        recognised, f1 = self.right / self.true, 2 * self.right / (self.true + self.predicted)
        return {
            "acc": self.right.sum() / self.true.sum(),
            "balanced_acc": recognised.nanmean(),  # 0 / 0 where a class does not occur
            "f1": f1.nanmean(),
        }


class LabelCounts(Metric):
    """Counts decisions label by label, where a picture may have any number of labels: "yes" is a probability above 1/2.

    `compute` returns `acc`, the share of all decisions that are right; `balanced_acc`, the mean of the shares of right
    "yes" and right "no" over the labels; `f1`, the mean F1 score over the labels that occur or are predicted (macro
    F1); and `map`, the mean average precision over the labels that occur, which needs no threshold.

    Args:
        num_labels: Number M of the network's outputs.
        keeps_logits: Whether the average precision is computed, for which all logits are kept until the epoch ends.
    """

    full_state_update = False
    true: Tensor
    predicted: Tensor
    right: Tensor
    total: Tensor
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_labels: int, keeps_logits: bool = True) -> None:
        super().__init__()
        self.keeps_logits = keeps_logits
        for name in ("true", "predicted", "right"):
            self.add_state(name, torch.zeros(num_labels, dtype=torch.int64), dist_reduce_fx="sum", persistent=True)
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum", persistent=True)
        for name in ("logits", "labels") if keeps_logits else ():
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count pictures.

        Args:
            logits: N×M.
            labels: Ones for the labels of each picture, N×M.
        """
        true, predicted = labels > 0, logits > 0
        self.true += true.sum(dim=0)
        self.predicted += predicted.sum(dim=0)
        self.right += (true & predicted).sum(dim=0)
        self.total += len(labels)
        if self.keeps_logits:
            self.logits.append(logits.float())
            self.labels.append(labels.float())

    def sync(self, *args: Any, **options: Any) -> None:
        """Gather the counts of all processes; a process without pictures takes part with none."""
        if self.keeps_logits and not self.logits:
            self.logits.append(torch.empty(0, len(self.true), device=self.true.device))
            self.labels.append(torch.empty(0, len(self.true), device=self.true.device))
        super().sync(*args, **options)

    def compute(self) -> dict[str, Tensor]:
        """The figures, each a number from 0 to 1; NaN without pictures."""
        neither = self.total - self.true - self.predicted + self.right
        shares = torch.cat([self.right / self.true, neither / (self.total - self.true)])
        figures = {
            "acc": (self.right + neither).sum() / (self.total * len(self.true)),
            "balanced_acc": shares.nanmean(),
            "f1": (2 * self.right / (self.true + self.predicted)).nanmean(),
        }
        return figures | {"map": self._mean_average_precision()} if self.keeps_logits else figures

    def _mean_average_precision(self) -> Tensor:
        occurring = self.true > 0
        if not occurring.any():
            return torch.tensor(torch.nan, device=self.true.device)
        logits, labels = dim_zero_cat(self.logits)[:, occurring], dim_zero_cat(self.labels)[:, occurring].long()
        count = int(occurring.sum())
        return multilabel_average_precision(logits.sigmoid(), labels, count, average="macro", validate_args=False)


def split_metrics(num_classes: int, multi_label: bool, split: str) -> nn.ModuleList:
    """The metrics of a split: its mean loss, and the counts of its classes or labels.

    Args:
        num_classes: Number of the network's outputs.
        multi_label: Whether a picture may have any number of labels.
        split: Name of the split. For `train`, no logits are kept: a checkpoint within an epoch holds its counts.
    """
    counts = LabelCounts(num_classes, split != "train") if multi_label else ClassCounts(num_classes)
    loss = MeanMetric(nan_strategy="disable")
    loss.persistent(True)  # like the counts, so that a checkpoint within an epoch holds what has been measured so far
    return nn.ModuleList([loss, counts])


class InFloat32(nn.ModuleDict):
    """Metrics that stay in float32 when the module is cast to 16 bits, which are too few to sum losses."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "InFloat32":
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)
        return self
