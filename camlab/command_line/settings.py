"""Validation of a composed configuration, without building anything. Imports neither torch nor Lightning."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from camlab.command_line import repeats
from camlab.command_line.commands import COMMANDS
from camlab.command_line.conf import PATH_KEYS
from camlab.command_line.fields import NO_PLAIN_NAME, is_plain_name
from camlab.command_line.mistakes import explain_mistake
from camlab.command_line.output import print_error
from camlab.command_line.refusals import check_section, names_files, settings_of, shown
from camlab.command_line.run_data import with_data_of_run
from camlab.command_line.run_identity import config_hash
from camlab.command_line.sections import SECTIONS, WEIGHT_ENDINGS
from camlab.data.picture_table import SPLITS
from camlab.errors import UserError, did_you_mean
from camlab.errors import plain as plain_text
from camlab.models.backbones import BACKBONES, PRETRAINED, check_image_size
from camlab.models.classifier_names import check_name
from camlab.runs import ownership
from camlab.runs.table import check_replaceable
from camlab.storage.files import user_path
from camlab.storage.pictures import find_pictures

# The name of a network of timm's contains a slash, but a run's name is the name of a folder.
OmegaConf.register_new_resolver("without_slashes", lambda name: str(name).replace("/", "-"), replace=True)
_ALWAYS_BUILT = ("arch", "data", "trainer", "optimizer")


class CheckBeforeRun(Callback):
    """Hydra callback that refuses a bad configuration before Hydra creates a folder or writes into one.

    Args:
        entry: a command, such as `train`.
    """

    def __init__(self, entry: str) -> None:
        self.entry = entry

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        plain = config.copy()
        OmegaConf.set_struct(plain, False)
        plain.pop("hydra")
        with _refusing():
            plain = checked(plain, self.entry)
            if self.entry in ("explain", "score") and plain.images is not None:
                find_pictures(str(plain.images), tell=False)
            check_folder(plain, self.entry, user_path(config.hydra.run.dir, "out"))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _refusing():
            folder = user_path(config.hydra.sweep.dir, "out")
            if self.entry == "train":
                if config.sweep is not None and not is_plain_name(config.sweep):
                    raise UserError(f"sweep={shown(config.sweep)}: {NO_PLAIN_NAME}.")
                check_replaceable(folder)
            ownership.check_sweep_folder(folder, self.entry)


@contextmanager
def _refusing() -> Iterator[None]:
    """End the process after an error. Hydra turns exceptions in callbacks into warnings, but not SystemExit."""
    try:
        yield
    except Exception as error:
        told = explain_mistake(error)
        if told is None and isinstance(error, OSError) and error.filename is not None:
            told = plain_text(f"{error.filename}: {error.strerror}.")
        print_error(told or "".join(traceback.format_exception(error)))
        sys.exit(1 if told is None else 2)


def check_folder(config: DictConfig, entry: str, folder: Path) -> None:
    """Refuse an output folder in which a job would overwrite anything but its own run.

    Raises:
        UserError: The folder holds other files or another run.
    """
    if entry in ("evaluate", "explain"):
        ownership.check_unused(folder)
    elif entry == "score":
        repeats.check_same_job(config, folder)
    elif entry == "train":
        _check_places(config, folder)
        ownership.check_run_folder(folder, config_hash(config), config.force)
        elsewhere = config.resume not in (None, "auto") and not ownership.was_started_with(folder, config.resume)
        if elsewhere and not config.force:
            ownership.check_unfinished(folder)


def _check_places(config: DictConfig, folder: Path) -> None:
    """Refuse to write among pictures in folders, where what is written would be taken for a class."""
    if "nested" not in settings_of(SECTIONS.get(config.data._target_)) or OmegaConf.is_missing(config.data, "root"):
        return
    root = user_path(str(config.data.root), "data.root").resolve()
    tops = [root / split for split in SPLITS] if (root / "train").is_dir() else [root]  # folders of classes
    places = {"out": (folder, "the folder of the run"), "paths.cache": (Path(config.paths.cache), "the cache")}
    for name, (place, what) in places.items():
        if top := next((top for top in tops if place.expanduser().resolve().is_relative_to(top)), None):
            raise UserError(
                f"{name}={place}: {what} would be inside {top}, whose folders are classes. Give {name}=FOLDER outside"
                " of it."
            )


def checked(config: DictConfig, entry: str) -> DictConfig:
    """Complete and validate a composed configuration.

    Args:
        config: The configuration without the section `hydra`.
        entry: a command, such as `train`.

    Returns:
        The configuration. For `evaluate`, and for `explain` and `score` without `images`, it has been completed with
        the data settings of the checkpoint's run.

    Raises:
        UserError: A setting is invalid. The message names the setting, its value and what is allowed.
    """
    if entry == "evaluate" or (entry == "score" and OmegaConf.select(config, "images") is None):
        config = with_data_of_run(config)
    elif entry == "explain" and OmegaConf.select(config, "images") is None:
        with suppress(UserError):  # without a run, pictures have to be given, which is checked below
            config = with_data_of_run(config)
    elif entry == "score":
        config = _without_data(config)
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
    if entry == "explain":
        _check_explain(plain)
    if entry == "score":
        _check_score(plain)
    return config


def _sections(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all sections that name a class, with their dotted names."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node
        for key, child in node.items():
            yield from _sections(child, f"{path}.{key}" if path else str(key))


def _check_targets(plain: dict[str, Any]) -> None:
    """Refuse a section that names no class to build. Only loggers, callbacks and the scheduler may be null."""
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
    """Refuse images that are too small for AlexNet or a VGG as a CamNet; others are checked once they are built."""
    arch, data = plain["arch"], plain["data"]
    given = (arch.get("backbone"), arch.get("keep_last_pool"), data.get("image_size"))
    if {arch["_target_"], data["_target_"]} <= SECTIONS.keys() and None not in given and given[0] in BACKBONES:
        check_image_size(*given)


def _without_data(config: DictConfig) -> DictConfig:
    """Leave out the section `data`, which a scoring of pictures in a folder does not use."""
    if OmegaConf.select(config, "data", default=None) is not None:
        raise UserError(f"images={config.images}: data= chooses other pictures. Give one of the two.")
    without = config.copy()
    OmegaConf.set_struct(without, False)
    without.pop("data", None)
    return without


def _check_score(plain: dict[str, Any]) -> None:
    """Refuse settings of `score` that contradict each other."""
    _check_network(plain)
    if plain["images"] is None and plain["checkpoint"] is None:
        raise UserError(f"network={plain['network']['name']}: it has no pictures of its own. Give images=FOLDER.")
    for key in ("methods", "scores"):
        words = plain[key] if isinstance(plain[key], list) else [plain[key]]
        if len(words) > 1 and (word := next((word for word in ("auto", "all") if word in words), None)):
            raise UserError(f"{key}={shown(words)}: {word} chooses the {key}. Give {word} alone.")


def _check_explain(plain: dict[str, Any]) -> None:
    """Refuse settings of `explain` that contradict each other."""
    data = plain.get("data")
    if (plain["images"] is None) == (data is None):
        raise UserError(
            "Which pictures? Give images=PLACE; data=folder data.root=FOLDER, table or huggingface; or, for those of a"
            " run's test split, checkpoint=RUN alone."
        )
    if data is not None and not names_files(data["_target_"]):
        raise UserError(
            f"data={data.get('name')}: its pictures are not in files. Give images=PLACE, or data=folder, table or"
            " huggingface."
        )
    _check_network(plain)
    target, top_k, methods = plain["target"], plain["top_k"], plain["methods"]
    if target != "auto" and top_k is not None and top_k > 1:
        raise UserError(f"top_k={top_k}: target={target} names one class. Give one of the two.")
    if isinstance(methods, list) and "auto" in methods and len(methods) > 1:
        raise UserError(f"methods={shown(methods)}: auto chooses the methods. Give auto alone.")


def _check_network(plain: dict[str, Any]) -> None:
    """Refuse two networks or none, and a name that no classifier has."""
    if (plain["checkpoint"] is None) == (plain["network"]["name"] is None):
        raise UserError("Which network? Give either checkpoint=RUN or network=NAME (vgg16, resnet50, …).")
    if plain["network"]["name"] is not None:
        check_name(plain["network"]["name"])


def _check_files(plain: dict[str, Any]) -> None:
    """Refuse files that do not exist, and paths that no file can have, before anything is loaded."""
    for key in PATH_KEYS - {"target"}:  # a class can have any name
        value: Any = plain
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str):
            user_path(value, key)
    arch = plain.get("arch")
    weights = arch.get("weights") if isinstance(arch, dict) else None
    if isinstance(weights, str) and weights not in PRETRAINED:
        path = user_path(weights, "arch.weights")
        if path.suffix not in WEIGHT_ENDINGS or not path.is_file():
            wrong = "no such file" if path.suffix in WEIGHT_ENDINGS else f"does not end in {', '.join(WEIGHT_ENDINGS)}"
            way_out = f"{did_you_mean(weights, PRETRAINED)}Give pretrained, a weights file, or null for none."
            raise UserError(f"arch.weights={weights}: {wrong}. {way_out}")
    for key, words in (("resume", ("auto", "last")), ("checkpoint", ())):
        value = plain.get(key)
        if isinstance(value, str) and value not in words and not user_path(value, key).exists():
            others = "".join(f"{word}, " for word in words)
            raise UserError(f"{key}={value}: no such file or folder. Give {others}a .ckpt file or a run's folder.")
