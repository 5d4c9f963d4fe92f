"""A loss that is no number ends a run before it costs another night."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.storage.files import write_atomically

log = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps: reading a loss waits for the device


class _Step(NamedTuple):
    number: int
    loss: Tensor
    image_idx: Tensor
    lr: float


class LossGuard(L.Callback):
    """Stops a run whose loss is NaN or infinite; no checkpoint of it is kept but one to look at.

    Losses are read every 50 steps, at the end of epochs and before each checkpoint; the first bad one is named.

    Args:
        run_dir: gets `checkpoints/not_finite.ckpt`, the state when it was noticed, and `not_finite.json`: step, epoch,
            learning rate and the batch's image indices.
    """

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / Path(run_folder.LAST).parent
        self._steps: list[_Step] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        self._steps.append(_Step(trainer.global_step, outputs["loss"], batch.image_idx, lr))
        if len(self._steps) >= CHECK_EVERY:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        steps, self._steps = self._steps, []
        if not steps:
            return
        finite = torch.stack([step.loss.detach() for step in steps]).isfinite()
        if not bool(finite.all()):
            self._stop(trainer, steps[finite.tolist().index(False)])

    def _stop(self, trainer: L.Trainer, bad: _Step) -> None:
        image_idx = bad.image_idx.tolist()
        about = {
            "loss": str(bad.loss.item()),
            "step": bad.number,
            "epoch": trainer.current_epoch + 1,
            "lr": bad.lr,
            "image_idx": image_idx,
        }
        trainer.save_checkpoint(self.folder / "not_finite.ckpt", weights_only=False)
        if trainer.is_global_zero:
            write_atomically(self.folder / "not_finite.json", json.dumps(about) + "\n")
        first = ", ".join(map(str, image_idx[:4]))
        raise UserError(
            f"The loss is {about['loss']} at step {bad.number} (epoch {about['epoch']}, learning rate {bad.lr:g},"
            f" images {first}, …; all of it in {self.folder / 'not_finite.json'}).\n"
            "Give a lower optimizer.lr, or trainer.gradient_clip_val=1."
        )
