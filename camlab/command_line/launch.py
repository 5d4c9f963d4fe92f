"""Outermost layer of every command: reads the arguments, prints the help or runs Hydra, and sets the exit code.

Exit codes:
    0: The command has finished.
    1: Any other error, which is printed with its traceback.
    2: The user made a mistake, which is reported in one or two lines that say how to correct it.
    130 and 143: The run was interrupted (by Ctrl-C or SIGTERM) and can be resumed.
    141: The command has finished, but the program that read its output (such as `head`) had ended before.
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

from camlab.command_line import output, repeats, sweeps
from camlab.command_line.arguments import WITH_OUT, read_arguments
from camlab.command_line.conf import conf_dir
from camlab.command_line.help import help_text
from camlab.command_line.mistakes import explain_mistake
from camlab.command_line.notes import remove_bare, write_first_notes
from camlab.command_line.settings import check_folder, checked
from camlab.errors import Interrupted, UserError
from camlab.runs import run_folder
from camlab.runs.data_identity import files_hash

log = logging.getLogger(__name__)


class _Job:
    """A task in the form that Hydra and its launchers call, in this process or, pickled, in another.

    Attributes:
        failure: The error that ended a single run. A job of a sweep writes its error into its folder instead and
            returns, so that the other jobs continue.
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
        output.prepare_output()  # again, because the job may run in a process of its own
        sweeps.label_lines()
        try:
            return self._run(config)
        except SystemExit as end:
            if "SUBMITIT_EXECUTOR" in os.environ:  # submitit exits to queue a job again
                raise
            sweeps.note_failure(end, None)
        except run_folder.Busy as error:
            log.info("%s", error)  # the sweep was started twice, and another process runs this job
        except Exception as error:
            sweeps.note_failure(error, explain_mistake(error))
        return None

    def _run(self, config: DictConfig) -> Any:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if self.command in WITH_OUT:
            write_first_notes(folder, config)
        config = checked(config, self.command)
        _quiet_libraries()
        if not sweeps.under_way():  # a single job has been checked before it began
            if self.command == "score":
                repeats.begin(config, folder)
            return self.task(config)
        if self.command in repeats.RESULTS:
            return repeats.run_once(self.task, config, self.command, folder)
        check_folder(config, self.command, folder)
        return self.task(config)


def launch(task: Callable[[DictConfig], Any], command: str, arguments: Sequence[str] | None = None) -> None:
    """Compose a configuration from the command line, run a task with it, and end with the right exit code.

    Args:
        task: Function of the configuration. It must be importable by its name, since other processes may run the jobs
            of a sweep.
        command: a command, such as `train`; `conf/` contains a file with this name.
        arguments: Arguments of the command; None takes those of this process.
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
    HydraConfig.instance().cfg = None  # forget an earlier sweep in this process
    files_hash.cache_clear()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)()
    except ValueError as error:  # Optuna raises it if no trial has succeeded
        if isinstance(error, UserError) or not (sweeps.under_way() and sweeps.failures()):
            raise
    if job.failure:
        if not isinstance(job.failure, run_folder.Busy) and explain_mistake(job.failure) is not None:
            remove_bare(sweeps.RememberCommand.new_folders)
        raise job.failure
    if sweeps.under_way():
        _conclude_sweep(command)


def _conclude_sweep(command: str) -> None:
    """Print the table of a sweep of training runs, and end the command with their failures if jobs have failed."""
    if command == "train":
        from camlab.runs.table import compare

        compare([sweeps.folder()], sweeps.folder())
    if failures := sweeps.failures():
        _end(sweeps.describe_failures(failures), 2 if all(failure.by_user for failure in failures.values()) else 1)


def _quiet_libraries() -> None:
    """Silence messages of libraries that do not help the user, such as hardware lists and advertisements."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".*isinstance\(treespec, LeafSpec\)",
        r"Checkpoint directory .* exists and is not empty",  # it does when a run is resumed
        r"The dirpath has changed from",  # it does when a run continues from another run's folder
        r"Found \d+ module\(s\) in eval mode at the start of training",  # a frozen backbone is in eval mode
        r"It is recommended to use `self\.log\(.*sync_dist=True",  # metrics gather all ranks in compute()
        r"`ModelCheckpoint\(monitor='val/acc'\)` could not find",  # a run may end before its first validation
        r"The number of training batches .* is smaller than the log",
    ):
        warnings.filterwarnings("ignore", message=message)


def _end(message: str, code: int) -> None:
    output.print_error(message)
    sys.exit(code)
