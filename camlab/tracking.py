"""Where numbers and pictures go: W&B, TensorBoard, files. The only room that knows wandb, and it imports it lazily."""

import csv
import io
import json
import logging
import netrc
import os
import secrets
import shutil
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
_INIT_TIMEOUT, _FINISH_TIMEOUT = 30.0, 20.0  # seconds; a lost server must not hold a run up
_FINISH_LIMIT = 27.0  # seconds, should W&B not keep to its own
_ROWS = 1_000_000  # W&B numbers rows; each process that goes on with a run starts this much higher than the one before
_EMPTY = 7  # bytes of a segment's log in which nothing stands
_ROOM = 2**20  # bytes; a disk with less counts as full


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
        if trouble := _complaint(segment) or error:
            self._why, self._level = trouble, logging.WARNING
        if self._mode == "offline":
            how = _how_to_sync([*_unsynced_before(segment), segment])
            log.log(self._level, "W&B: offline (%s). To sync: %s", self._why, how)
        elif trouble:
            log.warning("W&B: not all is uploaded (%s). To sync: %s", trouble, _how_to_sync([segment]))

    def _start(self) -> None:
        if self._mode == "disabled":
            return self._init("disabled", 0)
        segments = _segments(Path(self._wandb_init["dir"]))
        self._wandb_init["id"] = self._wandb_init["id"] or _run_id(segments)
        if self._mode == "online":
            try:
                return self._init("online", len(segments))
            except Exception as error:
                self._mode, self._why, self._level = "offline", f"online failed: {_one_line(error)}", logging.WARNING
                _teardown()  # W&B starts no run of an id whose first start failed
        self._init(self._mode, len(segments))

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
            self._broken, self._why = True, _one_line(error)
            log.warning("W&B: %s. Going on without it; the numbers are in metrics.csv.", self._why)


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
        self._known: list[str] = []  # columns of the file

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": float(step or 0), **{key: float(value) for key, value in metrics.items()}}
        known, self._known = self._known, []
        self.rows.append(row)
        try:
            if self._columns() != known:
                self._write_all()
            else:
                with open(self.path, "a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, known).writerow(_whole_numbers(row))
            self._known = self._columns()
        except OSError as error:  # half a line may stand there: the next time all are written anew
            log.warning("%s cannot be written (%s).", self.path, error.strerror)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Left out: the run's folder has its `config.yaml`."""

    @rank_zero_only
    def restore(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Start from these rows, whatever the file holds: what was logged behind a checkpoint comes again."""
        self.rows, self._known = [dict(row) for row in rows], []
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


def _segments(run_dir: Path) -> list[Path]:
    """What earlier processes wrote in a run's folder, oldest first.

    Raises:
        OSError: nothing can be written there.
    """
    folder = run_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < _ROOM:
        raise OSError(f"the disk under {folder} is full")
    return sorted(folder.glob("*run-*-*"), key=lambda path: path.name.removeprefix("offline-"))


def _run_id(segments: Sequence[Path]) -> str:
    """The id of the run that a folder holds, as the names of its segments have it, or a new one."""
    if segments:
        return segments[-1].name.removeprefix("offline-").split("-", 2)[2]  # run-<time>-<id>
    return secrets.token_hex(4)


def _unsynced_before(segment: Path) -> list[Path]:
    """A run's earlier offline segments, oldest first, but for those that are synced or have nothing to read in them."""
    written = [path for path in segment.parent.glob("offline-run-*/*.wandb") if path.stat().st_size > _EMPTY]
    unsynced = [path.parent for path in written if not path.with_suffix(".wandb.synced").exists()]
    return sorted(path for path in unsynced if path.name < segment.name)


def _how_to_sync(segments: Sequence[Path]) -> str:
    """A command for the shell; W&B stops at a segment whose process was killed, so each has a command of its own."""
    flags = ["" if path.name.startswith("offline-") else "--include-online " for path in segments]
    return " && ".join(f'wandb sync {flag}"{path}"' for flag, path in zip(flags, segments, strict=True))


def _finish(run: Any) -> str | None:
    """End a run in bounded time; what went wrong, if anything."""
    outcome: list[str | None] = [f"not finished after {_FINISH_LIMIT:.0f} s"]

    def finish() -> None:
        try:
            run.finish()
            outcome[0] = None
        except Exception as error:
            outcome[0] = _one_line(error)

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


def _complaint(segment: Path) -> str | None:
    """What W&B's own log has against a segment: requests that were refused or not understood end without an error."""
    with suppress(OSError):
        if shutil.disk_usage(segment).free < _ROOM:
            return "the disk is full"
    with suppress(OSError, ValueError):
        lines = (segment / "logs" / "debug-internal.log").read_text(encoding="utf-8").splitlines()
        for record in (json.loads(line) for line in lines if '"level":"ERROR' in line):
            return _one_line(": ".join(str(record[key]) for key in ("msg", "status", "error") if key in record))
    return None


def _one_line(error: BaseException | str) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 240, placeholder=" …")
