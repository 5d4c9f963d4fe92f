"""Where numbers and pictures go: W&B, TensorBoard, files. The only room that knows wandb, and it imports it lazily."""

import logging
import netrc
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from camlab.tracking.wandb_segments import complaint, how_to_sync, one_line, run_id, segments, unsynced_before

log = logging.getLogger(__name__)

IMAGES_PER_KEY = 108  # W&B drops the rest of a list
_INIT_TIMEOUT, _FINISH_TIMEOUT = 30.0, 20.0  # seconds; a lost server must not hold a run up
_FINISH_LIMIT = 27.0  # seconds, should W&B not keep to its own
_ROWS = 1_000_000  # W&B numbers rows; each process that goes on with a run starts this much higher than the one before


class WandbLogger(LightningWandbLogger):
    """Lightning's logger for Weights & Biases, which never asks, blocks or ends a run.

    Online where an API key is configured, offline otherwise. Whatever fails at W&B degrades to an offline run, and that
    failing to none: the numbers are in `metrics.csv` as well. `finish` says in one line what is not uploaded, and how
    to sync it.

    A folder is one run: a process that goes on in it writes the next segment of the same run. Offline, a segment is a
    folder of its own; synced together, they are one run again.

    Args:
        save_dir: the run's folder; `wandb/` is made in it.
        mode: `online`, `offline`, `disabled`, or None to decide by `WANDB_MODE` and whether there is a key.
        **options: of Lightning's WandbLogger and of `wandb.init`: project, entity, name, group, tags, notes, …
    """

    def __init__(self, save_dir: str, mode: str | None = None, **options: Any) -> None:
        asked = mode or os.environ.get("WANDB_MODE")
        keyless = asked in (None, "online") and not _has_key()  # W&B would ask for one
        self._mode = "offline" if keyless else asked or "online"
        self._why = "no API key" if keyless else "as asked"  # it is not online
        self._level = logging.INFO
        self._broken = False
        super().__init__(save_dir=save_dir, **options)
        self._wandb_init.pop("anonymous")  # deprecated; W&B warns even of None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None and not self._broken:
            self._attempt(self._start)
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
        """End the run at W&B, in 30 s at most, and say what is not uploaded and how to sync it."""
        run, self._experiment = self._experiment, None
        gave_up, self._broken = self._broken, True  # nothing may start another run
        if run is None or self._mode == "disabled":
            return
        error = _finish(run) or (self._why if gave_up else None)
        with suppress(OSError):
            self._report(Path(run.dir).parent, error)

    def _report(self, segment: Path, error: str | None) -> None:
        if trouble := complaint(segment) or error:
            self._why, self._level = trouble, logging.WARNING
        if self._mode == "offline":
            how = how_to_sync([*unsynced_before(segment), segment])
            log.log(self._level, "W&B: offline (%s). To sync: %s", self._why, how)
        elif trouble:
            log.warning("W&B: not all is uploaded (%s). To sync: %s", trouble, how_to_sync([segment]))

    def _start(self) -> None:
        if self._mode == "disabled":
            return self._init("disabled", 0)
        earlier = segments(Path(self._wandb_init["dir"]))
        self._wandb_init["id"] = self._wandb_init["id"] or run_id(earlier)
        if self._mode == "online":
            try:
                return self._init("online", len(earlier))
            except Exception as error:
                self._mode, self._why, self._level = "offline", f"online failed: {one_line(error)}", logging.WARNING
                _teardown()  # W&B starts no run of an id whose first start failed
        self._init(self._mode, len(earlier))

    def _init(self, mode: str, segment: int) -> None:
        import wandb

        wandb.setup(wandb.Settings(silent=True))  # of an outage it would tell in lines of its own
        settings = wandb.Settings(
            init_timeout=_INIT_TIMEOUT, finish_timeout=_FINISH_TIMEOUT, finish_timeout_raises=True, silent=True
        )
        self._wandb_init.update(mode=mode, settings=settings)
        run = self._experiment = wandb.init(**self._wandb_init)
        for handler in logging.getLogger("wandb").handlers:
            handler.handleError = lambda record: None  # type: ignore[method-assign]  # pages of them on a full disk
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        run.define_metric("epoch")
        run.define_metric("heatmaps/*", step_metric="epoch")
        if segment:
            run.log({}, step=segment * _ROWS)  # offline, W&B would number the rows from 0 again
        if mode == "online":
            log.info("W&B: online, %s", run.url)
        elif mode == "offline":
            log.log(self._level, "W&B: offline (%s).", self._why)

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._broken:
            return
        try:
            action()
        except Exception as error:
            self._broken, self._why = True, one_line(error)
            log.warning("W&B: %s. Going on without it; the numbers are in metrics.csv.", self._why)


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


def _finish(run: Any) -> str | None:
    """End a run in bounded time; what went wrong, if anything."""
    outcome: list[str | None] = [f"not finished after {_FINISH_LIMIT:.0f} s"]

    def finish() -> None:
        try:
            run.finish()
            outcome[0] = None
        except Exception as error:
            outcome[0] = one_line(error)

    thread = threading.Thread(target=finish, daemon=True)
    thread.start()
    thread.join(_FINISH_LIMIT)
    if thread.is_alive():
        _kill_service()
    return outcome[0]


def _teardown() -> None:
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _kill_service() -> None:
    """End W&B's own process, which its exit hook would wait for."""
    import wandb

    with suppress(Exception):  # there is no public way
        wandb.setup()._connection._proc._process.kill()  # type: ignore[union-attr]
