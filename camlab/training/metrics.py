"""What is measured in each split beside the loss; the counts stay on the device until an epoch ends."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric


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
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

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


class InFloat32(torch.nn.ModuleDict):
    """Metrics that stay in float32 when the module is cast to 16 bits, which are too few to sum losses."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "InFloat32":
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)
        return self
