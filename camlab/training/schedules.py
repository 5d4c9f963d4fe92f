"""Schedules of the learning rate that have to know how many steps a training takes."""

import inspect
from collections.abc import Callable

import lightning as L
from torch.optim.lr_scheduler import LRScheduler


def counts_steps(make_scheduler: Callable[..., LRScheduler]) -> bool:
    """Whether a schedule is made for a number of optimizer steps, and steps with each of them.

    Example:
        >>> from torch.optim.lr_scheduler import OneCycleLR, StepLR
        >>> counts_steps(OneCycleLR), counts_steps(StepLR)
        (True, False)
    """
    return "total_steps" in inspect.signature(make_scheduler).parameters


def count_steps(trainer: L.Trainer) -> int:
    """Number of optimizer steps of a whole training; to be called while the optimizers are configured.

    To count them, Lightning (2.6) sets the training data up, before it restores the position of their loader from a
    checkpoint; as they are set up then, the position is never restored, and the epoch would begin again. Therefore
    Lightning is made to set them up once more.
    """
    steps = int(trainer.estimated_stepping_batches)
    if trainer.ckpt_path is not None:
        trainer.fit_loop._combined_loader = None
    return steps
