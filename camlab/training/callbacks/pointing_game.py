"""Does the heat lie on the object? Scored where the truth is known."""

import logging
from typing import Any

import lightning as L
import torch
from torchmetrics import MeanMetric

from camlab import maps
from camlab.data.loader import Batch
from camlab.scores.pointing_game import dilate, hits
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)


class PointingGame(L.Callback):
    """Scores the CAM of the true class against the objects' masks during the test (Zhang et al. 2018, §4.1).

    A hit is the map's maximum inside the mask dilated by `tolerance` pixels; a tie or a map without positive evidence
    is a miss. Logged as `test/pointing_game`, beside what a random point and the image's centre would score. Sets
    without masks are not scored.

    Args:
        tolerance: in pixels of the original image, in both directions.
    """

    def __init__(self, tolerance: int = 2) -> None:
        self.tolerance = tolerance
        self._scores = {
            name: MeanMetric() for name in ("pointing_game", "pointing_game_random", "pointing_game_center")
        }

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for score in self._scores.values():
            score.reset()
            score.to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch.masks is None or len(batch.labels) == 0:
            return
        assert isinstance(pl_module, Classifier)
        cam = maps.cam(outputs["features"], pl_module.network.fc.weight)
        own = cam[torch.arange(len(cam), device=cam.device), batch.labels]
        allowed = dilate(batch.masks, self.tolerance)
        self._scores["pointing_game"].update(hits(own, allowed).float())
        self._scores["pointing_game_random"].update(allowed.float().mean(dim=(1, 2)))
        height, width = allowed.shape[-2:]
        self._scores["pointing_game_center"].update(allowed[:, height // 2, width // 2].float())

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._scores["pointing_game"].update_called:
            return
        for name, score in self._scores.items():
            pl_module.log(f"test/{name}", score.compute(), rank_zero_only=True)
