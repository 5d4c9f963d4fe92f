"""Write the page: its template, style and scripts, which are files in `page/`, with the data inside."""

import html
import json
import logging
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from camlab.errors import UserError, first_line
from camlab.runs import run_folder
from camlab.storage.files import write_atomically
from camlab.viewer.document import Document, make_document
from camlab.viewer.sources import find_sources, holds_heatmaps, read_source

log = logging.getLogger(__name__)

MEGABYTES = 32.0  # largest size of the file, unless another is given
MOST_RUNS = 6
_GENERATOR, _HEAD_BYTES = b'<meta name="generator" content="camlab">', 500
# In the order in which they are run; each uses the functions of those before it.
SCRIPTS = (
    "data", "heat", "state", "choice", "object", "scores", "tile", "playback", "figure", "grid", "curves", "colour_bar",
    "detail", "pointer", "controls", "keyboard", "animation", "save", "main",
)  # fmt: skip


def write_page(folders: Sequence[Path], path: Path, megabytes: float = MEGABYTES) -> int:
    """Write a page about one run or several, or folders of `explain`; a reader finds the whole file or none.

    Args:
        folders: Folders of runs or of `explain`, or folders that hold some.
        path: The HTML file; an earlier page there is replaced, and no other file.
        megabytes: Largest size of the file; epochs are left out evenly if it would be exceeded.

    Returns:
        Size of the file in bytes.

    Raises:
        UserError: There are no heatmaps, they are damaged, they cannot be shown together, or do not fit; or another
            file is in the page's place.
        OSError: The file cannot be written.
    """
    _check_place(path)
    content = page_about(folders, megabytes).encode()
    write_atomically(path, content, durable=False)
    return len(content)


def _check_place(path: Path) -> None:
    """Refuse to replace a file that is no page of camlab's."""
    if path.suffix != ".html":
        raise UserError(f"out={path}: a page's name ends in .html.")
    if path.is_symlink() or not path.is_file():  # a link is replaced, and what it leads to is left alone
        return
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if _GENERATOR not in head:
        raise UserError(f"{path} was not written by camlab.view; nothing was changed. Give another file with out=.")


def page_about(folders: Sequence[Path], megabytes: float = MEGABYTES) -> str:
    """Make the page that `write_page` writes, as text.

    Raises:
        UserError: As for `write_page`.
    """
    runs = [run for folder in folders for run in find_sources(folder)]
    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs were found, and a page shows at most {MOST_RUNS}. Give some of them.")
    return render_page(make_document([read_source(run) for run in runs], megabytes))


def write_into(folder: Path) -> Path | None:
    """Write the page about a folder into it; a failure is logged and nothing else.

    Args:
        folder: Folder of a run or of `explain`, or a folder that holds `epoch_NNNN/`.

    Returns:
        The file; None if there are no heatmaps, or the page could not be written.
    """
    if not holds_heatmaps(folder):
        return None
    path = folder / run_folder.VIEWER
    try:
        write_page([folder], path)
    except Exception as error:  # what made the heatmaps has succeeded, whatever happens here
        log.warning("%s was not written: %s", path, first_line(error))
        return None
    return path


def render_page(document: Document) -> str:
    """Put the data into the page. No text from users can end the element that it is in, because `<` is escaped."""
    about = json.dumps(document.about, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    blocks = "\n".join(
        f'<script type="text/plain" id="{name}">{block}</script>' for name, block in document.blocks.items()
    )
    scripts = "\n".join(f"<script>\n{_read(f'{name}.js')}</script>" for name in SCRIPTS)
    parts = {
        "title": html.escape(f"{document.about['title']} · heatmaps"),
        "style": _read("page.css"),
        "about": about,
        "blocks": blocks,
        "scripts": scripts,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _read("page.html"))


@cache
def _read(name: str) -> str:
    return files("camlab.viewer").joinpath("page", name).read_text(encoding="utf-8")
