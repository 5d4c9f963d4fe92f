"""Show the page inside a notebook, in a frame that is separated from the rest of it."""

import html
import os
from dataclasses import dataclass

from camlab.errors import UserError
from camlab.storage.files import user_path
from camlab.viewer.html import page_about

_MEGABYTES = 16.0  # the notebook's file grows by this much at most
_ALLOWED = "allow-scripts allow-downloads allow-modals"  # no access to the notebook, its cookies or its server


@dataclass(frozen=True)
class Frame:
    """A page that a notebook shows in a sandboxed frame; it also lasts in the notebook's file and its HTML export.

    Attributes:
        page: The page, a whole HTML document.
        height: Height of the frame in pixels.
    """

    page: str
    height: int

    def __repr__(self) -> str:
        return f"a page of heatmaps ({len(self.page) / 1e6:.1f} MB), which notebooks show"

    def _repr_html_(self) -> str:
        """The frame as Jupyter, VS Code and Colab show it."""
        return (
            f'<iframe title="Heatmaps" sandbox="{_ALLOWED}" width="100%" height="{self.height}"'
            f' style="border:0" srcdoc="{html.escape(self.page)}"></iframe>'
        )


def browse(
    run: str | os.PathLike[str], *others: str | os.PathLike[str], height: int = 800, max_mb: float = _MEGABYTES
) -> Frame:
    """Browse heatmaps in a notebook: every epoch, class and method. Put the call at the end of a cell.

    Args:
        run: Folder of a run, of `camlab.explain` or of `camlab.score`, or a folder that holds some.
        *others: More of them, which are shown side by side.
        height: Height of the frame in pixels, 200 to 4000.
        max_mb: Largest size of the page in megabytes, 1 to 500, by which the notebook's file grows; of more, epochs are
            left out evenly.

    Raises:
        UserError: There are no heatmaps, they are damaged, or they do not fit; or an argument makes no sense.

    Example:
        >>> import camlab
        >>> camlab.browse("missing")
        Traceback (most recent call last):
        camlab.errors.UserError: missing: no such folder. Give the folder of a run, camlab.explain or camlab.score.
    """
    for name, number in (("height", height), ("max_mb", max_mb)):
        if not isinstance(number, (int, float)):
            raise UserError(f"{name}: got {type(number).__name__}, but a number is needed.")
    for folder in (run, *others):
        if not isinstance(folder, (str, os.PathLike)):
            raise UserError(f"run: got {type(folder).__name__}, but the path of a folder is needed.")
    if not 200 <= height <= 4000:
        raise UserError(f"height={height}: must be a number of pixels from 200 to 4000.")
    if not 1 <= max_mb <= 500:
        raise UserError(f"max_mb={max_mb}: must be a number from 1 to 500.")
    folders = [user_path(os.fspath(folder), "run") for folder in (run, *others)]
    return Frame(page_about(folders, max_mb), int(height))
