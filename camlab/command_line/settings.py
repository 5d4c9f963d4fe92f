"""The check of a composed configuration, made from its text alone. Imports no torch, no Lightning."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from camlab.command_line.commands import COMMANDS
from camlab.command_line.output import print_error
from camlab.command_line.refusals import check_section, shown
from camlab.command_line.run_data import with_data_of_run
from camlab.command_line.sections import SECTIONS, WEIGHT_ENDINGS
from camlab.errors import UserError
from camlab.models.backbones import check_image_size
from camlab.runs import run_folder

# Settings that do not change a run's result: paths, loggers, callbacks, how it is started.
INDECISIVE = frozenset(
    ["paths", "logger", "callbacks", "resume", "force", "cache", "run_name", "sweep", "launcher", "checkpoint_every"]
)
_ALWAYS_BUILT = ("arch", "data", "trainer", "optimizer")


class CheckBeforeRun(Callback):
    """Refuse a bad configuration before Hydra makes a folder for it, or writes into another run's folder.

    Args:
        entry: `train`, `evaluate`, `explain` or `cache`.
    """

    def __init__(self, entry: str) -> None:
        self.entry = entry

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        plain = config.copy()
        OmegaConf.set_struct(plain, False)
        plain.pop("hydra")
        try:
            plain = checked(plain, self.entry)
            folder = Path(config.hydra.run.dir)
            if self.entry in ("evaluate", "explain"):
                run_folder.check_unused(folder)
            if self.entry == "train" and plain.resume in (None, "auto") and not plain.force:
                run_folder.check_same_run(folder, config_hash(plain))
        except UserError as error:
            # Hydra turns exceptions of callbacks into warnings, but not this one; a single run ends here anyway.
            print_error(str(error))
            sys.exit(2)


def checked(config: DictConfig, entry: str) -> DictConfig:
    """Complete and validate a composed configuration.

    Args:
        config: Without Hydra's own part.
        entry: `train`, `evaluate`, `explain` or `cache`.

    Returns:
        The configuration; for `evaluate` with the data settings of the checkpoint's run.

    Raises:
        UserError: Names the setting, what was given and what is allowed.
    """
    if entry == "evaluate":
        config = with_data_of_run(config)
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
        missing = sorted(OmegaConf.missing_keys(config))
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    if missing:
        raise UserError(f"{missing[0]} is required. Give {missing[0]}=VALUE.")
    _check_files(plain)
    check_section("", plain, COMMANDS[entry])
    _check_targets(plain)
    for path, section in _sections(plain):
        if not isinstance(section.get("_partial_", False), bool):
            raise UserError(f"{path}._partial_={shown(section['_partial_'])}: must be true or false.")
        if schema := SECTIONS.get(section["_target_"]):
            check_section(path, section, schema)
    if entry == "train":
        _check_image_size(plain)
    return config


def config_hash(config: DictConfig) -> str:
    """16 hex digits of what decides a run's outcome: all but where things lie, who watches and how it resumes."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    decisive = {key: value for key, value in plain.items() if key not in INDECISIVE}
    decisive["data"] = {k: v for k, v in plain["data"].items() if k not in ("root", "placement", "num_workers")}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _sections(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All sections that name a class, with their dotted names."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node
        for key, child in node.items():
            yield from _sections(child, f"{path}.{key}" if path else str(key))


def _check_targets(plain: dict[str, Any]) -> None:
    """Refuse a section that names no class to build; only loggers, callbacks and the scheduler can be left out."""
    needed = {key: plain[key] for key in _ALWAYS_BUILT if key in plain}
    for group in ("logger", "callbacks"):
        if not isinstance(nodes := plain.get(group) or {}, dict):
            raise UserError(f"{group}={shown(nodes)}: unknown option. --help lists the options of {group}.")
        needed |= {f"{group}.{key}": node for key, node in nodes.items() if node is not None}
    if plain.get("scheduler") is not None:
        needed["scheduler"] = plain["scheduler"]
    for key, node in needed.items():
        if not (isinstance(node, dict) and isinstance(node.get("_target_"), str)):
            raise UserError(f"{key}={shown(node)}: must be a section that names its class: {key}._target_=CLASS.")


def _check_image_size(plain: dict[str, Any]) -> None:
    """Refuse images that are too small for the network; data and networks of the user's own are left to themselves."""
    arch, data = plain["arch"], plain["data"]
    if {arch["_target_"], data["_target_"]} <= SECTIONS.keys():
        check_image_size(arch["backbone"], arch["keep_last_pool"], data["image_size"])


def _check_files(plain: dict[str, Any]) -> None:
    """Refuse names of files that are not there, before anything is loaded."""
    arch = plain.get("arch")
    weights = arch.get("weights") if isinstance(arch, dict) else None
    if isinstance(weights, str) and weights != "imagenet":
        path = Path(weights).expanduser()
        if path.suffix not in WEIGHT_ENDINGS or not path.is_file():
            wrong = "no such file" if path.suffix in WEIGHT_ENDINGS else f"does not end in {', '.join(WEIGHT_ENDINGS)}"
            raise UserError(f"arch.weights={weights}: {wrong}. Give imagenet, a weights file, or null for none.")
    for key, words in (("resume", ("auto", "last")), ("checkpoint", ())):
        value = plain.get(key)
        if isinstance(value, str) and value not in words and not Path(value).expanduser().exists():
            others = "".join(f"{word}, " for word in words)
            raise UserError(f"{key}={value}: no such file or folder. Give {others}a .ckpt file or a run's folder.")
