"""Command that evaluates a trained network: `python -m camlab.evaluate checkpoint=outputs/…`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from camlab.command_line.launch import launch
from camlab.command_line.run_data import tolerance_of_run
from camlab.errors import plain
from camlab.runs.data_identity import data_root
from camlab.storage.files import user_path

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command `camlab-evaluate`."""
    launch(evaluate, "evaluate")


def evaluate(config: DictConfig) -> float:
    """Measure the accuracy, the accuracy of each class and the confusion matrix, and write them to the output folder.

    Returns:
        The accuracy, from 0 to 1.
    """
    from hydra.utils import instantiate

    from camlab.evaluation.report import write_report
    from camlab.evaluation.testing import evaluate as test
    from camlab.models.devices import check_accelerator
    from camlab.training.callbacks.pointing_game import PointingGame
    from camlab.training.checkpoint import load_network

    check_accelerator(config.trainer.accelerator)
    out = Path(HydraConfig.get().runtime.output_dir)
    trained = load_network(user_path(config.checkpoint, "checkpoint"))
    data = instantiate(config.data)
    if (place := data_root(config.data)) is not None:
        # The settings in the run's folder may have chosen this folder.
        log.info("Pictures from %s", plain(place))
    data.preprocess = trained.preprocess  # prepare pictures as in training, whatever the data section says
    trainer_options: Any = OmegaConf.to_container(config.trainer, resolve=True)
    tolerance = tolerance_of_run(user_path(config.checkpoint, "checkpoint"))
    game = None if tolerance is None else PointingGame(tolerance)
    report = test(trained, data, config.split, trainer_options, str(out), game)
    files = write_report(out, report)
    log.info("%s", report.as_text())
    log.info("Written to %s: %s", out, ", ".join(files))
    return report.accuracy


if __name__ == "__main__":
    from camlab.evaluate import main as entry  # so that pickled jobs refer to camlab.evaluate, not to __main__

    entry()
