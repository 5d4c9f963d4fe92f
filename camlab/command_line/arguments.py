"""Turns the user's arguments into arguments for Hydra: short forms are expanded, paths are quoted, flags come last."""

import os
import re
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString

from camlab.command_line import sweeps
from camlab.command_line.commands import COMMANDS
from camlab.command_line.conf import PATH_KEYS, options_of
from camlab.command_line.fields import words_of
from camlab.command_line.refusals import settings_of
from camlab.errors import UserError, did_you_mean

WITH_OUT = ("train", "evaluate", "explain", "score")  # commands that write an output folder


def read_arguments(arguments: Sequence[str], command: str = "train") -> list[str]:
    """Turn the user's arguments into arguments for Hydra.

    Args:
        arguments: Arguments as the user typed them.
        command: a command, such as `train`.

    Raises:
        UserError: An argument has a mistake that can be found without a configuration, and that Hydra would report less
            clearly.
    """
    flags, unknown = get_args_parser().parse_known_intermixed_args(list(arguments))
    if unknown:
        name, equals, _ = unknown[0].lstrip("-").partition("=")
        hint = "" if equals else did_you_mean(unknown[0], ["--help", "--multirun"])
        hint = hint or f"Settings are given without dashes: {name}=VALUE. --help lists them."
        raise UserError(f"{unknown[0]}: unknown flag. {hint.strip()}")
    for override in flags.overrides:
        _check_form(override, command)
    sweep = flags.multirun or "hydra.mode=MULTIRUN" in flags.overrides
    overrides = [_written_out(override, command) for override in flags.overrides]
    if command in WITH_OUT:
        overrides = _with_output_folder(overrides, sweep)
    overrides = [quote_path(override, sweep) for override in overrides]
    names = sweeps.naming_arguments(overrides, with_sweep=command == "train") if sweep else []
    others = list(arguments)
    for override in flags.overrides:
        others.remove(override)
    return [*overrides, *names, *others]  # Hydra does not accept -m between settings


def _check_form(override: str, command: str) -> None:
    key, equals, value = override.partition("=")
    if not key.lstrip("+~") or not (equals or key.startswith("~")):
        words = {word: key for key, kind in settings_of(COMMANDS[command]).items() for word in words_of(kind)}
        near = next((word for word in words if did_you_mean(override, [word])), None)
        hint = f"Did you mean {words[near]}={near}? " if near else ""
        raise UserError(
            f"{override}: not understood. {hint}Settings are given as key=value, without spaces around the =."
        )
    options = options_of(key.lstrip("+~"))
    if equals and options and (_is_no_word(value) or (key[0] == "~" and value not in options)):
        raise UserError(f"{override}: unknown option. Choose from {', '.join(options)}, or leave it out.")


def _written_out(override: str, command: str) -> str:
    """Expand a short form that a command accepts; other overrides are returned as they are.

    Examples:
        >>> _written_out("network=vgg16", "explain")  # in Hydra, `network` cannot be a name and a section at once
        'network.name=vgg16'
        >>> _written_out("data.root=cats", "evaluate")  # Hydra does not know the settings of the run's data
        '++data.root=cats'
    """
    if command in ("explain", "score") and override.startswith("network="):
        return override.replace("network=", "network.name=", 1)
    if command in ("evaluate", "score") and override.startswith("data."):
        return f"++{override}"
    return override


def _with_output_folder(overrides: Sequence[str], sweep: bool) -> list[str]:
    """Replace `out=FOLDER` by Hydra's setting for the folder of a run or, in a sweep, for the folder of all jobs.

    Examples:
        >>> _with_output_folder(["seed=1", "out=here"], sweep=False)
        ['seed=1', 'hydra.run.dir=here']

    Raises:
        UserError: The folder is given twice, or the value is not a folder.
    """
    found = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+~") != "out":
            found.append(override)
            continue
        if twice := [o for o in overrides if o.lstrip("+").startswith(("hydra.run.dir=", "hydra.sweep.dir="))]:
            raise UserError(f"{override}: {twice[0]} gives the output folder, too. Leave one of them out.")
        if key.startswith("~") or value.strip("'\"") in ("", "null"):
            raise UserError(f"{override}: must be a folder. Leave it out for a new folder in paths.outputs.")
        found.append(f"{'hydra.sweep.dir' if sweep else 'hydra.run.dir'}={value}")
    return found


def _is_no_word(value: str) -> bool:
    """Whether Hydra reads a value as a number, a boolean, null, or a list that contains anything but words."""
    if value[:1] == "[" and value != "[]":
        return any(item.strip()[:1] in ("[", "{") or _is_no_word(item.strip()) for item in value[1:-1].split(","))
    if value.lower() in ("", "null", "true", "false"):
        return True
    try:
        float(value)
    except ValueError:
        return False
    return True


def quote_path(argument: str, sweep: bool = False) -> str:
    """Quote the value of an argument `key=path`, so that Hydra accepts any character in a path.

    Args:
        argument: An argument from the command line.
        sweep: Whether commas may separate several paths. They do not if the whole value is an existing path.
    """
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in PATH_KEYS or value in ("", "null", "???") or value[0] in "'\"" or "${" in value:
        return argument
    one = not sweep or key.startswith("hydra.") or os.path.exists(os.path.expanduser(value))
    if one or "," not in value:
        return f"{key}={quote(os.path.expanduser(value))}"
    if re.match(r"\w+\(|[\[{]", value) or re.search(r",['\"]", value):
        return argument  # a function or a list in Hydra's grammar, or a value that the user has quoted
    return f"{key}={','.join(quote(os.path.expanduser(path)) if path != 'null' else path for path in value.split(','))}"


def quote(text: str) -> str:
    """Quote a text, so that Hydra reads it as a plain text."""
    return QuotedString(text, Quote.single).with_quotes()
