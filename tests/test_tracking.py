"""What W&B and TensorBoard get, read back from what a run really wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Coloured
from lightning.pytorch.loggers import TensorBoardLogger
from test_training import classifier, trainer

from camlab.tracking.pictures import log_pictures
from camlab.tracking.wandb_logger import WandbLogger
from camlab.training.callbacks.heatmap_logger import HeatmapLogger


def records(run_dir: Path) -> list[dict[str, Any]]:
    """An offline run's records, by W&B's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run_dir)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def offline_runs(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*"))


def test_offline_run_read_back(tmp_path):
    logger = WandbLogger(save_dir=str(tmp_path), project="looking", name="a run", tags=["alexnet", "frozen"], group="g")
    run = trainer(tmp_path, max_epochs=2, logger=logger, callbacks=[HeatmapLogger()])
    logger.log_hyperparams({"optimizer": {"lr": 1e-3}, "git_commit": "abc"})
    run.fit(classifier(), datamodule=Coloured())
    logger.finish()
    (folder,) = offline_runs(tmp_path)
    found = records(folder)

    about = next(r["run"] for r in found if r["type"] == "run")
    assert (about["project"], about["display_name"], about["run_group"]) == ("looking", "a run", "g")
    assert about["tags"] == ["alexnet", "frozen"]
    config = {k: v for r in found if r["type"] == "config" for k, v in r["config"]["update"].items()}
    assert config["git_commit"] == "abc"
    assert config["optimizer"] == {"lr": 1e-3}

    metrics = [r["metric"] for r in found if r["type"] == "metric"]
    step_of = {m.get("glob_name") or m["name"]: m.get("step_metric") for m in metrics}
    assert step_of["heatmaps/*"] == "epoch"
    assert step_of["*"] == "trainer/global_step"

    history = [r["history"]["item"] for r in found if r["type"] == "history"]
    drawn = [item for item in history if any(key.startswith("heatmaps/probe") for key in item)]
    assert [item["epoch"] for item in drawn] == [0, 1, 2], "one record an epoch"
    captions = [item["heatmaps/probe.captions"] for item in drawn]
    assert all(len(c) == 8 for c in captions)
    subjects = [[caption.split(",")[0] for caption in c] for c in captions]
    assert subjects[0] == subjects[1] == subjects[2], "the same probe images"
    assert all("predicted class" in caption and caption.endswith("%") for c in captions for caption in c)
    assert len(list(folder.glob("files/media/images/heatmaps/*.jpg"))) >= 8
    curves = [item for item in history if "val/acc" in item]
    assert [item["epoch"] for item in curves] == [1, 2]


def test_without_a_key_it_is_offline_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    logger = WandbLogger(save_dir=str(tmp_path))
    logger.log_metrics({"x": 1.0}, step=0)
    logger.finish()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("W&B")]
    assert lines == [
        "W&B: offline (no API key).",
        f'W&B: offline (no API key). To sync: wandb sync "{offline_runs(tmp_path)[0]}"',
    ]


def test_a_failing_tracker_never_stops_a_run(tmp_path, caplog):
    (tmp_path / "wandb").write_text("a file where a folder should be")
    logger = WandbLogger(save_dir=str(tmp_path), dir=None)
    logger._wandb_init["entity"] = object()  # wandb.init raises on it
    run = trainer(tmp_path, logger=logger, callbacks=[HeatmapLogger()])
    run.fit(classifier(), datamodule=Coloured())
    logger.finish()
    assert run.state.finished
    assert "Going on without it" in caplog.text


def test_tensorboard_gets_the_pictures(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(str(tmp_path), name="tensorboard", version="")
    pictures = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    for epoch in (0, 1):
        log_pictures([logger], "heatmaps/probe", pictures, ["a", "b"], epoch)
    logger.finalize("success")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["heatmaps/probe/00", "heatmaps/probe/01"]
    assert [image.step for image in events.Images("heatmaps/probe/01")] == [0, 1]
