"""Continue a run from a checkpoint, with the settings that have changed since."""

from typing import Any

import lightning as L

from camlab.data.module import ImageData
from camlab.errors import UserError
from camlab.training.checkpoint import RUN_KEY, unusable
from camlab.training.classifier import Classifier
from camlab.training.run import DAMAGES, Continuation, Run


def fit(trainer: L.Trainer, classifier: Classifier, data: ImageData, run: Run) -> None:
    """Train a run, from the checkpoint that it continues from or from the beginning.

    Raises:
        UserError: The checkpoint cannot be restored, or training cannot continue.
    """
    if run.continued is None:
        trainer.fit(classifier, datamodule=data)
        return
    callback = next(callback for callback in trainer.callbacks if isinstance(callback, Continuing))  # type: ignore[attr-defined]
    path = run.continued.checkpoint
    try:
        trainer.fit(classifier, datamodule=data, ckpt_path=str(path), weights_only=True)
    except UserError:
        raise
    except DAMAGES as error:
        if callback.is_restored or (isinstance(error, RuntimeError) and "state_dict" not in str(error)):
            raise
        raise unusable(path, error) from error


class Continuing(L.Callback):
    """Completes what Lightning restores from a checkpoint.

    A run that had stopped early trains no further, unless settings have changed. Changed settings of the optimizer
    replace the restored ones. If the best checkpoint has been lost, its accuracy is forgotten.

    Args:
        continued: What the run takes over.

    Attributes:
        is_restored: Whether Lightning has restored everything.
    """

    def __init__(self, continued: Continuation) -> None:
        self.continued = continued
        self.is_restored = False

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, Classifier)
        kept = checkpoint[RUN_KEY]
        if self.continued.lost_best is not None:
            pl_module.forget_best()
            kept["rows"] = [{k: v for k, v in row.items() if k != "val/best_acc"} for row in kept["rows"]]
        trainer.should_stop = bool(kept.get("stopped")) and not self.continued.changes

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.is_restored = True
        names = [name.removeprefix("optimizer.") for name in self.continued.changes if name.startswith("optimizer.")]
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.update({name: optimizer.defaults[name] for name in names})
