"""The figure that a run is judged by: it must exist, and it must not be the test accuracy where settings are chosen."""

from collections.abc import Mapping
from typing import Any

from camlab.errors import UserError


def validates(trainer: Mapping[str, Any], has_val: bool) -> bool:
    """Whether a run measures its validation accuracy.

    Args:
        trainer: Settings of the trainer.
        has_val: Whether images are held out.

    Example:
        >>> validates({"max_epochs": 3}, True), validates({"max_epochs": 3, "check_val_every_n_epoch": 4}, True)
        (True, False)
    """
    never = trainer.get("limit_val_batches") == 0 or trainer.get("fast_dev_run")
    return has_val and not never and (trainer.get("check_val_every_n_epoch") or 1) <= trainer["max_epochs"]


def check_measured(trainer: Mapping[str, Any], has_val: bool, chooses: bool) -> None:
    """Refuse a run whose objective nothing would measure, before it is trained.

    Args:
        trainer: Settings of the trainer.
        has_val: Whether images are held out.
        chooses: Whether settings are chosen by the objective.

    Raises:
        UserError: Names the settings.
    """
    if validates(trainer, has_val):
        return
    if chooses and not has_val:
        raise UserError("data.val_size=0: nothing is held out to choose by, and the test images must not be used.")
    if chooses:
        raise UserError(f"{_culprit(trainer)}: nothing is measured to choose by, and the test images must not be used.")
    if trainer.get("limit_test_batches") == 0:
        raise UserError(
            "trainer.limit_test_batches=0: without validation nothing measures the result."
            " Leave it out, or hold images out with data.val_size=N."
        )


def check_validated(metrics: Mapping[str, float], chooses: bool) -> None:
    """Refuse the result of a run that ended before its first validation, where settings are chosen by it.

    Raises:
        UserError: There is no validation accuracy.
    """
    if chooses and "val/acc" not in metrics:
        raise UserError(
            "The run ended before its first validation: nothing is measured to choose by, and the test images must not"
            " be used. Train longer, or validate more often."
        )


def _culprit(trainer: Mapping[str, Any]) -> str:
    name = next(
        name
        for name in ("limit_val_batches", "fast_dev_run", "check_val_every_n_epoch")
        if trainer.get(name) is not None
    )
    return f"trainer.{name}={trainer[name]}"
