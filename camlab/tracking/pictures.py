"""Send pictures to all loggers that can show them: W&B, TensorBoard, MLflow, Aim, Comet and Neptune.

Neptune's service has ended; later versions of Lightning 2.6 refuse to make its logger.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from camlab.tracking.wandb_logger import IMAGES_PER_KEY, WandbLogger

Send = Callable[[Any, str, Sequence[np.ndarray], Sequence[str], int], None]


def log_pictures(
    logger: Logger, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epochs_done: int
) -> None:
    """Send uint8 RGB pictures with captions to a logger, if it can show them.

    Args:
        logger: Logger of a Trainer; one that keeps only numbers is left alone.
        key: Name of the set, for instance `heatmaps/probe`.
        pictures: H×W×3 each; each index stands for the same subject in every epoch.
        captions: One caption for each picture.
        epochs_done: Number of epochs done, the value on the x-axis.
    """
    if isinstance(logger, WandbLogger):
        logger.log_pictures(key, pictures, captions, epochs_done)
        return
    for kind in type(logger).__mro__:  # by name, because not every version of Lightning has each of these loggers
        if kind.__name__ in _SENDERS:
            _SENDERS[kind.__name__](logger, key, pictures, captions, epochs_done)
            return


def _to_wandb(logger: Any, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epochs_done: int) -> None:
    import wandb

    axis = f"{key.partition('/')[0]}/epochs_done"  # Lightning itself logs `epoch`, counted from 0
    logger.experiment.define_metric(key, step_metric=axis)
    pairs = list(zip(pictures, captions, strict=True))[:IMAGES_PER_KEY]
    images = [wandb.Image(picture, caption=caption, file_type="jpg") for picture, caption in pairs]
    logger.experiment.log({key: images, axis: epochs_done})


def _to_tensorboard(
    logger: Any, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epochs_done: int
) -> None:
    for i, picture in enumerate(pictures):
        logger.experiment.add_image(f"{key}/{i:02d}", picture, epochs_done, dataformats="HWC")


def _to_mlflow(
    logger: Any, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epochs_done: int
) -> None:
    for i, picture in enumerate(pictures):
        logger.experiment.log_image(logger.run_id, picture, key=f"{key}/{i:02d}", step=epochs_done)


def _to_aim(logger: Any, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epochs_done: int) -> None:
    from aim import Image

    images = [Image(picture, caption) for picture, caption in zip(pictures, captions, strict=True)]
    logger.experiment.track(images, name=key, step=epochs_done, epoch=epochs_done)


def _to_comet(logger: Any, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epochs_done: int) -> None:
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        told = {"name": f"{key}/{i:02d}", "step": epochs_done, "metadata": {"caption": caption}}
        logger.experiment.log_image(picture, image_minmax=(0, 255), **told)  # else Comet stretches the contrast


def _to_neptune(
    logger: Any, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epochs_done: int
) -> None:
    from PIL import Image

    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        series = logger.experiment[f"{key}/{i:02d}"]
        series.append(Image.fromarray(picture), step=epochs_done, description=caption)


_SENDERS: dict[str, Send] = {
    "WandbLogger": _to_wandb,
    "TensorBoardLogger": _to_tensorboard,
    "MLFlowLogger": _to_mlflow,
    "AimLogger": _to_aim,
    "CometLogger": _to_comet,
    "NeptuneLogger": _to_neptune,
}
