"""Send pictures to all trackers that can show them."""

from collections.abc import Sequence

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from camlab.tracking.wandb_logger import WandbLogger


def log_pictures(
    loggers: Sequence[Logger], key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epoch: int
) -> None:
    """Send uint8 RGB pictures with captions to all trackers that can show them.

    Args:
        loggers: Loggers of a Trainer; those that keep only numbers are skipped.
        key: Name of the set, for instance `heatmaps/probe`.
        pictures: H×W×3 each; each index stands for the same subject in every epoch.
        captions: One caption for each picture.
        epoch: Number of epochs done, the value on the x-axis.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_pictures(key, pictures, captions, epoch)
        elif isinstance(logger, TensorBoardLogger):
            for i, picture in enumerate(pictures):
                logger.experiment.add_image(f"{key}/{i:02d}", picture, epoch, dataformats="HWC")
