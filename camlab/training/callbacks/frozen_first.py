"""Train the head alone in the first epochs, and the whole network after them."""

import lightning as L

from camlab.errors import UserError
from camlab.training.classifier import Classifier


class FrozenFirst(L.Callback):
    """Freezes the backbone during the first epochs of a training.

    The gradients of a head that knows nothing yet would spoil pretrained features, which matters most where pictures
    are few (Kumar et al. 2022, arXiv:2202.10054). Which part is trained depends on the number of the epoch only, so a
    run that continues trains the same. A network that is frozen for good (`arch.frozen`) stays so.

    Args:
        epochs: Number of epochs in which only the head is trained.
    """

    def __init__(self, epochs: int = 5) -> None:
        self.epochs = epochs
        self._is_active = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self._is_active = not pl_module.network.frozen
        if self._is_active and trainer.world_size > 1:
            raise UserError(
                "callbacks.frozen_first: several processes cannot begin with a frozen backbone."
                " Give trainer.devices=1, or callbacks.frozen_first=null."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set(trainer, pl_module)  # Lightning does not call the next hook for a run that resumes within an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set(trainer, pl_module)

    def _set(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        frozen = trainer.current_epoch < self.epochs
        if self._is_active and pl_module.network.frozen != frozen:
            pl_module.network.freeze(frozen)
