"""Check that a run measures its objective, and that a search never chooses by the test accuracy."""

from collections.abc import Mapping
from typing import Any

from camlab.errors import UserError
from camlab.runs.watchers import ACCURACY, HEAT, LOSS, MAP, OF_CLASSES, OF_PASSES, OF_PLACE, SCORING


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


def check_choice(config: Mapping[str, Any], has_val: bool, has_masks: bool, multi_label: bool = False) -> None:
    """Refuse to choose the best epoch, or to end training, by a metric that would not be measured in every epoch.

    Args:
        config: All settings of the run.
        has_val: Whether images are held out for validation.
        has_masks: Whether there are masks of the objects.
        multi_label: Whether a picture may have several labels.

    Raises:
        UserError: The message says what prevents the measurement.
    """
    by = config["checkpoint_by"]
    _check_stopping(config, has_val)
    scoring = (config.get("callbacks") or {}).get("scores")
    if by == MAP and not multi_label:
        raise UserError(f"checkpoint_by={by}: each picture has one label. Choose another metric, such as val/f1.")
    if multi_label and by.startswith(HEAT):
        raise UserError(f"checkpoint_by={by}: pictures with several labels are not scored. Choose another metric.")
    if by in (LOSS, MAP, *OF_CLASSES) and not validates(config["trainer"], has_val):
        raise UserError(f"checkpoint_by={by}: no images are validated. Choose another metric, or change this.")
    if by in (ACCURACY, LOSS, MAP, *OF_CLASSES) or (
        scoring is not None and scoring.get("_target_") != SCORING["scores"]
    ):
        return  # nobody knows what a class of the user's own measures
    name = by.removeprefix(HEAT)
    if reason := _why_not_measured(name, config, scoring, validates(config["trainer"], has_val), has_masks):
        raise UserError(f"checkpoint_by={by}: {reason}. Choose another metric, or change this.")


def _check_stopping(config: Mapping[str, Any], has_val: bool) -> None:
    """Refuse early stopping by a metric of validation if there is none: it would fail after the first epoch."""
    trainer = config["trainer"]
    if trainer.get("fast_dev_run") or (has_val and trainer.get("limit_val_batches") != 0):
        return
    for name, callback in (config.get("callbacks") or {}).items():
        is_stopping = callback and str(callback.get("_target_")).endswith(".EarlyStopping")
        if is_stopping and str(callback.get("monitor")).startswith("val/"):
            raise UserError(
                f"callbacks.{name}: no images are validated, so there is no {callback['monitor']}. Give"
                f" callbacks.{name}=null, or change this."
            )


def _why_not_measured(
    name: str, config: Mapping[str, Any], scoring: Mapping[str, Any] | None, validates: bool, has_masks: bool
) -> str | None:
    if not validates:
        return "no images are validated"
    if scoring is None:
        return "callbacks.scores=null measures no score"
    if scoring.get("scores") is not None and name not in scoring["scores"]:
        return "it is not among callbacks.scores.scores"
    if name in OF_PLACE and not has_masks:
        return "the data have no masks"
    if config["arch"].get("frozen") and config["cache"]:
        if name in OF_PASSES:
            return "with a frozen backbone and cache=true, it is measured only before and after training"
        if config["arch"].get("_target_") != "camlab.models.cam_net.CamNet":
            return (
                "with a frozen backbone and cache=true, heatmaps of this network are scored before and after training"
            )
    return None


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
