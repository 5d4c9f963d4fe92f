"""The Lightning module that trains a network; metrics stay on the device until an epoch ends."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

from camlab.data.loader import Batch
from camlab.data.module import ImageData
from camlab.errors import UserError, first_line
from camlab.models.devices import settled_time
from camlab.models.network import Network
from camlab.training.losses import losses_of
from camlab.training.metrics import InFloat32, split_metrics
from camlab.training.schedules import count_steps, counts_steps

CHECKPOINT_KEY = "camlab"


class Outputs(TypedDict):
    """Outputs of an evaluation step for callbacks.

    Attributes:
        features: N×K×H×W, or N×D from a ClassifierNet; None where cached features are used.
        logits: N×M.
    """

    features: Tensor | None
    logits: Tensor


class Classifier(L.LightningModule):
    """Trains a network; logs losses, accuracies, the learning rate and images/s once per epoch.

    The metrics are `{train,val,test}/{loss,acc,balanced_acc,f1}`, `val/best_acc`, `train/lr`, which is the rate of the
    epoch's last step, and `train/images_per_second`; losses are logged without the weights of the classes. Checkpoints
    hold, beside the weights, what `camlab.training.checkpoint.load_network` needs to build the network again. The
    training accuracy of images that are mixed with others is that of their own labels, which have the larger share.

    Args:
        network: A CamNet or a ClassifierNet; if it is frozen, only its head is trained.
        optimizer: Function that makes an optimizer from parameters, such as `functools.partial(Adam, lr=1e-4)`.
        scheduler: Function that makes a learning rate scheduler from an optimizer. If it takes `total_steps`, as
            OneCycleLR does, it is given the number of training steps, and the scheduler steps after each of them.
            ReduceLROnPlateau steps after each validation, by the validation loss (or by the accuracy for `mode=max`);
            without validation it steps after each epoch, by the training loss. Any other scheduler steps after every
            epoch.
        multi_label: Whether a picture may have any number of labels. Each label is then decided on its own, with the
            binary cross-entropy of its sigmoid, and the metrics are those of `LabelCounts`.

    Raises:
        UserError: The optimizer is LBFGS, which computes several losses in each step; or the optimizer or the scheduler
            refuses its settings.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        if getattr(optimizer, "func", optimizer) is torch.optim.LBFGS:
            raise UserError(
                "optimizer._target_=torch.optim.LBFGS: it computes several losses in each step. Choose another."
            )
        self.network = network
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        self.multi_label = multi_label
        num_classes = network.spec["num_classes"]
        self.metrics = InFloat32(
            {f"{split}_split": split_metrics(num_classes, multi_label, split) for split in ("train", "val", "test")}
        )
        self._epoch_began, self._epoch_seconds, self._images_seen = 0.0, 0.0, 0
        self._best_acc = torch.tensor(0.0)
        self._last_rate: float | Tensor | None = None  # learning rate of the last step
        self._class_weights: Tensor | None = None
        self.rehearsal()  # refuses wrong settings now, and not after the run has begun

    @property
    def best_acc(self) -> float:
        """Best validation accuracy so far; 0 before the first validation."""
        return float(self._best_acc)

    @property
    def has_schedule(self) -> bool:
        """Whether a scheduler sets the learning rate."""
        return self._make_scheduler is not None

    def forget_best(self) -> None:
        """Forget the best validation accuracy, so that the best epoch is chosen among those that follow."""
        self._best_acc = torch.tensor(0.0)

    def optimizer_defaults(self) -> dict[str, Any]:
        """Settings of the optimizer, as in the attribute `defaults` of torch's optimizers."""
        return self._make_optimizer(self._trained_weights()).defaults

    def optimizer_state_names(self) -> set[str]:
        """Names of what the optimizer keeps for each weight from one step to the next."""
        optimizer, _ = self.rehearsal()
        step_with_zeros(optimizer)
        return {name for state in optimizer.state.values() for name in state}

    def rehearsal(self) -> tuple[Optimizer, LRScheduler | None]:
        """Make an optimizer and a schedule like the module's, of zeros, to try out what may be restored into them.

        Raises:
            UserError: They refuse their settings.
        """
        with _refusing("optimizer"):
            optimizer = self._make_optimizer([nn.Parameter(torch.zeros_like(p)) for p in self._trained_weights()])
        if self._make_scheduler is None:
            return optimizer, None
        length = {"total_steps": 1000} if counts_steps(self._make_scheduler) else {}
        with _refusing("scheduler"):
            return optimizer, self._make_scheduler(optimizer, **length)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._images_seen += batch.global_size
        self._last_rate = self._rate  # after the last step, a schedule sets the next epoch's rate before the epoch ends
        if batch.head_statistic is None:
            logits = self.network(batch.images)
        else:
            logits = self.network.forward_head_statistic(batch.head_statistic)
        losses = _losses(logits, batch)
        self._update("train", losses, logits, batch)
        if self._class_weights is not None:
            losses = _losses(logits, batch, self._class_weights)
        # DDP averages the gradients of the ranks, which may hold unequal shares of a batch. This factor makes the
        # average equal to the mean over all images.
        return losses.sum() * (self.trainer.world_size / batch.global_size)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Outputs:
        return self._evaluate(self._data.validation_splits[dataloader_idx], batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Outputs:
        return self._evaluate("test", batch)

    def on_fit_start(self) -> None:
        weights = self._data.class_weights
        self._class_weights = None if weights is None else weights.to(self.device)

    def on_train_start(self) -> None:
        self.on_train_epoch_start()  # Lightning does not call it for a run that resumes within an epoch

    def on_train_epoch_start(self) -> None:
        self._epoch_began, self._epoch_seconds, self._images_seen = settled_time(self.device), 0.0, 0

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # validation comes before the epoch's end
            self._epoch_seconds = settled_time(self.device) - self._epoch_began

    def on_train_epoch_end(self) -> None:
        seconds = self._epoch_seconds or settled_time(self.device) - self._epoch_began  # max_steps may end it early
        figures = self._end_epoch("train")
        if not self.trainer.enable_validation or "val" not in self._data.validation_splits:
            self._reduce_on_plateau(figures, "train")
        figures |= {
            "train/images_per_second": self._images_seen / seconds,
            "train/lr": self._rate if self._last_rate is None else self._last_rate,
            "epoch": self._epochs_done,
        }
        self.log_dict(figures, logger=False, rank_zero_only=True)
        for logger in self.loggers:  # Lightning would log only after the epoch's checkpoint, which must hold these rows
            logger.log_metrics({key: float(value) for key, value in figures.items()}, self.trainer.global_step - 1)

    def on_validation_epoch_end(self) -> None:
        figures = {k: v for split in self._data.validation_splits for k, v in self._end_epoch(split).items()}
        if "val/acc" in figures and not self.trainer.sanity_checking:
            self._best_acc = torch.maximum(self._best_acc.to(figures["val/acc"]), figures["val/acc"])
            figures["val/best_acc"] = self._best_acc
            self._reduce_on_plateau(figures, "val")
        self.log_dict({**figures, "epoch": self._epochs_done}, rank_zero_only=True)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._end_epoch("test"), rank_zero_only=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._make_optimizer(self._trained_weights())
        if self._make_scheduler is None:
            return optimizer
        if not counts_steps(self._make_scheduler):
            schedule = self._make_scheduler(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "reduce_on_plateau": False}}
        schedule = self._make_scheduler(optimizer, total_steps=count_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):  # it has already stepped, before the epoch's checkpoint
            super().lr_scheduler_step(scheduler, metric)

    def _reduce_on_plateau(self, figures: dict[str, Any], split: str) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(schedule := config.scheduler, ReduceLROnPlateau):
                schedule.step(float(figures[f"{split}/{'acc' if schedule.mode == 'max' else 'loss'}"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = {
            "network": self.network.spec,
            "preprocess": self._data.preprocess.as_dict(),
            "class_names": list(self._data.class_names),
            "data_fingerprint": self._data.fingerprint(),
            "best_acc": self.best_acc,
            **({} if self._last_rate is None else {"last_rate": float(self._last_rate)}),
            **({"multi_label": True} if self.multi_label else {}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._best_acc = torch.tensor(checkpoint[CHECKPOINT_KEY]["best_acc"])
        self._last_rate = checkpoint[CHECKPOINT_KEY].get("last_rate")  # earlier versions did not keep it

    def _trained_weights(self) -> list[nn.Parameter]:
        return [p for p in self.network.parameters() if p.requires_grad]

    @property
    def _rate(self) -> float | Tensor:
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    @property
    def _data(self) -> ImageData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _evaluate(self, split: str, batch: Batch) -> Outputs:
        features = None
        if batch.head_statistic is not None:
            logits = self.network.forward_head_statistic(batch.head_statistic)
        else:
            features = self.network.forward_features(batch.images)
            logits = self.network.forward_head(features)
        self._update(split, losses_of(logits, batch.labels), logits, batch)
        return Outputs(features=features, logits=logits)

    def _update(self, split: str, losses: Tensor, logits: Tensor, batch: Batch) -> None:
        if len(batch.labels):  # a rank's share of a small last batch may be empty
            loss, counts = self._metrics_of(split)
            loss.update(losses.detach())
            counts.update(logits.detach(), batch.labels)

    def _end_epoch(self, split: str) -> dict[str, Any]:
        loss, counts = self._metrics_of(split)
        figures = {"loss": loss.compute(), **counts.compute()}
        loss.reset()
        counts.reset()
        return {f"{split}/{name}": value for name, value in figures.items()}

    @property
    def _epochs_done(self) -> float:
        # Lightning counts from 0 during an epoch; curves and heatmaps count finished epochs (0 is before training).
        return float(self.trainer.current_epoch + 1)

    def _metrics_of(self, split: str) -> tuple[Metric, Metric]:
        metrics: Any = self.metrics[f"{split}_split"]
        return metrics[0], metrics[1]


def step_with_zeros(optimizer: Optimizer) -> None:
    """Take a step with gradients of zero, after which the optimizer has its state."""
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lambda: 0.0)


@contextmanager
def _refusing(section: str) -> Iterator[None]:
    """Report the settings that an optimizer or a scheduler of torch refuses."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{section}: {first_line(error).rstrip('.')}. Correct the settings of this section.") from error


def _losses(logits: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
    """Loss of each training image, N. A mixed image has its own labels and its partner's, in the mixture's shares."""
    losses = losses_of(logits, batch.labels, weights)
    if batch.partner_labels is None or batch.own_share is None:
        return losses
    others = losses_of(logits, batch.partner_labels, weights)
    return batch.own_share * losses + (1 - batch.own_share) * others
