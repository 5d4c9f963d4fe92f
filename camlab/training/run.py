"""A training run: the id that its checkpoints carry, and what it takes over from one that it continues from."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from camlab.data.module import ImageData
from camlab.errors import UserError, first_line
from camlab.runs import run_folder
from camlab.training.changes import Changes, changed_settings, check_changes, shown
from camlab.training.checkpoint import RUN_KEY, check_resumable, read_checkpoint, run_id
from camlab.training.classifier import CHECKPOINT_KEY, Classifier

log = logging.getLogger(__name__)

DAMAGES = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # what a strange checkpoint may raise


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        folder: Its folder.
        settings: All settings that decide its outcome, as plain values in nested sections.
        continued: What it takes over from a checkpoint; None if it starts at the beginning.
        id: Random text that its checkpoints carry; it stays when the run is interrupted or its folder moves.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    continued: "Continuation | None" = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def own_best(self, best_acc: float) -> Path | None:
        """The best checkpoint in the folder; None if there is none, or it is not this run's with this accuracy."""
        path = self.folder / run_folder.BEST
        if not path.is_file():
            return None
        content = read_checkpoint(path)
        own = run_id(content) == self.id and content[CHECKPOINT_KEY]["best_acc"] == best_acc
        return path if own else None


@dataclass(frozen=True)
class Continuation:
    """What a run takes over from a checkpoint.

    Attributes:
        checkpoint: File of the checkpoint.
        run_id: Id of the run that wrote it; None if it is not known.
        changes: Settings that have changed since, by dotted name: what they were and what they are now.
        best: The best checkpoint so far; None if there is none, or the one there is not this checkpoint's.
        lost_best: Why the best checkpoint cannot be taken over; None if there was none, or it can.
    """

    checkpoint: Path
    run_id: str | None
    changes: Changes
    best: Path | None
    lost_best: str | None

    def describe(self) -> None:
        """Tell the user from where the run continues, and with what changes."""
        log.info("Resuming from %s", self.checkpoint)
        if self.changes:
            log.info("Changed settings: %s.", shown(self.changes))
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
    """A run that starts at the beginning or continues from a checkpoint. Nothing is written.

    Args:
        settings: All settings that decide its outcome, as plain values in nested sections.
        folder: Its folder.
        checkpoint: Where it continues from, if it does; a file that is whole.
        classifier: Its module.
        data: Its data.
        named: Whether the user has named the checkpoint or its folder, whose data may then be others.

    Raises:
        UserError: The checkpoint cannot be continued from.
    """
    run = Run(folder, settings)
    if checkpoint is None:
        return run
    in_place = checkpoint.resolve().is_relative_to(folder.resolve())
    continued = _continuation(checkpoint, settings, classifier, data, named, in_place)
    known = continued.run_id if in_place else None
    return replace(run, continued=continued, id=known or run.id)


def check_own(run: Run) -> None:
    """Refuse to write over the checkpoints of a run that is neither this one nor the one that its folder names.

    Raises:
        UserError: A checkpoint in the folder belongs to another run.
    """
    own = {None, run.id, run_folder.read_run_id(run.folder)}
    for path in (run.folder / name for name in (run_folder.LAST, run_folder.BEFORE_LAST, run_folder.BEST)):
        if path.is_file() and run_of(path) not in own:
            raise UserError(f"{path} belongs to another run. Move it away, or give another out=FOLDER.")


def run_of(checkpoint: Path) -> str | None:
    """Id of the run that wrote a checkpoint; None if it is not known."""
    try:
        return run_id(read_checkpoint(checkpoint))
    except UserError:
        return None


def unusable(checkpoint: Path, error: Exception) -> UserError:
    """The error in reading or restoring a checkpoint, as one line."""
    return UserError(f"resume={checkpoint}: incomplete, or of another version of camlab ({first_line(error)}).")


def _continuation(
    file: Path, settings: Mapping[str, Any], classifier: Classifier, data: ImageData, named: bool, in_place: bool
) -> Continuation:
    content = read_checkpoint(file, "resume")
    try:
        check_resumable(content, file, classifier.network, data.class_names)
        same_data = _check_data(content, file, data, named)
        _check_averaging(content, file)
        then = content[RUN_KEY].get("settings")  # older checkpoints have none
        changes = {} if then is None else changed_settings(then, settings)
        _check_epochs(settings, content, file, must_train=(named and not in_place) or "trainer.max_epochs" in changes)
        check_changes(changes, settings, content, classifier.optimizer_defaults())
        best, lost = _best(content, file, bool(changes), same_data)
    except UserError:
        raise
    except DAMAGES as error:
        raise unusable(file, error) from error
    return Continuation(file, run_id(content), changes, best, lost)


def _check_data(content: Mapping[str, Any], file: Path, data: ImageData, named: bool) -> bool:
    """Whether a checkpoint was trained on the run's data; on others only one that the user has named is taken."""
    if content[CHECKPOINT_KEY]["data_fingerprint"] == data.fingerprint():
        return True
    if not named:
        raise UserError(f"{file} was trained on other data. resume={file} continues from it all the same.")
    log.warning("%s was trained on other data of the same classes.", file)
    return False


def _check_averaging(content: Mapping[str, Any], file: Path) -> None:
    """Refuse a run whose weights are being averaged in a way that Lightning does not restore."""
    for name, state in content["callbacks"].items():
        if name.startswith("StochasticWeightAveraging") and state["scheduler_state"] is not None:
            raise UserError(
                f"resume={file}: a run cannot continue once StochasticWeightAveraging has begun, because Lightning does"
                " not restore its learning rate. force=true starts anew, in its place."
            )


def _check_epochs(settings: Mapping[str, Any], content: Mapping[str, Any], file: Path, must_train: bool) -> None:
    """Refuse a run that has been trained for as many epochs as it shall be, or more."""
    done = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    given = settings["trainer"]["max_epochs"]
    if must_train and given <= done:
        raise UserError(
            f"trainer.max_epochs={given}: {file} has been trained for {done} epochs."
            f" Give a larger number, or test it with camlab-evaluate checkpoint={file}."
        )


def _best(content: Mapping[str, Any], file: Path, changed: bool, same_data: bool) -> tuple[Path | None, str | None]:
    """The best checkpoint that a checkpoint knows of, or why it cannot be taken over."""
    if not any("val/best_acc" in row for row in content[RUN_KEY]["rows"]):
        return None, None
    path, known = file.parent / Path(run_folder.BEST).name, content[CHECKPOINT_KEY]["best_acc"]
    if not same_data:
        return None, "The images held out for validation are others."
    if not path.is_file():
        return None, f"{path} is missing."
    if not run_folder.is_whole(path):
        return None, f"{path} is damaged."
    other = read_checkpoint(path, "resume")
    if run_id(other) != run_id(content):
        return None, f"{path} belongs to another run."
    # A run that is killed between its two checkpoints leaves a best one that the last does not know yet. The epochs
    # that follow make the same one again, unless settings have changed.
    found = other[CHECKPOINT_KEY]["best_acc"]
    if found == known or (found > known and not changed):
        return path, None
    return None, f"{path} is of another time than {file.name}."
