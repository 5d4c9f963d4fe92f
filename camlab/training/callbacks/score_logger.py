"""Scores of heatmaps in camlab's own runs: of validation images after every epoch, and of the test images once."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch

from camlab.attribution.doubts import LEAST_SIDE
from camlab.data.loader import Batch
from camlab.data.module import ImageData
from camlab.models.cam_net import CamNet
from camlab.runs.watchers import OF_PASSES
from camlab.training.callbacks.heatmap_scores import HeatmapScores
from camlab.training.callbacks.pointing_game import PointingGame
from camlab.training.classifier import Classifier
from camlab.training.heat_values import HeatScorer, ScoredSet
from camlab.training.module_network import inputs_for
from camlab.training.scored_maps import KeptBackbone, MapSource, kept_features

log = logging.getLogger(__name__)

_BATCH = 32  # images that pass the backbone together
_KEPT_BATCH = 128  # images that pass the head together


class ScoreLogger(HeatmapScores):
    """Scores the heatmaps of some validation images as `HeatmapScores` does, and plays the pointing game in the test.

    Where the backbone is frozen and its features are cached, those of the scored images are kept as well, so that
    scoring the maps needs no pass of the backbone; `srg`, which does, is then computed before training and after the
    last epoch only. Networks other than CamNets are then scored at these two times only. A fall of a score is told
    where `val/acc` rises.

    Args:
        every_n_epochs: Number of epochs between scorings. The last epoch is always scored.
        num_images: Number of validation images, evenly spaced in the split; if there are fewer, all of them.
        srg_images: Number of these images that `srg` scores, evenly spaced as well.
        scores: Names of scores, or None for all that apply.
        tolerance: Tolerance of the pointing game, in pixels of the original image, in validation and test.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        num_images: int = 100,
        srg_images: int = 16,
        scores: Sequence[str] | None = None,
        tolerance: int = 2,
    ) -> None:
        super().__init__(
            scores=scores,
            num_images=num_images,
            srg_images=srg_images,
            every_n_epochs=every_n_epochs,
            tolerance=tolerance,
        )
        self._game = PointingGame(tolerance)
        self._each_epoch = self.scores

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        network = getattr(pl_module, "network", None)
        coarse = isinstance(network, CamNet) and min(network.map_size(data.preprocess.image_size)) < LEAST_SIDE
        unvalidated = not trainer.enable_validation or "val" not in data.validation_splits
        if coarse:
            self._gave_up = True  # `camlab.train` has told it
        elif unvalidated or data.has_several_labels:
            self._gave_up = True
            reason = "no images are validated" if unvalidated else "a picture may have several labels"
            if trainer.is_global_zero:
                log.info("Heatmaps are not scored during training, because %s.", reason)

    def on_validation_batch_start(self, *args: Any, **options: Any) -> None:
        """Do nothing, because the images are taken from the data."""

    def choose(self, trainer: L.Trainer) -> ScoredSet:
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        val = data.splits["val"]
        chosen = _spread(max(self.num_images, self.srg_images), len(val))
        few = [chosen[i] for i in _spread(self.srg_images, len(chosen))]  # `srg` scores the first ones
        some = val.subset(torch.tensor([*few, *(i for i in chosen if i not in few)]))
        return ScoredSet(data.preprocess(some.images), some.labels, some.masks)

    def make_scorer(self, trainer: L.Trainer, pl_module: L.LightningModule, images: ScoredSet) -> HeatScorer:
        assert isinstance(pl_module, Classifier)
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        network, first = pl_module.network, images.inputs[: self.srg_images]
        self._each_epoch = self.scores
        if data.head_statistics:  # epochs are then too short for passes of the backbone
            kept = isinstance(network, CamNet)
            self._each_epoch = tuple(name for name in self.scores if kept and name not in OF_PASSES)
        prepare, whole = functools.partial(inputs_for, pl_module), (network, None)
        if not (data.head_statistics and isinstance(network, CamNet)):
            return HeatScorer(MapSource(network), images, whole, first, prepare, self.tolerance)
        straight, mirrored = (
            kept_features(network, prepare(of), _BATCH) for of in (images.inputs, images.inputs.flip(-1))
        )
        features = ScoredSet(straight, images.labels, images.masks, mirrored)
        head = MapSource(KeptBackbone(network))
        return HeatScorer(head, features, whole, first, prepare, self.tolerance, batch_size=_KEPT_BATCH)

    def names_at(self, is_edge: bool) -> tuple[str, ...]:
        return self.scores if is_edge else self._each_epoch

    def accuracy(self, trainer: L.Trainer) -> float | None:
        found = trainer.callback_metrics.get("val/acc")
        return None if found is None else float(found)

    def row(self, epochs_done: int) -> dict[str, float]:
        return {"epoch": float(epochs_done)}

    @property
    def ways_to_score_less(self) -> str:
        fewer, few = max(self.num_images // 2, 1), max(self.srg_images // 2, 1)
        return (
            f"callbacks.scores.num_images={fewer}, callbacks.scores.srg_images={few}"
            f" or callbacks.scores.every_n_epochs={2 * self.every_n_epochs}"
        )

    # ---- the test

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._game.on_test_epoch_start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._game.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._game.on_test_epoch_end(trainer, pl_module)


def _spread(count: int, n: int) -> list[int]:
    """Indices of up to `count` of n images, evenly spaced, because a split may be in the order of its classes.

    Example:
        >>> _spread(3, 10), _spread(99, 3)
        ([1, 5, 8], [0, 1, 2])
    """
    count = min(count, n)
    return [(2 * i + 1) * n // (2 * count) for i in range(count)]
