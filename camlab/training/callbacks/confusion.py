"""Confusion matrix of a test."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from camlab.data.loader import Batch


class Confusion(L.Callback):
    """Counts, during a test, which class was taken for which.

    Args:
        num_classes: M, the number of the network's outputs.

    Attributes:
        counts: M×M, int64; row is the true class, column the predicted one. Zeros before a test.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self._matrix = MulticlassConfusionMatrix(num_classes, validate_args=False)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._matrix.reset()
        self._matrix.to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if len(batch.labels):  # a rank's share of a small last batch may be empty
            self._matrix.update(outputs["logits"], batch.labels)

    @torch.inference_mode()
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.counts = self._matrix.compute().cpu().numpy()  # on all ranks: it sums their counts


def output_names(class_names: Sequence[str], num_outputs: int) -> tuple[str, ...]:
    """Names of a network's outputs, of which there may be more than classes in the data.

    Example:
        >>> output_names(["cat", "dog"], 3)
        ('cat', 'dog', 'output 2')
    """
    return (*class_names, *(f"output {i}" for i in range(len(class_names), num_outputs)))
