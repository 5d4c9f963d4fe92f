"""Find the folders that the viewer can show, and read each as its kind asks: runs, folders of `explain` and `score`."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.viewer.content import RunContent
from camlab.viewer.explain_content import is_explained, read_explained
from camlab.viewer.run_content import has_epochs, read_content
from camlab.viewer.score_content import ABOUT, is_scored, read_scored
from camlab.viewer.score_content import MAPS as SCORED_MAPS

log = logging.getLogger(__name__)

_GIVE = "Give the folder of a run, camlab.explain or camlab.score."
_NOT_SEARCHED = frozenset(["checkpoints", "wandb", "tensorboard", "overlays"])


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        is_in: Whether a folder is of this kind.
        read: Function that reads such a folder.
    """

    is_in: Callable[[Path], bool]
    read: Callable[[Path], RunContent]


def _is_run(folder: Path) -> bool:
    return has_epochs(folder) or has_epochs(folder / run_folder.HEATMAPS)


KINDS = (
    Kind(_is_run, read_content),
    Kind(is_explained, read_explained),
    Kind(is_scored, read_scored),
)  # a further kind needs its line here only


def find_sources(folder: Path) -> list[Path]:
    """Find the folders with heatmaps: the given one, the one whose `heatmaps/` it is, or those below it.

    If there are runs below it, folders of another kind are left out, and a line says so.

    Raises:
        UserError: There are none.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder. {_GIVE}")
    if _kind(folder):
        is_inner = folder.absolute().name == run_folder.HEATMAPS and has_epochs(folder)
        return [folder.absolute().parent if is_inner else folder]
    found = []
    for place, below, _ in os.walk(folder):
        below[:] = sorted(name for name in below if name not in _NOT_SEARCHED and name[0] != ".")
        if _kind(Path(place)):
            found.append(Path(place))
            below.clear()
    if not found:
        raise _no_heatmaps(folder)
    return _alike(folder, found)


def _alike(folder: Path, found: list[Path]) -> list[Path]:
    """The runs among the folders found, because others cannot share a page with them; all if none is a run."""
    runs = [place for place in found if _is_run(place)]
    others = [place for place in found if place not in runs]
    if not runs or not others:
        return found
    count = f"{len(others)} folders" if len(others) > 1 else "1 folder"
    log.warning(
        "%s: %s without epochs left out, such as %s: they cannot share a page with runs, but can be given alone.",
        folder, count, others[0].relative_to(folder),
    )  # fmt: skip
    return runs


def read_source(folder: Path) -> RunContent:
    """Read a folder that `find_sources` has found.

    Raises:
        UserError: It holds no heatmaps, or a file is damaged, of another format, or missing.
    """
    if kind := _kind(folder):
        return kind.read(folder)
    raise _no_heatmaps(folder)


def holds_heatmaps(folder: Path) -> bool:
    """Whether a folder, without those below it, is one that can be shown."""
    return _kind(folder) is not None


def _kind(folder: Path) -> Kind | None:
    return next((kind for kind in KINDS if kind.is_in(folder)), None)


def _no_heatmaps(folder: Path) -> UserError:
    if (folder / SCORED_MAPS).is_file() and not (folder / ABOUT).is_file():
        return UserError(f"{folder}: this scoring has not ended. Give the command camlab.score again.")
    if (folder / ABOUT).is_file():
        return UserError(
            f"{folder}: there are scores, but no heatmaps (maps=0, or an older camlab). Give the command camlab.score"
            " again with maps=24 (in a sweep with force=true)."
        )
    return UserError(
        f"{folder}: no heatmaps there (heatmaps/epoch_NNNN/maps.npz, or maps.npz beside explain.json). {_GIVE}"
    )
