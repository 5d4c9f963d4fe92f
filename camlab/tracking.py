"""Where numbers and pictures go: W&B, TensorBoard, files. The only room that knows wandb, and it imports it lazily."""

import csv
import io
import logging
import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from camlab.runs import METRICS, write_atomically

log = logging.getLogger(__name__)

IMAGES_PER_KEY = 108  # W&B drops the rest of a list
_INIT_TIMEOUT, _FINISH_TIMEOUT = 30.0, 25.0  # seconds; a lost server must not hold a run up


class WandbLogger(LightningWandbLogger):
    """Lightning's logger for Weights & Biases, which never asks, blocks or ends a run.

    Online where an API key is configured, offline otherwise; one line says which, and how to sync. Whatever fails
    at W&B degrades to an offline run, and that failing to none: the numbers are in `metrics.csv` as well.

    Args:
        save_dir: `wandb/` is made in it.
        mode: `online`, `offline`, `disabled`, or None to decide by `WANDB_MODE` and whether there is a key.
        **options: of Lightning's WandbLogger and of `wandb.init`: project, entity, name, group, tags, notes, …
    """

    def __init__(self, save_dir: str, mode: str | None = None, **options: Any) -> None:
        self._mode = mode or os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        self._why = "" if mode or "WANDB_MODE" in os.environ or self._mode == "online" else "no API key; "
        self._broken = False
        super().__init__(save_dir=save_dir, **options)
        self._wandb_init.pop("anonymous")  # deprecated; W&B warns even of None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None and not self._broken:
            self._start()
        return DummyExperiment() if self._broken else self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._attempt(lambda: LightningWandbLogger.log_metrics(self, metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._attempt(lambda: LightningWandbLogger.log_hyperparams(self, params))

    @rank_zero_only
    def log_pictures(self, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epoch: int) -> None:
        """One list of images under `key`; a slider in the dashboard runs over epochs."""

        def send() -> None:
            import wandb

            pairs = list(zip(pictures, captions, strict=True))[:IMAGES_PER_KEY]
            images = [wandb.Image(picture, caption=caption, file_type="jpg") for picture, caption in pairs]
            self.experiment.log({key: images, "epoch": epoch})

        self._attempt(send)

    @rank_zero_only
    def finish(self) -> None:
        """End the run at W&B; the time for it is bounded."""
        if self._experiment is not None:
            self._attempt(self._experiment.finish)
            self._experiment = None
            self._broken = True  # nothing may start another run

    def _start(self) -> None:
        try:
            self._init(self._mode)
        except Exception as error:
            if self._mode != "online":
                return self._give_up(error)
            log.warning("W&B: online failed (%s); going on offline.", _first_line(error))
            self._attempt(lambda: self._init("offline"))

    def _init(self, mode: str) -> None:
        import wandb

        settings = wandb.Settings(init_timeout=_INIT_TIMEOUT, finish_timeout=_FINISH_TIMEOUT, silent=True)
        self._wandb_init.update(mode=mode, settings=settings)
        run = wandb.init(**self._wandb_init)
        self._experiment = run
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        run.define_metric("epoch")
        run.define_metric("heatmaps/*", step_metric="epoch")
        if mode == "online":
            log.info("W&B: online, %s", run.url)
        elif mode == "offline":
            folder = Path(run.dir).parent
            log.info('W&B: offline (%ssync later with: wandb sync "%s")', self._why, folder)

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._broken:
            return
        try:
            action()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        log.warning("W&B: %s. Going on without it; the numbers are in metrics.csv.", _first_line(error))


class MetricsCsv(Logger):
    """`metrics.csv` straight in a run's folder: a line for each time that something is logged.

    Args:
        run_dir: of the run.

    Attributes:
        rows: what was logged, in order; checkpoints keep them, so that a resumed run has each once.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = run_dir / METRICS
        self.rows: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": float(step or 0), **{key: float(value) for key, value in metrics.items()}}
        known = self._columns()
        self.rows.append(row)
        if known != self._columns() or len(self.rows) == 1:
            self._write_all()
        else:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, known).writerow(_whole_numbers(row))

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Left out: the run's folder has its `config.yaml`."""

    @rank_zero_only
    def restore(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Start from these rows, whatever the file holds: what was logged behind a checkpoint comes again."""
        self.rows = [dict(row) for row in rows]
        if self.rows:
            self._write_all()
        else:
            self.path.unlink(missing_ok=True)

    def _columns(self) -> list[str]:
        return sorted({key for row in self.rows for key in row})

    def _write_all(self) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self._columns())
        writer.writeheader()
        writer.writerows(map(_whole_numbers, self.rows))
        write_atomically(self.path, table.getvalue())


def _whole_numbers(row: Mapping[str, float]) -> dict[str, float]:
    """Steps as one counts them: 3, not 3.0."""
    return {**row, "step": int(row["step"])}


def log_pictures(
    loggers: Sequence[Logger], key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epoch: int
) -> None:
    """Send uint8 RGB pictures with captions to all trackers that can show them.

    Args:
        loggers: a Trainer's; those that keep numbers only are passed over.
        key: e.g. `heatmaps/probe`.
        pictures: H×W×3 each; place i of the list is the same subject in every epoch.
        captions: one each.
        epoch: epochs done, the x-axis.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_pictures(key, pictures, captions, epoch)
        elif isinstance(logger, TensorBoardLogger):
            for i, picture in enumerate(pictures):
                logger.experiment.add_image(f"{key}/{i:02d}", picture, epoch, dataformats="HWC")


def _has_key() -> bool:
    """Whether W&B would find credentials without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for path in (Path(c).expanduser() for c in candidates if c):
        try:
            if netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
