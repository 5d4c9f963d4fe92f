"""What a configuration may say, decided from its text: types, ranges, unknown keys. Imports no torch, no Lightning."""

import dataclasses
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from hydra.experimental.callback import Callback
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from camlab.command_line.schemas import ENTRIES, SCHEMAS, WEIGHT_ENDINGS, NamedNetwork, Paths
from camlab.errors import UserError, did_you_mean
from camlab.runs import run_folder

# Where things lie, who watches, how a run is started: two runs that differ in these only have the same outcome.
INDECISIVE = frozenset(
    ["paths", "logger", "callbacks", "resume", "force", "cache", "run_name", "sweep", "launcher", "checkpoint_every"]
)
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


class CheckBeforeRun(Callback):
    """Refuses a bad configuration before Hydra makes a folder for it, or writes into another run's.

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
            check(plain, self.entry)
            if self.entry == "train" and plain.resume in (None, "auto") and not plain.force:
                run_folder.check_same_run(Path(config.hydra.run.dir), config_hash(plain))
        except UserError as error:
            # Hydra turns exceptions of callbacks into warnings, but not this one; a single run ends here anyway.
            print(error, file=sys.stderr)
            sys.exit(2)


def check(config: DictConfig, entry: str) -> None:
    """Refuse what cannot be meant.

    Args:
        config: composed, without Hydra's own part.
        entry: `train`, `evaluate`, `explain` or `cache`.

    Raises:
        UserError: naming the key, what was given and what can be.
    """
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
        missing = sorted(OmegaConf.missing_keys(config))
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    if missing:
        raise UserError(f"{missing[0]} is needed: give {missing[0]}=…")
    _check_section("", plain, ENTRIES[entry])
    _check_section("paths", plain["paths"], Paths)
    if entry == "explain":
        _check_section("network", plain["network"], NamedNetwork)
    _check_targets(plain)
    for path, section in _sections(plain):
        if not isinstance(section.get("_partial_", False), bool):
            raise UserError(f"{path}._partial_={shown(section['_partial_'])}: must be true or false.")
        if schema := SCHEMAS.get(section["_target_"]):
            _check_section(path, section, schema)
    _check_files(plain)


def config_hash(config: DictConfig) -> str:
    """16 hex digits of what decides a run's outcome: all but where things lie, who watches and how it resumes."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    decisive = {key: value for key, value in plain.items() if key not in INDECISIVE}
    decisive["data"] = {k: v for k, v in plain["data"].items() if k not in ("root", "placement", "num_workers")}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _sections(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node
        for key, child in node.items():
            yield from _sections(child, f"{path}.{key}" if path else str(key))


def _check_section(path: str, section: Any, schema: type) -> None:
    prefix = f"{path}." if path else ""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    if not isinstance(section, dict):
        raise UserError(f"{path}={shown(section)}: needs {', '.join(f'{prefix}{name}' for name in fields)}.")
    given = {key: value for key, value in section.items() if key not in ("_target_", "_partial_", "_convert_")}
    for key, value in given.items():
        if key not in fields:
            raise UserError(no_such_setting(prefix, key, fields))
        _check_value(f"{prefix}{key}", value, fields[key].type, fields[key].metadata)
    for field in fields.values():
        if (
            field.name not in given
            and field.default in (MISSING, dataclasses.MISSING)
            and field.default_factory is dataclasses.MISSING
        ):
            raise UserError(f"{prefix}{field.name} is needed: give {prefix}{field.name}=…")


def _check_value(name: str, value: Any, kind: Any, limits: Any) -> None:
    given = f"{name}={shown(value)}"
    if limits.get("instead"):
        raise UserError(f"{name}: camlab sets this one itself; {limits['instead']}.")
    if not _is_a(value, kind):
        raise UserError(f"{given}: must be {_describe(kind)}.")
    if limits.get("matches") and value is not None and not re.fullmatch(limits["matches"], str(value)):
        raise UserError(f"{given}: give {limits['example']}, or null.")
    if limits.get("length") not in (None, len(value) if isinstance(value, list) else None):
        raise UserError(f"{given}: needs {limits['length']} numbers.")
    for item in value if isinstance(value, list) else [value]:
        _check_range(given, item, limits)


def _check_range(given: str, value: Any, limits: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{given}: must be a finite number.")
    if value is None or isinstance(value, dict) or not limits:
        return
    if (words := limits["among"]) and str(value) not in words:
        hint = did_you_mean(str(value), words)
        raise UserError(f"{given}: no such choice. {hint}Choose one of {', '.join(words)}.")
    for word, limit, ok in (
        ("greater than", limits["gt"], lambda v, bound: v > bound),
        ("at least", limits["ge"], lambda v, bound: v >= bound),
        ("less than", limits["lt"], lambda v, bound: v < bound),
        ("at most", limits["le"], lambda v, bound: v <= bound),
    ):
        if limit is not None and not ok(value, limit):
            raise UserError(f"{given}: must be {word} {limit}.")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type as it stands: `off` is text, not false, for a constructor as well."""
    if kind is Any:
        return True
    if kind == list[float]:
        return isinstance(value, list) and all(_is_a(item, float) for item in value)
    if options := get_args(kind):
        return any(_is_a(value, option) for option in options)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _describe(kind: Any) -> str:
    if kind == list[float]:
        return "a list of numbers such as [0.5,0.5,0.5]"
    return " or ".join(_WORDS[option] for option in get_args(kind) or (kind,))


def _check_targets(plain: dict[str, Any]) -> None:
    """Whatever is to be built says what it is; only what watches a run, and its schedule, can be left out."""
    always: tuple[str, ...] = ("arch", "data", "trainer", "optimizer")
    needed = {key: plain[key] for key in always if key in plain}
    for group in ("logger", "callbacks"):
        if not isinstance(nodes := plain.get(group) or {}, dict):
            raise UserError(f"{group}={shown(nodes)}: choose an option of {group} (see --help).")
        needed |= {f"{group}.{key}": node for key, node in nodes.items() if node is not None}
    if plain.get("scheduler") is not None:
        needed["scheduler"] = plain["scheduler"]
    for key, node in needed.items():
        if not (isinstance(node, dict) and isinstance(node.get("_target_"), str)):
            raise UserError(f"{key}={shown(node)}: nothing to build; give it whole, with {key}._target_=CLASS.")


def _check_files(plain: dict[str, Any]) -> None:
    """Files that are named must be there: better now than when everything is loaded."""
    weights = plain.get("arch", {}).get("weights")
    if isinstance(weights, str) and weights != "imagenet":
        path = Path(weights).expanduser()
        if path.suffix not in WEIGHT_ENDINGS or not path.is_file():
            wrong = "no such file" if path.suffix in WEIGHT_ENDINGS else f"does not end in {', '.join(WEIGHT_ENDINGS)}"
            raise UserError(f"arch.weights={weights}: {wrong}. Give imagenet, a weights file, or null for none.")
    choices: dict[str, tuple[str | None, ...]] = {"resume": (None, "auto", "last"), "checkpoint": (None,)}
    for key, known in choices.items():
        if (value := plain.get(key)) not in known and not Path(str(value)).expanduser().exists():
            words = "".join(f"{word}, " for word in known if word)
            raise UserError(f"{key}={value}: no such file or folder. Give {words}a .ckpt file or a run's folder.")


def known_settings(target: str | None) -> list[str]:
    """The arguments of a class that a section may build; none for a class of the user's own."""
    return [field.name for field in dataclasses.fields(SCHEMAS[target])] if target in SCHEMAS else []


def no_such_setting(prefix: str, key: str, known: Iterable[str]) -> str:
    """The message for a key that is not known: the nearest one, or all."""
    hint = did_you_mean(key, known, prefix) or f"Known are {', '.join(known)}."
    return f"{prefix}{key}: no such setting. {hint.strip()}"


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    return str(value) if isinstance(value, (str, float)) else json.dumps(value, ensure_ascii=False, default=str)
