"""Train the head alone in the first epochs, and the whole network after them."""

from typing import Any

import lightning as L

from camlab.errors import UserError
from camlab.training.classifier import Classifier


class FrozenFirst(L.Callback):
    """Freezes the backbone during the first epochs of a training, and may lower the learning rate when they are over.

    The gradients of a head that knows nothing yet would spoil pretrained features, which matters most where pictures
    are few (Kumar et al. 2022, arXiv:2202.10054). Which part is trained depends on the number of the epoch only, so a
    run that continues trains the same; whether the rate has been lowered is kept in its checkpoints. A network that is
    frozen for good (`arch.frozen`) stays so, and keeps its learning rate.

    Args:
        epochs: Number of epochs in which only the head is trained.
        lr_factor: Factor by which the learning rate is multiplied when the whole network begins to learn.
    """

    def __init__(self, epochs: int = 5, lr_factor: float = 1.0) -> None:
        self.epochs, self.lr_factor = epochs, lr_factor
        self._is_active = self._is_lowered = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._is_lowered = False  # of a training before this one; a checkpoint is restored later

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self._is_active = not pl_module.network.frozen
        if self._is_active and trainer.world_size > 1:
            raise UserError(
                "callbacks.frozen_first: several processes cannot begin with a frozen backbone."
                " Give trainer.devices=1, or callbacks.frozen_first=null."
            )
        if self._is_active and self.lr_factor != 1 and pl_module.has_schedule:
            raise UserError(
                f"callbacks.frozen_first.lr_factor={self.lr_factor}: a schedule sets the learning rate."
                " Give callbacks.frozen_first.lr_factor=1, or scheduler=null."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freeze(trainer, pl_module)  # Lightning does not call the next hook for a run that resumes within an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freeze(trainer, pl_module)
        if self._is_active and self.lr_factor != 1 and trainer.current_epoch >= self.epochs and not self._is_lowered:
            self._is_lowered = True
            for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
                group["lr"] *= self.lr_factor

    def state_dict(self) -> dict[str, Any]:
        return {"is_lowered": True} if self._is_lowered else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._is_lowered = bool(state_dict.get("is_lowered"))

    def _freeze(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        frozen = trainer.current_epoch < self.epochs
        if self._is_active and pl_module.network.frozen != frozen:
            pl_module.network.freeze(frozen)
