"""Names of sweeps and jobs, and the failures of jobs. Imports neither torch nor Lightning."""

import hashlib
import json
import logging
import re
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from camlab.command_line.notes import new_folders
from camlab.command_line.output import PlainFormatter
from camlab.command_line.run_identity import INDECISIVE
from camlab.runs import run_folder
from camlab.runs.watchers import DRAWING

log = logging.getLogger(__name__)

_LONGEST_NAME = 100  # characters; file systems allow 255 bytes


class RememberCommand(Callback):
    """Hydra callback that keeps the configuration of a command in `HydraConfig`, for the report on its errors.

    Attributes:
        earlier: Marks of the failures that were in the sweep's folder before the sweep began.
        new_folders: The folders that a single run makes for its output, the innermost first.
    """

    earlier: ClassVar[set[str]] = set()
    new_folders: ClassVar[list[Path]] = []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        RememberCommand.new_folders = new_folders(Path(config.hydra.run.dir))
        _remember(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _remember(config, "sweep")
        RememberCommand.earlier = {failure.mark for failure in _all_failures().values()}


def _remember(config: DictConfig, kind: str) -> None:
    kept = config.copy()
    _ = config.hydra[kind].dir  # if it contains the time, the clock is read now,
    OmegaConf.copy_cache(from_config=config, to_config=kept)  # and both configurations name the same folder
    HydraConfig.instance().set_config(kept)


def under_way() -> bool:
    """Whether this process runs a sweep, or one of its jobs."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def chooses() -> bool:
    """Whether the sweeper chooses settings by the results of earlier jobs, as Optuna does."""
    return under_way() and not str(HydraConfig.get().sweeper._target_).endswith(".BasicSweeper")


def folder() -> Path:
    """Folder of the sweep, which contains the folders of its jobs."""
    return Path(HydraConfig.get().sweep.dir)


def failures() -> dict[str, run_folder.Failure]:
    """Return the failures of jobs since the sweep began, by the name of the job.

    New failures are recognised by their marks, not by the times of their files, because a file server's clock may
    differ from this machine's.
    """
    found = _all_failures().items()
    return {name: failure for name, failure in found if failure.mark not in RememberCommand.earlier}


def label_lines() -> None:
    """Begin each line that this job prints with the name of the job, since several jobs may run at the same time."""
    name = Path(HydraConfig.get().runtime.output_dir).name.replace("%", "%%")
    for handler in logging.root.handlers:
        if type(handler) is logging.StreamHandler:  # not a FileHandler, which writes the job's own log
            handler.setFormatter(PlainFormatter(f"[{name}] %(message)s"))


def note_failure(error: BaseException, mistake: str | None) -> None:
    """Write the reason for this job's failure into its folder.

    Args:
        error: The error that ended the job.
        mistake: Message if the user can correct the error, else None.
    """
    message = mistake or f"{type(error).__name__}: {error}".rstrip(": ")
    log.error("This job failed: %s", message)
    told = "" if mistake else "".join(traceback.format_exception(error))
    run_folder.write_failure(
        Path(HydraConfig.get().runtime.output_dir), run_folder.Failure(message, mistake is not None, told)
    )


def describe_failures(failures: dict[str, run_folder.Failure]) -> str:
    """List the failed jobs by message, after the tracebacks of errors that the user cannot correct."""
    count = f"{len(failures)} jobs" if len(failures) > 1 else "1 job"
    lines = [f"{count} failed. Give the same command to try again:"]
    for failure, number in Counter(failures.values()).items():
        names = [name for name, other in failures.items() if other == failure]
        others = f" and {number - 1} more" if number > 1 else ""
        lines += [f"  {names[0]}{others}: {failure.message}"]
    tracebacks = dict.fromkeys(failure.traceback for failure in failures.values() if failure.traceback)
    return "\n".join([*tracebacks, *lines])


def naming_arguments(overrides: Sequence[str], with_sweep: bool = True) -> list[str]:
    """Make arguments for Hydra that name a sweep and its jobs.

    A job is named by its values of the settings that the sweep varies. The sweep is named by these settings and a hash
    of the command, so the same command finds the same folder again.

    Args:
        overrides: Arguments of the form `key=value`, as Hydra reads them.
        with_sweep: Whether to name the sweep, too, unless the user has done so.
    """
    parsed = [o for o in OverridesParser.create().parse_overrides(list(overrides)) if not _is_hydras(o)]
    varied = sorted(o.key_or_group for o in parsed if o.is_sweep_override())
    same = sorted({"sweep", *(o.key_or_group for o in parsed)} - set(varied))
    arguments = [f"hydra.job.config.override_dirname.exclude_keys={json.dumps(same)}"]
    if with_sweep and not any(o.key_or_group == "sweep" for o in parsed):
        arguments.append(f"sweep={_sweep_name(parsed, varied)}")
    return arguments


def job_name(varied: str, otherwise: str) -> str:
    """Name of a job's folder, which needs no quotes in a shell or for Hydra.

    Args:
        varied: The varied settings and the job's values, as Hydra joins them: `key-value_key-value`.
        otherwise: Name for a sweep that varies nothing.

    Examples:
        >>> job_name("arch-vgg13_seed-1", "alexnet")
        'arch-vgg13_seed-1'
        >>> job_name("checkpoint-'/home/me/outputs/2026-01-31/12-00-00_alexnet/checkpoints/best.ckpt'", "evaluate")
        'checkpoint-12-00-00_alexnet-best.ckpt_36e94d2a'
    """
    varied = re.sub(r"-'([A-Za-z0-9._+-]+)'(?=_|$)", r"-\1", varied)  # remove the quotes of paths that need none
    short = re.sub(r"'((?:[^'\\]|\\.)*)'", lambda quoted: _end_of_path(quoted[1]), varied or otherwise)
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", short).strip("-.")
    if plain == (varied or otherwise) and len(plain) <= _LONGEST_NAME:
        return plain
    return f"{plain[:_LONGEST_NAME]}_{_digest(varied)}"


def _end_of_path(path: str) -> str:
    """The last two parts of a path, without `checkpoints`: usually the run's folder and the file."""
    parts = [part for part in path.split("/") if part not in ("", "checkpoints")]
    return "/".join(parts[-2:]) or path


def _all_failures() -> dict[str, run_folder.Failure]:
    """The failures that are recorded in the sweep's folder, by the name of the job."""
    folders = sorted(file.parent for file in folder().glob(f"*/{run_folder.FAILURE}"))
    return {job.name: failure for job in folders if (failure := run_folder.read_failure(job))}


OmegaConf.register_new_resolver("job_name", job_name, replace=True)


def _sweep_name(parsed: Sequence[Override], varied: Sequence[str]) -> str:
    experiments = [str(o.value()) for o in parsed if o.key_or_group == "experiment" and not o.is_sweep_override()]
    words = [*experiments, *(key.rpartition(".")[2] for key in varied)] or ["sweep"]
    decisive = sorted(str(o.input_line) for o in parsed if _is_decisive(o.key_or_group))
    return f"{re.sub(r'[^A-Za-z0-9._+-]+', '-', '-'.join(words))[:60]}_{_digest(json.dumps(decisive))}"


def _is_decisive(key: str) -> bool:
    """Whether a setting may change what the jobs learn or measure, as all callbacks but those that draw may."""
    first, _, rest = key.partition(".")
    if first == "callbacks":
        return rest.partition(".")[0] not in DRAWING
    return first not in INDECISIVE


def _is_hydras(override: Override) -> bool:
    return override.key_or_group.partition(".")[0].partition("/")[0] == "hydra"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
