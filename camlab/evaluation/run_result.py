"""Result of a finished run: its test, the content of `result.json`, and the messages to the user and to trackers."""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from camlab.data.module import ImageData
from camlab.errors import UserError, first_line
from camlab.evaluation.confusion import ConfusionCounter
from camlab.evaluation.label_report import LabelReport
from camlab.evaluation.report import Report, metric_lines
from camlab.models.devices import device_name, peak_memory_gb
from camlab.models.trained_network import output_names
from camlab.runs import run_folder
from camlab.runs.provenance import provenance, utc_now
from camlab.runs.watchers import ACCURACY
from camlab.tracking.results import RunResult, log_page, log_result
from camlab.training.callbacks.checkpoints import BestCheckpoint
from camlab.training.callbacks.heatmap_scores import HeatmapScores
from camlab.training.callbacks.known_truth import known_truth
from camlab.training.classifier import Classifier
from camlab.viewer.html import page_about, write_into

log = logging.getLogger(__name__)


def test_fitted(
    trainer: L.Trainer, classifier: Classifier, data: ImageData, best: Path | None, run_dir: Path
) -> Report | None:
    """Test a run at its end, and count each test image once.

    The best weights are tested, or the last ones if no images are held out.

    Args:
        trainer: Trainer that has fitted the classifier.
        classifier: Module of the run.
        data: Data of the run.
        best: The run's own best checkpoint; None if there is none, or it has been lost.
        run_dir: Folder of the run.

    Returns:
        The report, whose metrics keep their prefix `test/`; None if the trainer skips tests.
    """
    if trainer.limit_test_batches == 0:
        return None
    names = output_names(data.class_names, classifier.network.spec["num_classes"])
    confusion = ConfusionCounter(len(names), data.has_several_labels)
    trainer.callbacks += [confusion, *known_truth(data)]  # type: ignore[attr-defined]
    chosen = trainer.strategy.broadcast(best)
    if chosen is None and chosen_by(trainer) is not None:
        log.warning("%s has been lost or replaced. The last weights are tested.", run_dir / run_folder.BEST)
    trainer.test(classifier, datamodule=data, ckpt_path=chosen and str(chosen), weights_only=True, verbose=False)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key != "epoch"}
    kind = LabelReport if data.has_several_labels else Report
    return kind(confusion.counts, names, metrics, str(chosen or run_dir / run_folder.LAST), str(data.name), "test")


def describe_result(
    trainer: L.Trainer, data: ImageData, fitted: dict[str, float], report: Report | None
) -> dict[str, Any]:
    """Make the part of `result.json` that can be determined from the run itself.

    Args:
        trainer: Trainer of the run.
        data: Data of the run.
        fitted: Last metrics of training and validation.
        report: Report of the test; None if there was no test.

    Returns:
        Plain values. The objective is the best validation accuracy (the last one if the best checkpoint has been lost)
        or, if no images are held out, the test accuracy. It is NaN on ranks without metrics, which are all but the
        first rank of a distributed run.
    """
    by, falls = chosen_by(trainer), _falls(trainer)
    metrics, device = {**fitted, **(report.metrics if report else {})}, trainer.strategy.root_device
    if report and Path(report.checkpoint).name != Path(run_folder.BEST).name and by is not None:
        metrics.pop("val/best_acc", None)  # no checkpoint with this accuracy is left
    return {
        "metrics": metrics,
        "per_class": report and report.per_class,
        "tested_checkpoint": report and Path(report.checkpoint).stem,
        "tested_epoch": report and _epoch_of(Path(report.checkpoint)),
        "checkpoint_by": by and by[0],
        **({} if falls is None else {"heat_falls": falls}),
        "objective": next(
            (metrics[key] for key in ("val/best_acc", "val/acc", "test/acc") if key in metrics), math.nan
        ),
        "epochs": trainer.fit_loop.epoch_progress.current.processed,  # type: ignore[attr-defined]
        "finished": utc_now(),
        "device": device_name(device),
        "peak_memory_gb": peak_memory_gb(device),
        "data_fingerprint": data.fingerprint(),
        **provenance(),
    }


def chosen_by(trainer: L.Trainer) -> tuple[str, float] | None:
    """The metric by which a run has chosen its best checkpoint, and the value there; None if it has written none."""
    found = (one for one in trainer.checkpoint_callbacks if isinstance(one, BestCheckpoint) and one.best_model_path)
    return next(((one.by, one.best_value) for one in found), None)


def _epoch_of(checkpoint: Path) -> int | None:
    """The epoch, counted from 1, at the end of which a checkpoint was saved; None if it is not there."""
    if not checkpoint.is_file():
        return None
    return int(torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["epoch"]) + 1


def _falls(trainer: L.Trainer) -> list[dict[str, Any]] | None:
    """Falls of scores of heatmaps while the accuracy rose, as plain values; None if nothing was scored."""
    watching = [one for one in trainer.callbacks if isinstance(one, HeatmapScores)]  # type: ignore[attr-defined]
    return [fall.as_dict() for one in watching for fall in one.falls] if watching else None


def show_result(result: dict[str, Any], report: Report | None, loggers: Sequence[Logger], run_dir: Path) -> None:
    """Send the result of a run to the trackers, log it for the user, and write the page of its heatmaps."""
    metrics = result["metrics"]
    if report is None:
        log.info("Not tested (trainer.limit_test_batches=0). Best val/acc %.4f.", result["objective"])
    else:
        tested = Path(report.checkpoint)
        kept = tested if tested.is_file() else None
        confusion = None if isinstance(report, LabelReport) else report.confusion
        log_result(loggers, RunResult(metrics, result["per_class"], report.class_names, confusion, kept))
        how = _how_chosen(result)
        of_what = " of the decisions label by label" if isinstance(report, LabelReport) else ""
        log.info("Test accuracy %.2f %%%s (%s checkpoint%s).", 100 * metrics["test/acc"], of_what, tested.stem, how)
    for line in metric_lines(metrics, "test/"):
        log.info("%s", line)
    log.info("Results: %s", run_dir / run_folder.RESULT)
    if sheets := sorted(run_dir.glob("heatmaps/*/sheet.png")):
        log.info("Heatmaps: open %s", sheets[-1])
    if page := write_into(run_dir):
        log.info("All epochs, in a browser: open %s", page)
        log_page(loggers, functools.partial(_page_within, page), result["epochs"])


def _how_chosen(result: Mapping[str, Any]) -> str:
    """The epoch that is tested, and the metric that has chosen it, in words."""
    if result["tested_checkpoint"] != "best":
        return ""
    by = "" if result["checkpoint_by"] == ACCURACY else f" by {result['checkpoint_by']}"
    return f": epoch {result['tested_epoch']} of {result['epochs']}{by}"


def _page_within(page: Path, megabytes: float) -> str | None:
    """The page of a run or, if it is larger than a limit, one with fewer epochs; None if that is too large, too."""
    if (size := page.stat().st_size / 1e6) <= megabytes:
        return page.read_text(encoding="utf-8")
    try:
        smaller = page_about([page.parent], megabytes)
    except UserError as error:
        log.warning("The trackers get no page of heatmaps: %s", first_line(error))
        return None
    log.info("The trackers get a page of %.1f MB with fewer epochs; here it has %.1f MB.", len(smaller) / 1e6, size)
    return smaller
