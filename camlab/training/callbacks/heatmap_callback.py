"""Draw heatmaps of the same few pictures after every epoch, to show how a network learns where to look."""

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from camlab.attribution.batch_explainer import BatchExplainer, Request
from camlab.attribution.classifier import Output, check_output
from camlab.attribution.layouts import Reshape, check_reshape
from camlab.attribution.methods import check_methods
from camlab.data.any_batch import ReadBatch, images_and_labels, normalization_of
from camlab.drawing.layout import same_size
from camlab.drawing.probe import Probe
from camlab.drawing.tiles import Style
from camlab.errors import UserError, first_line
from camlab.maps import Normalization
from camlab.tracking.pictures import log_pictures
from camlab.tracking.wandb_logger import IMAGES_PER_KEY
from camlab.training.callbacks.heatmap_arguments import check_counts, check_names, check_style, normalizer_of
from camlab.training.failures import Failures
from camlab.training.module_network import find_network, inputs_for, logits, undisturbed
from camlab.training.probe_set import (
    ProbeSet,
    checked_images,
    checked_labels,
    class_names_for,
    copied,
    of_files,
    of_inputs,
)
from camlab.viewer.renewal import PageRenewal

KEY = "heatmaps/probe"


class HeatmapCallback(L.Callback):
    """Draws heatmaps of a fixed set of pictures before training and after epochs, in any Trainer with any module.

    The heatmaps are of the predicted class and, if it is known and differs, of the true one. They go to W&B,
    TensorBoard, MLflow and Comet under `heatmaps/probe`, with epochs done as the x-axis. In the run's folder,
    `heatmaps/epoch_NNNN/` gets panels, a contact sheet and, last, the raw maps; the pictures themselves are written
    once, to `heatmaps/pictures/`, and `heatmaps.html` shows it all in a browser. Weights, gradients, train/eval flags
    and the random state are not changed. If drawing fails, training continues; each kind of failure is logged once.

    Args:
        images: The network's inputs, N×C×H×W; a folder of pictures; or None for the first validation batch (without
            validation, the first training batch).
        labels: True classes of `images`: N indices, or N×M ones and zeros if a picture may have several classes.
        class_names: Names of the classes. By default they are those that the data name, else `class 0`, ….
        model: Name of the network in the module, for instance `student.net`. By default it is what `forward` runs, else
            the only part with weights.
        methods: Names from `camlab.attribution.methods.METHODS`, or `auto` for the one that suits the network. None
            stands for CAM where it is exact and Grad-CAM, or what `auto` names for other than convolutional networks.
        layers: Names of the network's layers, or None for the default.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.
        reshape: Layout of the layers' outputs where it cannot be found out, as in `camlab.heatmaps`.
        top_k: Number of predicted classes whose heatmaps are drawn.
        every_n_epochs: Number of epochs between drawings. The last epoch is always drawn.
        num_images: Number of pictures that are taken from a batch.
        mean, std: Mean and standard deviation, of all channels or of each, by which pixels in [0, 1] were normalised.
            By default they are found in the transforms of the data; if they are not, contrast is stretched.
        read_batch: Function that takes the images, or a pair of the images and the labels, out of a batch.
        multi_label: Whether a picture may have several classes; None to find it out from the labels.
        folder: Folder of the files; by default `heatmaps/` in the folder of the first logger's run.
        normalize: `per_image`, `shared` or `raw`.
        alpha: The heatmap's share of an overlay.
        colormap: One of `camlab.drawing.colormaps.COLORMAPS`.

    Raises:
        UserError: An argument makes no sense, or there are no pictures in the folder.

    Example:
        >>> callback = HeatmapCallback(torch.rand(4, 3, 32, 32), labels=[0, 1, 1, 0], mean=0.5, std=0.25)
        >>> trainer = L.Trainer(callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        images: Tensor | str | os.PathLike[str] | None = None,
        labels: Tensor | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        model: str | None = None,
        methods: str | Sequence[str] | None = "auto",
        layers: Sequence[str] | None = None,
        output: Output | None = None,
        reshape: Reshape | None = None,
        top_k: int = 1,
        every_n_epochs: int = 1,
        num_images: int = 16,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        read_batch: ReadBatch | None = None,
        multi_label: bool | None = None,
        folder: str | os.PathLike[str] | None = None,
        normalize: Normalization = "per_image",
        alpha: float = 0.5,
        colormap: str = "jet",
    ) -> None:
        check_counts(top_k=top_k, every_n_epochs=every_n_epochs, num_images=num_images)
        self.class_names, self.model, self.every_n_epochs, self.folder = class_names, model, every_n_epochs, folder
        self.read_batch, self.num_images, self.multi_label = read_batch, min(num_images, IMAGES_PER_KEY), multi_label
        methods = [methods] if isinstance(methods, str) else methods
        check_names(class_names=class_names, methods=methods, layers=layers)
        check_output(output)
        if reshape is not None:
            check_reshape(reshape)
        check_methods([method for method in methods or () if method != "auto"])
        self.output, self.reshape = output, reshape
        self.request = Request(methods, layers, top_k=top_k, all_classes=methods is None)
        self.style = Style(normalize=normalize, alpha=alpha, colormap=colormap, boxes=False)
        check_style(self.style)
        self.images, self.labels = checked_images(images, labels)
        self.normalizer = normalizer_of(mean, std)
        self._forget()

    @property
    def needs_batch(self) -> bool:
        """Whether `choose` needs a batch of the data: for its pictures, or to see what the network takes."""
        return not isinstance(self.images, Tensor)

    def _forget(self) -> None:
        """Forget what belongs to one training."""
        self._batch: tuple[Tensor, Tensor | None] | None = None
        self._inputs, self._labels = torch.empty(0), self.labels
        self._explainer: BatchExplainer | None = None
        self._probe: Probe | None = None
        self._page: PageRenewal | None = None
        self._gave_up = False
        self._drawn = 0  # the epoch that was drawn last
        self._failures = Failures("drawing")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._forget()

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._keep(trainer, batch)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.enable_validation:
            self._keep(trainer, batch)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._draw(trainer, pl_module, epochs_done=0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch + 1
        is_last = trainer.should_stop or done == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
        if done % self.every_n_epochs == 0 or is_last:
            self._draw(trainer, pl_module, done)

    @rank_zero_only
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch not in (0, self._drawn):  # stopped by a callback after this one, such as EarlyStopping
            self._draw(trainer, pl_module, trainer.current_epoch)
        if self._page is not None:
            self._page.finish()

    def choose(self, trainer: L.Trainer, pl_module: L.LightningModule) -> ProbeSet | None:
        """Choose the pictures; None if they come from a batch and there has been none yet.

        Raises:
            UserError: They cannot be read or do not suit the network.
        """
        found = normalization_of([*_data(trainer), pl_module])
        if isinstance(self.images, Tensor):
            return of_inputs(self.images, self.labels, self.normalizer, found)
        if self._batch is None:
            return None
        images, labels = self._batch
        if self.images is None:
            return of_inputs(images, labels, self.normalizer, found)
        return of_files(self.images, images, self.labels, self.normalizer, found)

    def run_folder(self, trainer: L.Trainer) -> Path:
        """The folder of the run: that of the first logger or, without one, of the Trainer."""
        if not trainer.loggers:
            return Path(trainer.default_root_dir)
        logger = trainer.loggers[0]
        if isinstance(own := getattr(logger, "log_dir", None), str):  # TensorBoard and CSV
            return Path(own)
        version = f"version_{logger.version}" if isinstance(logger.version, int) else logger.version
        return Path(logger.save_dir or trainer.default_root_dir, str(logger.name or ""), version or "")

    def doubts(self, explainer: BatchExplainer) -> list[str]:
        """The reasons to doubt the heatmaps that are to be told."""
        return explainer.doubts

    @rank_zero_only
    def _keep(self, trainer: L.Trainer, batch: Any) -> None:
        """Keep the first pictures of the first batch, if they are needed."""
        if self.needs_batch and self._batch is None and not self._gave_up:
            self._gave_up = not self._failures.succeeds(lambda: self._read(batch), "No heatmaps")

    def _read(self, batch: Any) -> None:
        images, labels = images_and_labels(batch, self.read_batch)
        some = slice(self.num_images)
        with torch.inference_mode(False):  # a tensor made in inference mode could not be used for gradients
            self._batch = copied(images[some]), None if labels is None else copied(labels[some])

    @rank_zero_only
    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule, epochs_done: int) -> None:
        self._drawn = epochs_done

        def draw() -> None:
            with undisturbed(pl_module):
                if self._probe is None:
                    self._gave_up = not self._failures.succeeds(lambda: self._begin(trainer, pl_module), "No heatmaps")
                if self._probe is not None:
                    self._draw_epoch(trainer, pl_module, epochs_done)

        if not self._gave_up:
            self._failures.succeeds(draw, f"No heatmaps at epoch {epochs_done}")

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the pictures, the network and the names of the classes, unless the pictures are not there yet."""
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
            raise UserError("the weights are distributed over processes. Train with strategy=ddp to see heatmaps")
        if (chosen := self.choose(trainer, pl_module)) is None:
            return
        one = inputs_for(pl_module, chosen.inputs[:1])
        network = find_network(pl_module, one, self.model, self.output)
        count = logits(network, one, self.output).shape[1]
        self._labels, several = self._labels_of(chosen, count)
        class_names = class_names_for(chosen.class_names or self.class_names, [*_data(trainer), network], count)
        request = replace(self.request, multi_label=several if self.multi_label is None else self.multi_label)
        explainer = BatchExplainer(network, request, self.output, self.reshape)
        self._explainer, self._inputs = explainer, chosen.inputs
        folder = self.run_folder(trainer) / "heatmaps" if self.folder is None else Path(self.folder)
        self._probe = Probe(chosen.pictures, chosen.names, class_names, self.style, folder, chosen.masks)
        self._page = PageRenewal(folder.parent if self.folder is None else folder)

    def _draw_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule, epochs_done: int) -> None:
        assert self._probe is not None
        assert self._explainer is not None
        results = self._explainer.explain(inputs_for(pl_module, self._inputs), self._probe.sources, self._labels)
        for doubt in self.doubts(self._explainer):
            self._failures.tell(f"Heatmaps: {doubt}", doubt)
        panels, captions = self._probe.draw(results, self._explainer.layers, epochs_done)
        pictures = same_size(panels)
        for logger in trainer.loggers:  # one that fails does not keep the pictures from the others
            send = functools.partial(log_pictures, logger, KEY, pictures, captions, epochs_done)
            self._failures.succeeds(send, f"No heatmaps in {type(logger).__name__}")
        if self._page is not None:
            self._page.renew()

    def _labels_of(self, chosen: ProbeSet, count: int) -> tuple[Tensor | None, bool]:
        """The true classes, and whether there may be several; labels that make no sense are left out."""
        if chosen.labels is None:
            return None, count == 1
        try:
            return checked_labels(chosen.labels, count, self.multi_label is True)
        except UserError as error:
            reason = first_line(error).rstrip(".")
            self._failures.tell(f"No true classes in heatmaps: {reason}; training continues.", reason)
            return None, count == 1


def _data(trainer: L.Trainer) -> list[Any]:
    """What may name the classes and the normalisation of the data."""
    return [getattr(trainer, "datamodule", None), trainer.val_dataloaders, trainer.train_dataloader]
