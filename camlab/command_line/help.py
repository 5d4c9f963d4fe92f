"""Text of `--help`: the choices and settings of a command, each explained by its comment in `conf/`."""

import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.types import RunMode
from omegaconf import OmegaConf

from camlab.command_line.commands import COMMANDS
from camlab.command_line.conf import conf_dir
from camlab.command_line.fields import words_of
from camlab.command_line.refusals import names_files, settings_of, shown
from camlab.command_line.sections import SECTIONS

_WIDTH, _COLUMN = 100, 34  # in characters: longest line, and width of the first column
_OUTPUT_FOLDER = "hydra.run.dir"  # users give it as out=FOLDER
_UNUSED = "not used here."  # ends the comment of a setting that only completes those of other commands


def help_text(command: str, arguments: Sequence[str]) -> str:
    """Describe a command, its choices, and its settings with the values that the arguments lead to.

    Args:
        command: a command, such as `train`.
        arguments: Arguments for Hydra.
    """
    flags = get_args_parser().parse_args(list(arguments))
    name = flags.config_name or command
    search_path = create_config_search_path(str(conf_dir()))
    if flags.config_dir:
        search_path.prepend("command-line", f"file://{os.path.abspath(flags.config_dir)}", SearchPathQuery("schema"))
    loader = ConfigLoaderImpl(search_path)
    config = loader.load_configuration(name, flags.overrides, RunMode.RUN)
    comments = _comments(loader, name, flags.overrides)
    choices = list(_choices(loader, config.hydra.runtime.choices, command))
    about = config.hydra.help
    OmegaConf.set_struct(config, False)
    del config.hydra
    plain: Any = OmegaConf.to_container(config, resolve=True)
    plain.pop("mode", None)  # it is shown among the choices
    return "\n".join(
        [
            about.header,
            *(["Choices (group=option, * is taken by default):", *_table(choices), ""] if choices else []),
            "Settings (key=value):",
            *_table(_settings(plain, COMMANDS[command], comments)),
            "",
            about.footer.rstrip(),
        ]
    )


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of a table with two columns. A long entry of the first column gets its own line."""
    for first, second in rows:
        lines = textwrap.wrap(second, _WIDTH - _COLUMN, break_on_hyphens=False) or [""]
        if len(first) + 4 > _COLUMN:
            yield f"  {first}"
            first = ""
        yield f"{'  ' + first:{_COLUMN}}{lines[0]}".rstrip()
        yield from (" " * _COLUMN + line for line in lines[1:])


def _choices(loader: ConfigLoader, chosen: Mapping[str, Any], command: str) -> Iterator[tuple[str, str]]:
    """Yield each option of the command's groups that the command takes, with the first sentence of its file."""
    for group, choice in reversed(list(chosen.items())):  # in the order of the defaults list
        if "/" not in group and "@" not in group:
            for option in loader.get_group_options(group):
                text = _read(loader, f"{group}/{option}")
                if command == "explain" and group == "data" and not names_files(str(yaml.safe_load(text)["_target_"])):
                    continue
                mark = " *" if option == choice or (isinstance(choice, Sequence) and option in choice) else ""
                yield f"{group}={option}{mark}", _first_sentence(text)


def _settings(
    section: dict[str, Any], schema: Any, comments: dict[str, str], path: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield each setting as it is typed, with its comment and the words to choose from."""
    known = settings_of(SECTIONS.get(str(section.get("_target_")), schema))
    if not path and _OUTPUT_FOLDER in comments:
        yield "out=…", comments[_OUTPUT_FOLDER]
    for key, value in sorted(section.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            if not path:
                yield "", ""
            yield from _settings(value, known.get(key), comments, f"{path}{key}.")
        elif not key.startswith("_") and not comments.get(path + key, "").endswith(_UNUSED):
            words = words_of(known.get(key))
            choices = f"Choose from {', '.join(words)}." if words else ""
            given = "…" if value == "???" else shown(value)
            yield f"{path}{key}={given}", f"{comments.get(path + key, '')} {choices}".strip()


def _comments(loader: ConfigLoader, name: str, overrides: list[str]) -> dict[str, str]:
    """Comment of each setting, from the files that compose the configuration; later files override earlier ones."""
    found: dict[str, str] = {}
    for part in loader.compute_defaults_list(name, overrides, RunMode.RUN).defaults:
        if part.config_path and not part.config_path.startswith("hydra/"):
            package = "" if part.package in (None, "", "_global_") else f"{part.package}."
            found |= {package + key: comment for key, comment in read_comments(_read(loader, part.config_path))}
    return found


def read_comments(text: str) -> Iterator[tuple[str, str]]:
    r"""Yield the dotted keys of a YAML text and the comments beside them, which may continue on the lines below.

    Examples:
        >>> list(read_comments("optimizer:\n  lr: 0.1 # Learning rate,\n          # of all weights.\n  fused: true"))
        [('optimizer.lr', 'Learning rate, of all weights.')]
    """
    lines = text.splitlines()

    def walk(node: yaml.Node, path: str) -> Iterator[tuple[str, str]]:
        for key, value in node.value:
            on_one_line = value.end_mark.line == key.end_mark.line
            mark = value.end_mark if on_one_line else key.end_mark
            code, sign, comment = lines[mark.line][mark.column :].partition("# ")
            if sign and code.strip() in ("", ":"):
                for line in lines[mark.line + 1 :]:
                    if not line.startswith(" " * (key.start_mark.column + 1)) or line.lstrip()[:2] != "# ":
                        break
                    comment += " " + line.lstrip()[2:]
                yield path + key.value, " ".join(comment.split())
            if isinstance(value, yaml.MappingNode):
                yield from walk(value, f"{path}{key.value}.")

    node = yaml.compose(text, yaml.SafeLoader)
    if isinstance(node, yaml.MappingNode):
        yield from walk(node, "")


def _first_sentence(text: str) -> str:
    """First sentence of the comment at the top of a file."""
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            head.append(line.removeprefix("#").strip())
    sentence, dot, _ = " ".join(head).partition(". ")
    return sentence + dot.strip()


def _read(loader: ConfigLoader, path: str) -> str:
    """Text of a configuration file, from the first folder of the search path that contains the file."""
    for source in loader.get_sources():
        file = Path(source.path) / f"{path}.yaml"
        if source.scheme() == "file" and file.is_file():
            return file.read_text(encoding="utf-8")
    return ""
