"""Check that an output folder is new or belongs to camlab."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.runs.data_identity import DATA
from camlab.storage.documents import read_yaml

HYDRA = ".hydra"  # folder with the configuration of a job, as Hydra records it
_COMMANDS = ("train", "evaluate", "explain", "score")
_SWEEP = "multirun.yaml"  # file in which Hydra records a sweep's configuration
_FOLDERS = (HYDRA, "checkpoints", run_folder.HEATMAPS, "overlays", "wandb", "tensorboard")
_FILES = (_SWEEP, "optimization_results.yaml", *(f"{HYDRA}/{name}.yaml" for name in ("config", "hydra", "overrides")))


def check_run_folder(folder: Path, config_hash: str, force: bool) -> None:
    """Refuse a folder in which a run would overwrite other files, or the output of another run.

    Args:
        folder: Output folder of the run; it need not exist.
        config_hash: Hash of the run's configuration.
        force: Whether the run may replace another run; it may never replace other files.

    Raises:
        UserError: The folder holds other files, another run, links, or folders in place of files.
    """
    check_places([folder])
    own_files = (*(folder / name for name in (run_folder.CONFIG, DATA)), *run_folder.output_files(folder))
    _check_no_folders(own_files)
    own = run_folder.read_config_hash(folder) is not None or _is_of("train", folder / HYDRA / "hydra.yaml")
    if not own and (others := _content(folder)):
        raise UserError(
            f"{folder} holds files that are not from a camlab run, such as {others[0]}; nothing was changed."
            " Give another out=FOLDER."
        )
    if not force:
        check_same_run(folder, config_hash)


def check_same_run(run_dir: Path, config_hash: str) -> None:
    """Refuse to overwrite another or an unknown run. A run without output may be replaced.

    Raises:
        UserError: The folder holds a run of another configuration, or its configuration is damaged or changed.
    """
    found = run_folder.read_config_hash(run_dir)
    if found is None and (run_folder.has_output(run_dir) or (run_dir / run_folder.CONFIG).exists()):
        raise UserError(
            f"{run_dir / run_folder.CONFIG} is missing, damaged or has been changed since the run wrote it, so it is"
            " unknown which run this is; nothing was changed.",
            "Give another out=FOLDER; to replace that run with a new one, add force=true.",
        )
    if found not in (None, config_hash) and run_folder.has_output(run_dir):
        raise UserError(
            f"{run_dir} holds a run of another configuration (see {run_folder.CONFIG} there); nothing was changed.",
            f"To continue that run with new settings, add resume={run_dir} and another out=FOLDER.",
        )


def check_not_taken(run_dir: Path, config_hash: str, checkpoint: Path | None) -> None:
    """Refuse to continue from a checkpoint in a folder that holds another run or a finished one.

    Args:
        run_dir: Folder of the run that continues.
        config_hash: Hash of the run's configuration.
        checkpoint: The checkpoint. If it is in the folder itself, the folder may hold an unfinished run of this
            configuration.

    Raises:
        UserError: The folder holds such a run.
    """
    check_same_run(run_dir, config_hash)
    check_unfinished(run_dir)
    inside = checkpoint is not None and checkpoint.resolve().is_relative_to(run_dir.resolve())
    if run_folder.has_output(run_dir) and not inside:
        raise UserError(
            f"{run_dir} holds a run that did not start from {checkpoint}; nothing was changed.",
            "Give another out=FOLDER, leave out resume= to continue that run, or add force=true to replace it.",
        )


def check_unfinished(run_dir: Path) -> None:
    """Refuse to continue from a checkpoint in the folder of a finished run.

    Raises:
        UserError: The folder holds a finished run.
    """
    if run_folder.read_result(run_dir) is not None:
        raise UserError(
            f"{run_dir} holds a finished run; nothing was changed."
            " To continue from a checkpoint, give another out=FOLDER."
        )


def check_no_checkpoint(run_dir: Path) -> None:
    """Refuse to start from the beginning in the folder of a run that could be resumed.

    Raises:
        UserError: The folder holds a checkpoint.
    """
    if (run_dir / run_folder.LAST).exists():
        raise UserError(
            f"resume=null: {run_dir} holds a run that can be resumed; nothing was trained."
            " Leave resume=null out, or add force=true to replace that run."
        )


def was_started_with(run_dir: Path, resume: str) -> bool:
    """Whether the run in a folder was started with this `resume=`, so that the same command continues it."""
    try:
        config = run_folder.read_config(run_dir)
    except (OSError, ValueError):
        return False
    noted = config.get("resume") if isinstance(config, dict) else None
    same = isinstance(noted, str) and _resolved(noted) == _resolved(resume)
    return same and run_folder.has_output(run_dir) and not _resolved(resume).is_relative_to(run_dir.resolve())


def check_sweep_folder(folder: Path, command: str) -> None:
    """Refuse a folder for a sweep that holds anything but a sweep of the same command.

    Args:
        folder: Folder of the sweep; it need not exist.
        command: `train`, `evaluate` or `explain`.

    Raises:
        UserError: The folder holds other files, or links.
    """
    jobs = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    check_places([folder, *jobs])
    own = _is_of(command, folder / _SWEEP) or any(_is_of(command, job / HYDRA / "hydra.yaml") for job in jobs)
    empty = {job.name for job in jobs if not _content(job)}
    others = [] if own else [name for name in _content(folder) if name not in empty]
    others += [job.name for job in jobs if HYDRA in _content(job)]  # a job of another program
    if (folder / _SWEEP).exists() and not _is_of(command, folder / _SWEEP):
        others.append(_SWEEP)
    if others:
        raise UserError(
            f"{folder} holds files that are not from a sweep of camlab.{command}, such as {others[0]}; nothing was"
            " changed. Give another out=FOLDER."
        )


def check_unused(folder: Path) -> None:
    """Refuse an output folder for `explain` or `evaluate` that is not empty.

    Raises:
        UserError: The folder holds files. Hidden files, logs and the record of a failure do not count.
    """
    check_places([folder])
    if _content(folder):
        raise UserError(f"{folder} is not empty; nothing was changed. Give another out=FOLDER.")


def check_places(folders: Iterable[Path]) -> None:
    """Refuse output folders in which a link, or an object of another kind, is in place of a folder or a file of Hydra.

    Files that camlab writes itself need no check, because they replace a link at their path. Through a link in place of
    a folder or of a file that Hydra writes, files elsewhere would be written.

    Raises:
        UserError: There is such a link or object.
    """
    for folder in folders:
        inner = (path for pattern in (f"{run_folder.HEATMAPS}/*", "tensorboard/*") for path in folder.glob(pattern))
        _check_kind((folder, *(folder / name for name in _FOLDERS)), Path.is_dir)
        _check_kind((path for path in inner if path.is_symlink()), Path.is_dir)
        _check_kind((*(folder / name for name in _FILES), *folder.glob("*.log")), Path.is_file)
        _check_no_folders(folder / name for name in (run_folder.FAILURE, ".job.json", ".lock"))


def _check_no_folders(paths: Iterable[Path]) -> None:
    """Refuse folders in place of files that camlab replaces or removes."""
    _check_kind((path for path in paths if not path.is_symlink()), lambda path: not path.is_dir())


def _check_kind(paths: Iterable[Path], is_right: Callable[[Path], bool]) -> None:
    for path in paths:
        if path.is_symlink():
            what = "a symbolic link, through which files elsewhere would be written"
        elif path.exists() and not is_right(path):
            what = "in the way"
        else:
            continue
        raise UserError(f"{path} is {what}; nothing was changed. Remove it, or give another out=FOLDER.")


def holds_output(folder: Path) -> bool:
    """Whether a folder holds anything but hidden files, logs and the record of a failure."""
    names = (path.name for path in folder.iterdir())
    return any(name[0] != "." and not name.endswith(".log") and name != run_folder.FAILURE for name in names)


def holds_files(folder: Path) -> bool:
    """Whether a folder holds anything but what a job leaves before it begins."""
    return bool(_content(folder))


def is_of(command: str, folder: Path) -> bool:
    """Whether a folder is one of this command's jobs, as the notes of Hydra there say."""
    return _is_of(command, folder / HYDRA / "hydra.yaml")


def _resolved(path: str) -> Path:
    return Path(os.path.expanduser(path)).resolve()


def _content(folder: Path) -> list[str]:
    """Names in a folder, except for those that a job of camlab leaves before it begins.

    These are its failure, and beside the `.hydra` of a job of camlab its log. Other hidden files do not count, either.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    notes = folder / HYDRA / "hydra.yaml"
    own = any(_is_of(command, notes) for command in _COMMANDS)
    if own or HYDRA not in names or not any((folder / HYDRA).iterdir()):
        names.discard(HYDRA)
    shown = (name for name in names if name == HYDRA or name[0] != ".")
    return sorted(name for name in shown if name != run_folder.FAILURE and not (own and name.endswith(".log")))


def _is_of(command: str, notes: Path) -> bool:
    """Whether a file that Hydra wrote says that its job or sweep belongs to this camlab command."""
    node: Any
    try:
        node = read_yaml(notes)
    except (OSError, ValueError):
        return False
    for key in ("hydra", "help", "app_name"):
        node = node.get(key) if isinstance(node, dict) else None
    return bool(node == f"camlab.{command}")
