"""A run's folder: what is written there, how a finished run is told from an unfinished one, where to go on."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from camlab.errors import UserError
from camlab.storage.files import sha256, write_atomically

log = logging.getLogger(__name__)

CONFIG, RESULT = "config.yaml", "result.json"
LAST, BEFORE_LAST, BEST = (f"checkpoints/{name}.ckpt" for name in ("last", "before_last", "best"))
METRICS, HEATMAPS, FAILURE = "metrics.csv", "heatmaps", "failure.json"
_HASH_LINE = "# config_hash: "
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set by torchrun, Lightning and SLURM; 0 is the first


def write_config(run_dir: Path, yaml: str, config_hash: str) -> None:
    """Keep the resolved configuration, and its hash in the first line."""
    write_atomically(run_dir / CONFIG, f"{_HASH_LINE}{config_hash}\n{yaml}")


def read_config_hash(run_dir: Path) -> str | None:
    """The hash of the configuration that a folder's run was started with; None if no run was started there."""
    try:
        first, _, _ = (run_dir / CONFIG).read_text(encoding="utf-8").partition("\n")
    except OSError:
        return None
    return first.removeprefix(_HASH_LINE) if first.startswith(_HASH_LINE) else None


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """`result.json` of a finished run, else None."""
    result = _read_json(run_dir / RESULT) or {}
    whole = result.keys() >= {"objective", "epochs", "wall_time_s"} and isinstance(result.get("metrics"), dict)
    return result if whole else None


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Declare a run finished."""
    write_atomically(run_dir / RESULT, json.dumps(result, indent=2) + "\n")


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a result.

    Attributes:
        message: one line or two.
        by_user: it is the user's to mend, on the command line or in the data.
        traceback: of any other error, for whoever mends that; else empty.
    """

    message: str
    by_user: bool
    traceback: str = ""


def write_failure(run_dir: Path, failure: Failure) -> None:
    """Note that a run failed; its next start removes the note."""
    write_atomically(run_dir / FAILURE, json.dumps(asdict(failure), indent=2) + "\n")


def read_failure(run_dir: Path) -> Failure | None:
    """The note of a run that failed, else None."""
    try:
        return Failure(**(_read_json(run_dir / FAILURE) or {}))
    except TypeError:
        return None


def forget(run_dir: Path) -> None:
    """Remove what a run left, so that it starts anew; the folder's other files stay."""
    for name in (RESULT, FAILURE, METRICS, LAST, BEFORE_LAST, BEST):
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / HEATMAPS, ignore_errors=True)


class Busy(UserError):
    """Another process trains in the folder."""


@contextmanager
def locked(run_dir: Path, wait: bool) -> Iterator[None]:
    """Keep other processes out of a run's folder; the further ranks of a distributed run come in with the first.

    Args:
        run_dir: of the run.
        wait: until it is free.

    Raises:
        Busy: another process trains there.
    """
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        yield
        return
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise Busy(f"{run_dir}: another process trains there. Give another out=FOLDER.") from None
        log.info("%s: another process trains there; waiting for it.", run_dir)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_same_run(run_dir: Path, config_hash: str) -> None:
    """Refuse to write over another configuration's run; one that ended before it had anything is none.

    Raises:
        UserError: the folder holds one.
    """
    found = read_config_hash(run_dir)
    begun = any((run_dir / name).exists() for name in (RESULT, LAST, BEST, METRICS, HEATMAPS))
    if found not in (None, config_hash) and begun:
        raise UserError(
            f"{run_dir} holds a run of another configuration (see {CONFIG} there); nothing was changed.\n"
            f"Give another out=FOLDER; to go on from that run with new settings, add resume={run_dir}."
        )


def put_checkpoint(written: Path, path: Path) -> None:
    """Put a whole file in a checkpoint's place; of the last one, the one before it stays beside it.

    `NAME.sha256` holds the checksums of both, and is there first: at no moment is a whole checkpoint without one.
    """
    sums = _checksum_file(path)
    before = sums.read_text(encoding="ascii").split()[:1] if sums.is_file() else []
    write_atomically(sums, "\n".join([sha256(written), *before]) + "\n")
    if path.name == Path(LAST).name and path.is_file():
        os.replace(path, path.parent / Path(BEFORE_LAST).name)
    os.replace(written, path)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is what was written; one without a checksum, from elsewhere, is taken on trust."""
    last = Path(LAST).name if checkpoint.name == Path(BEFORE_LAST).name else checkpoint.name
    sums = _checksum_file(checkpoint.parent / last)
    return not sums.is_file() or sha256(checkpoint) in sums.read_text(encoding="ascii").split()


def checkpoint_to_resume(resume: str | None, run_dir: Path, outputs: Path, config_hash: str) -> Path | None:
    """Where training goes on.

    Args:
        resume: `auto`: this folder's own last checkpoint, if any; `last`: that of the newest unfinished run with the
            same configuration; a checkpoint or a run's folder; None: nowhere.
        run_dir: this run's folder.
        outputs: where to look for `last`.
        config_hash: of this run.

    Raises:
        UserError: the checkpoint asked for is not there, or damaged.
    """
    if resume is None:
        return None
    if resume == "auto":
        return _last_whole(run_dir)
    if resume == "last":
        return _last_whole(_newest_unfinished(outputs, config_hash))
    path = Path(resume).expanduser()
    if path.is_file():
        return path
    if (found := _last_whole(path)) is None:
        raise UserError(f"resume={resume}: no checkpoint there. Give auto, last, a .ckpt file or a run's folder.")
    return found


def _last_whole(run_dir: Path) -> Path | None:
    """The last checkpoint of a run, or the one before it if the last is damaged; None if there is none.

    Raises:
        UserError: all are damaged.
    """
    there = [path for path in (run_dir / LAST, run_dir / BEFORE_LAST) if path.is_file()]
    for path in there:
        if is_whole(path):
            return path
        log.warning("%s is damaged.", path)
    if there:
        raise UserError(f"{run_dir}: no checkpoint there is whole. force=true starts anew, in place of what is there.")
    return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _checksum_file(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".ckpt.sha256")


def _newest_unfinished(outputs: Path, config_hash: str) -> Path:
    runs = [
        checkpoint.parent.parent
        for checkpoint in outputs.glob(f"**/{LAST}")
        if read_config_hash(checkpoint.parent.parent) == config_hash and read_result(checkpoint.parent.parent) is None
    ]
    if not runs:
        raise UserError(f"resume=last: no unfinished run with this configuration under {outputs}.")
    return max(runs, key=lambda run: (run / LAST).stat().st_mtime)
