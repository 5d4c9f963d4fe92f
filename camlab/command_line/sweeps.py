"""A sweep: what it and its jobs are called, and what became of them. Imports no torch, no Lightning."""

import hashlib
import json
import logging
import re
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from camlab.command_line.settings import INDECISIVE
from camlab.runs import run_folder

log = logging.getLogger(__name__)

_LONGEST_NAME = 100  # characters; file systems take 255 bytes


class JobFailed(Exception):
    """A job of a sweep ended with an error, which stands in its folder; the others go on."""


@dataclass(frozen=True)
class Sweep(Callback):
    """What this process runs with `-m`; Hydra tells when it begins.

    Attributes:
        folder: of its jobs' folders.
        began: seconds since 1970.
    """

    folder: Path = Path()
    began: float = 0.0
    current: ClassVar["Sweep | None"] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.current = Sweep(Path(config.hydra.sweep.dir), time.time())

    def failures(self) -> dict[str, run_folder.Failure]:
        """By job: why those failed that were run this time."""
        found = {
            file.parent.name: run_folder.read_failure(file.parent)
            for file in sorted(self.folder.glob(f"*/{run_folder.FAILURE}"))
            if file.stat().st_mtime > self.began - 1
        }
        return {name: failure for name, failure in found.items() if failure}


def under_way() -> bool:
    """Whether this job is one of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def chooses() -> bool:
    """Whether the sweep goes by what its jobs return, as Optuna does."""
    return under_way() and not str(HydraConfig.get().sweeper._target_).endswith(".BasicSweeper")


def note_failure(error: BaseException, mistake: str | None) -> JobFailed:
    """Write into the job's folder why it failed.

    Args:
        error: whatever ended it.
        mistake: what the user can do about it; None where that is nothing.

    Returns:
        What to raise: it passes between processes, which the error itself may not.
    """
    message = mistake or f"{type(error).__name__}: {error}".rstrip(": ")
    log.error("This job failed: %s", message)
    told = "" if mistake else "".join(traceback.format_exception(error))
    run_folder.write_failure(
        Path(HydraConfig.get().runtime.output_dir), run_folder.Failure(message, mistake is not None, told)
    )
    return JobFailed(message)


def report(failures: dict[str, run_folder.Failure]) -> str:
    """Which jobs failed and why, behind the tracebacks of those that are no mistake; what many share is said once."""
    lines = [f"{len(failures)} of the jobs failed; the same command tries them again:"]
    for failure, count in Counter(failures.values()).items():
        names = [name for name, other in failures.items() if other == failure]
        others = f" and {count - 1} more" if count > 1 else ""
        lines += [f"  {names[0]}{others}: {failure.message}"]
    tracebacks = dict.fromkeys(failure.traceback for failure in failures.values() if failure.traceback)
    return "\n".join([*tracebacks, *lines])


def naming_arguments(overrides: Sequence[str]) -> list[str]:
    """What a sweep's command line lacks: its name, and which settings its jobs are not to be named by.

    The name says what is varied and ends in a hash of the command: the same command finds the same folder again.

    Args:
        overrides: `key=value` each, as Hydra reads them.
    """
    parsed = [o for o in OverridesParser.create().parse_overrides(list(overrides)) if not _is_hydras(o)]
    varied = sorted(o.key_or_group for o in parsed if o.is_sweep_override())
    same = sorted({"sweep", *(o.key_or_group for o in parsed)} - set(varied))
    arguments = [f"hydra.job.config.override_dirname.exclude_keys={json.dumps(same)}"]
    if not any(o.key_or_group == "sweep" for o in parsed):
        arguments.append(f"sweep={_sweep_name(parsed, varied)}")
    return arguments


def job_name(varied: str, otherwise: str) -> str:
    """A folder's name of what a job varies, in characters that any shell and Hydra take as they are.

    Args:
        varied: `key-value_key-value`, as Hydra has it.
        otherwise: what a job is called that varies nothing.
    """
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", varied or otherwise).strip("-.")
    if plain == (varied or otherwise) and len(plain) <= _LONGEST_NAME:
        return plain
    return f"{plain[:_LONGEST_NAME]}_{_digest(varied)}"


OmegaConf.register_new_resolver("job_name", job_name, replace=True)


def _sweep_name(parsed: Sequence[Override], varied: Sequence[str]) -> str:
    experiments = [str(o.value()) for o in parsed if o.key_or_group == "experiment" and not o.is_sweep_override()]
    words = [*experiments, *(key.rpartition(".")[2] for key in varied)] or ["sweep"]
    decisive = sorted(str(o.input_line) for o in parsed if o.key_or_group.partition(".")[0] not in INDECISIVE)
    return f"{re.sub(r'[^A-Za-z0-9._+-]+', '-', '-'.join(words))[:60]}_{_digest(json.dumps(decisive))}"


def _is_hydras(override: Override) -> bool:
    return override.key_or_group.partition(".")[0].partition("/")[0] == "hydra"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
