"""A trained network over a split of a data set: each image counted once."""

from typing import Any

import lightning as L
import torch

from camlab.data.module import ImageData, Split
from camlab.errors import UserError
from camlab.evaluation.report import Report
from camlab.models.cam_net import CamNet
from camlab.models.trained_network import TrainedNetwork
from camlab.training.callbacks.confusion import Confusion, output_names
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
    confusion = Confusion(trained.network.spec["num_classes"])
    options = {key: value for key, value in trainer_options.items() if key != "_target_"}
    options.update(callbacks=[confusion, PointingGame()], logger=False, default_root_dir=out)
    trainer = L.Trainer(**options, enable_progress_bar=False)
    trainer.test(Classifier(trained.network, torch.optim.Adam), datamodule=data, verbose=False)
    metrics = {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items()}
    names = output_names(trained.class_names, len(confusion.counts))
    return Report(confusion.counts, names, metrics, str(trained.path), str(data.name), split)
