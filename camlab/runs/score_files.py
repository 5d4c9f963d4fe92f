"""The files of the maps that a scoring keeps, in `heatmaps/` of its folder. Imports nothing heavy."""

import re
from contextlib import suppress
from pathlib import Path

from camlab.runs import run_folder

MAPS, PICTURES, MASKS = "maps.npz", "pictures", "masks"
_PICTURE = re.compile(r"\d{4,}\.png")


def picture_name(position: int) -> str:
    """Name of the file of a picture, and of its mask, by the picture's position among those that are scored.

    Example:
        >>> picture_name(7)
        '0007.png'
    """
    return f"{position:04d}.png"


def remove_maps(folder: Path) -> list[str]:
    """Remove the maps in the output folder of a scoring, and its page; files with other names stay.

    Returns:
        What was removed, for messages.
    """
    place, page = folder / run_folder.HEATMAPS, folder / run_folder.VIEWER
    inner = [path for name in (PICTURES, MASKS) for path in (place / name).glob("*") if _PICTURE.fullmatch(path.name)]
    files = [path for path in (place / MAPS, *inner) if path.is_file()]
    for path in files:
        path.unlink()
    for empty in (place / PICTURES, place / MASKS, place):
        with suppress(OSError):  # it also holds other files, or does not exist
            empty.rmdir()
    removed = [f"{len(files)} files in {run_folder.HEATMAPS}/"] if files else []
    if page.is_file():
        page.unlink()
        removed.append(page.name)
    return removed
