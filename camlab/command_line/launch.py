"""The outermost layer of every command: quoting of paths, Hydra, and what becomes of errors.

Exit codes: 0 done; 2 the user's mistake, in one or two lines with the way out; 130 and 143 interrupted,
resumable; 141 nobody reads the output; 1 anything else, with the traceback.
"""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import hydra
from omegaconf import DictConfig

from camlab.command_line import sweeps
from camlab.command_line.arguments import conf_dir, read_arguments
from camlab.command_line.mistakes import explain_mistake
from camlab.command_line.settings import check
from camlab.errors import Interrupted
from camlab.runs import run_folder

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
            if isinstance(error, run_folder.Busy):
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
    from camlab.runs.report import compare

    compare([sweep.folder], sweep.folder)
    if failures := sweep.failures():
        _end(sweeps.report(failures), 2 if all(failure.by_user for failure in failures.values()) else 1)


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
