"""Failures of W&B, with a real server on loopback: training continues, nothing is lost, and one line tells the user.

To see what is kept, a test repairs the server, runs the command that this line names, and reads from the server.
"""

import csv
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import wandb
from conftest import Coloured
from test_entries import TINY
from test_training import classifier, trainer
from wandb_stub import KEY, Run, WandbStub

from camlab.tracking import wandb_logger
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.tracking.wandb_logger import WandbLogger
from camlab.training.callbacks.heatmap_logger import HeatmapLogger

EPOCHS = 2
slow = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbStub]:
    """A server that works, a key for it, and a client that knows neither yet; timeouts are 4 s."""
    stub = WandbStub()
    stub.start()
    for name, value in {"BASE_URL": stub.url, "API_KEY": KEY, "ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setattr(wandb_logger, "_INIT_TIMEOUT", 4.0)
    monkeypatch.setattr(wandb_logger, "_FINISH_TIMEOUT", 4.0)
    wandb.teardown()  # W&B reads the environment only once
    yield stub
    wandb.teardown()
    stub.stop()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that returns the lines that camlab has logged about W&B."""
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records if r.getMessage().startswith("W&B")]


class AfterFirstEpoch(L.Callback):
    """Performs an action after the first epoch."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 0:
            self.action()


def fit(folder: Path, midway: Callable[[], Any] = lambda: None, epochs: int = EPOCHS, **options: Any) -> float:
    """Do a whole run with heatmaps; return the seconds that `finish` took."""
    logger = WandbLogger(save_dir=str(folder), project="outages", **options)
    callbacks = [HeatmapLogger(), AfterFirstEpoch(midway)]
    run = trainer(folder, max_epochs=epochs, logger=[logger, MetricsCsv(folder)], callbacks=callbacks)
    run.fit(classifier(), datamodule=Coloured())
    assert run.state.finished
    assert run.current_epoch == epochs
    began = time.perf_counter()
    logger.finish()
    return time.perf_counter() - began


def epochs_in_csv(folder: Path) -> list[float]:
    with open(folder / "metrics.csv", newline="") as file:
        return [float(row["epoch"]) for row in csv.DictReader(file) if row["val/acc"]]


def sync(line: str) -> str:
    """Run the command that a logged line names; return its output."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = line[line.index("wandb sync") :]
    where = os.environ["HOME"]  # `wandb sync` leaves a log in its working directory
    done = subprocess.run(command, shell=True, env=environment, cwd=where, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Finished syncing" in done.stderr, done.stderr
    return done.stderr


def assert_complete(run: Run, epochs: int = EPOCHS) -> None:
    """Assert that the numbers and pictures of every epoch are on the server."""
    assert [row["epoch"] for row in run.history if "val/acc" in row] == [*range(1, epochs + 1)]
    drawn = [row for row in run.history if "heatmaps/probe" in row]
    assert [row["epoch"] for row in drawn] == [*range(epochs + 1)]
    for row in drawn:
        assert set(row["heatmaps/probe"]["filenames"]) <= run.files.keys()
    steps = [row["_step"] for row in run.history]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_server_that_works_gets_everything(tmp_path, server, said):
    seconds = fit(tmp_path)
    (run,) = server.runs.values()
    assert_complete(run)
    assert run.exit_codes == [0]
    assert seconds < 10
    (line,) = said()
    assert line.startswith(f"W&B: online, {server.url}/tester/outages/runs/")


def refuse(server: WandbStub) -> None:
    server.stop()


def fault(name: Any) -> Callable[[WandbStub], None]:
    def break_it(server: WandbStub) -> None:
        server.fault = name

    return break_it


AT_START = {
    "refused": (refuse, "connection refused"),
    "hang": (fault("hang"), "deadline exceeded"),
    "500": (fault("500"), "HTTP 500"),
    "garbage": (fault("garbage"), "invalid character"),
    "401": (fault("401"), "401"),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow) for name in AT_START])
def test_a_server_that_fails_from_the_start(tmp_path, server, said, name):
    break_it, reason = AT_START[name]
    break_it(server)
    assert fit(tmp_path) < 5
    start, end = said()
    assert start.startswith("W&B: offline (online failed: ")
    assert reason in start
    assert reason in end
    server.heal()
    assert not any(run.history for run in server.runs.values())
    sync(end)
    (run,) = server.runs.values()
    assert_complete(run)
    assert epochs_in_csv(tmp_path) == [1, 2]


MIDWAY = {
    "dies": (refuse, "connection refused"),
    "hang": (fault("hang"), "context canceled"),
    "500": (fault("500"), "HTTP 500"),
    "garbage": (fault("garbage"), "invalid character"),
    "401": (fault("401"), "401"),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow) for name in MIDWAY])
def test_a_server_that_fails_in_the_middle(tmp_path, server, said, name):
    break_it, reason = MIDWAY[name]
    assert fit(tmp_path, midway=lambda: break_it(server)) < 10
    start, end = said()
    assert start.startswith("W&B: online, ")
    assert end.startswith("W&B: not everything was uploaded (")
    assert reason in end
    server.heal()
    sync(end)
    (run,) = server.runs.values()
    assert_complete(run)
    assert epochs_in_csv(tmp_path) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("key", [pytest.param(None, id="none"), pytest.param("too-short", id="malformed")])
def test_no_key_or_a_bad_one(tmp_path, server, said, monkeypatch, key):
    if key is None:
        monkeypatch.delenv("WANDB_API_KEY")
    else:
        monkeypatch.setenv("WANDB_API_KEY", key)
    logger = WandbLogger(save_dir=str(tmp_path), mode="online")
    logger.log_metrics({"x": 1.0}, step=0)
    logger.finish()
    assert server.requests == []
    start, end = said()
    assert start.startswith("W&B: offline (no API key" if key is None else "W&B: offline (online failed: ")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    sync(end)
    (run,) = server.runs.values()
    assert [row["x"] for row in run.history] == [1.0]


@slow
def test_without_a_key_a_terminal_is_not_asked(tmp_path, server):
    script = f"from camlab.tracking.wandb_logger import WandbLogger\nWandbLogger({str(tmp_path)!r}, mode='online').experiment.id"
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_API_KEY"}
    command = shlex.join([sys.executable, "-W", "error", "-c", script])
    terminal = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    output = subprocess.run(
        terminal, env=environment, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=60
    )
    assert output.returncode == 0, output.stdout
    assert "choice" not in output.stdout


@slow
def test_finish_is_bounded_with_the_limits_as_they_are(tmp_path, server, said, monkeypatch):
    monkeypatch.undo()
    for name, value in {"BASE_URL": server.url, "API_KEY": KEY, "ERROR_REPORTING": "false", "MODE": "online"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    seconds = fit(tmp_path, midway=lambda: fault("hang")(server))
    assert wandb_logger._FINISH_TIMEOUT <= seconds < 30


def in_a_process(script: str, *arguments: Any, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own; its output is in `stderr`."""
    prelude = "import logging, os, signal, sys, time\nfrom camlab.tracking import wandb_logger\nlogging.basicConfig(level='INFO')\n"
    command = [sys.executable, "-c", prelude + textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=Path(__file__).parents[1])


@slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_finish_is_bounded_when_wandbs_own_process_is_stuck_or_dead(tmp_path, server, number):
    script = """
    import subprocess
    wandb_logger._FINISH_LIMIT = 3.0
    logger = wandb_logger.WandbLogger(sys.argv[1])
    logger.log_metrics({"x": 1.0}, step=0)
    time.sleep(1)
    core = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True).stdout
    os.kill(int(core), int(sys.argv[2]))
    began = time.perf_counter()
    logger.finish()
    print("finished in", time.perf_counter() - began)
    """
    done = in_a_process(script, tmp_path, int(number))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 5
    assert "W&B: not everything was uploaded" in done.stderr


@slow
def test_the_command_ends_well_when_the_server_dies(tmp_path, server):
    command = [sys.executable, "-m", "camlab.train", *TINY, f"hydra.run.dir={tmp_path / 'run'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None and not any(path.endswith("file_stream") for path in server.requests):
            time.sleep(0.05)
        server.stop()
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert (tmp_path / "run" / "result.json").is_file()
    (line,) = [line for line in output.splitlines() if "wandb sync" in line]
    server.heal()
    sync(line)
    (run,) = server.runs.values()
    assert [row["epoch"] for row in run.history if "val/acc" in row] == [1, 2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A run's folder whose subfolder `wandb` is a disk of its own, with 4 MB."""
    folder = tmp_path / "run" / "wandb"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder.parent
    wandb.teardown()
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    with open(disk / "filler", "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


@slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_disk_that_fills_up(small_disk, server, said, capfd, mode):
    assert fit(small_disk, midway=lambda: fill(small_disk / "wandb"), mode=mode) < 10
    assert epochs_in_csv(small_disk) == [1, 2]
    assert {path.name for path in small_disk.glob("heatmaps/epoch_*")} == {f"epoch_000{i}" for i in range(3)}
    assert "wandb sync" in said()[-1]
    assert "the disk is full" in said()[-1] or "No space left" in said()[-1]
    assert len(capfd.readouterr().err.splitlines()) < 20


@slow
def test_a_disk_that_is_full_from_the_start(small_disk, server, said, capfd):
    fill(small_disk / "wandb")
    assert fit(small_disk) < 1
    assert epochs_in_csv(small_disk) == [1, 2]
    (line,) = said()
    assert re.search(r"the disk under .* is full\. Going on without it; the metrics are in metrics\.csv", line)
    assert len(capfd.readouterr().err.splitlines()) < 20


@slow
@pytest.mark.parametrize("modes", [("offline",) * 3, ("online", "offline", "online")], ids="-".join)
def test_segments_are_one_run(tmp_path, server, said, modes):
    """Each process of a run adds a segment to it. Synced together, the segments form one complete run."""
    for i, mode in enumerate(modes):
        logger = WandbLogger(save_dir=str(tmp_path), mode=mode)
        logger.log_metrics({"loss": 3.0 - i}, step=10 * i)
        logger.log_metrics({"loss": 2.5 - i}, step=10 * i + 5)
        logger.finish()
        wandb.teardown()
        time.sleep(1.1)  # names of segments differ by the second of their start
    assert len(list(tmp_path.glob("wandb/*run-*-*"))) == 3
    sync([line for line in said() if "wandb sync" in line][-1])
    (run,) = server.runs.values()
    rows = sorted(run.history, key=lambda row: row["trainer/global_step"])
    assert [row["trainer/global_step"] for row in rows] == [0, 5, 10, 15, 20, 25]
    assert [row["loss"] for row in rows] == [3.0, 2.5, 2.0, 1.5, 1.0, 0.5]
    steps = [row["_step"] for row in run.history]
    assert steps == sorted(set(steps)), "W&B drops or renumbers rows that are not in order"
    if set(modes) == {"offline"}:
        assert steps == [0, 1, 1_000_000, 1_000_001, 2_000_000, 2_000_001]


@slow
@pytest.mark.parametrize("rows", [5, 1500])
def test_a_killed_process_and_the_one_that_goes_on_are_one_run(tmp_path, server, rows):
    """W&B writes 32 KB at a time, so the last rows that a killed process logged are in metrics.csv only."""
    script = """
    logger = wandb_logger.WandbLogger(sys.argv[1], mode="offline")
    first, rows = map(int, sys.argv[2:])
    for step in range(first, first + rows):
        logger.log_metrics({"x": float(step)}, step=step)
    if first == 0:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    logger.finish()
    """
    assert in_a_process(script, tmp_path, 0, rows).returncode == -signal.SIGKILL
    done = in_a_process(script, tmp_path, rows, rows)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "wandb sync" in line]
    assert line.count("wandb sync") == (1 if rows == 5 else 2)
    sync(line)
    (run,) = server.runs.values()
    reached = [row["x"] for row in run.history]
    assert reached == sorted(set(reached))
    assert reached[-rows:] == [*range(rows, 2 * rows)]
    assert len(reached) - rows >= (0 if rows == 5 else 1000)
