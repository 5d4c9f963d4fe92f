"""Checkpoints of a run: the last one to resume from, and the best one by validation accuracy or a score."""

import logging
import math
import re
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from camlab.errors import Interrupted, UserError
from camlab.runs import checkpoint_files, run_folder
from camlab.runs.watchers import ACCURACY, LOSS
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.training.checkpoint import RUN_KEY, read_checkpoint
from camlab.training.interruption import Interruption
from camlab.training.run import Run

log = logging.getLogger(__name__)


def checkpoints(
    run: Run,
    has_validation: bool,
    every: int | str | None = None,
    interruption: Interruption | None = None,
    by: str = ACCURACY,
) -> list[L.Callback]:
    """Make the callbacks that save `last.ckpt`, to resume from, and `best.ckpt`, by validation accuracy or a score.

    Args:
        run: The run.
        has_validation: Whether images are held out for validation; without them there is no `best.ckpt`.
        every: Interval of `last.ckpt` within epochs, as `LastCheckpoint` takes it.
        interruption: Records the signals that have arrived.
        by: Metric by which the best epoch is chosen.
    """
    last = LastCheckpoint(run, every, interruption or Interruption())
    if not has_validation:
        return [last]
    known = run.continued is None or run.continued.best is not None
    best = BestCheckpoint(run.folder / run_folder.BEST, known, by)
    return [best, last]  # best runs first, so that last.ckpt contains its state


class BestCheckpoint(ModelCheckpoint):
    """Saves the checkpoint with the best validation accuracy, or with the best score of its heatmaps.

    When a run continues, its folder may have moved. An epoch in which the metric has not been measured is not saved.

    Args:
        path: Path of the checkpoint.
        known: Whether a run that continues still has its best checkpoint. Otherwise, the best epoch is chosen among
            those that follow.
        by: Metric by which the best epoch is chosen. Of the loss, less is better, and of all others more.
    """

    def __init__(self, path: Path, known: bool = True, by: str = ACCURACY) -> None:
        super().__init__(
            path.parent, path.stem, monitor=by, mode="min" if by == LOSS else "max", enable_version_counter=False
        )
        self._known, self._by, self._is_told = known, by, False

    @property
    def by(self) -> str:
        """The metric by which the best epoch is chosen."""
        return self._by

    @property
    def best_value(self) -> float:
        """The best value of the metric so far; NaN before the first."""
        return math.nan if self.best_model_score is None else float(self.best_model_score)

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        found = monitor_candidates.get(self.by)
        if found is not None and bool(found.isfinite()):
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        elif trainer.is_global_zero and not self._is_told:
            self._is_told = True
            log.warning("%s has not been measured, so that this epoch cannot become best.ckpt.", self.by)

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._known or not state_dict["best_model_path"]:
            return
        assert self.dirpath is not None
        path, score = str(Path(self.dirpath) / f"{self.filename}.ckpt"), state_dict["best_model_score"]
        here = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        super().load_state_dict({**state_dict, **here, "best_k_models": {path: score}})


class LastCheckpoint(Checkpoint):
    """Saves, after each epoch and at intervals, what a run needs to continue as if it had not been interrupted.

    In addition to what Lightning saves, the checkpoint holds the rows of `metrics.csv` and torch's random state. When a
    signal arrives, the current step is completed, a checkpoint is saved, and training ends. A signal during validation
    takes effect after the validation, or at the end of the epoch.

    Args:
        run: The run.
        every: Interval within epochs: a number of steps, or minutes such as `10min`. None saves after epochs only.
        interruption: Records the signals that have arrived.
    """

    def __init__(self, run: Run, every: int | str | None, interruption: Interruption) -> None:
        self.run, self.interruption = run, interruption
        self.every_steps, self.every_seconds = steps_or_seconds(every)
        self._saved_at = 0.0
        self._rng_state: torch.Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)
            self._rng_state = None
        elif trainer.global_step == 0:
            _restore_rows(trainer, [])  # drops the rows of a start that ended before its first checkpoint
        self._saved_at = time.monotonic()
        self.interruption.deferred = True
        self.interruption.listen()  # Lightning has just installed its own handler of SIGTERM

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A checkpoint before a validation, or before the end of the epoch, would leave them out when the run continues.
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher):
            self._save_within_epoch(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_within_epoch(trainer)

    def _save_within_epoch(self, trainer: L.Trainer) -> None:
        """Save if a checkpoint is due, and end training if a signal has arrived.

        A checkpoint between two optimizer steps would lose the accumulated gradients, so none is saved there.
        """
        if trainer.is_last_batch or (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        stop = self._asked_to_stop(trainer)
        if stop or self._is_due(trainer):
            self._save(trainer)
        if stop:
            self._stop()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)
        if self._asked_to_stop(trainer):
            self._stop()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interruption.deferred = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.interruption.deferred = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[RUN_KEY] = {
            "id": self.run.id,
            "settings": self.run.settings,
            "rows": _rows(trainer),
            "rng_state": torch.get_rng_state(),
            "stopped": trainer.should_stop,
        }

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint.get(RUN_KEY)
        if kept is not None and trainer.state.fn == "fit":
            self._rng_state = kept["rng_state"]
            _restore_rows(trainer, kept["rows"])

    def _is_due(self, trainer: L.Trainer) -> bool:
        if self.every_steps and trainer.global_step % self.every_steps == 0:
            return True
        if not self.every_seconds:
            return False
        due = time.monotonic() - self._saved_at > self.every_seconds
        return trainer.strategy.reduce_boolean_decision(due, all=False)

    def _asked_to_stop(self, trainer: L.Trainer) -> bool:
        """Whether a signal has arrived on any rank; all ranks must stop at the same step."""
        asked = self.interruption.number is not None
        return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.run.folder / run_folder.LAST, weights_only=False)
        self._saved_at = time.monotonic()

    def _stop(self) -> None:
        raise Interrupted(self.interruption.number or 15)


def take_along(run: Run) -> None:
    """Copy the checkpoint that a run continues from, and the best one, into the run's folder, with the run's id."""
    if run.continued is None:
        return
    elsewhere = not run.continued.checkpoint.resolve().is_relative_to(run.folder.resolve())
    if run.continued.best is not None and (elsewhere or run.continued.run_id != run.id):
        _copy(run.continued.best, run.folder / run_folder.BEST, run)
    if elsewhere:
        _copy(run.continued.checkpoint, run.folder / run_folder.LAST, run)


def _copy(checkpoint: Path, path: Path, run: Run) -> None:
    content = read_checkpoint(checkpoint, "resume")
    content[RUN_KEY]["id"] = run.id
    CheckpointFiles().save_checkpoint(content, path)


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, each with a checksum; `before_last.ckpt` is the previous `last.ckpt`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with checkpoint_files.open_checkpoint(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            reason = getattr(error, "strerror", None) or "perhaps the disk is full"
            raise UserError(
                f"{path} cannot be written ({reason}). The previous checkpoint is intact."
                " Make room, then repeat the command."
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file, and nothing else: a checkpoint from elsewhere may name any path for removal."""
        path = Path(path)
        if path.suffix == ".ckpt" and ".." not in path.parts and path.is_file():
            path.unlink()


def steps_or_seconds(every: int | str | None) -> tuple[int, float]:
    """Convert an interval to (steps, seconds), of which at least one is 0.

    Example:
        >>> steps_or_seconds(500), steps_or_seconds("10min"), steps_or_seconds(None)
        ((500, 0.0), (0, 600.0), (0, 0.0))
    """
    if every is None:
        return 0, 0.0
    if minutes := re.fullmatch(r"([\d.]+) ?min", str(every)):
        return 0, 60 * float(minutes[1])
    return int(every), 0.0


def _rows(trainer: L.Trainer) -> list[dict[str, float]]:
    return next((list(logger.rows) for logger in trainer.loggers if isinstance(logger, MetricsCsv)), [])


def _restore_rows(trainer: L.Trainer, rows: list[dict[str, float]]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCsv) and trainer.is_global_zero:
            logger.restore(rows)
