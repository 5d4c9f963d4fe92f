"""Segments of a W&B run in its folder: one for each process that worked on the run, synced or not."""

import json
import re
import secrets
import shlex
import shutil
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from camlab.errors import plain

_SEGMENT = re.compile(r"(offline-)?run-\d+_\d+-[\w-]+", re.ASCII)  # as W&B names it: run-<time>-<id>
_ID_BYTES = 4  # in a run's id, as hex digits
_OWN_ID = re.compile(rf"[0-9a-f]{{{2 * _ID_BYTES}}}")
_EMPTY = 7  # bytes: size of an empty segment's log
_ROOM = 2**20  # bytes; a disk with less free space counts as full


def segments(run_dir: Path) -> list[Path]:
    """List the segments that earlier processes wrote in a run's folder, oldest first.

    Raises:
        OSError: The folder cannot be written, or its disk is full.
    """
    folder = run_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < _ROOM:
        raise OSError(f"the disk under {folder} is full")
    found = (path for path in folder.iterdir() if _SEGMENT.fullmatch(path.name))
    return sorted(found, key=lambda path: path.name.removeprefix("offline-"))


def run_id(segments: Sequence[Path]) -> str:
    """Return the id of the run that a folder holds, from its last segment; a new id if there is none.

    A segment counts only if its id is of the form that this function gives, and its log has the same id. Thus, a folder
    that was renamed or put there cannot send the run's data to another run, such as one with a chosen name.
    """
    for segment in reversed(segments):
        found = segment.name.removeprefix("offline-").split("-", 2)[2]  # run-<time>-<id>
        log = segment / f"run-{found}.wandb"
        if _OWN_ID.fullmatch(found) and not segment.is_symlink() and log.is_file() and not log.is_symlink():
            return found
    return secrets.token_hex(_ID_BYTES)


def unsynced_before(segment: Path) -> list[Path]:
    """List a run's earlier offline segments, oldest first, without those that are synced or empty."""
    own = [path for path in segment.parent.glob("offline-*") if _SEGMENT.fullmatch(path.name)]
    written = [file for path in own for file in path.glob("*.wandb") if file.stat().st_size > _EMPTY]
    unsynced = [path.parent for path in written if not path.with_suffix(".wandb.synced").exists()]
    return sorted(path for path in unsynced if path.name < segment.name)


def how_to_sync(segments: Sequence[Path]) -> str:
    """Make a shell command that syncs segments.

    It calls `wandb sync` for each segment, because a call for several stops at one whose process was killed.

    Example:
        >>> how_to_sync([Path("offline-run-1-a"), Path("run-2-a")])
        'wandb sync offline-run-1-a && wandb sync --include-online run-2-a'
        >>> how_to_sync([Path("it costs $5/offline-run-1-a")])
        "wandb sync 'it costs $5/offline-run-1-a'"
    """
    flags = ["" if path.name.startswith("offline-") else "--include-online " for path in segments]
    quoted = [shlex.quote(str(path)) for path in segments]
    return " && ".join(f"wandb sync {flag}{path}" for flag, path in zip(flags, quoted, strict=True))


def complaint(segment: Path) -> str | None:
    """Return what went wrong with a segment, or None: a full disk, or the first error in W&B's own log of it.

    Requests that the server refuses appear in that log only; they raise no exception in this process.
    """
    with suppress(OSError):
        if shutil.disk_usage(segment).free < _ROOM:
            return "the disk is full"
    with suppress(OSError, ValueError):
        lines = (segment / "logs" / "debug-internal.log").read_text(encoding="utf-8").splitlines()
        for record in (json.loads(line) for line in lines if '"level":"ERROR' in line):
            return one_line(": ".join(str(record[key]) for key in ("msg", "status", "error") if key in record))
    return None


def one_line(error: BaseException | str) -> str:
    """Return the message of an error, shortened to one line of plain text.

    Example:
        >>> one_line(ValueError("broken   pipe"))
        'broken pipe'
    """
    return plain(textwrap.shorten(str(error) or type(error).__name__, 240, placeholder=" …"))
