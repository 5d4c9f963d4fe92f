"""Data settings of a run, for the commands that evaluate, explain or score its checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from camlab.command_line.conf import conf_dir, options_of
from camlab.command_line.refusals import settings_of, shown
from camlab.command_line.sections import SECTIONS
from camlab.errors import UserError
from camlab.models.backbones import LARGEST_IMAGE_SIZE
from camlab.runs import run_folder
from camlab.runs.data_identity import data_root
from camlab.storage.files import user_path

_OF_ITS_MACHINE = ("placement", "num_workers", "cache")  # settings that do not change results; the machine decides
_OF_TRAINING = (
    "augment",
    "augment_views",
)  # settings without an effect on an evaluation; one may be a list of sections
_PLACES = ("root", "path")
_DIVISION = ("split", "split_seed", "val_size")  # settings that decide which picture is in which split


def with_data_of_run(config: DictConfig) -> DictConfig:
    """Complete the section `data` with the settings of the run that wrote the checkpoint.

    Settings that the user gives override those of the run.

    Args:
        config: A composed configuration. Its section `data` contains only what was given on the command line. If that
            chooses a data set, the configuration is returned unchanged.

    Raises:
        UserError: The run's settings are damaged, or the checkpoint is not in a run's folder.
    """
    given = OmegaConf.select(config, "data", default=None)
    chosen = given is not None and not (isinstance(given, DictConfig) and "_target_" not in given)
    checkpoint = user_path(str(OmegaConf.select(config, "checkpoint", default="")), "checkpoint")
    if chosen or OmegaConf.is_missing(config, "checkpoint") or config.checkpoint is None or not checkpoint.exists():
        return config  # the later checks report what is missing
    settings = _data_settings(_run_of(checkpoint))
    known = settings_of(SECTIONS[settings["_target_"]])
    if "cache" in known:
        settings["cache"] = config.paths.cache
    if not any(place in (given or {}) for place in _PLACES) and "download" in known:
        settings["download"] = False  # a run's folder is not trusted to start a download, or to say where it is stored
    if given is not None and "shortcut" in given and given.shortcut is None:  # its other settings would be refused
        settings = {key: value for key, value in settings.items() if not key.startswith("shortcut_")}
    completed = config.copy()
    OmegaConf.set_struct(completed, False)
    completed.data = OmegaConf.merge(OmegaConf.create(settings), given or {})
    return completed


def is_divided_otherwise(data: Mapping[str, Any], checkpoint: Path) -> bool:
    """Whether the run that wrote a checkpoint had the same pictures, but other settings that divide them into splits.

    Args:
        data: A section `data`.
        checkpoint: The checkpoint, or the folder of its run.
    """
    try:
        settings = _data_settings(_run_of(checkpoint))
    except UserError:  # a checkpoint alone does not tell
        return False
    return data_root(settings) == data_root(data) and any(settings.get(key) != data.get(key) for key in _DIVISION)


def tolerance_of_run(checkpoint: Path) -> int | None:
    """Tolerance of the pointing game in the run that wrote a checkpoint, in pixels; None if no file there states it."""
    try:
        callbacks = run_folder.read_config(_run_of(checkpoint))["callbacks"]
        # The game had a section of its own in earlier versions.
        tolerance = callbacks["scores" if "scores" in callbacks else "pointing_game"]["tolerance"]
    except (UserError, OSError, ValueError, TypeError, KeyError):
        return None
    return tolerance if type(tolerance) is int and 0 <= tolerance <= LARGEST_IMAGE_SIZE else None


def _run_of(checkpoint: Path) -> Path:
    if folder := run_folder.folder_of(checkpoint):
        return folder
    if checkpoint.is_dir():
        raise UserError(f"checkpoint={checkpoint}: not the folder of a run. Give one that camlab.train has written.")
    raise UserError(f"checkpoint={checkpoint}: there is no {run_folder.CONFIG} of a run beside it. {_which_data()}")


def _data_settings(folder: Path) -> dict[str, Any]:
    """Read the data settings from a run's configuration, and refuse all but plain values for camlab's own data sets."""
    file = folder / run_folder.CONFIG
    if run_folder.is_config_changed(folder):
        raise UserError(f"{file} is damaged or has been changed since the run wrote it. {_which_data()}")
    try:
        data = run_folder.read_config(folder)["data"]
        settings = {str(key): value for key, value in data.items() if key not in _OF_TRAINING}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file}: the run's settings are damaged. {_which_data()}") from error
    own = {
        yaml.safe_load((conf_dir() / "data" / f"{name}.yaml").read_text())["_target_"] for name in options_of("data")
    }
    if not isinstance(target := settings.get("_target_"), str) or target not in own:
        raise UserError(f"{file}: data._target_={shown(target)} is not one of camlab's data sets. {_which_data()}")
    if strange := [key for key in settings if key[:1] == "_" and key != "_target_"]:
        raise UserError(f"{file}: data.{strange[0]} is not a setting of a data set. {_which_data()}")
    if strange := [key for key, value in settings.items() if not _is_plain(value)]:
        raise UserError(f"{file}: data.{strange[0]} is not a plain value. {_which_data()}")
    return {key: value for key, value in settings.items() if key not in _OF_ITS_MACHINE}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):  # not of lists, since nested lists could be endless
        return all(_is_word(item) for item in value)
    return value is None or _is_word(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and "${" not in value)


def _which_data() -> str:
    return f"Say which data to evaluate on: data={'|'.join(options_of('data'))}."
