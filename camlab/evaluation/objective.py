"""Check that a run measures its objective, and that a search never chooses by the test accuracy."""

from collections.abc import Mapping
from typing import Any

from camlab.errors import UserError


def validates(trainer: Mapping[str, Any], has_val: bool) -> bool:
    """Whether a run measures its validation accuracy.

    Args:
        trainer: Settings of the trainer.
        has_val: Whether images are held out for validation.

    Example:
        >>> validates({"max_epochs": 3}, True), validates({"max_epochs": 3, "check_val_every_n_epoch": 4}, True)
        (True, False)
    """
    never = trainer.get("limit_val_batches") == 0 or trainer.get("fast_dev_run")
    return has_val and not never and (trainer.get("check_val_every_n_epoch") or 1) <= trainer["max_epochs"]


def check_measured(trainer: Mapping[str, Any], has_val: bool, chooses: bool) -> None:
    """Refuse to train a run whose objective would not be measured.

    Args:
        trainer: Settings of the trainer.
        has_val: Whether images are held out for validation.
        chooses: Whether a sweep chooses settings by the objective.

    Raises:
        UserError: The message names the setting that prevents the measurement.
    """
    if validates(trainer, has_val):
        return
    if chooses and not has_val:
        raise UserError(
            "data.val_size=0: this search compares its jobs by validation images; the test images must not be used."
            " Give data.val_size=N."
        )
    if chooses:
        raise UserError(
            f"{_culprit(trainer)}: without validation this search cannot compare its jobs; the test images must not"
            " be used. Leave the setting out."
        )
    if trainer.get("limit_test_batches") == 0:
        raise UserError(
            "trainer.limit_test_batches=0: without validation nothing measures the result."
            " Leave the setting out, or hold out images for validation with data.val_size=N."
        )


def check_validated(metrics: Mapping[str, float], chooses: bool) -> None:
    """Refuse the result of a run without validation if a sweep chooses settings by it.

    Args:
        metrics: Metrics of the run.
        chooses: Whether a sweep chooses settings by the objective.

    Raises:
        UserError: There is no validation accuracy.
    """
    if chooses and "val/acc" not in metrics:
        raise UserError(
            "The run ended before its first validation, so this search cannot compare its jobs; the test images must"
            " not be used. Train longer, or validate more often."
        )


def _culprit(trainer: Mapping[str, Any]) -> str:
    name = next(
        name
        for name in ("limit_val_batches", "fast_dev_run", "check_val_every_n_epoch")
        if trainer.get(name) is not None
    )
    return f"trainer.{name}={trainer[name]}"
