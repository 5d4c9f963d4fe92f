"""Read untrusted documents: damaged, endless or deeply nested JSON and YAML raise OSError or ValueError."""

import json
from pathlib import Path
from typing import Any

import yaml

from camlab.errors import UserError, cut, first_line
from camlab.storage.files import read_text

_DEEPEST = 50  # levels of nesting; camlab and Hydra write at most ten
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the parser in C is ten times as fast


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
        ValueError: The file is damaged.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_names(path: Path, setting: str = "class_names") -> tuple[str, ...]:
    """Read a text file with one name on each line; empty lines at the end do not count.

    Args:
        path: The file.
        setting: The setting that named it, for messages.

    Raises:
        UserError: The file cannot be read, a line is empty, or a name is given twice.
    """
    given = f"{setting}={path}"
    try:
        names = tuple(line.strip() for line in read_text(path).rstrip().splitlines())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{given}: cannot be read ({first_line(error)}). Give a text file, one name on each line."
        ) from error
    if not all(names) or not names:
        raise UserError(f"{given}: a line is empty. Give one name on each line.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{given}: {cut(twice)} is given twice. Each class needs a name of its own.")
    return names


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
        ValueError: The file is damaged.
    """
    return parse_yaml(read_text(path))


def parse_yaml(text: str) -> Any:
    """Read plain values from a text in YAML.

    Aliases are refused: neither camlab nor Hydra writes any, and their expansion can exhaust the memory.

    Raises:
        ValueError: The text is damaged.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):  # not recursive, unlike the loader
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("aliases")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError("nested too deeply")
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, TypeError) as error:  # PyYAML raises TypeError if a mapping is used as a key
        raise ValueError(str(error)) from error
