"""Content hashes of files, kept so that a file is read again only if its size, times or inode have changed."""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from camlab.storage.files import write_atomically

log = logging.getLogger(__name__)

_FLUSH_LINES = 500


class Stamp(NamedTuple):
    """What reveals that a file has changed or was replaced.

    Attributes:
        size: Its size in bytes.
        modified_ns: When its content was modified, in nanoseconds. Programs can set it back, as `cp -p` does.
        changed_ns: When its content or its inode was changed, in nanoseconds. The system sets it.
        inode: Its number in the file system.
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


class Manifest:
    """A journal of lines [name, *stamp, hash]. The last line of a name counts.

    Lines that a killed process has left incomplete, or that are damaged, are ignored: their files are read again.

    Args:
        path: The journal; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[Stamp, bytes]] = {}
        self._new: list[str] = []
        self._read()

    def get(self, name: str, stamp: Stamp) -> bytes | None:
        """Content hash of a file, 32 bytes; None if it is unknown or the file has changed."""
        known = self._known.get(name)
        return known[1] if known is not None and known[0] == stamp else None

    def add(self, name: str, stamp: Stamp, content: bytes) -> None:
        """Note the content hash of a file, 32 bytes."""
        if self.get(name, stamp) == content:
            return
        self._known[name] = stamp, content
        self._new.append(_line(name, stamp, content))
        if len(self._new) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Append what was added to the journal. If it cannot be written, the next run reads the files again."""
        lines, self._new = "".join(self._new), []
        if not lines:
            return
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            with open(descriptor, "wb") as file:
                file.write(b"\n" + lines.encode())  # begins a line of its own if the journal ends within one
        except OSError as error:
            log.warning("%s cannot be written (%s); the next run reads all pictures.", self.path, error.strerror)

    def _read(self) -> None:
        try:
            lines = [] if self.path.is_symlink() else self.path.read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            with suppress(ValueError, TypeError, RecursionError):
                name, *stamp, content = json.loads(line)
                if type(name) is str and len(key := bytes.fromhex(content)) == 32:
                    self._known[name] = Stamp(*stamp), key
        if len(lines) > 3 * len(self._known) + 1000:  # mostly lines of files that have changed since
            text = "".join(_line(name, *known) for name, known in self._known.items())
            with suppress(OSError):
                write_atomically(self.path, text)


def _line(name: str, stamp: Stamp, content: bytes) -> str:
    return json.dumps([name, *stamp, content.hex()]) + "\n"
