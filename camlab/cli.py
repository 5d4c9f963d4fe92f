"""The outermost layer of every command: quoting of paths, Hydra, and what becomes of errors.

Exit codes: 0 done; 2 the user's mistake, in one or two lines with the way out; 130 and 143 interrupted, resumable;
1 anything else, with the traceback.
"""

import difflib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from camlab.config import check
from camlab.errors import UserError

PATH_KEYS = frozenset(
    "checkpoint resume arch.weights data.root callbacks.heatmaps.images paths.data paths.outputs hydra.run.dir hydra.sweep.dir".split()
)


class Interrupted(BaseException):
    """Training was told to stop by a signal and has saved its state."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def launch(task: Callable[[DictConfig], Any], config_name: str, arguments: Sequence[str] | None = None) -> None:
    """Compose a configuration from the command line, run the task with it, end with the right exit code."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises what it would print and exit 1 for
    sys.argv[1:] = [quote_path(a) for a in (sys.argv[1:] if arguments is None else arguments)]
    failure: list[Exception] = []

    def job(config: DictConfig) -> Any:
        try:
            check(config, config_name)
            _quiet_libraries()
            return task(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the sweep goes on with the next job and raises this at its end
            failure.append(error)
            return None

    job.__module__, job.__qualname__ = task.__module__, task.__qualname__
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(job)()
        if failure:
            raise failure[0]
    except Interrupted as stop:
        _end(str(stop), 128 + stop.signal_number)
    except KeyboardInterrupt:
        _end("Interrupted.", 130)
    except Exception as error:
        told = explain_mistake(error)
        if told is None:
            traceback.print_exc()
            sys.exit(1)
        _end(told, 2)


def conf_dir() -> Path:
    """The Hydra configs: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def quote_path(argument: str) -> str:
    """Quote the value of `key=path` arguments, so that Hydra's grammar takes any character in a path."""
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or not value or value[0] in "'\"" or "${" in value:
        return argument
    if value in ("null", "???"):
        return argument
    path = os.path.expanduser(value)
    if not re.search(r"[^\w./-]", path, re.ASCII) or ("," in path and not Path(path).exists()):
        return f"{key}={path}"  # nothing to quote, or the values of a sweep
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", path)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"{key}='{escaped}'"


def explain_mistake(error: BaseException) -> str | None:
    """One or two lines for an error that the user can mend; None for any other."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    for link in chain:
        if isinstance(link, UserError) or type(link).__name__ == "MisconfigurationException":
            return str(link)
        if isinstance(link, MissingConfigException):
            return _missing_option(link)
    if isinstance(error, OSError) and _is_output_trouble(error):
        return f"{error.filename}: {error.strerror}. Give another place for the output: hydra.run.dir=FOLDER."
    if isinstance(error, (HydraException, OmegaConfBaseException)) and not _came_from_a_call(chain):
        return _composition(chain)
    return None


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    if not error.options or not group:
        return str(error).strip().splitlines()[0]
    options = [o for o in error.options if o != option]
    near = difflib.get_close_matches(option, options, n=1)
    hint = f" Did you mean {group}={near[0]}?" if near else ""
    return f"{group}={option}: there is no such option.{hint} Choose one of {', '.join(options)}."


def _composition(chain: list[BaseException]) -> str:
    root = chain[-1]
    if isinstance(root, OmegaConfBaseException) and root.full_key and "not in struct" in str(root):
        parent, _, key = root.full_key.rpartition(".")
        known = [str(k) for k in root.parent_node] if isinstance(root.parent_node, DictConfig) else []
        near = difflib.get_close_matches(key, known, n=1)
        prefix = f"{parent}." if parent else ""
        hint = f" Did you mean {prefix}{near[0]}?" if near else f" Known are {', '.join(known)}." if known else ""
        return f"{root.full_key}: no such setting.{hint}"
    lines = [line.strip() for line in str(chain[0]).splitlines() if line.strip()]
    return " ".join(lines[:2])


def _is_output_trouble(error: OSError) -> bool:
    """Hydra could not make or write the run's folder (nothing else of ours runs before that)."""
    frames = traceback.extract_tb(error.__traceback__)
    return error.filename is not None and any(f.name in ("run_job", "launch", "configure_log") for f in frames)


def _came_from_a_call(chain: list[BaseException]) -> bool:
    return type(chain[0]).__name__ == "InstantiationException"


def _quiet_libraries() -> None:
    """Silence what says nothing to a user: hardware lists, advertisements, a deprecation within Lightning."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (r".*isinstance\(treespec, LeafSpec\)", r"The number of training batches .* is smaller than the log"):
        warnings.filterwarnings("ignore", message=message)


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
