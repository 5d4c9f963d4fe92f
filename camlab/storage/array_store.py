"""Arrays on disk, found by the hash of what they were computed from."""

import hashlib
import io
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from camlab.errors import UserError
from camlab.storage.cache_folder import check_marked, is_marked, mark
from camlab.storage.documents import read_json
from camlab.storage.files import open_atomically, remove_leftovers, sha256, user_path, write_atomically
from camlab.storage.locks import Locked, locked

log = logging.getLogger(__name__)

T = TypeVar("T")
_KEPT = re.compile(r"([0-9a-f]{32})\.(npy|json|lock)|\.([0-9a-f]{32})\.(npy|json)\.[0-9a-f]{16}\.partial")


def feature_store(cache: str) -> "ArrayStore":
    """Return the store of cached features below the folder that `paths.cache` names."""
    return ArrayStore(user_path(cache, "paths.cache") / "features")


@dataclass(frozen=True)
class Entry:
    """Description of a complete array, kept beside it as `KEY.json`.

    Attributes:
        key: Key of the array, which is stored in `KEY.npy`.
        about: One line that describes the array to a person.
        num_bytes: Size of the .npy file.
        sha256: Checksum of the .npy file.
    """

    key: str
    about: str
    num_bytes: int
    sha256: str


class ArrayStore:
    """A folder of float32 arrays, safe against crashes, corruption and concurrent processes.

    Only a folder that the store has marked is used, and only files with names that the store gives are removed.

    Args:
        folder: Folder of the arrays; it is created when the first one is needed.
        way_out: What the user can do if the folder cannot be used, for messages.
    """

    def __init__(
        self, folder: Path, way_out: str = "Give another place with paths.cache=FOLDER, or cache=false."
    ) -> None:
        self.folder, self.way_out = folder, way_out

    def __contains__(self, key: str) -> bool:
        return self._entry(key) is not None

    def get(
        self, key: str, shape: tuple[int, ...], compute: Callable[[], Iterable[np.ndarray]], about: str
    ) -> np.ndarray:
        """Return the array of a key; compute it if it is missing or damaged.

        Of several processes that ask for the same key at once, one computes it and the others wait.

        Args:
            key: Hash of everything that the array depends on, 32 hex digits.
            shape: Shape of the whole array.
            compute: Function that yields the array's rows in order, float32, any number of them at a time.
            about: One line that describes the array to a person.

        Returns:
            The array in memory, float32. It is not a memory map, which would end the process by SIGBUS if the file were
            truncated later.

        Raises:
            UserError: The folder cannot be written or holds other files, or its disk is full.
        """
        return self._made(key, shape, compute, about, lambda: self._whole(key, shape))

    def rows(
        self, key: str, shape: tuple[int, ...], compute: Callable[[], Iterable[np.ndarray]], about: str
    ) -> "ArrayRows":
        """Return the array of a key as `get` does, but leave it on disk, for arrays that are larger than memory.

        Raises:
            UserError: As for `get`.
        """
        return self._made(key, shape, compute, about, lambda: self._opened(key, shape))

    def _made(
        self,
        key: str,
        shape: tuple[int, ...],
        compute: Callable[[], Iterable[np.ndarray]],
        about: str,
        find: Callable[[], T | None],
    ) -> T:
        """Return what `find` finds; where it finds nothing, compute the array before."""
        try:
            mark(self.folder, self.way_out)
            with locked(self._lock(key), notice="Another process is computing these features; waiting for it."):
                if (array := find()) is None:
                    self._write(key, shape, compute(), about)
                    if (array := find()) is None:
                        raise UserError(f"{self._array(key)} was damaged while being written. Repeat the command.")
                return array
        except OSError as error:
            raise UserError(f"{self.folder}: {error.strerror or error}. {self.way_out}") from error

    def entries(self) -> list[Entry]:
        """All complete arrays, the largest first."""
        found = map(self._entry, sorted(self._files()) if is_marked(self.folder) else ())
        return sorted((entry for entry in found if entry), key=lambda entry: -entry.num_bytes)

    def clear(self) -> int:
        """Remove all arrays, incomplete ones too, except those that are being written; other files stay.

        A process that is reading an array can continue to do so.

        Returns:
            Number of bytes that became free.

        Raises:
            UserError: The folder is not marked as a cache of camlab.
        """
        check_marked(self.folder)
        freed = 0
        for key, files in self._files().items():
            with suppress(Locked), locked(self._lock(key), wait=False):
                for file in {*files, self._lock(key)}:
                    freed += file.lstat().st_size
                    file.unlink()
        return freed

    def _files(self) -> dict[str, list[Path]]:
        """The store's files in the folder, by key: those whose names have exactly the form that the store gives."""
        found: dict[str, list[Path]] = {}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if (name := _KEPT.fullmatch(path.name)) and (path.is_symlink() or path.is_file()):
                found.setdefault(name[1] or name[3], []).append(path)
        return found

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _array(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _entry(self, key: str) -> Entry | None:
        try:
            entry = Entry(**read_json(self.folder / f"{key}.json"))
            whole = self._array(key).stat().st_size == entry.num_bytes
        except (OSError, ValueError, TypeError):
            return None
        sound = entry.key == key and all(type(getattr(entry, field.name)) is field.type for field in fields(entry))
        return entry if sound and whole else None

    def _whole(self, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The array of a key if it is complete and undamaged, else None; nothing in the file is executed."""
        entry, path, header = self._entry(key), self._array(key), _header(shape)
        num_bytes = len(header) + 4 * math.prod(shape)
        if entry is not None and entry.num_bytes == num_bytes:
            content = np.fromfile(path, np.uint8, num_bytes)
            if hashlib.sha256(content.data).hexdigest() == entry.sha256 and content[: len(header)].tobytes() == header:
                return content[len(header) :].view("<f4").reshape(shape)
        if path.exists():
            log.warning("%s is damaged: computing it again.", path)
        return None

    def _opened(self, key: str, shape: tuple[int, ...]) -> "ArrayRows | None":
        """The array of a key on disk, if it is complete and undamaged, else None."""
        entry, path, header = self._entry(key), self._array(key), _header(shape)
        if entry is not None and entry.num_bytes == len(header) + 4 * math.prod(shape) and not path.is_symlink():
            file = open(path, "rb")  # noqa: SIM115  it stays open, so that nobody can take it away
            if hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256:
                return ArrayRows(file, shape, len(header))
            file.close()
        if path.exists():
            log.warning("%s is damaged: computing it again.", path)
        return None

    def _write(self, key: str, shape: tuple[int, ...], parts: Iterable[np.ndarray], about: str) -> None:
        array, marker = self._array(key), self.folder / f"{key}.json"
        marker.unlink(missing_ok=True)
        remove_leftovers(self.folder, array.name)
        with open_atomically(array) as file:
            file.write(_header(shape))
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype="<f4").data)
        entry = Entry(key, about, array.stat().st_size, sha256(array))
        write_atomically(marker, json.dumps(asdict(entry), indent=2) + "\n")  # from now on the array counts as complete


class ArrayRows:
    """A float32 array in an open file, of which rows are read into memory.

    They are read with `pread`: a memory map would end the process by SIGBUS if the file were truncated.

    Args:
        file: The .npy file.
        shape: Shape of the array.
        start: Position of the first number in the file, in bytes.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], start: int) -> None:
        self.file, self.shape, self.start = file, shape, start

    def read(self, index: np.ndarray) -> np.ndarray:
        """Read rows of the array whose first two dimensions are flattened into one: float32 n×….

        Args:
            index: Positions of the n rows, int64.

        Raises:
            UserError: The file is shorter than it was.
        """
        rows = np.empty((len(index), *self.shape[2:]), "<f4")
        width = math.prod(self.shape[2:])  # not -1: a rank's share of a small last batch may have no rows
        row_bytes = 4 * width
        for row, position in zip(rows.reshape(len(index), width), index.tolist(), strict=True):
            if os.preadv(self.file.fileno(), [row.data], self.start + position * row_bytes) != row_bytes:
                raise UserError(f"{self.file.name} was truncated. Repeat the command, which computes it again.")
        return rows

    def __del__(self) -> None:
        self.file.close()


def _header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of the .npy file of a float32 array; their number is a multiple of 64."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()
