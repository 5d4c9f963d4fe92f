"""Messages for errors that the user can correct: one or two lines that say how."""

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from camlab.command_line.conf import options_of
from camlab.command_line.refusals import settings_of, unknown_setting
from camlab.command_line.sections import SECTIONS
from camlab.errors import UserError, did_you_mean, first_line

_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)
_EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "optuna": "sweep", "ray": "ray"}


def explain_mistake(error: BaseException) -> str | None:
    """Message of one or two lines for an error that the user can correct; None for any other error."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    told = next((link for link in chain if isinstance(link, UserError)), None) or _explain(chain)
    if told is None:
        return None
    lines = str(told).split("\n") if isinstance(told, UserError) else [told]
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """Escape what cannot be printed, because the message quotes the user."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _explain(chain: list[BaseException]) -> str | None:
    error = chain[0]
    for link in chain:
        if type(link).__name__ == "MisconfigurationException":  # a class of Lightning, often the cause of another error
            return first_line(link)
    for link in chain:
        if isinstance(link, MissingConfigException):
            return _missing_option(link)
        if isinstance(link, InstantiationException):
            return _instantiation(link)
    if isinstance(error, OSError) and (way_out := _way_out(error)):
        return f"{error.filename or 'The output'}: {error.strerror}. {way_out}"
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        return f"deterministic=true: {first_line(error).partition(',')[0]}. Leave the setting out, or train on a CPU."
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition(chain)
    return None


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    if extra := _EXTRAS.get(option):
        return f"{option}: not installed. Run: pip install 'camlab[{extra}]'"
    options = [o for o in error.options or options_of(group) if o != option]
    if not options:
        return first_line(error)
    hint = did_you_mean(option, options, f"{group}=")
    return f"{group}={option}: unknown option. {hint}Choose from {', '.join(options)}."


def _instantiation(error: InstantiationException) -> str | None:
    """Message for a class that does not exist or an argument that Lightning or torch refuses; None for other errors."""
    place = re.search(r"full_key: (\S+)", str(error))
    prefix = f"{place[1]}: " if place else ""
    if "Error locating target" in str(error):
        return f"{prefix}{first_line(error)}"
    cause = error.__cause__
    if re.match(r"Error in call to target '(lightning|torch)\b", str(error)) and isinstance(
        cause, (TypeError, ValueError, ImportError)
    ):
        return f"{prefix}{first_line(cause)}"
    return None


def _composition(chain: list[BaseException]) -> str:
    first, root = chain[0], chain[-1]
    if isinstance(first, OverrideParseException):
        return (
            f"{first.override}: not understood. Settings are given as key=value."
            " Quote a value with special characters: \"key='value'\"."
        )
    if isinstance(root, OmegaConfBaseException) and root.full_key and "not in struct" in str(root):
        return _unknown_setting(root.full_key, root.parent_node)
    message = " ".join(str(first).split())
    if several := re.match(r"Ambiguous value for argument '(.*?)'", message):
        return f"{several[1]}: several values need a sweep: add -m. A list is written [a,b]."
    if strange := re.match(r"Could not override '(\w+)'. No match", message):
        return f"{strange[1]}: this command has no such choice. --help lists its choices."
    return message


def _unknown_setting(full_key: str, section: Any) -> str:
    path, dot, key = full_key.rpartition(".")
    if not isinstance(section, DictConfig) or not section:
        return f"{full_key}: unknown setting. --help lists all settings."
    schema = SECTIONS.get(section.get("_target_"))
    known = list(settings_of(schema)) or [k for k in map(str, section) if k != "hydra"]
    if key in known:
        return f"{full_key}: not set by default. Add it with a plus: +{full_key}=VALUE."
    if not did_you_mean(key, known):  # perhaps the key belongs to another section, like lr, batch_size and max_epochs
        places = {name.rpartition(".")[2]: name for name in _settings(section._get_root())}
        if hint := did_you_mean(key, places):
            place = next(name for last, name in places.items() if did_you_mean(key, [last]) == hint)
            return f"{full_key}: unknown setting. Did you mean {place}?"
    return unknown_setting(path + dot, key, known)


def _settings(node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings except Hydra's."""
    for key in map(str, node):
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and key != "hydra":
            yield from _settings(child, f"{path}{key}.")
        elif key != "hydra" and key[0] != "_":
            yield f"{path}{key}"


def _way_out(error: OSError) -> str | None:
    """What the user can do about a file that cannot be read or written; None if it may be a mistake of camlab's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room, then give the same command again."
    if error.errno in (errno.EIO, errno.ESTALE):
        return "Check the disk, then give the same command again."
    if isinstance(error.filename, str) and _is_of_output(Path(error.filename)):
        return "Give another folder for the output: out=FOLDER."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Change the permissions, or give another path."
    return "Give another path." if error.errno in _NO_FILE and error.filename is not None else None


def _is_of_output(path: Path) -> bool:
    """Whether a path is the output folder of this command, in it, or one of the folders that it is in."""
    if not HydraConfig.initialized():
        return False
    hydra = HydraConfig.get()
    folder = Path(hydra.sweep.dir if hydra.mode == RunMode.MULTIRUN else hydra.run.dir).absolute()
    return path.absolute().is_relative_to(folder) or folder.is_relative_to(path.absolute())
