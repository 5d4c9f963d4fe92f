"""Arrays on disk, found by the hash of what they were computed from."""

import hashlib
import io
import json
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from camlab.errors import UserError
from camlab.storage.files import leftovers, open_atomically, remove_leftovers, sha256, write_atomically
from camlab.storage.locks import Locked, locked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Description of a complete array, kept beside it as `KEY.json`.

    Attributes:
        key: Key of the array, which is in `KEY.npy`.
        about: One line that tells a person what the array is.
        num_bytes: Size of the .npy file.
        sha256: Checksum of the .npy file.
    """

    key: str
    about: str
    num_bytes: int
    sha256: str


class ArrayStore:
    """A folder of float32 arrays, safe against crashes, corruption and concurrent processes.

    Args:
        folder: Folder of the arrays; it is made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        return self._entry(key) is not None

    def get(
        self, key: str, shape: tuple[int, ...], compute: Callable[[], Iterable[np.ndarray]], about: str
    ) -> np.ndarray:
        """Return the array of a key; compute it if it is missing or damaged.

        Of several processes that ask for the same key at once, one computes it and the others wait.

        Args:
            key: Hash of everything that the array depends on.
            shape: Shape of the whole array.
            compute: Yields the array's rows in order, float32, any number at a time.
            about: One line for `entries`.

        Returns:
            The array in memory, float32. A map of the file would end the process by SIGBUS where the file is cut short
            later.

        Raises:
            UserError: The folder cannot be written, or its disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self._lock(key), notice="Another process computes these features: waiting for it."):
                if (array := self._whole(key, shape)) is None:
                    self._write(key, shape, compute(), about)
                    if (array := self._whole(key, shape)) is None:
                        raise UserError(f"{self._array(key)} was damaged while it was written. Give the command again.")
                return array
        except OSError as error:
            raise UserError(
                f"{self.folder}: {error.strerror or error}. Give another place with paths.cache=FOLDER, or cache=false."
            ) from error

    def entries(self) -> list[Entry]:
        """All complete arrays, the largest first."""
        found = (self._entry(file.stem) for file in self.folder.glob("*.json"))
        return sorted((entry for entry in found if entry), key=lambda entry: -entry.num_bytes)

    def clear(self) -> int:
        """Remove all arrays, incomplete ones too, except those that are being written.

        A process that reads an array can go on reading it.

        Returns:
            Number of bytes that became free.
        """
        freed = 0
        for key in {file.name.lstrip(".").partition(".")[0] for file in self._files("*")}:
            with suppress(Locked), locked(self._lock(key), wait=False):
                for file in self._files(key):
                    freed += file.stat().st_size
                    file.unlink()
        return freed

    def _files(self, key: str) -> list[Path]:
        """All that stands in the folder for a key."""
        kept = [file for ending in ("npy", "json", "lock") for file in self.folder.glob(f"{key}.{ending}")]
        return [*kept, *leftovers(self.folder, f"{key}.npy"), *leftovers(self.folder, f"{key}.json")]

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _array(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _entry(self, key: str) -> Entry | None:
        try:
            entry = Entry(**json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8")))
            return entry if self._array(key).stat().st_size == entry.num_bytes else None
        except (OSError, ValueError, TypeError):
            return None

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

    def _write(self, key: str, shape: tuple[int, ...], parts: Iterable[np.ndarray], about: str) -> None:
        array, marker = self._array(key), self.folder / f"{key}.json"
        marker.unlink(missing_ok=True)
        remove_leftovers(self.folder, array.name)
        with open_atomically(array) as file:
            file.write(_header(shape))
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype="<f4").data)
        entry = Entry(key, about, array.stat().st_size, sha256(array))
        write_atomically(marker, json.dumps(asdict(entry), indent=2) + "\n")  # the array counts from now on


def _header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of the .npy file of a float32 array; their number is a multiple of 64."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()
