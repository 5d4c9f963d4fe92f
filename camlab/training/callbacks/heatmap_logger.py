"""Heatmaps of the same few pictures, epoch after epoch: how a network learns where to look."""

import logging
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from camlab.data.folder import read_pictures
from camlab.data.module import ImageData
from camlab.drawing.panels import draw_panels, explain, write_panels
from camlab.drawing.render import same_size
from camlab.errors import UserError
from camlab.maps import Normalization
from camlab.storage.pictures import picture_files
from camlab.tracking.pictures import log_pictures
from camlab.tracking.wandb_logger import IMAGES_PER_KEY
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)

KEY = "heatmaps/probe"


class HeatmapLogger(L.Callback):
    """Draws CAM and Grad-CAM of a fixed probe set before training and after epochs.

    They go to W&B and TensorBoard under `heatmaps/probe`, by epochs done, and to `heatmaps/epoch_NNNN/` in the run's
    folder: panels, a contact sheet, raw maps. Weights, gradients, train/eval flags and RNG are left as they were; a
    failure is logged and training goes on.

    Args:
        every_n_epochs: draw after every so many epochs, and after the last.
        per_class: how many pictures of each class the probe has, from the validation split (from the training images
            where there is none).
        images: a folder of pictures to probe instead; they have no labels.
        normalization: `per_image`, `shared` or `raw`.
        alpha: the heatmap's share of an overlay.

    Raises:
        UserError: at fit start, if `images` has no pictures or a damaged one.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        per_class: int = 2,
        images: str | None = None,
        normalization: Normalization = "per_image",
        alpha: float = 0.5,
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.per_class = per_class
        self.images = images
        self.normalization = normalization
        self.alpha = alpha
        self._pictures = torch.empty(0)
        self._labels: Tensor | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        pictures, labels = self._probe(data)
        self._pictures = pictures[:IMAGES_PER_KEY].to(pl_module.device)
        self._labels = None if labels is None else labels[:IMAGES_PER_KEY].to(pl_module.device)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._draw(trainer, pl_module, epochs_done=0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done % self.every_n_epochs == 0 or done == trainer.max_epochs or trainer.should_stop:
            self._draw(trainer, pl_module, done)

    @rank_zero_only
    def _draw(self, trainer: L.Trainer, classifier: L.LightningModule, epochs_done: int) -> None:
        try:
            assert isinstance(classifier, Classifier)
            data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
            explanation = explain(classifier.network, data.preprocess(self._pictures), self._labels)
            panels = draw_panels(
                self._pictures, explanation, data.class_names, self._labels, self.normalization, self.alpha
            )
            write_panels(Path(trainer.default_root_dir) / "heatmaps" / f"epoch_{epochs_done:04d}", panels, explanation)
            pictures = same_size([panel.picture for panel in panels])
            log_pictures(trainer.loggers, KEY, pictures, [panel.caption for panel in panels], epochs_done)
        except OSError as error:
            log.warning("No heatmaps at epoch %d: %s; training goes on.", epochs_done, error)
        except Exception:
            log.warning("No heatmaps at epoch %d: drawing failed; training goes on.", epochs_done, exc_info=True)

    def _probe(self, data: ImageData) -> tuple[Tensor, Tensor | None]:
        if self.images is not None:
            if not (files := picture_files(Path(self.images).expanduser())):
                raise UserError(f"callbacks.heatmaps.images={self.images}: no pictures there.")
            return read_pictures(files[:IMAGES_PER_KEY], max(data.preprocess.image_size, 64)), None
        chosen = data.splits.get("val", data.splits["train"])
        first = [
            torch.nonzero(chosen.labels == label).flatten()[: self.per_class] for label in range(len(data.class_names))
        ]
        probe = chosen.subset(torch.cat(first))
        return probe.images, probe.labels
