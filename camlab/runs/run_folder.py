"""A run's folder: its files, whether the run in it is finished, and the checkpoint that training resumes from."""

import functools
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from camlab.errors import UserError
from camlab.storage import locks
from camlab.storage.files import open_atomically, remove_leftovers, sha256, write_atomically

log = logging.getLogger(__name__)

CONFIG, RESULT = "config.yaml", "result.json"
LAST, BEFORE_LAST, BEST = (f"checkpoints/{name}.ckpt" for name in ("last", "before_last", "best"))
METRICS, HEATMAPS, FAILURE = "metrics.csv", "heatmaps", "failure.json"
_HASH_LINE = "# config_hash: "
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set by torchrun, Lightning and SLURM; rank 0 is the main process
_CHECKSUMS_KEPT = 8


def write_config(run_dir: Path, yaml: str, config_hash: str) -> None:
    """Record the resolved configuration of a run that begins or continues, with its hash in the first line.

    An earlier result is removed: it may be that of another configuration.
    """
    (run_dir / RESULT).unlink(missing_ok=True)
    write_atomically(run_dir / CONFIG, f"{_HASH_LINE}{config_hash}\n{yaml}")


def read_config_hash(run_dir: Path) -> str | None:
    """Hash of the configuration that the run in a folder was started with; None if no run was started there."""
    try:
        first, _, _ = (run_dir / CONFIG).read_text(encoding="utf-8").partition("\n")
    except OSError:
        return None
    return first.removeprefix(_HASH_LINE) if first.startswith(_HASH_LINE) else None


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Content of `result.json` of a finished run; None if there is none, or it lacks what every run measures."""
    result = read_json(run_dir / RESULT) or {}
    metrics = result.get("metrics")
    numbers = [result.get(name) for name in ("objective", "epochs", "wall_time_s")]
    if not isinstance(metrics, dict) or not all(map(_is_number, [*numbers, *metrics.values()])):
        return None
    return result if {"test/acc", "val/best_acc"} & metrics.keys() else None


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write `result.json`, which declares the run finished."""
    write_atomically(run_dir / RESULT, json.dumps(result, indent=2) + "\n")


@dataclass(frozen=True)
class Failure:
    """Reason why a run ended without a result.

    Attributes:
        message: One line or two.
        by_user: Whether the user can repair it, on the command line or in the data.
        traceback: Traceback of any other error; empty for a mistake of the user's.
        mark: Random text that tells this failure from an earlier one of the same job.
    """

    message: str
    by_user: bool
    traceback: str = ""
    mark: str = field(default_factory=lambda: secrets.token_hex(8), compare=False)


def write_failure(run_dir: Path, failure: Failure) -> None:
    """Note in its folder that a run failed; the run's next start removes the note."""
    write_atomically(run_dir / FAILURE, json.dumps(asdict(failure), indent=2) + "\n")


def read_failure(run_dir: Path) -> Failure | None:
    """The recorded failure of a run; None if there is none, or it is damaged."""
    try:
        failure = Failure(**{"mark": "", **(read_json(run_dir / FAILURE) or {})})
    except TypeError:
        return None
    texts = (failure.message, failure.traceback, failure.mark)
    return failure if all(isinstance(text, str) for text in texts) and isinstance(failure.by_user, bool) else None


def forget(run_dir: Path) -> None:
    """Remove the output of a run, so that it starts anew; the folder's other files stay."""
    for name in (RESULT, FAILURE, METRICS, LAST, BEFORE_LAST, BEST):
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / HEATMAPS, ignore_errors=True)


def has_output(run_dir: Path) -> bool:
    """Whether a run in this folder has produced anything yet."""
    return any((run_dir / name).exists() for name in (RESULT, LAST, BEST, METRICS, HEATMAPS))


class Busy(UserError):
    """Another process trains in the folder."""


@contextmanager
def locked(run_dir: Path, wait: bool) -> Iterator[None]:
    """Keep other processes out of a run's folder; the further ranks of a distributed run enter with the first.

    Args:
        run_dir: Folder of the run.
        wait: Wait until the folder is free, instead of raising.

    Raises:
        Busy: Another process trains in the folder, and `wait` is False.
    """
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        yield
        return
    notice = f"{run_dir}: another process trains there; waiting for it."
    try:
        with locks.locked(run_dir / ".lock", wait, notice):
            for folder in (run_dir, run_dir / Path(LAST).parent):
                remove_leftovers(folder)
            yield
    except locks.Locked:
        raise Busy(f"{run_dir}: another process trains there. Give another out=FOLDER.") from None


def check_same_run(run_dir: Path, config_hash: str) -> None:
    """Refuse to write over another configuration's run; a run without output does not count.

    Raises:
        UserError: The folder holds a run of another configuration.
    """
    if read_config_hash(run_dir) not in (None, config_hash) and has_output(run_dir):
        raise UserError(
            f"{run_dir} holds a run of another configuration (see {CONFIG} there); nothing was changed.\n"
            f"Give another out=FOLDER; to go on from that run with new settings, add resume={run_dir}."
        )


def check_unused(folder: Path) -> None:
    """Refuse a folder for the output of `explain` or `evaluate` that holds anything else.

    Raises:
        UserError: The folder is not empty; Hydra's files, the log and the note of a job that failed do not count.
    """
    passed_over = (".hydra", FAILURE)
    if folder.is_dir() and any(f.name not in passed_over and f.suffix != ".log" for f in folder.iterdir()):
        raise UserError(f"{folder} is not empty; nothing was changed. Give another out=FOLDER.")


def open_checkpoint(path: Path) -> AbstractContextManager[BinaryIO]:
    """Open a checkpoint for writing; when the block ends, the file is renamed to `path` and has a checksum beside it.

    At no moment is there a complete checkpoint without its checksum, nor `last.ckpt` without the one before it, which
    is kept as `before_last.ckpt`.

    Args:
        path: Path of the checkpoint; its folder is there.

    Raises:
        OSError: The checkpoint cannot be written; those that were there are untouched.
    """
    return open_atomically(path, before_replace=functools.partial(_make_way, path))


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is what was written; one without a readable checksum, from elsewhere, is trusted."""
    known = _checksums(checkpoint)
    return not known or sha256(checkpoint) in known


def checkpoint_to_resume(
    resume: str | None,
    run_dir: Path,
    outputs: Path,
    config_hash: str,
    is_same_data: Callable[[Path], bool] = lambda run_dir: True,
) -> Path | None:
    """Return the checkpoint that training resumes from; None to start at the beginning.

    Args:
        resume: `auto`: this folder's own last checkpoint, if there is one; `last`: that of the newest unfinished run
            with the same configuration; a checkpoint or a run's folder: that one; None: none.
        run_dir: Folder of this run.
        outputs: Folder in which `last` looks for runs.
        config_hash: Hash of this run's configuration.
        is_same_data: Whether the run in a folder has this run's data; asked for `last`.

    Raises:
        UserError: The checkpoint that was asked for is missing or damaged.
    """
    if resume is None:
        return None
    if resume == "auto":
        return _last_whole(run_dir)
    if resume == "last":
        return _last_whole(_newest_unfinished(outputs, config_hash, is_same_data))
    path = Path(resume).expanduser()
    if path.is_file():
        if not is_whole(path):
            raise UserError(
                f"resume={resume}: the checkpoint is damaged. Give its run's folder, or another checkpoint."
            )
        return path
    if (found := _last_whole(path)) is None:
        raise UserError(f"resume={resume}: no checkpoint there. Give auto, last, a .ckpt file or a run's folder.")
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file that holds an object; None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last: lists within lists, too deep to be read
        return None
    return content if isinstance(content, dict) else None


def _is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number that a float can hold."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def _last_whole(run_dir: Path) -> Path | None:
    """The last checkpoint of a run, or the one before it if the last is damaged; None if there is none.

    Raises:
        UserError: All are damaged.
    """
    there = [path for path in (run_dir / LAST, run_dir / BEFORE_LAST) if path.is_file()]
    for path in there:
        if is_whole(path):
            return path
        log.warning("%s is damaged.", path)
    if there:
        raise UserError(f"{run_dir}: all checkpoints there are damaged. force=true starts anew, in their place.")
    return None


def _newest_unfinished(outputs: Path, config_hash: str, is_same_data: Callable[[Path], bool]) -> Path:
    runs = [
        run
        for run in (checkpoint.parent.parent for checkpoint in outputs.glob(f"**/{LAST}"))
        if read_config_hash(run) == config_hash and read_result(run) is None and is_same_data(run)
    ]
    if not runs:
        raise UserError(f"resume=last: no unfinished run with this configuration and these data under {outputs}.")
    return max(runs, key=lambda run: (run / LAST).stat().st_mtime)


def _make_way(path: Path, written: Path) -> None:
    """Note the checksum of a checkpoint that is about to take its place, and set the last one aside.

    More checksums are kept than there are files: a process that is killed between this and the renaming leaves one of
    a file that never came to be, and the files that are there must not lose theirs.
    """
    known = _checksums(path) or [sha256(path) for path in (path,) if path.is_file()]
    write_atomically(_checksum_file(path), "\n".join([sha256(written), *known][:_CHECKSUMS_KEPT]) + "\n")
    if path.name == Path(LAST).name and path.is_file():
        os.replace(path, path.parent / Path(BEFORE_LAST).name)


def _checksums(checkpoint: Path) -> list[str]:
    """Checksums noted beside a checkpoint, the newest first; none if the file is missing, empty or damaged."""
    try:
        lines = _checksum_file(checkpoint).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return []
    return [line for line in lines if re.fullmatch("[0-9a-f]{64}", line)]


def _checksum_file(checkpoint: Path) -> Path:
    """One for `last.ckpt` and `before_last.ckpt`, which are the same file at different times."""
    last = Path(LAST).name if checkpoint.name == Path(BEFORE_LAST).name else checkpoint.name
    return checkpoint.parent / f"{last}.sha256"
