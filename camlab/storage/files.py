"""Files that are written whole or not at all, and their checksums."""

import errno
import glob
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from camlab.errors import UserError

_SUFFIX = ".partial"
_RANDOM_BYTES = 8  # in a temporary file's name, as 16 hex digits
_LONGEST_STEM = 40  # characters of a file's name that its temporary name keeps: at most 160 of the 255 bytes allowed


def user_path(place: str, setting: str) -> Path:
    """Turn a path that the user gave into a `Path`; `~` stands for the home folder. The path need not exist.

    Args:
        place: The path.
        setting: Name of the setting, for the message.

    Raises:
        UserError: There is no such user, or no file can have this path: it is too long, or its folder cannot be read.
    """
    try:
        path = Path(place).expanduser()
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return path
    except RuntimeError:
        raise UserError(
            f"{setting}={place}: {Path(place).parts[0]} is not a user's home folder. Give another path."
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return path
        why = error.strerror if isinstance(error, OSError) else "a path cannot contain a null character"
        raise UserError(f"{setting}={place}: {why}. Give another path.") from None
    return path


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a whole file or none: a reader never finds half of it, not even after a power cut.

    Args:
        path: Destination. A file there is replaced; so is a symbolic link, whose target stays as it is.
        content: Text (written as UTF-8) or bytes.
        durable: As for `open_atomically`.

    Raises:
        OSError: The file cannot be written; an existing file is left untouched.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_atomically(path, "whole")
        >>> path.read_text()
        'whole'
    """
    with open_atomically(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_atomically(
    path: Path, before_replace: Callable[[Path], None] | None = None, durable: bool = True
) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends, and is removed when the block fails.

    The temporary file is new, is in the same folder, and has a random name. If `durable`, its content
    is on the disk before it is renamed, and the renaming is on the disk when this function returns.

    Args:
        path: Destination, as for `write_atomically`.
        before_replace: Function that is called with the path of the complete temporary file, just before the renaming.
        durable: Whether to wait until the content is on the disk. Waiting takes milliseconds for each file; without
            it, a power cut may leave an empty file.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name[:_LONGEST_STEM]}.{secrets.token_hex(_RANDOM_BYTES)}{_SUFFIX}")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if before_replace is not None:
            before_replace(partial)
        os.replace(partial, path)
        if durable:
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_text(path: Path, errors: str = "strict") -> str:
    """Read a regular UTF-8 text file. Pipes and devices are refused, because reading them might never end.

    Args:
        path: The file.
        errors: How to handle bytes that are not UTF-8, as for `open`.

    Raises:
        OSError: The file cannot be read, or is a pipe or a device.
        ValueError: The file is not UTF-8 text.
    """
    with open(path, encoding="utf-8", errors=errors, opener=_without_waiting) as file:
        return file.read()


def leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Temporary files that killed processes left in a folder: regular files with names as this module gives them.

    Args:
        folder: Folder to look in; it need not exist.
        name: Name of the file that was being written; None for any file.
    """
    start = "*" if name is None else glob.escape(name[:_LONGEST_STEM])
    ending = re.compile(rf".+\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}{re.escape(_SUFFIX)}", re.DOTALL)
    found = folder.glob(f".{start}.*{_SUFFIX}")
    return [path for path in found if ending.fullmatch(path.name) and not path.is_symlink() and path.is_file()]


def remove_leftovers(folder: Path, name: str | None = None) -> None:
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


def _without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def _sync_folder(folder: Path) -> None:
    """Make a renaming survive a power cut, if the file system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
