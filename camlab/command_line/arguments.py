"""Arguments as the user types them → arguments as Hydra parses them: paths quoted, flags last."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString

from camlab.command_line import sweeps
from camlab.errors import UserError

PATH_KEYS = frozenset(
    [
        "checkpoint",
        "images",
        "network.weights",
        "out",
        "target",
        "resume",
        "arch.weights",
        "data.root",
        "callbacks.heatmaps.images",
        "paths.data",
        "paths.outputs",
        "paths.cache",
        "hydra.run.dir",
        "hydra.sweep.dir",
    ]
)


def conf_dir() -> Path:
    """The Hydra configs: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def read_arguments(arguments: Sequence[str], named: bool = False) -> list[str]:
    """The command line for Hydra: paths quoted, flags last.

    Args:
        arguments: as the user typed them.
        named: a sweep is given a name, and its jobs are.

    Raises:
        UserError: something that no configuration is needed to refuse, told better than Hydra's parsers would.
    """
    flags, unknown = get_args_parser().parse_known_intermixed_args(list(arguments))
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise UserError(
            f"{unknown[0]}: no such flag. Settings are given without dashes: {name}=VALUE (--help lists them)."
        )
    sweep = flags.multirun or "hydra.mode=MULTIRUN" in flags.overrides
    for override in flags.overrides:
        key, equals, value = override.partition("=")
        if not key.lstrip("+~") or not (equals or key.startswith("~")):
            raise UserError(
                f"{override}: not understood. Settings are given as key=value, without spaces around the =."
            )
        if equals and _is_no_word(value) and (options := options_of(key.lstrip("+~"))):
            raise UserError(
                f"{override}: there is no such option. Choose one of {', '.join(options)}, or leave it out."
            )
    others = list(arguments)
    for override in flags.overrides:
        others.remove(override)
    overrides = [quote_path(override, sweep) for override in flags.overrides]
    names = sweeps.naming_arguments(overrides) if sweep and named else []
    return [*overrides, *names, *others]  # Hydra takes no -m in between


def _is_no_word(value: str) -> bool:
    """What Hydra reads as a number, a truth value or null."""
    if value.lower() in ("", "null", "true", "false"):
        return True
    try:
        float(value)
    except ValueError:
        return False
    return True


def quote_path(argument: str, sweep: bool = False) -> str:
    """Quote the value of `key=path` arguments, so that Hydra's grammar takes any character in a path.

    Args:
        argument: of the command line.
        sweep: commas separate paths, unless the whole is one.
    """
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in PATH_KEYS or value in ("", "null", "???") or value[0] in "'\"" or "${" in value:
        return argument
    one = not sweep or key.startswith("hydra.") or Path(value).expanduser().exists()
    if one or "," not in value:
        return f"{key}={quote(os.path.expanduser(value))}"
    if re.match(r"\w+\(|[\[{]", value) or re.search(r",['\"]", value):
        return argument  # a function or a list of Hydra's, or quoted by hand
    return f"{key}={','.join(quote(os.path.expanduser(path)) if path != 'null' else path for path in value.split(','))}"


def quote(text: str) -> str:
    """Text that Hydra's grammar reads as itself."""
    return QuotedString(text, Quote.single).with_quotes()


def options_of(group: str) -> list[str]:
    """The options of a group of camlab's own; none for anything else."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")) if re.fullmatch(r"\w+", group) else []
