"""The outermost layer of every command: arguments, help, Hydra, and the exit code.

Exit codes: 0 done; 2 the user's mistake, reported in one or two lines with the way out; 130 and 143 interrupted,
resumable; 141 done, though nobody read the output; 1 any other error, with its traceback.
"""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from camlab.command_line import output, sweeps
from camlab.command_line.arguments import read_arguments
from camlab.command_line.conf import conf_dir
from camlab.command_line.help import help_text
from camlab.command_line.mistakes import explain_mistake
from camlab.command_line.settings import checked
from camlab.errors import Interrupted, UserError
from camlab.runs import run_folder

log = logging.getLogger(__name__)


class _Job:
    """A task as Hydra and its launchers call it: in this process, or pickled into another.

    Attributes:
        failure: The error that ended a single run. A job of a sweep notes its error in its folder instead and returns,
            so that the other jobs go on.
    """

    def __init__(self, task: Callable[[DictConfig], Any], command: str) -> None:
        self.task, self.command = task, command
        self.failure: Exception | None = None

    def __call__(self, config: DictConfig) -> Any:
        if not sweeps.under_way():
            try:
                return self._run(config)
            except Exception as error:
                self.failure = error
                return None
        output.prepare_output()  # the job may be in a process of its own
        sweeps.label_lines()
        try:
            return self._run(config)
        except SystemExit as end:
            if "SUBMITIT_EXECUTOR" in os.environ:  # submitit exits to queue a job again
                raise
            sweeps.note_failure(end, None)
        except run_folder.Busy as error:
            log.info("%s", error)  # a sweep that was started twice: each process takes the jobs that are free
        except Exception as error:
            sweeps.note_failure(error, explain_mistake(error))
        return None

    def _run(self, config: DictConfig) -> Any:
        config = checked(config, self.command)
        if sweeps.under_way() and self.command in ("evaluate", "explain"):  # a single job was checked before its start
            run_folder.check_unused(Path(HydraConfig.get().runtime.output_dir))
        _quiet_libraries()
        return self.task(config)


def launch(task: Callable[[DictConfig], Any], command: str, arguments: Sequence[str] | None = None) -> None:
    """Compose a configuration from the command line, run the task with it, end with the right exit code.

    Args:
        task: Importable by its name, since other processes may run the jobs of a sweep.
        command: `train`, `evaluate`, `explain` or `cache`; `conf/` holds a file of this name.
        arguments: The command line; None takes this process's.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors instead of printing them
    output.prepare_output()
    lost = 0
    try:
        sys.argv[1:] = read_arguments(sys.argv[1:] if arguments is None else arguments, command)
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(help_text(command, sys.argv[1:]))
        else:
            _compose_and_run(_Job(task, command), command)
    except Interrupted as stop:
        _end(stop.message, 128 + stop.signal_number)
    except KeyboardInterrupt:
        _end("Interrupted.", 130)
    except Exception as error:
        if not output.is_of_output(error):
            told = explain_mistake(error)
            _end(told or "".join(traceback.format_exception(error)), 1 if told is None else 2)
    finally:
        lost = output.end_output()
    if lost:
        sys.exit(lost)


def _compose_and_run(job: _Job, command: str) -> None:
    HydraConfig.instance().cfg = None  # of an earlier sweep in this process
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)()
    except ValueError as error:  # Optuna raises one where no trial succeeded
        if isinstance(error, UserError) or not (sweeps.under_way() and sweeps.failures()):
            raise
    if job.failure:
        raise job.failure
    if sweeps.under_way():
        _conclude_sweep(command)


def _conclude_sweep(command: str) -> None:
    """Print the table of a sweep of training runs, then the jobs that failed, if any did."""
    if command == "train":
        from camlab.runs.report import compare

        compare([sweeps.folder()], sweeps.folder())
    if failures := sweeps.failures():
        _end(sweeps.report(failures), 2 if all(failure.by_user for failure in failures.values()) else 1)


def _quiet_libraries() -> None:
    """Silence messages that tell a user nothing: hardware lists, advertisements, a deprecation within Lightning."""
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


def _end(message: str, code: int) -> None:
    output.print_error(message)
    sys.exit(code)
