"""Jobs of a sweep of `evaluate`, `explain` or `score`: given again, the same command skips those that are finished.

`camlab.train` does this for training runs, which also continue in the middle.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from camlab.errors import UserError, plain
from camlab.runs import ownership, run_folder
from camlab.runs.score_files import remove_maps
from camlab.storage.files import write_atomically

log = logging.getLogger(__name__)

RESULTS = {"evaluate": "evaluation.json", "explain": "explain.json", "score": "scores.json"}  # by command
_SCORES = ("scores.json", "scores.csv", "scores.md", "curves.png", "ranking.png")
_INDECISIVE = ("paths", "force", "device", "batch_size", "maps")
_KEPT = ".scores"  # folder with the values of finished methods
_NOTES = ".job.json"  # in the job's folder: its settings, and whether it is finished


def run_once(job: Callable[[DictConfig], Any], config: DictConfig, command: str, folder: Path) -> Any:
    """Run a job of a sweep, unless the same job has finished in this folder. A job that failed is run again.

    Args:
        job: The job.
        config: Its checked configuration.
        command: `evaluate`, `explain` or `score`.
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


def check_same_job(config: DictConfig, folder: Path) -> None:
    """Refuse an output folder of `score` that holds anything but the same scores, or with `force` any other scores.

    Raises:
        UserError: The folder holds other files, other scores, or links.
    """
    ownership.check_places([folder, folder / _KEPT])
    if _is_same(config, folder) or not ownership.holds_files(folder):
        return
    if not ownership.is_of("score", folder):
        ownership.check_unused(folder)
    elif not config.force:
        raise UserError(
            f"{folder} holds scores with other settings; nothing was changed. Give another out=FOLDER, or force=true to"
            " replace them."
        )


def begin(config: DictConfig, folder: Path) -> None:
    """Note the settings of a job of `score` in its folder, and remove other scores there, which are then listed."""
    if not _is_same(config, folder) and ownership.is_of("score", folder):
        removed = [name for name in _SCORES if (folder / name).is_file()]
        for name in removed:
            (folder / name).unlink()
        removed += remove_maps(folder)
        if removed:
            log.info("%s: removed %s.", plain(str(folder)), ", ".join(removed))
    _write(folder, {"settings": _settings_hash(config), "finished": False})


def _is_same(config: DictConfig, folder: Path) -> bool:
    return (run_folder.read_object(folder / _NOTES) or {}).get("settings") == _settings_hash(config)


def score_name(*, _root_: DictConfig) -> str:
    """Name of the folder of scores: the network, the pictures, and a hash of the settings."""
    settings: Any = OmegaConf.to_container(_root_, resolve=False)
    network = settings.get("checkpoint") or settings["network"]["name"] or "score"
    words = [Path(str(part)).name for part in (network, settings.get("images") or settings["split"])]
    decisive = {key: value for key, value in settings.items() if key not in (*_INDECISIVE, "hydra")}
    code = hashlib.sha256(json.dumps([decisive, str(Path.cwd())], sort_keys=True).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._+-]+', '-', '_'.join(words)).strip('-.')[:100]}_{code}"


OmegaConf.register_new_resolver("score_name", score_name, replace=True)


def _write(folder: Path, notes: dict[str, Any]) -> None:
    write_atomically(folder / _NOTES, json.dumps(notes) + "\n")


def _settings_hash(config: DictConfig) -> str:
    """Hash of a job's settings, and of the folder in which their relative paths begin."""
    settings: Any = OmegaConf.to_container(config, resolve=True)
    for key in _INDECISIVE:
        settings.pop(key, None)
    return hashlib.sha256(json.dumps([settings, str(Path.cwd())], sort_keys=True).encode()).hexdigest()
