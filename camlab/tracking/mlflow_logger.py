"""Logger for MLflow, with epochs as the x-axis of curves and heatmaps alike."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger as LightningMLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from camlab.errors import UserError, plain_texts


class MLFlowLogger(LightningMLFlowLogger):
    """Lightning's logger for MLflow, with epochs done as the x-axis; all runs share one store.

    A run that is resumed is a new run in MLflow.

    Args:
        save_dir: Folder of the run.
        folder: Folder of the store, `mlflow.db` and `mlartifacts/`, unless a server is given.
        tracking_uri: Address of a server; None for `MLFLOW_TRACKING_URI` or, without it, the store in `folder`.
        experiment_name: Name of the experiment.
        run_name: Name of the run.
        tags: Tags of the run.

    Raises:
        UserError: MLflow is not installed.
    """

    def __init__(
        self,
        save_dir: str,
        folder: str,
        tracking_uri: str | None = None,
        experiment_name: str = "camlab",
        run_name: str | None = None,
        tags: dict[str, Any] | None = None,
    ) -> None:
        place = Path(folder).absolute()
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._place = place if uri is None else None
        artifacts = (place / "mlartifacts").as_uri() if uri is None else None
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
        try:
            super().__init__(
                experiment_name,
                run_name,
                uri or f"sqlite:///{place}/mlflow.db",
                tags,
                save_dir,
                artifact_location=artifacts,
            )
        except ModuleNotFoundError as error:
            raise UserError("logger=mlflow: not installed. Run: pip install mlflow.") from error

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._place is not None:
            self._place.mkdir(parents=True, exist_ok=True)  # only now: building a logger writes nothing
        return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        super().log_hyperparams(plain_texts(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        curves = {key: value for key, value in metrics.items() if key != "epoch"}
        super().log_metrics(curves, int(metrics["epoch"]) if "epoch" in metrics else step)
