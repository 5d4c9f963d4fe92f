"""Check of a section against its schema. pydantic finds the mistakes; this module describes the first of them."""

import functools
import json
from collections.abc import Iterable
from types import NoneType
from typing import Any, Required, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from camlab.command_line.fields import words_of
from camlab.command_line.sections import SECTIONS
from camlab.errors import UserError, did_you_mean

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list of numbers such as [0.5,0.5,0.5]",
    "finite_number": "a finite number",
}
_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_FOR_HYDRA = ("_target_", "_partial_", "_convert_")
_adapter = functools.cache(TypeAdapter)


def check_section(path: str, section: Any, schema: Any) -> None:
    """Refuse a section that does not fit its schema.

    Args:
        path: Dotted name of the section; empty for a whole configuration.
        section: The section as plain values.
        schema: A TypedDict of `camlab.command_line.sections` or `commands`.

    Raises:
        UserError: The section does not fit. The message names the setting, its value and the allowed values.
    """
    if isinstance(section, dict):
        section = {str(key): value for key, value in section.items() if key not in _FOR_HYDRA}
    try:
        _adapter(schema).validate_python(section)
    except ValidationError as refused:
        errors = refused.errors(include_url=False, include_context=True)
        first = min(errors, key=lambda error: {"extra_forbidden": 0, "missing": 2}.get(error["type"], 1))
        raise UserError(_message(path, section, schema, first)) from None


def unknown_setting(prefix: str, key: str, known: Iterable[str]) -> str:
    """Message for a key that a section does not have. It suggests the most similar setting, or lists all.

    Examples:
        >>> unknown_setting("optimizer.", "lrr", ["lr", "betas"])
        'optimizer.lrr: unknown setting. Did you mean optimizer.lr?'
    """
    hint = did_you_mean(key, known, prefix) or f"Available: {', '.join(known)}."
    return f"{prefix}{key}: unknown setting. {hint.strip()}"


def settings_of(schema: Any) -> dict[str, Any]:
    """Names and types of the settings in a schema."""
    hints = get_type_hints(schema, include_extras=True) if hasattr(schema, "__required_keys__") else {}
    return {name: get_args(kind)[0] if get_origin(kind) is Required else kind for name, kind in hints.items()}


def names_files(target: str) -> bool:
    """Whether a class of data has its pictures in files, as one's own have, so that `explain` can draw on them."""
    return target not in SECTIONS or "split" in settings_of(SECTIONS[target])


def shown(value: Any) -> str:
    """Format a value as it is typed on the command line.

    Examples:
        >>> shown(None), shown(["a", True, {"b": 0.5}])
        ('null', '[a,true,{b: 0.5}]')
    """
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(key)}: {shown(child)}' for key, child in value.items())}}}"
    return str(value) if isinstance(value, (str, float)) else json.dumps(value, ensure_ascii=False, default=str)


def _message(path: str, section: Any, schema: Any, error: Any) -> str:
    """Turn one of pydantic's errors into a message of one line."""
    kind, keys = error["type"], [path] if path else []
    value, annotation = section, schema
    for key in error["loc"]:  # it starts with sections and settings; list items and union members follow
        if not isinstance(value, dict) or key not in (known := settings_of(annotation)):
            break
        keys.append(key)
        value, annotation = value.get(key), known[key]
    name = ".".join(keys)
    if kind == "extra_forbidden":
        return unknown_setting("".join(f"{key}." for key in keys), error["loc"][-1], settings_of(annotation))
    if kind == "missing":
        return f"{name} is required. Give {name}=VALUE."
    if kind == "instead":
        return f"{name}: camlab sets this itself; {error['msg']}."
    wrong = error["input"] if kind == "literal_error" else value  # in a list, the word that is unknown
    return f"{name}={shown(wrong)}: {_complaint(kind, error, annotation)}"


def _complaint(kind: str, error: Any, annotation: Any) -> str:
    """Say what is wrong with a value, and what is allowed."""
    if kind == "literal_error":
        words = tuple(words_of(annotation))
        return f"unknown value. {did_you_mean(str(error['input']), words)}Choose from {', '.join(words)}."
    if kind in _LIMITS:
        word, limit = _LIMITS[kind]
        return f"must be {word} {error['ctx'][limit]:.16g}."
    if kind in ("too_short", "too_long"):
        count = error["ctx"].get("min_length", error["ctx"].get("max_length"))
        return f"needs {count} value{'' if count == 1 else 's'}."
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}{' or null' if NoneType in get_args(annotation) else ''}."
    if kind == "dict_type":
        return f"must be a section with {', '.join(settings_of(annotation))}."
    return str(error["msg"]) if kind == "backbone" else f"{error['msg']}."
