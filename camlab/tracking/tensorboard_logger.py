"""Logger for TensorBoard, with epochs as the x-axis of curves and heatmaps alike."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from camlab.errors import plain_texts


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's logger for TensorBoard, with epochs done as the x-axis; the HPARAMS tab shows the run's result.

    Args:
        save_dir: Folder of the run.
        **options: Options of Lightning's TensorBoardLogger.
    """

    def __init__(self, save_dir: str, **options: Any) -> None:
        super().__init__(save_dir, default_hp_metric=False, **options)
        self._epochs_done = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        curves = {key: value for key, value in metrics.items() if key != "epoch"}
        if "epoch" in metrics:
            step = self._epochs_done = int(metrics["epoch"])
        super().log_metrics(curves, step)

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, float]) -> None:
        """Show a run's final metrics beside its settings, which `log_hyperparams` has received before."""
        super().log_hyperparams(plain_texts(dict(self.hparams)), dict(metrics), self._epochs_done)
        self.experiment.flush()
