"""Send the results of finished runs to all trackers that can show them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger

from camlab.tracking.tensorboard_logger import TensorBoardLogger
from camlab.tracking.wandb_logger import WandbLogger

PAGE_MEGABYTES = 16.0  # largest size of a page that is uploaded


@dataclass(frozen=True)
class RunResult:
    """What a tracker shows of a finished run, in addition to its curves.

    Attributes:
        metrics: Final metrics by name.
        per_class: Share of each class's test images that were recognised, 0 to 1, by class.
        class_names: M names.
        confusion: Counts of the test, M×M; row is the true class, column the predicted one. None if a picture may have
            several labels.
        checkpoint: Path of the tested weights; None if no checkpoint was kept.
    """

    metrics: Mapping[str, float]
    per_class: Mapping[str, float]
    class_names: Sequence[str]
    confusion: np.ndarray | None
    checkpoint: Path | None


def log_page(loggers: Sequence[Logger], make: Callable[[float], str | None], epochs_done: int) -> None:
    """Send the page that browses a run's heatmaps to the loggers that show pages.

    Args:
        loggers: Loggers of a Trainer.
        make: Function that makes the page, at most as many megabytes large as it is given; None if there is none. It is
            called only if there is such a logger.
        epochs_done: Number of epochs done.
    """
    takers = [logger for logger in loggers if isinstance(logger, WandbLogger) and logger.takes_pages]
    if takers and (page := make(PAGE_MEGABYTES)) is not None:
        for logger in takers:
            logger.log_page(page, epochs_done)


def log_result(loggers: Sequence[Logger], result: RunResult) -> None:
    """Send a result to a Trainer's loggers; those that keep only curves are skipped."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_test(result.per_class, result.confusion, result.class_names)
            if result.checkpoint is not None:
                logger.log_checkpoint(result.checkpoint)
        elif isinstance(logger, TensorBoardLogger):
            logger.log_result(result.metrics)
