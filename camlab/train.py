"""Train a CamNet: `python -m camlab.train arch=alexnet mode=finetune` (Hydra entry)."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from camlab.command_line import sweeps
from camlab.command_line.launch import launch
from camlab.command_line.settings import config_hash
from camlab.errors import Interrupted, UserError
from camlab.runs import run_folder
from camlab.runs.provenance import provenance, utc_now
from camlab.training.interruption import Interruption

if TYPE_CHECKING:
    import lightning as L

    from camlab.data.module import ImageData
    from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)


def main() -> None:
    """Entry of `camlab-train`."""
    launch(train, "train")


def train(config: DictConfig) -> float:
    """Run one job in Hydra's folder for it.

    Returns:
        The objective of a sweep: the best validation accuracy, or the test accuracy where nothing is held out.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if sweeps.under_way():
        config.run_name = run_dir.name
    with run_folder.locked(run_dir, wait=sweeps.chooses()):
        return _train(config, run_dir, config_hash(config))


def _train(config: DictConfig, run_dir: Path, digest: str) -> float:
    if config.force:
        run_folder.forget(run_dir)
    elif config.resume in (None, "auto"):
        run_folder.check_same_run(run_dir, digest)
        if (result := run_folder.read_result(run_dir)) is not None:
            log.info("%s is finished: test/acc %.4f.", run_dir, result["metrics"]["test/acc"])
            return float(result["objective"])
    (run_dir / run_folder.FAILURE).unlink(missing_ok=True)
    checkpoint = run_folder.checkpoint_to_resume(config.resume, run_dir, Path(config.paths.outputs), digest)
    try:
        with Interruption() as interruption:
            run = _Run(config, run_dir, digest, interruption)
            run_folder.write_config(run_dir, OmegaConf.to_yaml(config, resolve=True), digest)
            return run.go(checkpoint)
    except Interrupted as stop:
        where = "" if sweeps.under_way() else f" with out={run_dir}"
        raise Interrupted(stop.signal_number, f"Interrupted. To go on: the same command{where}") from None


class _Run:
    """Everything a job is made of, built from its configuration. Torch is imported from here on."""

    def __init__(self, config: DictConfig, run_dir: Path, digest: str, interruption: Interruption) -> None:
        from camlab.models.devices import check_accelerator

        check_accelerator(config.trainer.accelerator)  # before the rest of the stack is imported

        import lightning as L
        from hydra.utils import instantiate

        from camlab.tracking.metrics_csv import MetricsCsv
        from camlab.training.classifier import Classifier

        self.config, self.run_dir, self.digest, self.interruption = config, run_dir, digest, interruption
        self.began = time.perf_counter()
        L.seed_everything(config.seed, workers=True, verbose=False)
        self.data: ImageData = instantiate(config.data)
        self.data.setup()
        if sweeps.chooses() and "val" not in self.data.splits:
            raise UserError("data.val_size=0: nothing is held out to choose by, and the test images must not be used.")
        self.classifier: Classifier = Classifier(
            network=instantiate(config.arch, num_classes=self._num_classes()),
            optimizer=instantiate(config.optimizer, _convert_="all"),
            scheduler=instantiate(config.scheduler, _convert_="all"),
        )
        if config.compile:
            self.classifier.network.compile()  # in place: checkpoints and heatmaps do not notice
        self.csv = MetricsCsv(run_dir)
        self.loggers = [*self._loggers(), self.csv]
        self.trainer: L.Trainer = instantiate(
            config.trainer,
            _convert_="all",
            callbacks=self._callbacks(),
            logger=self.loggers,
            default_root_dir=str(run_dir),
            enable_progress_bar=sys.stdout.isatty(),
            plugins=self._plugins(),
            deterministic=config.deterministic or config.trainer.deterministic,
        )

    def go(self, checkpoint: Path | None) -> float:
        """Fit, test once, write `result.json`; a run cut short is left resumable."""
        from camlab.training.checkpoint import check_resumable

        try:
            self._describe(checkpoint)
            if checkpoint is not None:
                check_resumable(checkpoint, self.classifier.network)
            path = checkpoint and str(checkpoint)
            self.trainer.fit(self.classifier, datamodule=self.data, ckpt_path=path, weights_only=True)
            metrics, tested = self._test()
            return self._finish(metrics, tested)
        finally:
            for logger in self.loggers:
                getattr(logger, "finish", lambda: None)()

    def _test(self) -> tuple[dict[str, float], str]:
        """Metrics of the chosen weights, the best or (with nothing held out) the last, and which they were."""
        fitted = {key: value for row in self.csv.rows for key, value in row.items() if key not in ("epoch", "step")}
        best = self.run_dir / run_folder.BEST
        chosen = str(best) if "val" in self.data.splits and best.is_file() else None
        self.trainer.test(self.classifier, datamodule=self.data, ckpt_path=chosen, weights_only=True, verbose=False)
        tested = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        return {**fitted, **tested}, "best" if chosen else "last"

    def _finish(self, metrics: dict[str, float], tested: str) -> float:
        from camlab.models.devices import device_name, peak_memory_gb

        held_out = [row["val/acc"] for row in self.csv.rows if "val/acc" in row]
        if held_out:
            metrics["val/best_acc"] = max(held_out)
        metrics.pop("epoch", None)
        objective = metrics.get("val/best_acc", metrics["test/acc"])
        if self.trainer.is_global_zero:
            run_folder.write_result(
                self.run_dir,
                {
                    "metrics": metrics,
                    "tested_checkpoint": tested,
                    "objective": objective,
                    "epochs": self.trainer.current_epoch,
                    "wall_time_s": round(time.perf_counter() - self.began, 2),
                    "finished": utc_now(),
                    "device": device_name(self.trainer.strategy.root_device),
                    "peak_memory_gb": peak_memory_gb(self.trainer.strategy.root_device),
                    "seed": self.config.seed,
                    "config_hash": self.digest,
                    "data_fingerprint": self.data.fingerprint(),
                    **provenance(),
                },
            )
            _report(metrics, tested, self.run_dir)
        return objective

    def _num_classes(self) -> int:
        there, given = len(self.data.class_names), self.config.arch.num_classes
        if given is not None and given < there:
            raise UserError(f"arch.num_classes={given}: the data has {there} classes; leave it out.")
        return given or there

    def _callbacks(self) -> list[Any]:
        from hydra.utils import instantiate
        from lightning.pytorch.callbacks import RichProgressBar

        from camlab.training.callbacks.checkpoints import checkpoints
        from camlab.training.callbacks.feature_cache import FeatureCache
        from camlab.training.callbacks.loss_guard import LossGuard
        from camlab.training.callbacks.progress import PlainProgress, TimeEstimate

        chosen = [instantiate(node, _convert_="all") for node in (self.config.callbacks or {}).values() if node]
        if self.config.cache:
            chosen.append(FeatureCache(self.config.paths.cache))
        progress = RichProgressBar() if sys.stdout.isatty() else PlainProgress()
        advice = "mode=frozen trains the head only; data=shapes is small; trainer.max_epochs=10 is a first look."
        if self.config.trainer.enable_checkpointing is not False:
            every, held_out = self.config.checkpoint_every, "val" in self.data.splits
            chosen += checkpoints(self.run_dir, held_out, every, self.interruption)
        return [LossGuard(self.run_dir), *chosen, progress, TimeEstimate(advice=advice)]

    def _plugins(self) -> list[Any]:
        from hydra.utils import instantiate

        from camlab.training.callbacks.checkpoints import CheckpointFiles

        plugins = instantiate(self.config.trainer.get("plugins"), _convert_="all") or []
        return [*(plugins if isinstance(plugins, list) else [plugins]), CheckpointFiles()]

    def _loggers(self) -> list[Any]:
        from hydra.utils import instantiate

        nodes = [node for node in (self.config.logger or {}).values() if node]
        try:
            return [instantiate(node, _convert_="all", save_dir=str(self.run_dir)) for node in nodes]
        except Exception as error:
            if "tensorboard" in str(error):
                raise UserError("logger=tensorboard: not installed; pip install tensorboard.") from error
            raise

    def _describe(self, checkpoint: Path | None) -> None:
        """Tell the trackers what this run is, and the user where it goes."""
        plain = OmegaConf.to_container(self.config, resolve=True)
        assert isinstance(plain, dict)
        about = {**plain, "config_hash": self.digest, "run_dir": str(self.run_dir), **provenance()}
        for logger in self.loggers:
            logger.log_hyperparams({str(key): value for key, value in about.items()})
        log.info("Run folder: %s", self.run_dir)
        if checkpoint is not None:
            log.info("Going on from %s", checkpoint)


def _report(metrics: dict[str, float], tested: str, run_dir: Path) -> None:
    log.info("Test accuracy %.2f %% (%s checkpoint).", 100 * metrics["test/acc"], tested)
    if "test/pointing_game" in metrics:
        log.info(
            "Pointing game %.1f %% (a random point scores %.1f %%, the image's centre %.1f %%).",
            *(100 * metrics[f"test/pointing_game{kind}"] for kind in ("", "_random", "_center")),
        )
    log.info("Results: %s", run_dir / run_folder.RESULT)
    if sheets := sorted(run_dir.glob("heatmaps/*/sheet.png")):
        log.info("Heatmaps: open %s", sheets[-1])


if __name__ == "__main__":
    from camlab.train import main as entry  # under a name that other processes can import, not as __main__

    entry()
