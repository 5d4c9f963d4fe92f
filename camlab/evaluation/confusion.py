"""Count a confusion matrix while a Trainer tests."""

from typing import Any

import lightning as L
import numpy as np
from torchmetrics.classification import MulticlassConfusionMatrix

from camlab.data.loader import Batch


class ConfusionCounter(L.Callback):
    """Counts each image of a test by its true and its predicted class, over all ranks.

    Args:
        num_classes: Number M of the network's outputs.
    """

    def __init__(self, num_classes: int) -> None:
        self._matrix = MulticlassConfusionMatrix(num_classes, validate_args=False)

    @property
    def counts(self) -> np.ndarray:
        """Counts of images, int64 M×M; row = true class, column = predicted class."""
        return self._matrix.compute().cpu().numpy()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
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
        self._matrix.update(outputs["logits"], batch.labels)
