"""Arrays on disk, found by the hash of what they were computed from."""

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camlab.errors import UserError
from camlab.storage.files import leftovers, open_atomically, remove_leftovers, sha256, write_atomically
from camlab.storage.locks import Locked, locked

log = logging.getLogger(__name__)


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

    Args:
        folder: Folder of the arrays; it is created when the first one is needed.
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
            compute: Function that yields the array's rows in order, float32, any number of them at a time.
            about: One line that describes the array to a person.

        Returns:
            A copy-on-write memory map, float32: processes share its pages.

        Raises:
            UserError: The folder cannot be written, or its disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self._lock(key), notice="Another process is computing these features; waiting for it."):
                if (array := self._whole(key, shape)) is None:
                    self._write(key, shape, compute(), about)
                    array = np.load(self._array(key), mmap_mode="c")
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
        """All files that belong to a key."""
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
        entry, path = self._entry(key), self._array(key)
        if entry is not None and sha256(path) == entry.sha256:
            with suppress(ValueError):
                array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
                if array.shape == shape and array.dtype == np.float32:
                    return array
        if path.exists():
            log.warning("%s is damaged: computing it again.", path)
        return None

    def _write(self, key: str, shape: tuple[int, ...], parts: Iterable[np.ndarray], about: str) -> None:
        array, marker = self._array(key), self.folder / f"{key}.json"
        marker.unlink(missing_ok=True)
        remove_leftovers(self.folder, array.name)
        with open_atomically(array) as file:
            header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype="<f4").data)
        entry = Entry(key, about, array.stat().st_size, sha256(array))
        write_atomically(marker, json.dumps(asdict(entry), indent=2) + "\n")  # from now on the array counts as complete
