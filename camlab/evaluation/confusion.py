"""Count a confusion matrix while a Trainer tests."""

from typing import Any

import lightning as L
import numpy as np
import torch
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from camlab.data.loader import Batch
from camlab.errors import UserError


class ConfusionCounter(L.Callback):
    """Counts each image of a test by its true and its predicted class, over all ranks.

    Args:
        num_classes: Number M of the network's outputs.
    """

    def __init__(self, num_classes: int) -> None:
        self._matrix = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self._not_finite = SumMetric(nan_strategy="disable")  # number of images with such logits

    @property
    def counts(self) -> np.ndarray:
        """Counts of images, int64 M×M; row = true class, column = predicted class.

        Raises:
            UserError: The logits of some images are NaN or infinite, so that they predict no class.
        """
        counts, bad = self._matrix.compute().cpu().numpy(), int(self._not_finite.compute())
        if bad:
            raise UserError(
                f"The network's output is NaN or infinite for {bad} of {counts.sum()} images, so it has no accuracy."
                " Check the weights and trainer.precision."
            )
        return counts

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for metric in (self._matrix, self._not_finite):
            metric.reset()
            metric.to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._matrix.update(outputs["logits"], batch.labels)
        self._not_finite.update((~torch.isfinite(outputs["logits"])).any(dim=1).sum())
