"""Records of one length on disk, found by a hash of what they were made from: decoded pictures, and masks."""

import hashlib
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from camlab.errors import UserError
from camlab.storage.cache_folder import check_marked, is_marked, mark
from camlab.storage.documents import read_json
from camlab.storage.files import user_path, write_atomically
from camlab.storage.locks import Locked, locked

log = logging.getLogger(__name__)

FORMAT = 1  # of the files; bump it when readers have to be changed
_ENTRY = np.dtype([("key", "V32"), ("checksum", "<u4"), ("width", "<u4"), ("height", "<u4")])
_KEPT = re.compile(r"([0-9a-f]{16})\.(records|index|json|lock|files)|\.([0-9a-f]{16})\.json\.[0-9a-f]{16}\.partial")
_PARTS = 512  # buffers that are written at once; the system takes 1024
_FLUSH_BYTES = 16 << 20  # bytes that are collected before they are written and become part of the store


def pictures_folder(cache: str) -> Path:
    """Folder of the decoded pictures below the folder that `paths.cache` names."""
    return user_path(cache, "paths.cache") / "pictures"


class RecordStore:
    """A file of records that only grows, and its index. It is safe against crashes and concurrent processes.

    A record counts from the moment that its entry is in the index, which is written after the record is on the disk.
    What a killed process has written is kept up to its last complete entry; the rest is overwritten.

    Records are read with `pread` and not through a memory map, which would end the process by SIGBUS if the file were
    truncated; both read from the system's cache of the file, so that memory stays bounded. When a record is read for
    the first time, its checksum is tested.

    Args:
        folder: Folder of the stores; it is created when something is added.
        spec: What records depend on besides their keys; it is in the name of the files.
        record_bytes: Length of a record.
        about: One line that describes the store to a person.
    """

    def __init__(self, folder: Path, spec: Mapping[str, Any], record_bytes: int, about: str) -> None:
        self.folder, self.record_bytes, self.about = folder, record_bytes, about
        self.id = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
        self._rows: dict[bytes, int] = {}
        self._index = np.empty(0, _ENTRY)
        self._waiting: dict[bytes, tuple[bytes, tuple[int, int]]] = {}
        self._seen = np.empty(0, bool)
        self._descriptor: int | None = None

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows or key in self._waiting

    def row(self, key: bytes) -> int:
        """Position of the record of a key, which must be in the store and written."""
        return self._rows[key]

    def size(self, key: bytes) -> tuple[int, int]:
        """Width and height that were given with the record of a key."""
        if (waiting := self._waiting.get(key)) is not None:  # another thread may write it in the meantime
            return waiting[1]
        entry = self._index[self._rows[key]]
        return int(entry["width"]), int(entry["height"])

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Widths and heights that were given with some records, int64, N×2."""
        entries = self._index[rows]
        return np.stack([entries["width"], entries["height"]], axis=1).astype(np.int64)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the store's lock, so that `add` may be called; what was added is written when the block ends or fails.

        Raises:
            UserError: The folder cannot be written or holds other files, its disk is full, or the store was written by
                another version of camlab.
        """
        with ExitStack() as stack:
            with self._telling():
                mark(self.folder, "Give another place with paths.cache=FOLDER.")
                notice = "Another process is decoding pictures; waiting for it."
                stack.enter_context(locked(self._path("lock"), notice=notice))
                self._load()
            try:
                yield
            finally:
                self.flush()
            self._open()  # while the lock is held, so that nobody can remove the file before

    def add(self, key: bytes, record: bytes, size: tuple[int, int]) -> None:
        """Add a record, within `filling`.

        Args:
            key: Hash of what the record was made from, 32 bytes.
            record: The record, `record_bytes` long.
            size: Width and height of the original.
        """
        assert len(record) == self.record_bytes
        if key not in self:
            self._waiting[key] = record, size
        if len(self._waiting) * self.record_bytes >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if not self._waiting:
            return
        with self._telling():
            records = [record for record, _ in self._waiting.values()]
            entries = np.empty(len(records), _ENTRY)
            for i, (key, (record, size)) in enumerate(self._waiting.items()):
                entries[i] = (key, zlib.crc32(record), *size)
            _write_at(self._path("records"), len(self._index) * self.record_bytes, records)
            _write_at(self._path("index"), self._index.nbytes, [entries.tobytes()])
        start = len(self._index)
        self._index = np.concatenate([self._index, entries])
        self._rows.update((key, start + i) for i, key in enumerate(self._waiting))
        self._waiting.clear()

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Read records.

        Args:
            rows: Positions of the N records, int64.
            out: Array that gets them, uint8 N×`record_bytes`.

        Raises:
            UserError: A record is damaged. All that are damaged are forgotten, so that the next run makes them again.
        """
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        if len(self._seen) < len(self._index):
            self._seen = np.zeros(len(self._index), bool)
        for record, row in zip(out, rows.tolist(), strict=True):
            got = os.preadv(self._descriptor, [record.data], row * self.record_bytes)
            if got != self.record_bytes or not self._is_sound(row, record):
                self._forget_damaged()

    def keys(self, rows: np.ndarray) -> bytes:
        """The keys of some rows, one after the other."""
        return self._index["key"][rows].tobytes()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _open(self) -> None:
        if len(self._index) and self._descriptor is None:
            with self._telling():
                self._descriptor = os.open(self._path("records"), os.O_RDONLY | os.O_NOFOLLOW)

    def _is_sound(self, row: int, record: np.ndarray) -> bool:
        if not self._seen[row]:
            self._seen[row] = zlib.crc32(record.data) == self._index[row]["checksum"]
        return bool(self._seen[row])

    def _forget_damaged(self) -> NoReturn:
        path, record = self._path("records"), np.empty(self.record_bytes, np.uint8)
        log.info("%s is damaged; looking for all damaged records of it.", path)
        count = 0
        with self._telling(), open(path, "rb", buffering=0) as file:
            for row, entry in enumerate(self._index):
                whole = os.preadv(file.fileno(), [record.data], row * self.record_bytes) == self.record_bytes
                if not whole or zlib.crc32(record.data) != entry["checksum"]:
                    _write_at(self._path("index"), row * _ENTRY.itemsize, [bytes(_ENTRY.itemsize)])
                    count += any(entry["key"].tobytes())  # the others are forgotten already
        pictures = "one picture" if count == 1 else f"{count:,} pictures"
        raise UserError(f"{path} was damaged: {pictures} will be decoded again. Repeat the command.")

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.id}.{ending}"

    def _load(self) -> None:
        """Read the index, up to the last entry whose record is there."""
        self._check_format()
        records, index = (_size(self._path(name)) for name in ("records", "index"))
        whole = min(records // self.record_bytes, index // _ENTRY.itemsize)
        self._index = np.fromfile(self._path("index"), _ENTRY, whole) if whole else np.empty(0, _ENTRY)
        keys, length = self._index["key"].tobytes(), _ENTRY["key"].itemsize
        self._rows = {keys[row * length : (row + 1) * length]: row for row in range(whole)}
        self._rows.pop(bytes(length), None)  # forgotten ones
        if index > self._index.nbytes:
            os.truncate(self._path("index"), self._index.nbytes)

    def _check_format(self) -> None:
        marker = self._path("json")
        wanted = {"format": FORMAT, "about": self.about, "record_bytes": self.record_bytes}
        try:
            found = read_json(marker)
        except FileNotFoundError:
            found = None
        except (OSError, ValueError):
            found = {}
        if found is None:
            for ending in ("records", "index"):  # without a marker, nobody knows what they hold
                self._path(ending).unlink(missing_ok=True)
            write_atomically(marker, json.dumps(wanted) + "\n")
        elif not isinstance(found, dict) or any(found.get(key) != wanted[key] for key in ("format", "record_bytes")):
            raise UserError(
                f"{marker}: these decoded pictures were written by another version of camlab, or are damaged."
                f" Remove them with camlab-cache action=clear 'paths.cache={self.folder.parent}', or give another place"
                " with paths.cache=FOLDER."
            )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder}: {error.strerror or error}. Give another place with paths.cache=FOLDER."
            ) from error


def stores(folder: Path) -> list[tuple[str, str, int]]:
    """List the stores in a folder, the largest first.

    Returns:
        The id of each store, a line that describes it, and the bytes that it takes.
    """
    found: list[tuple[str, str, int]] = []
    for marker in sorted(folder.glob("*.json")) if is_marked(folder) else ():
        if _KEPT.fullmatch(marker.name):
            with suppress(OSError, ValueError, TypeError, AttributeError):
                num_bytes = sum(_size(marker.with_suffix(f".{name}")) for name in ("records", "index"))
                found.append((marker.stem, str(read_json(marker).get("about")), num_bytes))
    return sorted(found, key=lambda store: -store[2])


def clear(folder: Path) -> int:
    """Remove all stores and manifests of a folder, except stores that are being filled; other files stay.

    A process that reads from a store can continue to do so.

    Returns:
        Number of bytes that became free.

    Raises:
        UserError: The folder is not marked as a cache of camlab.
    """
    check_marked(folder)
    files: dict[str, list[Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if (name := _KEPT.fullmatch(path.name)) and (path.is_symlink() or path.is_file()):
            files.setdefault(name[1] or name[3], []).append(path)
    freed = 0
    for store_id, own in files.items():
        lock = folder / f"{store_id}.lock"
        with suppress(Locked), locked(lock, wait=False):
            for file in {*own, lock}:
                freed += file.lstat().st_size
                file.unlink()
    return freed


def _size(path: Path) -> int:
    """Size of a regular file, in bytes; 0 if there is none. A symbolic link in its place is removed."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    return path.stat().st_size if path.is_file() else 0


def _write_at(path: Path, offset: int, parts: Sequence[bytes]) -> None:
    """Write at a position of a file, which is created if it does not exist, and wait until it is on the disk.

    Args:
        path: The file.
        offset: Position of the first byte.
        parts: What to write, one part after the other; joining them would hold up the threads that decode.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        for start in range(0, len(parts), _PARTS):
            left: list[bytes | memoryview] = list(parts[start : start + _PARTS])
            while left:
                done = os.pwritev(descriptor, left, offset)
                offset += done
                while left and done >= len(left[0]):
                    done -= len(left.pop(0))
                if done:
                    left[0] = memoryview(left[0])[done:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
