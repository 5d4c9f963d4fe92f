"""Logger for TensorBoard, with epochs as the x-axis of curves and heatmaps alike."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from camlab.errors import UserError, plain_texts
from camlab.tracking.panels import CURVES, SCORES


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's logger for TensorBoard, with epochs done as the x-axis.

    The HPARAMS tab shows the run's result, and CUSTOM SCALARS the curves together that belong together.

    Args:
        save_dir: Folder of the run.
        **options: Options of Lightning's TensorBoardLogger.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, save_dir: str, **options: Any) -> None:
        try:
            super().__init__(save_dir, default_hp_metric=False, **options)
        except ModuleNotFoundError as error:
            raise UserError("logger=tensorboard: not installed. Run: pip install tensorboard.") from error
        self._epochs_done = 0
        self._has_layout = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        curves = {key: value for key, value in metrics.items() if key != "epoch"}
        if "epoch" in metrics:
            step = self._epochs_done = int(metrics["epoch"])
        if not self._has_layout:
            self._has_layout = True
            self.experiment.add_custom_scalars({"Curves": _charts(CURVES), "Scores": _charts(SCORES)})
        super().log_metrics(curves, step)

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, float]) -> None:
        """Show a run's final metrics beside its settings, which `log_hyperparams` has received before."""
        super().log_hyperparams(plain_texts(dict(self.hparams)), dict(metrics), self._epochs_done)
        self.experiment.flush()


def _charts(curves: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """Charts in the form that `add_custom_scalars` takes; TensorBoard reads the names as patterns."""
    return {title: ["Multiline", [f"^{re.escape(key)}$" for key in keys]] for title, keys in curves.items()}
