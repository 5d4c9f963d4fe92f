"""The outermost layer of every command: quoting of paths, Hydra, and what becomes of errors.

Exit codes: 0 done; 2 the user's mistake, in one or two lines with the way out; 130 and 143 interrupted,
resumable; 141 nobody reads the output; 1 anything else, with the traceback.
"""

import difflib
import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from camlab import runs, sweeps
from camlab.config import check, did_you_mean, known_settings, no_such_setting
from camlab.errors import Interrupted, UserError

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

_EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "optuna": "sweep", "ray": "ray"}

log = logging.getLogger(__name__)


class _Job:
    """A task as Hydra and its launchers call it: in this process, or pickled into another."""

    def __init__(self, task: Callable[[DictConfig], Any], config_name: str) -> None:
        self.task, self.config_name = task, config_name
        self.failure: Exception | None = None

    def __call__(self, config: DictConfig) -> Any:
        try:
            check(config, self.config_name)
            _quiet_libraries()
            return self.task(config)
        except SystemExit as end:
            if not sweeps.under_way() or "SUBMITIT_EXECUTOR" in os.environ:  # which exits to queue a job again
                raise
            raise sweeps.note_failure(end, None) from end
        except Exception as error:
            if not sweeps.under_way():
                self.failure = error
                return None
            if isinstance(error, runs.Busy):
                log.info("%s", error)  # a sweep that was started twice: each process takes what the other has not
                return None
            raise sweeps.note_failure(error, explain_mistake(error)) from error


def launch(task: Callable[[DictConfig], Any], config_name: str, arguments: Sequence[str] | None = None) -> None:
    """Compose a configuration from the command line, run the task with it, end with the right exit code.

    Args:
        task: importable by its name, since other processes may run the jobs of a sweep.
        config_name: of the file in `conf/`.
        arguments: the command line; None: this process's.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises what it would print and exit 1 for
    sweeps.Sweep.current = None
    job = _Job(task, config_name)
    try:
        sys.argv[1:] = read_arguments(sys.argv[1:] if arguments is None else arguments, named=config_name == "train")
        with suppress(sweeps.JobFailed):  # told below, with all others
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(job)()
        if job.failure:
            raise job.failure
        if sweeps.Sweep.current:
            _conclude(sweeps.Sweep.current)
        sys.stdout.flush()
    except Interrupted as stop:
        _end(stop.message, 128 + stop.signal_number)
    except KeyboardInterrupt:
        _end("Interrupted.", 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():  # `camlab-train --help | head`
            sys.exit(141)  # what a shell gives for SIGPIPE
        told = explain_mistake(error)
        if told is None:
            traceback.print_exc()
            sys.exit(1)
        _end(told, 2)


def _conclude(sweep: sweeps.Sweep) -> None:
    """The table of a sweep's runs, then what failed, if anything did."""
    from camlab.comparison_report import compare

    compare([sweep.folder], sweep.folder)
    if failures := sweep.failures():
        _end(sweeps.report(failures), 2 if all(failure.by_user for failure in failures.values()) else 1)


def conf_dir() -> Path:
    """The Hydra configs: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
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
        if equals and _is_no_word(value) and (options := _options(key.lstrip("+~"))):
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


def explain_mistake(error: BaseException) -> str | None:
    """One or two lines for an error that the user can mend; None for any other."""
    if (told := _explain(error)) is None:
        return None
    told = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in told)  # of what was typed
    lines = [line for line in told.split("\n") if line.strip()]
    return "\n".join(lines) if len(lines) <= 2 else " ".join(lines)


def _explain(error: BaseException) -> str | None:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    if told := next((str(link) for link in chain if isinstance(link, UserError)), None):
        return told
    for link in chain:
        if type(link).__name__ == "MisconfigurationException":  # of Lightning
            return _first_line(link)
        if isinstance(link, MissingConfigException):
            return _missing_option(link)
        if isinstance(link, InstantiationException):
            return _instantiation(link)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"{error.filename or 'The output'}: {error.strerror}. Make room, and give the same command again."
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        return f"deterministic=true: {_first_line(error).partition(',')[0]}. Leave it out, or train on a CPU."
    if isinstance(error, OSError) and _is_output_trouble(error):
        return f"{error.filename}: {error.strerror}. Give another place for the output: hydra.run.dir=FOLDER."
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition(chain)
    return None


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    if extra := _EXTRAS.get(option):
        return f"{option}: not installed; pip install 'camlab[{extra}]'."
    options = [o for o in error.options or _options(group) if o != option]
    if not options:
        return _first_line(error)
    hint = did_you_mean(option, options, f"{group}=")
    return f"{group}={option}: there is no such option. {hint}Choose one of {', '.join(options)}."


def _options(group: str) -> list[str]:
    """The options of a group of camlab's own; none for anything else."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")) if re.fullmatch(r"\w+", group) else []


def _instantiation(error: InstantiationException) -> str | None:
    """A class that is not there, or an argument that Lightning's or torch's refuses; other calls that fail are bugs."""
    place = re.search(r"full_key: (\S+)", str(error))
    prefix = f"{place[1]}: " if place else ""
    if "Error locating target" in str(error):
        return f"{prefix}{_first_line(error)}"
    cause = error.__cause__
    if re.match(r"Error in call to target '(lightning|torch)\b", str(error)) and isinstance(
        cause, (TypeError, ValueError, ImportError)
    ):
        return f"{prefix}{_first_line(cause)}"
    return None


def _composition(chain: list[BaseException]) -> str:
    first, root = chain[0], chain[-1]
    if isinstance(first, OverrideParseException):
        return (
            f"{first.override}: not understood. Settings are given as key=value;"
            " quote a value with special characters: \"key='value'\"."
        )
    if isinstance(root, OmegaConfBaseException) and root.full_key and "not in struct" in str(root):
        return _unknown_setting(root.full_key, root.parent_node)
    message = " ".join(str(first).split())
    if several := re.match(r"Ambiguous value for argument '(.*?)'", message):
        return f"{several[1]}: several values are a sweep, which needs -m; a list is written [a,b]."
    if strange := re.match(r"Could not override '(\w+)'. No match", message):
        return f"{strange[1]}: no such choice here (--help lists them)."
    return message


def _unknown_setting(full_key: str, section: Any) -> str:
    path, dot, key = full_key.rpartition(".")
    if not isinstance(section, DictConfig) or not section:
        return f"{full_key}: no such setting. --help lists them."
    known = known_settings(section.get("_target_")) or [k for k in map(str, section) if k != "hydra"]
    if key in known:
        return f"{full_key}: not set by default; add it with a plus: +{full_key}=VALUE."
    if not difflib.get_close_matches(key, known):  # perhaps it stands in another section: lr, batch_size, epochs
        root: Any = section._get_root()
        places = {name.rpartition(".")[2]: name for name in _settings(root)}
        if near := difflib.get_close_matches(key, places, n=1):
            return f"{full_key}: no such setting. Did you mean {places[near[0]]}?"
    return no_such_setting(path + dot, key, known)


def _settings(node: DictConfig, path: str = "") -> Iterator[str]:
    """Dotted names of all settings but Hydra's."""
    for key in map(str, node):
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and key != "hydra":
            yield from _settings(child, f"{path}{key}.")
        elif key != "hydra" and key[0] != "_":
            yield f"{path}{key}"


def _is_output_trouble(error: OSError) -> bool:
    """Hydra could not make or write the run's folder: it happened before any job began."""
    return error.filename is not None and not any(f.name == "job" for f in traceback.extract_tb(error.__traceback__))


def _quiet_libraries() -> None:
    """Silence what says nothing to a user: hardware lists, advertisements, a deprecation within Lightning."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".*isinstance\(treespec, LeafSpec\)",
        r"Checkpoint directory .* exists and is not empty",  # it does when a run is resumed
        r"The dirpath has changed from",  # it does when a run goes on from another run's folder
        r"Found \d+ module\(s\) in eval mode at the start of training",  # a frozen backbone is
        r"It is recommended to use `self\.log\(.*sync_dist=True",  # metrics' compute() has gathered all ranks already
        r"The number of training batches .* is smaller than the log",
    ):
        warnings.filterwarnings("ignore", message=message)


def _nobody_reads() -> bool:
    """Standard output is a pipe without a reader; what is still to be written then goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
