"""Which settings decide the result of a run, and their hash. Imports neither torch nor Lightning."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from camlab.errors import UserError
from camlab.models.backbones import PRETRAINED
from camlab.runs.watchers import DRAWING
from camlab.storage.files import sha256, user_path
from camlab.training.changes import OF_THE_PLACE, WEIGHTS_CHECKSUM

# Settings that do not change the result of a run: paths, loggers, and how it is started. `callbacks` is among them,
# because `config_hash` treats callbacks separately: all but those that draw may change the result.
INDECISIVE = frozenset(
    ["paths", "logger", "callbacks", "resume", "force", "cache", "run_name", "sweep", "launcher", "checkpoint_every"]
)


def config_hash(config: DictConfig) -> str:
    """Hash of the settings that decide the result of a run, 16 hex digits.

    Settings in `INDECISIVE` do not count, except for callbacks that take part in training. A weights file counts by its
    content.
    """
    decisive = decisive_settings(config)
    callbacks = (decisive.pop("callbacks", None) or {}).values()
    decisive["data"] = {key: value for key, value in decisive["data"].items() if key not in OF_THE_PLACE}
    if weights := _weights_file(decisive):
        decisive["arch"] = {**decisive["arch"], "weights": _content(weights)}
    if taking_part := [node for node in callbacks if node and node.get("_target_") not in DRAWING.values()]:
        decisive["callbacks"] = taking_part  # they may change the weights, as SWA does, or what is measured
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def decisive_settings(config: DictConfig) -> dict[str, Any]:
    """Return the settings that decide the result of a run, and its callbacks, as plain values in nested sections."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    data = plain.get("data")
    if isinstance(data, dict) and data.get("shortcut") is None:  # the others then have no effect
        plain["data"] = {key: value for key, value in data.items() if not str(key).startswith("shortcut")}
    return {str(key): value for key, value in plain.items() if key == "callbacks" or key not in INDECISIVE}


def recorded_settings(config: DictConfig) -> dict[str, Any]:
    """Return the decisive settings as checkpoints record them: with the checksum of a weights file, which may move."""
    decisive = decisive_settings(config)
    if weights := _weights_file(decisive):
        decisive["arch"] = {**decisive["arch"], WEIGHTS_CHECKSUM.removeprefix("arch."): _content(weights)}
    return decisive


def _weights_file(settings: dict[str, Any]) -> str | None:
    arch = settings.get("arch")
    weights = arch.get("weights") if isinstance(arch, dict) else None
    return weights if isinstance(weights, str) and weights not in PRETRAINED else None


def _content(file: str) -> str:
    """Checksum of a weights file; its name if it cannot be read, which is reported elsewhere."""
    try:
        path = user_path(file, "arch.weights")
        status = path.stat()
        return _checksum(path, status.st_size, status.st_mtime_ns) if path.is_file() else file
    except (OSError, UserError):
        return file


@functools.lru_cache
def _checksum(path: Path, size: int, changed_ns: int) -> str:
    """Checksum of a file, computed again only if its size or modification time has changed."""
    return sha256(path)
