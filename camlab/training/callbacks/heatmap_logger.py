"""Draw heatmaps of the same few pictures after every epoch, to show how a network learns where to look."""

import logging
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from camlab.attribution.batch_explainer import BatchExplainer, Request
from camlab.data.folder import read_pictures
from camlab.data.module import ImageData
from camlab.drawing.layout import same_size
from camlab.drawing.probe import Probe
from camlab.drawing.tiles import Style
from camlab.errors import UserError
from camlab.maps import Normalization
from camlab.models.trained_network import output_names
from camlab.storage.files import user_path
from camlab.storage.pictures import picture_files
from camlab.tracking.pictures import log_pictures
from camlab.tracking.wandb_logger import IMAGES_PER_KEY
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)

KEY = "heatmaps/probe"


class HeatmapLogger(L.Callback):
    """Draws CAM and Grad-CAM of a fixed probe set before training and after epochs.

    The heatmaps go to W&B and TensorBoard under `heatmaps/probe`, with epochs done as the x-axis. In the run's folder,
    `heatmaps/epoch_NNNN/` gets panels, a contact sheet and, last, the raw maps; the pictures themselves are written
    once, to `heatmaps/pictures/`. Weights, gradients, train/eval flags and the random state are not changed. If drawing
    fails, the failure is logged and training continues.

    Args:
        every_n_epochs: Number of epochs between drawings. The last epoch is always drawn.
        per_class: Number of pictures of each class in the probe set. They are taken from the validation split or, if
            there is none, from the training split.
        images: A folder of pictures to use as the probe set instead; they have no labels.
        normalize: `per_image`, `shared` or `raw`.
        alpha: The heatmap's share of an overlay.
        colormap: One of `camlab.drawing.colormaps.COLORMAPS`.

    Raises:
        UserError: At fit start, if `images` has no pictures or a damaged one.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        per_class: int = 2,
        images: str | None = None,
        normalize: Normalization = "per_image",
        alpha: float = 0.5,
        colormap: str = "jet",
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.per_class = per_class
        self.images = images
        self.style = Style(normalize=normalize, alpha=alpha, colormap=colormap, boxes=False)
        self._images = torch.empty(0)
        self._labels: Tensor | None = None
        self._explainer: BatchExplainer | None = None
        self._probe: Probe | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        images, self._labels, names = self._choose(data)
        self._images = images.to(pl_module.device)
        folder = Path(trainer.default_root_dir) / "heatmaps"
        outputs = output_names(data.class_names, pl_module.network.spec["num_classes"])
        self._explainer = BatchExplainer(pl_module.network, Request(all_classes=True))
        self._probe = Probe(images, names, outputs, self.style, folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._draw(trainer, epochs_done=0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done % self.every_n_epochs == 0 or done == trainer.max_epochs or trainer.should_stop:
            self._draw(trainer, done)

    @rank_zero_only
    def _draw(self, trainer: L.Trainer, epochs_done: int) -> None:
        try:
            assert self._probe is not None
            assert self._explainer is not None
            data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
            dtype = next(trainer.lightning_module.parameters()).dtype  # half precision under `precision=bf16-true`
            inputs = data.preprocess(self._images).to(dtype)
            results = self._explainer.explain(inputs, self._probe.sources, self._labels)
            panels, captions = self._probe.draw(results, self._explainer.layers, epochs_done)
            log_pictures(trainer.loggers, KEY, same_size(panels), captions, epochs_done)
        except (OSError, UserError) as error:
            log.warning("No heatmaps at epoch %d: %s; training continues.", epochs_done, str(error).rstrip("."))
        except Exception:
            log.warning("No heatmaps at epoch %d: drawing failed; training continues.", epochs_done, exc_info=True)

    def _choose(self, data: ImageData) -> tuple[Tensor, Tensor | None, list[str]]:
        """The pictures, uint8 N×3×H×W, their true classes where they are known, and their names in captions."""
        if self.images is not None:
            if not (files := picture_files(user_path(self.images, "callbacks.heatmaps.images"))):
                raise UserError(f"callbacks.heatmaps.images={self.images}: no pictures there.")
            files = files[:IMAGES_PER_KEY]
            return read_pictures(files, max(data.preprocess.image_size, 64)), None, [file.name for file in files]
        chosen = data.splits.get("val", data.splits["train"])
        first = [
            torch.nonzero(chosen.labels == label).flatten()[: self.per_class] for label in range(len(data.class_names))
        ]
        some = chosen.subset(torch.cat(first)[:IMAGES_PER_KEY])
        return some.images, some.labels, [""] * len(some)
