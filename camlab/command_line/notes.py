"""Notes on a job in `.hydra`: its settings, Hydra's own, and what was given on the command line.

Hydra itself would write them before the job is checked, and so change the folder of a run for a job that is refused.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from camlab.runs import ownership, run_folder
from camlab.storage.files import write_atomically

_NOTES = ("config", "hydra", "overrides")


def write_notes(folder: Path, config: DictConfig) -> None:
    """Write the notes on the present job into its folder, and replace earlier ones."""
    hydra: Any = HydraConfig.instance().cfg
    notes = dict(zip(_NOTES, (config, hydra, hydra.hydra.overrides.task), strict=True))
    (folder / ownership.HYDRA).mkdir(parents=True, exist_ok=True)
    for name, content in notes.items():
        write_atomically(folder / ownership.HYDRA / f"{name}.yaml", OmegaConf.to_yaml(content), durable=False)


def new_folders(folder: Path) -> list[Path]:
    """The folders that making a folder would make: itself and those that it is in, the innermost first."""
    return [place for place in (folder.absolute(), *folder.absolute().parents) if not os.path.exists(place)]


def remove_bare(made: Sequence[Path]) -> None:
    """Remove the folders that a refused command has made, unless they hold more than its notes, its log and its lock.

    Args:
        made: The folders, the innermost first, as `new_folders` gives them.
    """
    if not made or run_folder.is_further_rank() or made[0].is_symlink():
        return
    notes = made[0] / ownership.HYDRA
    own = {notes / f"{name}.yaml" for name in _NOTES} | {made[0] / ".lock", *made[0].glob("*.log")}
    if {path for path in made[0].rglob("*") if path != notes} - own:
        return
    with suppress(OSError):
        for path in own:
            path.unlink(missing_ok=True)
        for place in (*([notes] if notes.is_dir() else []), *made):
            place.rmdir()


def write_first_notes(folder: Path, config: DictConfig) -> None:
    """Write the notes on the present job if no job has written output into its folder."""
    if not run_folder.is_further_rank() and not ownership.holds_output(folder):
        write_notes(folder, config)
