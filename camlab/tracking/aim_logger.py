"""Logger for Aim, with epochs as the x-axis of curves and heatmaps alike."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from camlab.errors import UserError, plain_texts


class AimLogger(Logger):
    """Aim's logger for Lightning, with epochs done as the x-axis; all runs share one store.

    A run that is resumed is a new run in Aim. Neither the terminal's text nor the machine's settings are logged.

    Args:
        save_dir: Folder of the run.
        folder: Folder of the store, `.aim`.
        experiment: Name of the experiment.
        run_name: Name of the run.

    Raises:
        UserError: Aim is not installed.
    """

    def __init__(self, save_dir: str, folder: str, experiment: str = "camlab", run_name: str | None = None) -> None:
        super().__init__()
        logging.getLogger("aim").setLevel(logging.WARNING)  # it tells which threads it starts
        try:
            from aim.pytorch_lightning import AimLogger as LoggerOfAim
        except ModuleNotFoundError as error:
            raise UserError("logger=aim: not installed. Run: pip install aim.") from error
        self._save_dir, self._place = save_dir, Path(folder).absolute()
        self._logger = LoggerOfAim(
            repo=str(self._place),
            experiment=experiment,
            run_name=run_name,
            context_prefixes={"subset": {split: f"{split}/" for split in ("train", "val", "test")}},
            system_tracking_interval=None,
            log_system_params=False,
            capture_terminal_logs=False,
        )

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self._logger.name)

    @property
    def version(self) -> str:
        """Aim's hash of the run."""
        return str(self._logger.version)

    @property
    def save_dir(self) -> str:
        """Folder of the run."""
        return self._save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `aim.Run`, which is begun when it is first needed: building a logger writes nothing."""
        self._place.mkdir(parents=True, exist_ok=True)
        return self._logger.experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the settings of the run."""
        self._place.mkdir(parents=True, exist_ok=True)
        self._logger.log_hyperparams(plain_texts(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at the number of epochs done, or at the step if they do not tell it."""
        self._place.mkdir(parents=True, exist_ok=True)
        at = int(metrics["epoch"]) if "epoch" in metrics else step
        self._logger.log_metrics(dict(metrics), at)

    @rank_zero_only
    def finish(self) -> None:
        """End the run. Lightning's `finalize` does not, because a test after the training goes on with it."""
        self._logger.finalize("success")
