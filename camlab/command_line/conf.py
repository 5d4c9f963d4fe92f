"""The folder `conf/`, the options that it offers, and the settings that are paths."""

import re
from pathlib import Path

PATH_KEYS = frozenset(
    [
        "checkpoint",
        "class_names",
        "images",
        "network.weights",
        "target",
        "resume",
        "arch.weights",
        "data.root",
        "data.file",
        "data.annotations",
        "data.cache",
        "callbacks.heatmaps.images",
        "paths.data",
        "paths.outputs",
        "paths.cache",
        "hydra.run.dir",
        "hydra.sweep.dir",
    ]
)


def conf_dir() -> Path:
    """Folder of the Hydra configuration: beside the package in a checkout, inside it if installed from a wheel."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def options_of(group: str) -> list[str]:
    """Options of one of camlab's groups, such as `arch`; an empty list for any other key."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")) if re.fullmatch(r"\w+", group) else []
