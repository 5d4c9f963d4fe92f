"""Locks between processes: one process holds the lock, the others wait or fail."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


class Locked(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, wait: bool = True, notice: str = "") -> Iterator[None]:
    """Hold a lock for the duration of a block; the system releases it if the process dies.

    Args:
        path: Lock file; it is created if it does not exist, and is not removed. A symbolic link there is replaced.
        wait: Wait while another process holds the lock, instead of raising.
        notice: Line that is logged before waiting.

    Raises:
        Locked: Another process holds the lock, and `wait` is False.
        OSError: The lock file cannot be created.

    Example:
        >>> import tempfile
        >>> with locked(Path(tempfile.mkdtemp()) / ".lock"):
        ...     print("alone")
        alone
    """
    if path.is_symlink():
        path.unlink(missing_ok=True)  # FileLock refuses a link that is created after this
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise Locked(str(path)) from None
        if notice:
            log.info("%s", notice)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
