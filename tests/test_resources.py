"""Full disks and folders that cannot be written: a run stops with a clear message, or continues without what failed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Coloured
from test_entries import TINY
from test_training import classifier, trainer

from camlab.runs import checkpoint_files, run_folder
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.training.callbacks.heatmap_logger import HeatmapLogger

MEGABYTE = 2**20


def mount(folder: Path, *options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 25 MB, which holds two of the three checkpoints of a frozen AlexNet."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-o", "size=25m")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    line = [sys.executable, "-m", "camlab.train", *TINY, "logger=csv", f"hydra.run.dir={folder / 'run'}", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder.parent)}
    done = subprocess.run(line, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_with_checkpoints(small_disk, tmp_path):
    arguments = ["mode=frozen", f"paths.cache={tmp_path / 'cache'}"]
    code, told = run(small_disk, *arguments)
    assert code == 2, told
    assert ".ckpt cannot be written" in told
    assert "Make room" in told
    assert len(told.splitlines()) <= 2
    folder = small_disk / "run"
    last = checkpoint_files.checkpoint_to_resume("auto", folder, folder, "")
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert not list(folder.rglob("*.partial"))
    mount(small_disk, "-o", "remount,size=100m")
    assert run(small_disk, *arguments)[0] == 0
    assert json.loads((folder / run_folder.RESULT).read_text())["epochs"] == 2


@pytest.mark.slow
def test_a_disk_too_small_for_the_cache_is_no_reason_to_stop(small_disk, tmp_path):
    (small_disk / "filled").write_bytes(bytes(25 * MEGABYTE - 200_000))
    line = [f"hydra.run.dir={tmp_path / 'run'}", f"paths.cache={small_disk / 'cache'}", "mode=frozen"]
    code, told = run(small_disk, *line)
    assert code == 0, told
    assert "Features are not cached" in (tmp_path / "run" / "train.log").read_text()
    assert not list((small_disk / "cache" / "features").glob("*.np*"))


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_written(small_disk):
    mount(small_disk, "-o", "remount,ro")
    code, told = run(small_disk)
    assert code == 2
    assert "Read-only file system" in told
    assert len(told.splitlines()) == 1


def test_heatmaps_that_cannot_be_written_do_not_stop_training(tmp_path, caplog):
    (tmp_path / "heatmaps").write_text("a file where a folder should be")
    run = trainer(tmp_path, callbacks=[HeatmapLogger()], enable_checkpointing=False)
    run.fit(classifier(), datamodule=Coloured())
    assert run.state.finished
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]  # once
    assert told.startswith("No heatmaps at epoch 0: [Errno")


def test_metrics_that_cannot_be_written_are_written_later(tmp_path, caplog):
    folder = tmp_path / "run"
    metrics = MetricsCsv(folder)
    metrics.log_metrics({"train/loss": 2.0}, step=1)
    assert "metrics.csv cannot be written (No such file or directory)" in caplog.text
    folder.mkdir()
    metrics.log_metrics({"train/loss": 1.0, "val/acc": 0.5}, step=2)
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert lines == ["step,train/loss,val/acc", "1,2.0,", "2,1.0,0.5"]
    metrics.log_metrics({"train/loss": 0.5}, step=3)
    assert (folder / "metrics.csv").read_text().splitlines()[-1] == "3,0.5,"
    metrics.restore([{"step": 1.0, "train/loss": 2.0}])
    assert (folder / "metrics.csv").read_text().splitlines() == ["step,train/loss", "1,2.0"]
