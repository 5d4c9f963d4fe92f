"""Stop training at a NaN or infinite loss."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.storage.files import write_atomically

_ADVICE = "Give a lower optimizer.lr, or trainer.gradient_clip_val=1."
_HALF_ADVICE = "In 16 bits, Adam's eps becomes 0. Give optimizer.eps=1e-4, or trainer.precision=bf16-true or 16-mixed."
CHECK_EVERY = 50  # steps, not each one, because reading a loss waits for the device


class _Step(NamedTuple):
    number: int
    loss: Tensor
    image_idx: Tensor
    lr: float


class LossGuard(L.Callback):
    """Stops a run whose loss is NaN or infinite, before a checkpoint such as `last.ckpt` stores the broken network.

    Losses are read every 50 steps, at the end of epochs and before each checkpoint; the message names the first bad
    one. In a distributed run, all ranks stop together, whichever of them met the bad loss: a rank that continued alone
    would wait forever.

    Args:
        run_dir: Folder of the run. It gets `checkpoints/not_finite.ckpt`, the state when the loss was noticed, and
            `checkpoints/not_finite.json` with the step, the epoch, the learning rate and the batch's image indices.
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
        if not steps:  # the same on all ranks, because they count the same steps
            return
        finite = torch.stack([step.loss.detach() for step in steps]).isfinite()
        bad = None if bool(finite.all()) else _describe(trainer, steps[finite.tolist().index(False)])
        if trainer.strategy.reduce_boolean_decision(bad is not None, all=False):
            found = [other for other in _of_all_ranks(bad) if other is not None]
            self._stop(trainer, min(found, key=lambda step: step["step"]))

    def _stop(self, trainer: L.Trainer, bad: dict[str, Any]) -> None:
        trainer.save_checkpoint(self.folder / "not_finite.ckpt", weights_only=False)
        if trainer.is_global_zero:
            write_atomically(self.folder / "not_finite.json", json.dumps(bad) + "\n")
        first = ", ".join(map(str, bad["image_idx"][:4]))
        raise UserError(
            f"The loss is {bad['loss']} at step {bad['step']} (epoch {bad['epoch']}, learning rate {bad['lr']:g},"
            f" images {first}, …; see {self.folder / 'not_finite.json'}).",
            _HALF_ADVICE if trainer.precision == "16-true" else _ADVICE,
        )


def _describe(trainer: L.Trainer, step: _Step) -> dict[str, Any]:
    return {
        "loss": str(step.loss.item()),
        "step": step.number,
        "epoch": trainer.current_epoch + 1,
        "lr": step.lr,
        "image_idx": step.image_idx.tolist(),
    }


def _of_all_ranks(found: dict[str, Any] | None) -> list[dict[str, Any] | None]:
    """Gather the entries of all ranks, on every rank."""
    if not torch.distributed.is_initialized():
        return [found]
    gathered: list[dict[str, Any] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, found)
    return gathered
