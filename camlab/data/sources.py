"""Where the bytes of a picture or a mask come from."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from camlab.errors import UserError
from camlab.storage.files import write_atomically
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
        return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

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
        file: The picture's own file, where the column has its path.
    """

    rows: Any
    column: str
    row: int
    name: str
    stamped: Stamp
    file: PictureFile | None = None

    @property
    def id(self) -> str:
        return f"{self.name}, row {self.row} of {self.column}"

    def stamp(self) -> Stamp:
        if self.file is None:
            return self.stamped
        return Stamp(*map(sum, zip(self.stamped, self.file.stamp(), strict=True)))  # either may have changed

    def read(self) -> bytes:
        value = self.rows[self.row][self.column]
        if value is None:
            raise OSError(0, "there is no picture", self.id)
        content: bytes | None = value["bytes"]
        return PictureFile(Path(value["path"])).read() if content is None else content


def written(source: Source, folder: Path, number: int) -> Path:
    """Write the bytes of a picture to a file.

    Args:
        source: The picture.
        folder: Folder of the file, which is created if it does not exist.
        number: Number in the name of the file.

    Raises:
        UserError: The picture cannot be read.
    """
    try:
        content = source.read()
    except OSError as error:
        raise UserError(f"{source.id} cannot be read ({error.strerror or error}).") from error
    try:
        with Image.open(io.BytesIO(content)) as picture:
            ending = str(picture.format).lower()
    except Exception:  # who reads the file will say what is wrong
        ending = "bin"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:05}.{ending}"
    write_atomically(path, content, durable=False)
    return path
