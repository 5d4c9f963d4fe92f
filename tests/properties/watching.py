"""What a command does to its surroundings: processes, connections, and changes in the file tree."""

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STARTS = frozenset(["subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"])
CONNECTS = frozenset(
    ["socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"]
)
CHANGES = frozenset(
    [
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "shutil.rmtree",
    ]
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Event:
    """An audit event of Python: its name, and what it was about."""

    name: str
    about: str


def record_events(file: Path) -> None:
    """Write every start of a process, connection and change of files to a file, from now on in this process."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name in STARTS or name in CONNECTS or name in CHANGES or (name == "open" and _writes(arguments)):
            about = repr(arguments) if name in STARTS | CONNECTS else os.path.abspath(_text(arguments[0]))
            os.write(descriptor, (json.dumps(asdict(Event(name, about))) + "\n").encode())

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    return isinstance(path, (str, bytes)) and isinstance(flags, int) and bool(flags & _WRITING)


def _text(path: Any) -> str:
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else repr(path)


@dataclass(frozen=True)
class Entry:
    """What a name in the file tree stands for. The system notes a time with every change, and nobody can set it back."""

    mode: int
    inode: int
    size: int
    modified: int
    changed: int

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


Tree = dict[str, Entry]


def snapshot(root: Path) -> Tree:
    """All names below a folder; links are not followed."""
    return {str(path.relative_to(root)): _entry(path.lstat()) for path in _walk(root)}


def _walk(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        for name in (*below, *files):
            yield Path(folder, name)


def _entry(about: os.stat_result) -> Entry:
    size = 0 if stat.S_ISDIR(about.st_mode) else about.st_size
    return Entry(about.st_mode, about.st_ino, size, about.st_mtime_ns, about.st_ctime_ns)


def changes(before: Tree, after: Tree, allowed: Iterable[str]) -> list[str]:
    """What was created, changed or deleted outside of the allowed folders.

    The time of a folder that holds an allowed one may change, since the allowed one may be new.
    """
    allowed = [name.rstrip("/") for name in allowed]
    told = []
    for name in sorted(before.keys() | after.keys()):
        if any(name == folder or name.startswith(f"{folder}/") for folder in allowed):
            continue
        one, other = before.get(name), after.get(name)
        if one and other and one.is_folder and other.is_folder and any(f.startswith(f"{name}/") for f in allowed):
            continue
        if one != other:
            told.append(f"{name} was {'created' if one is None else 'deleted' if other is None else 'changed'}")
    return told
