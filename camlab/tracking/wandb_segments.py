"""What W&B leaves in a run's folder: a segment for each process that worked on the run, synced or not."""

import json
import secrets
import shutil
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_EMPTY = 7  # bytes of a segment's log in which nothing stands
_ROOM = 2**20  # bytes; a disk with less counts as full


def segments(run_dir: Path) -> list[Path]:
    """What earlier processes wrote in a run's folder, oldest first.

    Raises:
        OSError: nothing can be written there.
    """
    folder = run_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < _ROOM:
        raise OSError(f"the disk under {folder} is full")
    return sorted(folder.glob("*run-*-*"), key=lambda path: path.name.removeprefix("offline-"))


def run_id(segments: Sequence[Path]) -> str:
    """The id of the run that a folder holds, as the names of its segments have it, or a new one."""
    if segments:
        return segments[-1].name.removeprefix("offline-").split("-", 2)[2]  # run-<time>-<id>
    return secrets.token_hex(4)


def unsynced_before(segment: Path) -> list[Path]:
    """A run's earlier offline segments, oldest first, but for those that are synced or have nothing to read in them."""
    written = [path for path in segment.parent.glob("offline-run-*/*.wandb") if path.stat().st_size > _EMPTY]
    unsynced = [path.parent for path in written if not path.with_suffix(".wandb.synced").exists()]
    return sorted(path for path in unsynced if path.name < segment.name)


def how_to_sync(segments: Sequence[Path]) -> str:
    """A command for the shell; W&B stops at a segment whose process was killed, so each has a command of its own."""
    flags = ["" if path.name.startswith("offline-") else "--include-online " for path in segments]
    return " && ".join(f'wandb sync {flag}"{path}"' for flag, path in zip(flags, segments, strict=True))


def complaint(segment: Path) -> str | None:
    """What W&B's own log has against a segment: requests that were refused or not understood end without an error."""
    with suppress(OSError):
        if shutil.disk_usage(segment).free < _ROOM:
            return "the disk is full"
    with suppress(OSError, ValueError):
        lines = (segment / "logs" / "debug-internal.log").read_text(encoding="utf-8").splitlines()
        for record in (json.loads(line) for line in lines if '"level":"ERROR' in line):
            return one_line(": ".join(str(record[key]) for key in ("msg", "status", "error") if key in record))
    return None


def one_line(error: BaseException | str) -> str:
    """The message of an error, shortened to one line."""
    return textwrap.shorten(str(error) or type(error).__name__, 240, placeholder=" …")
