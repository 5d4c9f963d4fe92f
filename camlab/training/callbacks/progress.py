"""Log the progress of training: epochs done, metrics, expected time."""

import logging
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only

from camlab.models.devices import settled_time
from camlab.storage.progress import duration

log = logging.getLogger(__name__)

_TWO_HOURS = 2 * 3600


class PlainProgress(L.Callback):
    """Logs progress if there is no terminal: a line after each epoch, and lines at intervals within a long epoch.

    The first and the last epoch have a line of their own; of epochs of less than a second, some are left out.

    Args:
        every_seconds: Time between lines within an epoch.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._last_line = 0.0
        self._first = 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_line, self._first = time.monotonic(), _epoch(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._last_line > self.every_seconds:
            self._say("epoch %d/%s, step %d/%s", _epoch(trainer), trainer.max_epochs, batch_idx + 1, _steps(trainer))

    # An epoch is reported when the next one starts: its metrics are complete only after on_train_epoch_end of all
    # callbacks and of the module.
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch
        if done > 0 and (done == self._first or time.monotonic() - self._last_line > 1.0):
            self._report(trainer, done)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._report(trainer, trainer.current_epoch)

    def _report(self, trainer: L.Trainer, done: int) -> None:
        shown = (key for key in ("train/loss", "train/acc", "val/loss", "val/acc") if key in trainer.callback_metrics)
        figures = ", ".join(f"{key} {float(trainer.callback_metrics[key]):.4f}" for key in shown)
        self._say("epoch %d/%s done: %s", done, trainer.max_epochs, figures)

    @rank_zero_only
    def _say(self, line: str, *values: Any) -> None:
        log.info(line, *values)
        self._last_line = time.monotonic()


class EarlyStopTold(L.Callback):
    """Logs that training has ended early, and by which metric."""

    @rank_zero_only
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for callback in trainer.early_stopping_callbacks:
            if callback.stopped_epoch:
                done, monitor = trainer.current_epoch, callback.monitor
                log.info("Early stopping by %s ended training after epoch %d of %s.", monitor, done, trainer.max_epochs)


class TimeEstimate(L.Callback):
    """Estimates after some steps how long training will take, and above two hours on a CPU suggests cheaper settings.

    Args:
        steps: Number of steps after which the estimate is made; the first quarter of them is a warm-up and is not
            measured.
        advice: The cheaper settings, in words.
    """

    def __init__(self, steps: int = 20, advice: str = "") -> None:
        self.steps = steps
        self.advice = advice
        self._seen = 0
        self._began = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._seen > self.steps:
            return
        self._seen += 1
        warm_up = self.steps // 4
        if self._seen == warm_up:
            self._began = settled_time(pl_module.device)
        elif self._seen == self.steps:
            per_step = (settled_time(pl_module.device) - self._began) / (self.steps - warm_up)
            self._tell(trainer, pl_module.device, per_step)

    @rank_zero_only
    def _tell(self, trainer: L.Trainer, device: torch.device, seconds_per_step: float) -> None:
        if not trainer.max_epochs or trainer.max_epochs < 0:
            return
        validation = sum(map(float, trainer.num_val_batches)) / 3  # no backward pass: a third of the time
        epochs = trainer.max_epochs - trainer.current_epoch
        total = seconds_per_step * (float(trainer.num_training_batches) + validation) * epochs
        log.info("Expected training time: %s for %d epochs.", duration(total), epochs)
        if device.type == "cpu" and total > _TWO_HOURS and self.advice:
            log.info("That is long for a CPU. Cheaper settings: %s", self.advice)


def _epoch(trainer: L.Trainer) -> int:
    return trainer.current_epoch + 1


def _steps(trainer: L.Trainer) -> int:
    return int(trainer.num_training_batches)
