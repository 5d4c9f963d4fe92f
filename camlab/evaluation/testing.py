"""A trained network over a split of a data set: each image counted once."""

from typing import Any

import lightning as L
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from camlab.data.loader import Batch
from camlab.data.module import ImageData, Split
from camlab.errors import UserError
from camlab.evaluation.report import Report
from camlab.models.cam_net import CamNet
from camlab.models.trained_network import TrainedNetwork
from camlab.training.callbacks.pointing_game import PointingGame
from camlab.training.classifier import Classifier


def evaluate(
    trained: TrainedNetwork, data: ImageData, split: Split, trainer_options: dict[str, Any], out: str
) -> Report:
    """Count each image of a split once.

    Args:
        trained: the network.
        data: any set with the network's classes.
        split: `train` (without flips), `val` or `test`.
        trainer_options: of lightning.Trainer.
        out: folder for what Lightning writes.

    Raises:
        UserError: the data has other classes than the network.
    """
    data.setup()
    data.test_split = split
    if data.class_names != trained.class_names:
        raise UserError(
            f"The network knows {', '.join(trained.class_names)}; the data has {', '.join(data.class_names)}."
            " Choose data with the same classes."
        )
    assert isinstance(trained.network, CamNet)
    confusion = _Confusion(len(trained.class_names))
    options = {key: value for key, value in trainer_options.items() if key != "_target_"}
    options.update(callbacks=[confusion, PointingGame()], logger=False, default_root_dir=out)
    trainer = L.Trainer(**options, enable_progress_bar=False)
    trainer.test(Classifier(trained.network, torch.optim.Adam), datamodule=data, verbose=False)
    metrics = {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items()}
    return Report(
        confusion.matrix.compute().cpu().numpy(), trained.class_names, metrics, str(trained.path), str(data.name), split
    )


class _Confusion(L.Callback):
    def __init__(self, num_classes: int) -> None:
        self.matrix = MulticlassConfusionMatrix(num_classes, validate_args=False)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.matrix.to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.matrix.update(outputs["logits"], batch.labels)
