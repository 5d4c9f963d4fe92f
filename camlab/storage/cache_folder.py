"""Folders of camlab's caches: they are marked, so that nothing in any other folder is removed or mixed up with them."""

import shutil
from pathlib import Path

from camlab.errors import UserError
from camlab.storage.files import read_text, write_atomically

TAG = "CACHEDIR.TAG"  # marks a folder as a cache, for backup programs too (https://bford.info/cachedir/)
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of camlab's."


WAY_OUT = "Give another place with paths.cache=FOLDER, or cache=false."


def mark(folder: Path, way_out: str = WAY_OUT) -> None:
    """Create a folder and mark it as a cache of camlab's; several processes may do so at the same time.

    Args:
        folder: The folder.
        way_out: What the user can do if the folder cannot be used, for the message.

    Raises:
        UserError: The folder holds other files.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_marked(folder):
        return
    others = [path for path in folder.iterdir() if TAG not in path.name]
    if others and not is_marked(folder):  # another process may have marked it since
        raise UserError(
            f"{folder} holds files that are not camlab's, such as {min(others).name}; nothing was changed. {way_out}"
        )
    write_atomically(folder / TAG, f"{_SIGNATURE}\n")


def is_marked(folder: Path) -> bool:
    """Whether a folder is a cache of camlab's."""
    try:
        return read_text(folder / TAG).startswith(_SIGNATURE)
    except (OSError, ValueError):
        return False


def check_marked(folder: Path) -> None:
    """Refuse to remove anything from a folder that is not marked; it need not exist.

    Raises:
        UserError: The folder exists and is not marked.
    """
    if folder.exists() and not is_marked(folder):
        raise UserError(f"{folder}: not a cache of camlab (it has no {TAG} from camlab); nothing was removed.")


def size_text(num_bytes: int) -> str:
    """A size in words, in MB below 1 GB.

    Example:
        >>> size_text(2_340_000_000), size_text(1_500_000), size_text(40_000)
        ('2.34 GB', '1.5 MB', '0.04 MB')
    """
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.2f} GB"
    return f"{num_bytes / 1e6:.{1 if num_bytes >= 1e5 else 2}f} MB"


def free_disk(folder: Path) -> int:
    """Free space on the disk of a folder, in bytes; the folder need not exist."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
