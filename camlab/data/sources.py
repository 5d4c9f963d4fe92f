"""Where the bytes of a picture or a mask come from."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from camlab.storage.manifest import Stamp


class Source(Protocol):
    """Where the bytes of a picture come from."""

    @property
    def id(self) -> str:
        """A name that is unique among the pictures of a data set, for messages and for the manifest."""

    def stamp(self) -> Stamp:
        """What reveals that the bytes have changed. Raises OSError if they are gone."""

    def read(self) -> bytes:
        """The bytes. Raises OSError if they cannot be read."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture in a file."""

    path: Path

    @property
    def id(self) -> str:
        return str(self.path)

    def stamp(self) -> Stamp:
        status = os.stat(self.path)
        return Stamp(status.st_size, status.st_mtime_ns)

    def read(self) -> bytes:
        if not self.path.is_file():  # reading a pipe would wait for a writer, and a device may never end
            raise OSError(0, "not a file", str(self.path))
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """A picture whose bytes are in a column of a data set of Hugging Face's.

    Attributes:
        rows: The rows of the data set.
        column: Name of the column, whose items are dictionaries with `bytes` or `path`.
        row: Index of the row.
        name: Name of the data set and its split.
        stamped: What reveals that the files of the data set have changed.
    """

    rows: Any
    column: str
    row: int
    name: str
    stamped: Stamp

    @property
    def id(self) -> str:
        return f"{self.name}, row {self.row}"

    def stamp(self) -> Stamp:
        return self.stamped

    def read(self) -> bytes:
        value = self.rows[self.row][self.column]
        if value is None:
            raise OSError(0, "there is no picture", self.id)
        content: bytes | None = value["bytes"]
        return PictureFile(Path(value["path"])).read() if content is None else content
