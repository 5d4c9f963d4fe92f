"""Count a confusion matrix while a Trainer tests."""

from typing import Any

import lightning as L
import numpy as np
import torch
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelConfusionMatrix

from camlab.data.loader import Batch
from camlab.errors import UserError


class ConfusionCounter(L.Callback):
    """Counts each image of a test by its true and its predicted class, over all ranks.

    Args:
        num_classes: Number M of the network's outputs.
        multi_label: Whether a picture may have any number of labels, each of which is counted on its own.
    """

    def __init__(self, num_classes: int, multi_label: bool = False) -> None:
        kind: Any = MultilabelConfusionMatrix if multi_label else MulticlassConfusionMatrix
        self.multi_label = multi_label
        self._matrix = kind(num_classes, validate_args=False)
        self._not_finite = SumMetric(nan_strategy="disable")  # number of images with such logits

    @property
    def counts(self) -> np.ndarray:
        """Counts of images, int64 M×M; row = true class, column = predicted class. With several labels, M×2×2.

        Raises:
            UserError: The logits of some images are NaN or infinite, so that they predict no class.
        """
        counts, bad = self._matrix.compute().cpu().numpy(), int(self._not_finite.compute())
        images = counts[0].sum() if self.multi_label else counts.sum()
        if bad:
            raise UserError(
                f"The network's output is NaN or infinite for {bad} of {images} images, so it has no accuracy."
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
        logits = outputs["logits"]
        self._matrix.update(logits.sigmoid() if self.multi_label else logits, batch.labels)
        self._not_finite.update((~torch.isfinite(outputs["logits"])).any(dim=1).sum())
