"""Logger for Weights & Biases. Only this package imports wandb, and only when a run is logged."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from camlab.errors import plain_texts
from camlab.tracking.wandb_environment import check_base_url, has_key, mode_of_environment
from camlab.tracking.wandb_segments import complaint, how_to_sync, one_line, run_id, segments, unsynced_before

log = logging.getLogger(__name__)

IMAGES_PER_KEY = 108  # W&B drops the images of a longer list that exceed this number
_INIT_TIMEOUT, _FINISH_TIMEOUT = 30.0, 20.0  # seconds; a lost server must not hold up a run
_FINISH_LIMIT = 27.0  # seconds, in case W&B exceeds its own timeout
_ROWS = 1_000_000  # W&B numbers rows; each process that continues a run starts this much higher than the previous one


class WandbLogger(LightningWandbLogger):
    """Lightning's logger for Weights & Biases, changed so that it never asks a question and never blocks or ends a run.

    It is online if an API key is configured, and offline otherwise. If the online start fails, it continues offline.
    After any other failure of W&B it logs nothing more; the metrics are in `metrics.csv` in any case. `finish` logs one
    line that says what has not been uploaded and how to sync it.

    A folder holds one W&B run. Each process that continues the run writes the next segment of it. Offline, each segment
    has a folder of its own; when all segments are synced, they form one run again.

    Args:
        save_dir: Folder of the run; the folder `wandb/` is created in it.
        mode: `online`, `offline` or `disabled`; None to decide by `WANDB_MODE` and by whether there is a key.
        log_checkpoint: Upload the tested checkpoint as an artifact when the run is finished.
        viewer: Log the page that browses the heatmaps when the run is finished.
        **options: Options of Lightning's WandbLogger and of `wandb.init`: project, entity, name, group, tags, notes, …

    Raises:
        UserError: `WANDB_MODE` or `WANDB_BASE_URL` has a value that W&B does not accept.
    """

    def __init__(
        self,
        save_dir: str,
        mode: str | None = None,
        log_checkpoint: bool = False,
        viewer: bool = True,
        **options: Any,
    ) -> None:
        asked = mode or mode_of_environment()
        check_base_url()
        keyless = asked in (None, "online") and not has_key()  # W&B would ask for a key in order to go online
        self._mode = "offline" if keyless else asked or "online"
        self._why = "no API key" if keyless else "as requested"  # reason for being offline
        self._level = logging.INFO
        self._log_checkpoint, self.takes_pages = log_checkpoint, viewer and self._mode != "disabled"
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
        self._attempt(lambda: LightningWandbLogger.log_hyperparams(self, plain_texts(params)))

    @rank_zero_only
    def log_pictures(self, key: str, pictures: Sequence[np.ndarray], captions: Sequence[str], epoch: int) -> None:
        """Log one list of images under `key`; a slider in the dashboard selects the epoch.

        Args:
            key: Name of the list, e.g. `heatmaps/probe`.
            pictures: uint8 RGB, H×W×3 each.
            captions: One caption for each picture.
            epoch: Number of epochs done.
        """

        def send() -> None:
            import wandb

            pairs = list(zip(pictures, captions, strict=True))[:IMAGES_PER_KEY]
            images = [wandb.Image(picture, caption=caption, file_type="jpg") for picture, caption in pairs]
            self.experiment.log({key: images, "epoch": epoch})

        self._attempt(send)

    @rank_zero_only
    def log_test(
        self, per_class: Mapping[str, float], confusion: np.ndarray | None, class_names: Sequence[str]
    ) -> None:
        """Log a test: accuracies per class as `test/acc/CLASS` in the summary, and the confusion matrix as a chart.

        Args:
            per_class: Accuracy by class, 0 to 1.
            confusion: Counts, M×M; row is the true class, column the predicted one. None for no chart.
            class_names: M names.
        """

        def send() -> None:
            import wandb

            self.experiment.summary.update({f"test/acc/{name}": value for name, value in per_class.items()})
            if confusion is None:
                return
            cells = [
                [true, predicted, int(confusion[i, j])]
                for i, true in enumerate(class_names)
                for j, predicted in enumerate(class_names)
            ]
            names: list[Any] = ["Actual", "Predicted", "nPredictions"]  # the names in W&B's own chart
            table, fields = wandb.Table(columns=names, data=cells), {name: name for name in names}
            chart = wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": "Confusion matrix (test)"})
            self.experiment.log({"test/confusion_matrix": chart})

        self._attempt(send)

    @rank_zero_only
    def log_checkpoint(self, checkpoint: Path) -> None:
        """Upload a checkpoint as an artifact of type `model`, if the logger was made with `log_checkpoint`."""

        def send() -> None:
            import wandb

            run = self.experiment
            artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model")
            artifact.add_file(str(checkpoint), policy="immutable")  # the file is uploaded without a copy
            run.log_artifact(artifact, aliases=[checkpoint.stem])

        if self._log_checkpoint:
            self._attempt(send)

    @rank_zero_only
    def log_page(self, page: str, epoch: int) -> None:
        """Log a page that needs no other file as `heatmaps/viewer`; the dashboard shows it, scripts included.

        Args:
            page: A whole HTML document.
            epoch: Number of epochs done.
        """

        def send() -> None:
            import wandb

            shown = wandb.Html(
                page, inject=False, data_is_not_path=True
            )  # by default, W&B adds a style sheet from its own host
            self.experiment.log({"heatmaps/viewer": shown, "epoch": epoch})

        self._attempt(send)

    @rank_zero_only
    def finish(self) -> None:
        """End the run at W&B, within 30 s, and log what has not been uploaded and how to sync it."""
        run, self._experiment = self._experiment, None
        gave_up, self._broken = self._broken, True  # logging after this must not start another run
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
            log.warning("W&B: not everything was uploaded (%s). To sync: %s", trouble, how_to_sync([segment]))

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
                _teardown()  # otherwise W&B refuses to start another run with the same id
        self._init(self._mode, len(earlier))

    def _init(self, mode: str, segment: int) -> None:
        import wandb

        wandb.setup(wandb.Settings(silent=True))  # otherwise W&B reports an outage in many lines
        settings = wandb.Settings(
            init_timeout=_INIT_TIMEOUT, finish_timeout=_FINISH_TIMEOUT, finish_timeout_raises=True, silent=True
        )
        self._wandb_init.update(mode=mode, settings=settings)
        run = self._experiment = wandb.init(**self._wandb_init)
        for handler in logging.getLogger("wandb").handlers:
            handler.handleError = lambda record: None  # type: ignore[method-assign]  # prints pages on a full disk
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        run.define_metric("epoch")
        run.define_metric("heatmaps/*", step_metric="epoch")
        if segment:
            run.log({}, step=segment * _ROWS)  # offline, W&B numbers the rows of each segment from 0
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
            if self._broken:  # the run could not be started within this action, which has been reported
                return
            self._broken, self._why = True, one_line(error).rstrip(".")
            log.warning("W&B: %s. Going on without it; the metrics are in metrics.csv.", self._why)


def _finish(run: Any) -> str | None:
    """End a run in bounded time; return what went wrong, or None."""
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
    """Kill W&B's service process, because W&B's exit hook would wait for it without a limit."""
    import wandb

    with suppress(Exception):  # wandb has no public function for this
        wandb.setup()._connection._proc._process.kill()  # type: ignore[union-attr]
