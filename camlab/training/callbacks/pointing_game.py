"""Play the pointing game with CAM during the test, on data with masks of the objects."""

import logging
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torchmetrics import MeanMetric

from camlab import maps
from camlab.attribution.doubts import LEAST_SIDE
from camlab.data.loader import Batch
from camlab.errors import UserError
from camlab.models.cam_net import CamNet
from camlab.models.network import Network
from camlab.runs.watchers import HEAT
from camlab.scores.localisation import dilate, pointing_game
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)


class PointingGame(L.Callback):
    """Scores the CAM of the true class against the objects' masks during the test (Zhang et al. 2018, §4.1).

    A map scores a hit if its maximum lies inside the mask, dilated by `tolerance` pixels. Of several maxima, the share
    that hits counts; a map without positive evidence is a miss. The share of hits is logged as `test/pointing_game`,
    beside the scores of a random point and of the image's centre. Data without masks, images with an empty mask, maps
    of fewer than 3×3 cells, networks that give no maps (`ClassifierNet`) and multi-label sets are not scored.

    Args:
        tolerance: Number of pixels of the original image by which masks are dilated in each direction.
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
        features = outputs["features"]  # None if the head reads cached features, which are pooled
        if batch.masks is None or len(batch.labels) == 0 or features is None or batch.labels.dim() != 1:
            return
        if features.dim() != 4 or min(features.shape[-2:]) < LEAST_SIDE:
            return
        assert isinstance(pl_module, Classifier)
        cam = maps.cam(features.float(), pl_module.network.fc.weight.float())  # in 16 bits, ties are frequent
        own = cam[torch.arange(len(cam), device=cam.device), batch.labels]
        scored = batch.masks.flatten(1).any(dim=1)
        masks = batch.masks[scored]
        if len(masks) == 0:
            return
        allowed = dilate(masks, self.tolerance)
        self._scores["pointing_game"].update(pointing_game(own[scored], masks, self.tolerance))
        self._scores["pointing_game_random"].update(allowed.float().mean(dim=(1, 2)))
        height, width = allowed.shape[-2:]
        self._scores["pointing_game_center"].update(allowed[:, height // 2, width // 2].float())

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._scores["pointing_game"].update_called:
            return
        for name, score in self._scores.items():
            pl_module.log(f"test/{name}", score.compute(), rank_zero_only=True)


def tell_small_maps(network: Network, image_size: int, chooses_by: str) -> None:
    """Warn that maps are too small to show a place, so that they are not scored.

    Args:
        network: The network that will be trained.
        image_size: Side of its input, in pixels.
        chooses_by: Metric that chooses the best epoch.

    Raises:
        UserError: The best epoch would be chosen by a score of these maps.
    """
    if not isinstance(network, CamNet):
        return
    if (warning := warning_of_small_maps(network.map_size, image_size, network.has_last_pool)) is None:
        return
    if chooses_by.startswith(HEAT):
        raise UserError(f"checkpoint_by={chooses_by}: {warning}")
    log.warning("%s", warning)


def warning_of_small_maps(map_size: Callable[[int], tuple[int, int]], image_size: int, has_pool: bool) -> str | None:
    """Return a warning if maps are too small to show a place, with the settings that enlarge them; None otherwise.

    Args:
        map_size: Function from the side of the input to the rows and columns of a CAM, such as `CamNet.map_size`.
        image_size: Side of the network's input, in pixels.
        has_pool: Whether the backbone's last pooling is kept, so that it can be left out.

    Example:
        >>> warning_of_small_maps(lambda side: (side // 32, side // 32), 64, has_pool=False)
        'Maps are 2×2, too coarse to show a place, and are not scored. Give data.image_size=96.'
        >>> warning_of_small_maps(lambda side: (side // 32, side // 32), 96, has_pool=True) is None
        True
    """
    height, width = map_size(image_size)
    if min(height, width) >= LEAST_SIDE:
        return None
    enough = next(side for side in range(image_size, 4097, 16) if min(map_size(side)) >= LEAST_SIDE)
    other = " or arch.keep_last_pool=false" if has_pool else ""
    return (
        f"Maps are {height}×{width}, too coarse to show a place, and are not scored."
        f" Give data.image_size={enough}{other}."
    )
