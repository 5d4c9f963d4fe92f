"""Read untrusted JSON and YAML: files that are damaged, endless or nested too deeply raise OSError or ValueError."""

import json
from pathlib import Path
from typing import Any

import yaml

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
