"""Files that are written whole or not at all, and their checksums."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".partial"
_LONGEST_STEM = 40  # characters of a file's name that its temporary name keeps: at most 160 of the 255 bytes allowed


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or none: a reader never finds half of it, not even after a power cut.

    Args:
        path: Destination. A file there is replaced; so is a symbolic link, whose target stays as it is.
        content: Text (written as UTF-8) or bytes.

    Raises:
        OSError: The file cannot be written; an existing file is left untouched.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_atomically(path, "whole")
        >>> path.read_text()
        'whole'
    """
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_atomically(path: Path, before_replace: Callable[[Path], None] | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends, and is removed when the block fails.

    The temporary file is new, is in the same folder, and has a name that nobody can predict. Its content is on the disk
    before it is renamed, and the renaming is on the disk when this function returns.

    Args:
        path: Destination, as for `write_atomically`.
        before_replace: Function that is called with the path of the complete temporary file, just before the renaming.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name[:_LONGEST_STEM]}.{secrets.token_hex(8)}{_SUFFIX}")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before_replace is not None:
            before_replace(partial)
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Temporary files that killed processes left in a folder.

    Args:
        folder: Folder to look in; it need not exist.
        name: Name, or glob pattern, of the files that were being written.
    """
    return list(folder.glob(f".{name[:_LONGEST_STEM]}.*{_SUFFIX}"))


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the files that `leftovers` finds. Call it only while no other process can be writing them."""
    for leftover in leftovers(folder, name):
        leftover.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Checksum of a file, 64 hex digits.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a renaming survive a power cut, if the file system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
