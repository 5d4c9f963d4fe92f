"""A training run: its id, which its checkpoints contain, and what it takes over from a checkpoint that it continues."""

import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from camlab.data.module import ImageData
from camlab.errors import UserError, cut
from camlab.runs import checkpoint_files, run_folder
from camlab.runs.watchers import ACCURACY
from camlab.training.changes import Changes, Optimizing, changed_settings, check_changes, describe_changes
from camlab.training.checkpoint import RUN_KEY, check_place, check_resumable, read_checkpoint, run_id, unusable
from camlab.training.classifier import CHECKPOINT_KEY, Classifier
from camlab.training.restorable import check_progress, check_states

log = logging.getLogger(__name__)

# Exceptions that a checkpoint with unexpected content raises where it is read.
DAMAGES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        folder: Folder of the run.
        settings: All settings that decide the result of the run, as plain values in nested sections.
        continued: What the run takes over from a checkpoint; None if it starts from the beginning.
        id: Random text, which the run's checkpoints contain. It stays the same when the run is interrupted or its
            folder is moved.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    continued: "Continuation | None" = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def own_best(self, by: str, value: float) -> Path | None:
        """The best checkpoint in the folder; None if it is missing, belongs to another run or has another value.

        Args:
            by: Metric by which it was chosen.
            value: Its value in the best epoch.
        """
        path = self.folder / run_folder.BEST
        if not path.is_file():
            return None
        content = read_checkpoint(path)
        own = run_id(content) == self.id and _best_value(content, by) == value
        return path if own else None


@dataclass(frozen=True)
class Continuation:
    """What a run takes over from a checkpoint.

    Attributes:
        checkpoint: File of the checkpoint.
        run_id: Id of the run that wrote the checkpoint; None if it is unknown.
        changes: Settings that have changed since, by dotted name: their old and new values.
        best: The best checkpoint so far; None if there is none, or it cannot be taken over.
        lost_best: Why the best checkpoint cannot be taken over, in one sentence; None if it can, or if there is none.
    """

    checkpoint: Path
    run_id: str | None
    changes: Changes
    best: Path | None
    lost_best: str | None

    def describe(self) -> None:
        """Tell the user which checkpoint the run continues from, and which settings have changed."""
        log.info("Resuming from %s", self.checkpoint)
        if self.changes:
            log.info("Changed settings: %s.", describe_changes(self.changes))
        if self.lost_best:
            log.warning("%s The best epoch is chosen among those that follow.", self.lost_best)


def begin(
    settings: Mapping[str, Any],
    folder: Path,
    checkpoint: Path | None,
    classifier: Classifier,
    data: ImageData,
    named: bool,
) -> Run:
    """Make a run that starts from the beginning or continues from a checkpoint. Nothing is written.

    Args:
        settings: All settings that decide the result of the run, as plain values in nested sections.
        folder: Folder of the run.
        checkpoint: Undamaged checkpoint that the run continues from; None to start from the beginning.
        classifier: Module of the run.
        data: Data of the run.
        named: Whether the user has named the checkpoint or its folder; it may then be from a run on other data.

    Raises:
        UserError: The run cannot continue from the checkpoint.
    """
    run = Run(folder, settings)
    if checkpoint is None:
        return run
    in_place = checkpoint.resolve().is_relative_to(folder.resolve())
    continued = _continuation(checkpoint, settings, classifier, data, named, in_place)
    known = continued.run_id if in_place else None
    return replace(run, continued=continued, id=known or run.id)


def check_own(run: Run) -> None:
    """Refuse to overwrite checkpoints of a run that is neither this one nor the one recorded in the folder.

    Raises:
        UserError: A checkpoint in the folder belongs to another run.
    """
    own = {None, run.id, run_folder.read_run_id(run.folder)}
    for path in (run.folder / name for name in (run_folder.LAST, run_folder.BEFORE_LAST, run_folder.BEST)):
        if path.is_file() and _known_run_of(path) not in own:
            raise UserError(f"{path} belongs to another run. Move it away, or give another out=FOLDER.")


def run_of(checkpoint: Path) -> str | None:
    """Id of the run that wrote a checkpoint file; None if it is unknown.

    Raises:
        UserError: The file cannot be read.
    """
    return run_id(read_checkpoint(checkpoint, "resume"))


def _known_run_of(checkpoint: Path) -> str | None:
    """Id of the run that wrote a checkpoint file; None if it is unknown, or if the file cannot be read."""
    try:
        return run_of(checkpoint)
    except UserError:
        return None


def _continuation(
    file: Path, settings: Mapping[str, Any], classifier: Classifier, data: ImageData, named: bool, in_place: bool
) -> Continuation:
    content = read_checkpoint(file, "resume")
    check_place(content, file, "resume")
    try:
        check_resumable(content, file, classifier.network, data.class_names)
        same_data = _check_data(content, file, data, named)
        check_progress(content, RUN_KEY)
        _check_averaging(content, file)
        then = content[RUN_KEY].get("settings")  # older checkpoints have none
        changes = {} if then is None else changed_settings(then, settings)
        for name, unit, done in _lengths(content):
            if (named and not in_place) or f"trainer.{name}" in changes:
                _check_length(settings["trainer"].get(name), done, f"trainer.{name}", unit, file)
        own = Optimizing(classifier.optimizer_defaults(), classifier.optimizer_state_names())
        check_changes(changes, settings, content, own)
        check_states(content, file, classifier)
        best, lost = _best(content, file, changes, same_data, settings.get("checkpoint_by", ACCURACY))
    except UserError:
        raise
    except DAMAGES as error:
        raise unusable(file, error) from error
    return Continuation(file, run_id(content), changes, best, lost)


def _check_data(content: Mapping[str, Any], file: Path, data: ImageData, named: bool) -> bool:
    """Whether a checkpoint was trained on the run's data; if not, it is refused unless the user has named it."""
    if content[CHECKPOINT_KEY]["data_fingerprint"] == data.fingerprint():
        return True
    if not named:
        raise UserError(f"{file} was trained on other data. To continue anyway, give resume={file}.")
    log.warning("%s was trained on other data with the same classes.", file)
    return False


def _check_averaging(content: Mapping[str, Any], file: Path) -> None:
    """Refuse to continue once StochasticWeightAveraging has begun, which Lightning does not restore completely."""
    for name, state in content["callbacks"].items():
        if name.startswith("StochasticWeightAveraging") and state["scheduler_state"] is not None:
            raise UserError(
                f"resume={file}: a run cannot continue once StochasticWeightAveraging has begun, because Lightning does"
                " not restore its learning rate. To replace the run with a new one, add force=true."
            )


def _lengths(content: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """The trainer's settings that limit the training, with their units and how much a checkpoint has been trained."""
    progress = content["loops"]["fit_loop"]
    steps = progress["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    return [("max_epochs", "epochs", progress["epoch_progress"]["current"]["processed"]), ("max_steps", "steps", steps)]


def _check_length(given: int | None, done: int, setting: str, unit: str, file: Path) -> None:
    """Refuse a checkpoint that has already been trained for as many epochs or steps as given, or more."""
    if given is not None and 0 <= given <= done:  # -1 stands for no limit
        raise UserError(
            f"{setting}={given}: {file} has been trained for {done} {unit}."
            f" Give a larger number, or test the checkpoint with camlab-evaluate checkpoint={file}."
        )


def _best_value(content: Mapping[str, Any], by: str) -> float:
    """The best value so far of the metric that chooses the best epoch, in a checkpoint; NaN if there is none."""
    if by == ACCURACY:
        return float(content[CHECKPOINT_KEY]["best_acc"])
    states = [state for state in content["callbacks"].values() if isinstance(state, dict)]
    found = next((state["best_model_score"] for state in states if state.get("monitor") == by), None)
    return math.nan if found is None else float(found)


def _best(
    content: Mapping[str, Any], file: Path, changes: Changes, same_data: bool, by: str
) -> tuple[Path | None, str | None]:
    """The best checkpoint of the run that a checkpoint is from, or the reason why it cannot be taken over."""
    if not any("val/best_acc" in row for row in content[RUN_KEY]["rows"]):
        return None, None
    path, known = file.parent / Path(run_folder.BEST).name, _best_value(content, by)
    if not same_data:
        return None, "The images held out for validation have changed, so best.ckpt cannot be compared with new epochs."
    if others := [name for name in changes if not name.startswith("trainer.")]:
        return None, f"{path} was trained with another {cut(others[0])}."
    if math.isnan(known):
        return None, None
    if not path.is_file():
        return None, f"{path} is missing."
    if not checkpoint_files.is_whole(path):
        return None, f"{path} is damaged."
    other = read_checkpoint(path, "resume")
    if run_id(other) != run_id(content):
        return None, f"{path} belongs to another run."
    # A run that is killed after saving best.ckpt and before saving last.ckpt leaves a best checkpoint that the last one
    # does not know of. The epochs that follow save the same best checkpoint again, unless settings have changed.
    found = _best_value(other, by)
    if found == known or (found > known and not changes):
        return path, None
    return None, f"{path} was not saved by the training that led to {file.name}."
