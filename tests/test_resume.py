"""Interrupted runs: which files they leave, and how they resume; and runs with a NaN or infinite loss."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import Coloured
from test_entries import TINY, command
from test_training import classifier, trainer

from camlab import train
from camlab.errors import Interrupted, UserError
from camlab.runs import checkpoint_files, run_folder
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.training.callbacks.checkpoints import CheckpointFiles, LastCheckpoint, checkpoints, steps_or_seconds
from camlab.training.callbacks.loss_guard import LossGuard
from camlab.training.interruption import Interruption
from camlab.training.run import Run

QUICK = [*TINY, "logger=csv", "callbacks.heatmaps=null", "data.train_size=40", "mode=frozen"]


class Signal(L.Callback):
    """Sends this process a signal at the start of a step, or at the start of the validation of an epoch."""

    def __init__(self, step: int = -1, validation: int = -1, number: int = signal.SIGTERM) -> None:
        self.step, self.validation, self.number = step, validation, number

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.validation:
            os.kill(os.getpid(), self.number)


def one_cycle(optimizer: torch.optim.Optimizer, total_steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps)


def fit(folder: Path, *callbacks: L.Callback, resume: bool = False, every: int | str | None = None, **options: Any):
    module = classifier()
    module._make_scheduler = options.pop("scheduler", None)
    with Interruption() as interruption:
        run = trainer(
            folder,
            max_epochs=2,
            callbacks=[*callbacks, *checkpoints(Run(folder), True, every, interruption)],
            plugins=[CheckpointFiles()],
            logger=[MetricsCsv(folder)],
            **options,
        )
        path = checkpoint_files.checkpoint_to_resume("auto", folder, folder, "")
        assert resume == (path is not None)
        run.fit(module, datamodule=Coloured(), ckpt_path=path and str(path), weights_only=True)
    return torch.load(folder / run_folder.LAST, weights_only=True)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["global_step"] == other["global_step"]
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name
    rows = [
        [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in end["camlab_run"]["rows"]]
        for end in (one, other)
    ]
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Any]:
    return fit(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", [{"step": 0}, {"step": 1}, {"step": 2}, {"step": 4}, {"validation": 0}])
def test_a_signal_ends_a_run_after_a_checkpoint_and_the_run_resumes_exactly(tmp_path, whole, where, number):
    with pytest.raises(Interrupted) as stop:
        fit(tmp_path, Signal(**where, number=number))
    assert stop.value.signal_number == number
    saved = torch.load(tmp_path / run_folder.LAST, weights_only=True)["global_step"]
    assert saved == {0: 1, 1: 2, 2: 3, 4: 5}.get(where.get("step"), 3)
    assert_same(fit(tmp_path, resume=True), whole)


@pytest.mark.slow
def test_checkpoints_within_epochs(tmp_path, whole):
    class Plug(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError, match="plug"):
        fit(tmp_path, Plug(), every=2)
    assert torch.load(tmp_path / run_folder.LAST, weights_only=True)["global_step"] == 4
    assert_same(fit(tmp_path, resume=True), whole)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [None, one_cycle])
def test_a_run_that_was_stopped_within_an_epoch_sees_the_rest_of_its_pictures(tmp_path, scheduler):
    whole = fit(tmp_path / "whole", scheduler=scheduler)
    with pytest.raises(Interrupted):
        fit(tmp_path / "stopped", Signal(step=3), scheduler=scheduler)
    assert torch.load(tmp_path / "stopped" / run_folder.LAST, weights_only=True)["global_step"] == 4
    assert_same(fit(tmp_path / "stopped", resume=True, scheduler=scheduler), whole)


def test_a_checkpoint_from_elsewhere_names_nothing_to_remove(tmp_path):
    """Lightning stores the path of the best checkpoint in checkpoints, and removes that file or the whole folder."""
    precious = tmp_path / "precious.ckpt"
    precious.mkdir()
    (precious / "file").touch()
    (tmp_path / "single.ckpt").touch()
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", Signal(step=1))
    content = torch.load(tmp_path / "run" / run_folder.LAST, weights_only=True)
    for name in ("precious.ckpt", "single.ckpt"):
        path = f"{tmp_path / 'run' / 'checkpoints'}/../../{name}"
        best = {"best_k_models": {path: torch.tensor(-1.0)}, "kth_best_model_path": path, "best_model_path": path}
        states = [state for state in content["callbacks"].values() if isinstance(state, dict) and "dirpath" in state]
        for state in states:
            state.update(best, dirpath=str(tmp_path / "run" / "checkpoints"), best_model_score=torch.tensor(-1.0))
        torch.save(content, tmp_path / "run" / run_folder.LAST)
        (tmp_path / "run" / f"{run_folder.LAST}.sha256").unlink(missing_ok=True)
        assert states
        fit(tmp_path / "run", resume=True)
        assert (precious / "file").is_file()
        assert (tmp_path / "single.ckpt").is_file()


def test_every_so_many_minutes(tmp_path):
    keep = LastCheckpoint(Run(tmp_path), "0.001min", Interruption())
    trainer(tmp_path, limit_val_batches=0, max_steps=1, callbacks=[keep], plugins=[CheckpointFiles()]).fit(
        classifier(), datamodule=Coloured()
    )
    assert (tmp_path / run_folder.LAST).is_file()
    assert (steps_or_seconds("10min"), steps_or_seconds("500"), steps_or_seconds(None)) == ((0, 600), (500, 0), (0, 0))


def test_outside_training_a_signal_raises_at_once_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted), Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    thread = threading.Thread(target=lambda: Interruption().__enter__())
    thread.start()
    thread.join()
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


def test_a_second_ctrl_c_leaves_at_once():
    code = """
import os, signal, time
from camlab.training.interruption import Interruption
with Interruption() as interruption:
    interruption.deferred = True
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        print(interruption.number, flush=True)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (130, "2\n")


# ---- checkpoint files


def put(folder: Path, content: bytes, name: str = run_folder.LAST) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    with checkpoint_files.open_checkpoint(path) as file:
        file.write(content)
    return path


def test_the_checkpoint_before_stays_and_stands_in_for_a_damaged_one(tmp_path, caplog):
    last = put(tmp_path, b"first")
    assert not (tmp_path / run_folder.BEFORE_LAST).exists()
    put(tmp_path, b"second")
    assert (last.read_bytes(), (tmp_path / run_folder.BEFORE_LAST).read_bytes()) == (b"second", b"first")
    assert checkpoint_files.checkpoint_to_resume("auto", tmp_path, tmp_path, "") == last
    assert not caplog.records

    last.write_bytes(b"secon")
    assert checkpoint_files.checkpoint_to_resume("auto", tmp_path, tmp_path, "") == tmp_path / run_folder.BEFORE_LAST
    assert [record.getMessage() for record in caplog.records] == [f"{last} is damaged."]
    last.unlink()
    assert (
        checkpoint_files.checkpoint_to_resume(str(tmp_path), tmp_path, tmp_path, "")
        == tmp_path / run_folder.BEFORE_LAST
    )
    (tmp_path / run_folder.BEFORE_LAST).write_bytes(b"")
    with pytest.raises(UserError, match="Add force=true to replace them with a new run"):
        checkpoint_files.checkpoint_to_resume("auto", tmp_path, tmp_path, "")


@pytest.mark.parametrize("crash_at", range(1, 5))
def test_there_is_a_whole_checkpoint_at_every_moment(tmp_path, monkeypatch, crash_at):
    put(tmp_path, b"zeroth")
    put(tmp_path, b"first")
    real, calls = os.replace, iter(range(1, 100))

    def replace(*paths: Any) -> None:
        if next(calls) == crash_at:
            raise OSError("power cut")
        real(*paths)

    monkeypatch.setattr(os, "replace", replace)
    if crash_at <= 3:
        with pytest.raises(OSError, match="power cut"):
            put(tmp_path, b"second")
    else:
        put(tmp_path, b"second")
    found = checkpoint_files.checkpoint_to_resume("auto", tmp_path, tmp_path, "")
    assert found.read_bytes() in (b"first", b"second")


@pytest.mark.parametrize("content", [b"", b"\0" * 130, b"\xff not a checksum", b"0123456789abcdef"])
def test_a_checksum_file_that_is_damaged_condemns_nothing(tmp_path, caplog, content):
    """A power cut can leave a file of checksums empty or full of zeros."""
    put(tmp_path, b"first")
    last = put(tmp_path, b"second")
    (tmp_path / f"{run_folder.LAST}.sha256").write_bytes(content)
    assert checkpoint_files.is_whole(last)
    assert checkpoint_files.is_whole(tmp_path / run_folder.BEFORE_LAST)
    assert checkpoint_files.checkpoint_to_resume("auto", tmp_path, tmp_path, "") == last
    put(tmp_path, b"third")
    last.write_bytes(b"thir")
    assert checkpoint_files.checkpoint_to_resume("auto", tmp_path, tmp_path, "").read_bytes() == b"second"
    assert [record.getMessage() for record in caplog.records] == [f"{last} is damaged."]


def test_processes_that_die_between_checksum_and_checkpoint_condemn_nothing(tmp_path, monkeypatch):
    put(tmp_path, b"zeroth")
    last = put(tmp_path, b"first")
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith(".ckpt"):
            raise OSError("power cut")
        real(source, target)

    for attempt in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with pytest.raises(OSError, match="power cut"):
                put(tmp_path, f"attempt {attempt}".encode())
        assert checkpoint_files.is_whole(last)
        assert checkpoint_files.is_whole(tmp_path / run_folder.BEFORE_LAST)


def test_checksums_are_on_the_disk_before_the_checkpoint(tmp_path, monkeypatch):
    """Each file is synced before it is renamed, each folder after it."""
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def name(descriptor: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    monkeypatch.setattr(os, "fsync", lambda d: (events.append(f"sync {name(d).split('.')[-1]}"), real_sync(d))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(f"rename {Path(b).name}"), real_replace(a, b))[1])
    put(tmp_path, b"content")
    assert events == [
        "sync partial", "sync partial", "rename last.ckpt.sha256", "sync checkpoints", "rename last.ckpt", "sync checkpoints"
    ]  # fmt: skip


def test_a_checkpoint_named_by_hand_is_checked_as_well(tmp_path):
    last = put(tmp_path, b"first")
    assert checkpoint_files.checkpoint_to_resume(str(last), tmp_path, tmp_path, "") == last
    last.write_bytes(b"firs")
    with pytest.raises(UserError, match=r"resume=.*last\.ckpt: the checkpoint is damaged"):
        checkpoint_files.checkpoint_to_resume(str(last), tmp_path, tmp_path, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:5000] + b"\0" * 64 + b[5064:], lambda b: b""]
)
def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(tmp_path, monkeypatch, capsys, damage):
    folder = tmp_path / "run"
    plan = [*QUICK, f"hydra.run.dir={folder}", f"paths.cache={tmp_path}"]
    assert command(monkeypatch, train.main, *plan) == 0
    expected = json.loads((folder / run_folder.RESULT).read_text())["metrics"]
    (folder / run_folder.RESULT).unlink()
    (folder / run_folder.LAST).write_bytes(damage((folder / run_folder.LAST).read_bytes()))
    capsys.readouterr()
    assert command(monkeypatch, train.main, *plan) == 0
    said = capsys.readouterr().out
    assert said.count("is damaged") == 1
    assert "Resuming from" in said
    found = json.loads((folder / run_folder.RESULT).read_text())["metrics"]
    assert {k: v for k, v in found.items() if "second" not in k} == {
        k: v for k, v in expected.items() if "second" not in k
    }


@pytest.mark.slow
def test_force_starts_anew(tmp_path, monkeypatch):
    plan = [*QUICK, f"hydra.run.dir={tmp_path / 'run'}", f"paths.cache={tmp_path}"]
    assert command(monkeypatch, train.main, *plan) == 0
    first = (tmp_path / "run" / run_folder.RESULT).stat().st_mtime_ns
    assert command(monkeypatch, train.main, *plan, "force=true") == 0
    assert (tmp_path / "run" / run_folder.RESULT).stat().st_mtime_ns > first


@pytest.mark.slow
def test_force_removes_nothing_before_the_new_run_is_known_to_be_right(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    plan = [*QUICK, f"hydra.run.dir={run}", f"paths.cache={tmp_path}"]
    assert command(monkeypatch, train.main, *plan) == 0
    kept = {path: path.read_bytes() for path in (run / run_folder.RESULT, run / run_folder.LAST)}
    for wrong in ("arch.num_classes=3", f"resume={run}"):
        assert command(monkeypatch, train.main, *plan, "force=true", wrong) == 2
        assert {path: path.read_bytes() for path in kept} == kept, wrong
    assert "force=true would remove" in capsys.readouterr().err


@pytest.mark.slow
def test_the_result_of_a_run_that_continues_with_other_settings_is_withdrawn(tmp_path, monkeypatch):
    run = tmp_path / "run"
    plan = [*QUICK, f"hydra.run.dir={run}", f"paths.cache={tmp_path}"]
    assert command(monkeypatch, train.main, *plan) == 0
    run_folder.write_config(run, "seed: 1\n", "another hash")  # what the start of a run with resume=RUN does
    assert run_folder.read_result(run) is None


@pytest.mark.slow
def test_another_finished_run_is_not_overwritten_by_one_that_resumes_elsewhere(tmp_path, monkeypatch, capsys):
    for name, seed in (("a", 1), ("b", 2)):
        plan = [*QUICK, f"hydra.run.dir={tmp_path / name}", f"paths.cache={tmp_path}", f"seed={seed}"]
        assert command(monkeypatch, train.main, *plan) == 0
    before = (tmp_path / "b" / run_folder.RESULT).read_bytes()
    plan = [*QUICK, f"hydra.run.dir={tmp_path / 'b'}", f"resume={tmp_path / 'a'}", "seed=1", "trainer.max_epochs=4"]
    assert command(monkeypatch, train.main, *plan) == 2
    assert "holds a run of another configuration" in capsys.readouterr().err
    assert (tmp_path / "b" / run_folder.RESULT).read_bytes() == before


# ---- a full disk


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    files, path = CheckpointFiles(), tmp_path / run_folder.LAST
    files.save_checkpoint({"step": 1}, path)
    real = torch.save

    def save(content: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError, match=r"last\.ckpt cannot be written .*Make room"):
        files.save_checkpoint({"step": 2}, path)
    monkeypatch.setattr(torch, "save", real)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


# ---- a bad loss


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path):
    class Poison(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 4:
                with torch.no_grad():
                    pl_module.network.fc.bias[0] = float("nan")

    with pytest.raises(UserError) as told:
        fit(tmp_path, LossGuard(tmp_path), Poison())
    about = json.loads((tmp_path / "checkpoints" / "not_finite.json").read_text())
    assert (about["loss"], about["step"], about["epoch"], about["lr"]) == ("nan", 5, 2, 1e-3)
    assert len(about["image_idx"]) == 16
    assert "at step 5 (epoch 2, learning rate 0.001, images " in str(told.value)
    assert "trainer.gradient_clip_val" in str(told.value)
    assert torch.load(tmp_path / "checkpoints" / "not_finite.ckpt", weights_only=True)["global_step"] == 6
    last = torch.load(tmp_path / run_folder.LAST, weights_only=True)
    assert last["global_step"] == 3
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values() if tensor.is_floating_point())


@pytest.mark.slow
def test_a_rate_far_too_high_ends_with_code_2(tmp_path, monkeypatch, capsys):
    plan = [*QUICK, "optimizer.lr=1e30", "trainer.max_epochs=5", f"hydra.run.dir={tmp_path / 'run'}", "cache=false"]
    assert command(monkeypatch, train.main, *plan) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 2
    assert "Give a lower optimizer.lr" in told


# ---- a run without a test


@pytest.mark.slow
def test_without_a_test_validation_is_the_result(tmp_path, monkeypatch, capsys):
    plan = [*QUICK, "trainer.limit_test_batches=0", f"hydra.run.dir={tmp_path / 'run'}", f"paths.cache={tmp_path}"]
    assert command(monkeypatch, train.main, *plan) == 0
    result = json.loads((tmp_path / "run" / run_folder.RESULT).read_text())
    assert result["objective"] == result["metrics"]["val/best_acc"]
    assert not [key for key in result["metrics"] if key.startswith("test/")]
    assert "Not tested (trainer.limit_test_batches=0)." in capsys.readouterr().out
    assert command(monkeypatch, train.main, *plan) == 0
    assert "is finished: val/best_acc" in capsys.readouterr().out


@pytest.mark.parametrize("without", ["data.val_size=0", "trainer.limit_val_batches=0"])
def test_a_run_that_nothing_would_measure_is_refused_before_it_begins(tmp_path, monkeypatch, capsys, without):
    plan = [*QUICK, "trainer.limit_test_batches=0", without, f"hydra.run.dir={tmp_path / 'run'}"]
    assert command(monkeypatch, train.main, *plan) == 2
    assert "without validation nothing measures the result" in capsys.readouterr().err
    assert not (tmp_path / "run" / run_folder.CONFIG).exists()


def test_without_validation_batches_the_test_is_the_result(tmp_path, monkeypatch):
    plan = [*QUICK, "trainer.limit_val_batches=0", f"hydra.run.dir={tmp_path / 'run'}", f"paths.cache={tmp_path}"]
    assert command(monkeypatch, train.main, *plan) == 0
    result = json.loads((tmp_path / "run" / run_folder.RESULT).read_text())
    assert result["objective"] == result["metrics"]["test/acc"]
    assert result["tested_checkpoint"] == "last"


# ---- many points


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_killed_at_a_hundred_points_nothing_is_lost(tmp_path, record_property):
    """Two processes try half of the points each, as tests/kill_points.py describes."""
    script = str(Path(__file__).with_name("kill_points.py"))
    seed = random.SystemRandom().randrange(1 << 30)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    workers = []
    for part in range(2):
        folder = tmp_path / str(part)
        folder.mkdir()
        line = [sys.executable, script, str(folder), "--count", "51", "--seed", str(seed + part)]
        workers.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment))
    points = [json.loads(line) for worker in workers for line in worker.communicate()[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0]
    lost = [point for point in points if point["differs"]]
    told = f"seed {seed}: {len(points)} kill points, {len(lost)} lost; {dict(Counter(p['site'] for p in points))}"
    print(told)
    record_property("kill points", told)
    assert len(points) >= 100
    assert not lost, (seed, lost[0])
    codes = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
    assert all(code in (0, codes.get(p["how"], code)) for p in points for code in p["codes"])
