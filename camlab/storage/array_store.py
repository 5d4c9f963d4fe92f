"""Arrays on disk by the hash of what they come from: computed once, whole or not there, shared by processes."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from camlab.errors import UserError
from camlab.storage.files import sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What stands beside an array, as `KEY.json`, once it is whole.

    Attributes:
        key: of the array, which is in `KEY.npy`.
        about: what it is, for a person.
        num_bytes: of the .npy file.
        sha256: of the .npy file.
    """

    key: str
    about: str
    num_bytes: int
    sha256: str


class ArrayStore:
    """A folder of float32 arrays that survive crashes, damage and company.

    Args:
        folder: made when the first array is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        return self._entry(key) is not None

    def get(
        self, key: str, shape: tuple[int, ...], compute: Callable[[], Iterable[np.ndarray]], about: str
    ) -> np.ndarray:
        """The array of a key, computed if it is not there or damaged; of several processes one computes, others wait.

        Args:
            key: a hash of everything that the array depends on.
            shape: of the whole array.
            compute: yields its rows in order, float32, some at a time.
            about: one line for `entries`.

        Returns:
            A copy-on-write memory map, float32: processes share its pages.

        Raises:
            UserError: the folder cannot be written, or its disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(key):
                if (array := self._whole(key, shape)) is None:
                    self._write(key, shape, compute(), about)
                    array = np.load(self._array(key), mmap_mode="c")
                return array
        except OSError as error:
            raise UserError(
                f"{self.folder}: {error.strerror or error}. Give another place with paths.cache=FOLDER, or cache=false."
            ) from error

    def entries(self) -> list[Entry]:
        """All whole arrays, the largest first."""
        found = (self._entry(file.stem) for file in self.folder.glob("*.json"))
        return sorted((entry for entry in found if entry), key=lambda entry: -entry.num_bytes)

    def clear(self) -> int:
        """Remove all arrays, half-written ones too, but for those being written; whoever reads one keeps it.

        Returns:
            Bytes that became free.
        """
        freed = 0
        for key in {
            file.stem for ending in ("json", "npy", "part", "lock") for file in self.folder.glob(f"*.{ending}")
        }:
            with suppress(Timeout), FileLock(self.folder / f"{key}.lock", timeout=0):
                for file in self.folder.glob(f"{key}.*"):
                    freed += file.stat().st_size
                    file.unlink()
        return freed

    def _array(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _entry(self, key: str) -> Entry | None:
        try:
            entry = Entry(**json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8")))
            return entry if self._array(key).stat().st_size == entry.num_bytes else None
        except (OSError, ValueError, TypeError):
            return None

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        lock = FileLock(self.folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("Another process computes these features: waiting for it.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _whole(self, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The array, if it is there and what was written; what is no array of numbers is not looked into further."""
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
        partial, marker = self.folder / f"{key}.part", self.folder / f"{key}.json"
        marker.unlink(missing_ok=True)
        try:
            with open(partial, "wb") as file:
                header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for part in parts:
                    file.write(np.ascontiguousarray(part, dtype="<f4").data)
                file.flush()
                os.fsync(file.fileno())
            entry = Entry(key, about, partial.stat().st_size, sha256(partial))
            os.replace(partial, self._array(key))
            partial.write_text(json.dumps(asdict(entry), indent=2) + "\n", encoding="utf-8")
            os.replace(partial, marker)  # only now is it there
        finally:
            partial.unlink(missing_ok=True)
