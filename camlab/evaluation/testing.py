"""Test a trained network on a split of a data set; each image is counted once."""

import logging
from typing import Any

import lightning as L
import torch

from camlab.data.class_order import number_classes
from camlab.data.module import ImageData, Split
from camlab.errors import UserError, listed
from camlab.evaluation.confusion import ConfusionCounter
from camlab.evaluation.label_report import LabelReport
from camlab.evaluation.report import Report
from camlab.models.network import Network
from camlab.models.trained_network import TrainedNetwork, output_names
from camlab.training.callbacks.known_truth import known_truth
from camlab.training.callbacks.pointing_game import PointingGame
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)


def evaluate(
    trained: TrainedNetwork,
    data: ImageData,
    split: Split,
    trainer_options: dict[str, Any],
    out: str,
    pointing_game: PointingGame | None = None,
) -> Report:
    """Test a trained network, and say so if the data are not those that it was trained with.

    Args:
        trained: A network that camlab trained.
        data: Any data set with the network's classes.
        split: `train` (without flips), `val` or `test`.
        trainer_options: Arguments of `lightning.Trainer`.
        out: Folder for the files that Lightning writes.
        pointing_game: Callback that scores the maps; None for one with the default tolerance.

    Raises:
        UserError: The classes of the data set and of the network differ, the data set has no such split, the options
            leave no image to evaluate, or the network's output is not finite.
    """
    if trainer_options.get("limit_test_batches") == 0:
        raise UserError("trainer.limit_test_batches=0: no image would be evaluated. Leave the setting out.")
    data.setup()
    data.test_split = split
    names = check_classes(trained, data)
    assert isinstance(trained.network, Network)
    several = data.has_several_labels
    confusion = ConfusionCounter(len(names), several)
    options = {key: value for key, value in trainer_options.items() if key != "_target_"}
    callbacks = [confusion, pointing_game or PointingGame(), *known_truth(data)]
    options.update(callbacks=callbacks, logger=False, default_root_dir=out)
    trainer = L.Trainer(**options, enable_progress_bar=False)
    trainer.test(Classifier(trained.network, torch.optim.Adam, multi_label=several), datamodule=data, verbose=False)
    metrics = {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items()}
    kind = LabelReport if several else Report
    return kind(confusion.counts, names, metrics, str(trained.path), str(data.name), split)


def check_classes(trained: TrainedNetwork, data: ImageData) -> tuple[str, ...]:
    """Return the names of the network's outputs; say so if the data are not those that it was trained with.

    If the data have the same classes in another order, they get the indices that the network has for them.

    Args:
        trained: A network that camlab trained.
        data: A data set that has been set up and is not used yet.

    Raises:
        UserError: The classes of the data set and of the network differ.
    """
    assert isinstance(trained.network, Network)
    names, own = output_names(trained.class_names, trained.network.spec["num_classes"]), data.class_names
    if own != (known := names[: len(own)]) and set(own) == set(known):
        log.info("The classes of the data are numbered as in the network: %s, not %s.", listed(known), listed(own))
        number_classes(data, known)
        own = known
    if len(own) > len(names) or names != output_names(own, len(names)):
        raise UserError(
            f"The network knows {listed(names)}; the data has {listed(own)}. Choose data with the same classes."
        )
    if trained.multi_label != data.has_several_labels:
        one, several = "has one label", "may have several labels"
        raise UserError(
            f"A picture {several if data.has_several_labels else one} in these data, but"
            f" {several if trained.multi_label else one} for the network. Set data.multi_label as in its training."
        )
    if trained.data_fingerprint not in (None, data.fingerprint()):
        log.info("The pictures, or their division into splits, are not those that the network was trained with.")
    return names
