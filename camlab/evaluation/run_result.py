"""Result of a finished run: its test, the content of `result.json`, and what users and trackers are told."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from camlab.data.module import ImageData
from camlab.evaluation.confusion import ConfusionCounter
from camlab.evaluation.report import Report
from camlab.models.devices import device_name, peak_memory_gb
from camlab.models.trained_network import output_names
from camlab.runs import run_folder
from camlab.runs.provenance import provenance, utc_now
from camlab.tracking.results import RunResult, log_result
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)


def test_fitted(trainer: L.Trainer, classifier: Classifier, data: ImageData, run_dir: Path) -> Report | None:
    """Count each test image once at the end of a run, with the best weights or, with nothing held out, the last.

    Args:
        trainer: Trainer that has fitted the classifier.
        classifier: Module of the run.
        data: Data of the run.
        run_dir: Folder of the run.

    Returns:
        The report, whose metrics keep their prefix `test/`; None where the trainer leaves tests out.
    """
    if trainer.limit_test_batches == 0:
        return None
    names = output_names(data.class_names, classifier.network.spec["num_classes"])
    confusion = ConfusionCounter(len(names))
    trainer.callbacks.append(confusion)  # type: ignore[attr-defined]
    best, last = run_dir / run_folder.BEST, run_dir / run_folder.LAST
    chosen = best if "val" in data.splits and best.is_file() else None
    path = chosen and str(chosen)
    trainer.test(classifier, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key != "epoch"}
    return Report(confusion.counts, names, metrics, str(chosen or last), str(data.name), "test")


def describe_result(
    trainer: L.Trainer, data: ImageData, fitted: dict[str, float], report: Report | None
) -> dict[str, Any]:
    """Make the content of `result.json` that a run itself knows.

    Args:
        trainer: Trainer of the run.
        data: Data of the run.
        fitted: Last metrics of training and validation.
        report: Report of the test; None without one.

    Returns:
        Plain values. The objective is the best validation accuracy, or the test accuracy where nothing is held out; it
        is NaN on the further ranks of a distributed run, which have no metrics.
    """
    metrics, device = {**fitted, **(report.metrics if report else {})}, trainer.strategy.root_device
    return {
        "metrics": metrics,
        "per_class": report and {k: v for k, v in report.per_class.items() if not math.isnan(v)},
        "tested_checkpoint": report and Path(report.checkpoint).stem,
        "objective": metrics.get("val/best_acc", metrics.get("test/acc", math.nan)),
        "epochs": trainer.current_epoch,
        "finished": utc_now(),
        "device": device_name(device),
        "peak_memory_gb": peak_memory_gb(device),
        "data_fingerprint": data.fingerprint(),
        **provenance(),
    }


def show_result(result: dict[str, Any], report: Report | None, loggers: Sequence[Logger], run_dir: Path) -> None:
    """Tell the trackers and the user how a run ended."""
    metrics = result["metrics"]
    if report is None:
        log.info("Not tested (trainer.limit_test_batches=0). Best val/acc %.4f.", result["objective"])
    else:
        tested = Path(report.checkpoint)
        kept = tested if tested.is_file() else None
        log_result(loggers, RunResult(metrics, result["per_class"], report.class_names, report.confusion, kept))
        log.info("Test accuracy %.2f %% (%s checkpoint).", 100 * metrics["test/acc"], result["tested_checkpoint"])
    if "test/pointing_game" in metrics:
        log.info(
            "Pointing game %.1f %% (a random point scores %.1f %%, the image's centre %.1f %%).",
            *(100 * metrics[f"test/pointing_game{kind}"] for kind in ("", "_random", "_center")),
        )
    log.info("Results: %s", run_dir / run_folder.RESULT)
    if sheets := sorted(run_dir.glob("heatmaps/*/sheet.png")):
        log.info("Heatmaps: open %s", sheets[-1])
