"""The files of a run's checkpoints: written whole with checksums, and found again to resume from."""

import functools
import logging
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from camlab.errors import UserError, plain
from camlab.runs import run_folder
from camlab.storage.files import open_atomically, read_text, sha256, user_path, write_atomically

log = logging.getLogger(__name__)

_CHECKSUMS_KEPT = 8


def open_checkpoint(path: Path) -> AbstractContextManager[BinaryIO]:
    """Open a checkpoint for writing; when the block ends, the file takes its place at `path`, beside its checksum.

    The checksum is written first, so that no checkpoint is ever without it. When a new `last.ckpt` takes its place, the
    previous one is kept as `before_last.ckpt`.

    Args:
        path: Path of the checkpoint; its folder must exist.

    Raises:
        OSError: The checkpoint cannot be written; no existing checkpoint is lost.
    """
    return open_atomically(path, before_replace=functools.partial(_make_way, path))


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint matches its checksum; one from elsewhere, without a readable checksum, is trusted."""
    known = _checksums(checkpoint)
    return not known or sha256(checkpoint) in known


def checkpoint_to_resume(
    resume: str | None,
    run_dir: Path,
    outputs: Path,
    config_hash: str,
    is_same_data: Callable[[Path], bool] = lambda run_dir: True,
    run_of: Callable[[Path], str | None] = lambda checkpoint: None,
) -> Path | None:
    """Return the checkpoint that training resumes from; None to start at the beginning.

    Args:
        resume: `auto` for the last checkpoint in this run's folder, if there is one; `last` for the last checkpoint of
            the newest unfinished run with the same configuration; a path of a checkpoint or of a run's folder; or None
            to start at the beginning.
        run_dir: Folder of this run.
        outputs: Folder in which `last` looks for runs.
        config_hash: Hash of this run's configuration.
        is_same_data: Returns whether the run in a folder has the data of this run; used for `last` only.
        run_of: Returns the id of the run that wrote a checkpoint; None if it is unknown. It raises UserError for a
            checkpoint that cannot be read.

    Raises:
        UserError: The checkpoint that was asked for is missing or damaged, or belongs to another run than its folder.
    """
    if resume is None:
        return None
    if resume == "auto":
        return _last_whole(run_dir, run_of)
    if resume == "last":
        return _last_whole(_newest_unfinished(outputs, config_hash, is_same_data), run_of)
    path = user_path(resume, "resume")
    if path.is_file():
        if not is_whole(path):
            raise UserError(
                f"resume={resume}: the checkpoint is damaged. Give its run's folder, or another checkpoint."
            )
        return path
    if (found := _last_whole(path, run_of)) is None:
        raise UserError(f"resume={resume}: no checkpoint there. Give auto, last, a .ckpt file or a run's folder.")
    return found


def _last_whole(run_dir: Path, run_of: Callable[[Path], str | None]) -> Path | None:
    """The last checkpoint of a run, or the one before it if the last is damaged; None if there is none.

    Raises:
        UserError: All of the run's checkpoints are damaged, or belong to another run.
    """
    there = [path for path in (run_dir / run_folder.LAST, run_dir / run_folder.BEFORE_LAST) if path.is_file()]
    own = run_folder.read_run_id(run_dir)
    for path in there:
        if not is_whole(path):
            log.warning("%s is damaged.", plain(str(path)))
            continue
        try:
            found = run_of(path)
        except UserError as error:  # damaged, without a checksum that would show it
            log.warning("%s", error)
            continue
        if own is not None and found not in (None, own):
            log.warning("%s belongs to another run.", plain(str(path)))
        else:
            return path
    if there:
        raise UserError(
            f"{run_dir}: all checkpoints there are damaged or belong to another run."
            " Add force=true to replace them with a new run."
        )
    return None


def _newest_unfinished(outputs: Path, config_hash: str, is_same_data: Callable[[Path], bool]) -> Path:
    runs = [
        run
        for run in (checkpoint.parent.parent for checkpoint in outputs.glob(f"**/{run_folder.LAST}"))
        if run_folder.read_config_hash(run) == config_hash and run_folder.read_result(run) is None and is_same_data(run)
    ]
    if not runs:
        raise UserError(f"resume=last: no unfinished run with this configuration and these data under {outputs}.")
    return max(runs, key=lambda run: (run / run_folder.LAST).stat().st_mtime)


def _make_way(path: Path, written: Path) -> None:
    """Record the checksum of a new checkpoint, and keep an existing `last.ckpt` as `before_last.ckpt`.

    This happens just before the new file, at `written`, is renamed to `path`. If the process is killed in between, the
    recorded checksum belongs to no file. More checksums than files are kept, so that the existing files keep theirs.
    """
    known = _checksums(path) or [sha256(path) for path in (path,) if path.is_file()]
    write_atomically(_checksum_file(path), "\n".join([sha256(written), *known][:_CHECKSUMS_KEPT]) + "\n")
    if path.name == Path(run_folder.LAST).name and path.is_file():
        os.replace(path, path.parent / Path(run_folder.BEFORE_LAST).name)


def _checksums(checkpoint: Path) -> list[str]:
    """Checksums recorded beside a checkpoint, the newest first; none if their file is missing, empty or damaged."""
    try:
        lines = read_text(_checksum_file(checkpoint), errors="replace").split()
    except FileNotFoundError:
        return []
    return [line for line in lines if re.fullmatch("[0-9a-f]{64}", line)]


def _checksum_file(checkpoint: Path) -> Path:
    """Path of the file of checksums; `last.ckpt` shares it with `before_last.ckpt`, which it becomes later."""
    last = Path(run_folder.LAST).name if checkpoint.name == Path(run_folder.BEFORE_LAST).name else checkpoint.name
    return checkpoint.parent / f"{last}.sha256"
