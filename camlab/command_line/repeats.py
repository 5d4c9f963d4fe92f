"""Jobs of a sweep of `evaluate` or `explain`: given again, the same command skips those that are finished.

`camlab.train` does this for training runs, which also continue in the middle.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from camlab.errors import plain
from camlab.runs import ownership, run_folder
from camlab.storage.files import write_atomically

log = logging.getLogger(__name__)

RESULTS = {"evaluate": "evaluation.json", "explain": "explain.json"}  # by command
_NOTES = ".job.json"  # in the job's folder: its settings, and whether it is finished


def run_once(job: Callable[[DictConfig], Any], config: DictConfig, command: str, folder: Path) -> Any:
    """Run a job of a sweep, unless the same job has finished in this folder. A job that failed is run again.

    Args:
        job: The job.
        config: Its checked configuration.
        command: `evaluate` or `explain`.
        folder: Its output folder.

    Returns:
        The value of the job or, if it is skipped, the value that it returned before.

    Raises:
        UserError: The folder is not empty, and another job or none has written into it.
    """
    ownership.check_places([folder])
    notes = run_folder.read_object(folder / _NOTES) or {}
    own = {"settings": _settings_hash(config)}
    if notes.get("settings") != own["settings"]:
        ownership.check_unused(folder)
    elif notes.get("finished") is True and (folder / RESULTS[command]).is_file():
        log.info("%s is finished; skipped. To repeat it, remove that folder.", plain(str(folder)))
        return notes.get("value")
    _write(folder, {**own, "finished": False})
    (folder / run_folder.FAILURE).unlink(missing_ok=True)
    value = job(config)
    _write(folder, {**own, "finished": True, "value": value})
    return value


def _write(folder: Path, notes: dict[str, Any]) -> None:
    write_atomically(folder / _NOTES, json.dumps(notes) + "\n")


def _settings_hash(config: DictConfig) -> str:
    """Hash of a job's settings, and of the folder in which their relative paths begin."""
    settings: Any = OmegaConf.to_container(config, resolve=True)
    del settings["paths"]
    return hashlib.sha256(json.dumps([settings, str(Path.cwd())], sort_keys=True).encode()).hexdigest()
