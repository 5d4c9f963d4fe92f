"""Checkpoints belong to a run: a run tests, reports and continues only its own, whatever else is in its folder."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_entries import TINY, command

from camlab import evaluate, train
from camlab.runs import run_folder
from camlab.training.checkpoint import check_place
from camlab.training.classifier import Classifier

pytestmark = pytest.mark.slow

QUICK = [
    *TINY, "logger=csv", "callbacks.heatmaps=null", "data.train_size=40", "data.val_size=20", "mode=frozen",
    "cache=false", "data.batch_size=5",
]  # fmt: skip


class Killed(Exception):
    """Stands for SIGKILL: nothing is written after it."""


@pytest.fixture
def camlab(monkeypatch, tmp_path, capsys):
    """Run `camlab-train` in a folder of `tmp_path`; returns the exit code and what was printed."""

    def run(name: str, *arguments: str, entry: Any = train.main) -> tuple[int, str]:
        capsys.readouterr()
        code = command(
            monkeypatch, entry, *(QUICK if entry is train.main else ()), *arguments, f"out={tmp_path / name}"
        )
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


@pytest.fixture
def killed_in_its_test(monkeypatch, camlab):
    """Run `camlab-train` and end it during its test, as a kill would."""

    def run(name: str, *arguments: str) -> None:
        def end(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "test_step", end)
            assert camlab(name, *arguments)[0] == 1

    return run


def read_result(run: Path) -> dict[str, Any]:
    return json.loads((run / run_folder.RESULT).read_text())


def metrics(run: Path) -> dict[str, float]:
    return {key: value for key, value in read_result(run)["metrics"].items() if not key.endswith("per_second")}


def copy(source: Path, target: Path) -> None:
    """Replace one checkpoint by another, together with its checksum."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    shutil.copy(f"{source}.sha256", f"{target}.sha256")


def best_acc(checkpoint: Path) -> float:
    return torch.load(checkpoint, weights_only=True)["camlab"]["best_acc"]


# ---- the best checkpoint


def test_a_strangers_best_checkpoint_is_neither_tested_nor_replaced_nor_evaluated(tmp_path, camlab, killed_in_its_test):
    killed_in_its_test("own")
    assert camlab("stranger", "seed=3")[0] == 0
    own, stranger, new = (tmp_path / name for name in ("own", "stranger", "new"))
    refusals = {
        own: ([], f"{own / run_folder.BEST} belongs to another run. Move it away, or give another out=FOLDER."),
        new: ([f"resume={own / run_folder.LAST}", "trainer.max_epochs=3"], "nothing was changed"),
    }
    for run, (plan, refusal) in refusals.items():
        copy(stranger / run_folder.BEST, run / run_folder.BEST)
        code, said = camlab(run.name, *plan)
        assert code == 2
        assert refusal in said.splitlines()[-1]
        assert (run / run_folder.BEST).read_bytes() == (stranger / run_folder.BEST).read_bytes()
    code, said = camlab("evaluated", f"checkpoint={own}", entry=evaluate.main)
    assert code == 2
    assert f"best.ckpt belongs to another run than {own / run_folder.CONFIG}" in said

    (own / run_folder.BEST).unlink()
    code, said = camlab("own")
    assert (code, said.count("best.ckpt is missing")) == (0, 1)
    assert read_result(own)["tested_checkpoint"] == "last"
    assert "val/best_acc" not in metrics(own)
    assert read_result(own)["objective"] == metrics(own)["val/acc"]


@pytest.mark.slow
def test_a_run_that_is_moved_keeps_its_best_epoch(tmp_path, camlab, killed_in_its_test, monkeypatch):
    """A run whose first epoch is the best, because later ones are made worse."""
    inner = Classifier.validation_step

    def worse(self: Classifier, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        right = self.current_epoch == 0
        return inner(self, batch._replace(labels=batch.labels if right else (batch.labels + 5) % 10), batch_idx)

    monkeypatch.setattr(Classifier, "validation_step", worse)
    plan = ["optimizer.lr=0.05", "trainer.max_epochs=4"]
    assert camlab("whole", *plan)[0] == 0
    inner_end = Classifier.on_train_epoch_end

    def end(self: Classifier) -> None:
        if self.current_epoch == 2:
            raise Killed
        inner_end(self)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_end", end)
        assert camlab("before", *plan)[0] == 1
    (tmp_path / "before").rename(tmp_path / "after")
    assert camlab("after", *plan)[0] == 0
    assert metrics(tmp_path / "after") == metrics(tmp_path / "whole")
    kept = torch.load(tmp_path / "after" / run_folder.BEST, weights_only=True)
    assert kept["camlab"]["best_acc"] == metrics(tmp_path / "after")["val/best_acc"]
    assert kept["epoch"] == 0


def test_a_run_that_continues_elsewhere_takes_its_best_checkpoint_along(tmp_path, camlab, monkeypatch):
    assert camlab("a")[0] == 0
    monkeypatch.setattr(Classifier, "_end_epoch", lambda self, split, inner=Classifier._end_epoch: {
        **(figures := inner(self, split)), **({"val/acc": figures["val/acc"] * 0} if split == "val" else {})
    })  # fmt: skip
    assert camlab("b", f"resume={tmp_path / 'a'}", "trainer.max_epochs=3")[0] == 0
    a, b = tmp_path / "a", tmp_path / "b"
    assert metrics(b)["val/best_acc"] == metrics(a)["val/best_acc"] == best_acc(b / run_folder.BEST)
    assert read_result(b)["tested_checkpoint"] == "best"
    assert metrics(b)["test/acc"] == metrics(a)["test/acc"]


def test_without_its_best_checkpoint_a_run_chooses_the_best_of_the_epochs_that_follow(tmp_path, camlab):
    assert camlab("a")[0] == 0
    (tmp_path / "a" / run_folder.BEST).unlink()
    code, said = camlab("b", f"resume={tmp_path / 'a'}", "trainer.max_epochs=3")
    assert code == 0
    assert "best.ckpt" in said
    assert read_result(tmp_path / "b")["objective"] == best_acc(tmp_path / "b" / run_folder.BEST)


def test_a_best_checkpoint_that_is_lost_during_the_run_is_not_reported(tmp_path, camlab, monkeypatch):
    monkeypatch.setattr(Classifier, "on_train_end", lambda self: (tmp_path / "a" / run_folder.BEST).unlink())
    code, said = camlab("a")
    assert (code, said.count("best.ckpt has been lost or replaced")) == (0, 1)
    result = read_result(tmp_path / "a")
    assert result["tested_checkpoint"] == "last"
    assert result["objective"] == result["metrics"]["val/acc"]
    assert "val/best_acc" not in result["metrics"]


def test_a_run_that_has_nothing_left_to_train_does_not_begin(tmp_path, camlab):
    assert camlab("a")[0] == 0
    code, said = camlab("b", f"resume={tmp_path / 'a'}")
    assert code == 2
    assert "trainer.max_epochs=2" in said
    assert not (tmp_path / "b" / run_folder.RESULT).exists()
    code, said = camlab("b", f"resume={tmp_path / 'a'}", "trainer.max_epochs=1")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert "trainer.max_epochs=1" in said
    assert "2 epochs" in said
    code, said = camlab("b", f"resume={tmp_path / 'a'}", "trainer.max_epochs=9", "+trainer.max_steps=3")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert "trainer.max_steps=3" in said
    assert "8 steps" in said


# ---- the last checkpoint and the one before


def test_checkpoints_of_another_run_are_not_continued(tmp_path, camlab):
    assert camlab("a")[0] == 0
    assert camlab("b", "seed=3")[0] == 0
    a, b = tmp_path / "a", tmp_path / "b"
    copy(b / run_folder.LAST, a / run_folder.LAST)
    (a / run_folder.BEFORE_LAST).unlink()
    (a / run_folder.RESULT).unlink()
    code, said = camlab("a")
    assert (code, len(said.splitlines())) == (2, 2), said
    assert "last.ckpt belongs to another run" in said
    for place in ("x.ckpt", "checkpoints/x.ckpt"):  # wherever the folder's settings or files would be used with it
        shutil.copy(b / run_folder.BEST, a / place)
        refusal = f"{a / place}: x.ckpt belongs to another run than {a / run_folder.CONFIG}"
        for entry, setting in ((evaluate.main, "checkpoint"), (train.main, "resume")):
            code, said = camlab("c", f"{setting}={a / place}", entry=entry)
            assert (code, said.splitlines()[-1].startswith(f"{setting}={refusal}")) == (2, True), said


def test_a_checkpoint_directly_in_the_root_folder_has_no_run():
    check_place({}, Path("/x.ckpt"))


def test_the_checkpoint_before_the_last_does_not_stand_in_where_it_is_another_runs(tmp_path, camlab):
    assert camlab("a")[0] == 0
    assert camlab("b", "seed=3")[0] == 0
    a, b = tmp_path / "a", tmp_path / "b"
    copy(b / run_folder.LAST, a / run_folder.LAST)  # with its checksum, which holds for both
    (a / run_folder.LAST).rename(a / run_folder.BEFORE_LAST)
    (a / run_folder.LAST).write_bytes(b"damaged")
    (a / run_folder.RESULT).unlink()
    code, said = camlab("a")
    assert code == 2
    assert "last.ckpt is damaged" in said
    assert "before_last.ckpt belongs to another run" in said


def test_a_damaged_checkpoint_without_its_checksum_is_not_continued(tmp_path, camlab):
    assert camlab("a")[0] == 0
    last = tmp_path / "a" / run_folder.LAST
    last.write_bytes(last.read_bytes()[:1000])
    Path(f"{last}.sha256").write_text("")
    (tmp_path / "a" / run_folder.RESULT).unlink()
    code, said = camlab("a")
    assert code == 0, said
    assert f"resume={last}: " in said
    assert f"Resuming from {tmp_path / 'a' / run_folder.BEFORE_LAST}" in said


def test_a_run_that_starts_at_the_beginning_leaves_none_of_the_old_checkpoints(tmp_path, camlab):
    assert camlab("a", "trainer.max_epochs=1")[0] == 0
    old = (tmp_path / "a" / run_folder.LAST).read_bytes()
    (tmp_path / "a" / run_folder.RESULT).unlink()
    code, said = camlab("a", "trainer.max_epochs=1", "resume=null")
    assert code == 2
    assert "holds a run that can be resumed" in said
    assert (tmp_path / "a" / run_folder.LAST).read_bytes() == old
    assert camlab("a", "trainer.max_epochs=1", "resume=null", "force=true")[0] == 0
    assert not (tmp_path / "a" / run_folder.BEFORE_LAST).exists()
    assert (tmp_path / "a" / run_folder.LAST).read_bytes() != old


# ---- runs that stopped early


def test_a_run_that_stopped_early_does_not_train_on(tmp_path, camlab, killed_in_its_test):
    early = "lightning.pytorch.callbacks.EarlyStopping"
    plan = [
        f"+callbacks.early._target_={early}", "+callbacks.early.monitor=val/acc", "+callbacks.early.patience=1",
        "+callbacks.early.mode=max", "+callbacks.early.min_delta=1.0", "trainer.max_epochs=6",
    ]  # fmt: skip
    assert camlab("whole", *plan)[0] == 0
    killed_in_its_test("run", *plan)
    assert camlab("run", *plan, "data.placement=host")[0] == 0  # a setting that changes no epoch
    assert read_result(tmp_path / "run")["epochs"] == read_result(tmp_path / "whole")["epochs"] == 2
    found, expected = (
        {key: value for key, value in metrics(tmp_path / name).items() if "pointing_game" not in key}
        for name in ("run", "whole")
    )
    assert found == expected


# ---- validation within epochs


@pytest.mark.slow
def test_a_signal_at_a_validation_within_an_epoch_loses_nothing(tmp_path, camlab, monkeypatch):
    plan = ["trainer.max_epochs=2", "+trainer.val_check_interval=2", "checkpoint_every=1"]
    assert camlab("whole", *plan)[0] == 0
    for where in ("training_step", "validation_step"):
        for call in (2, 3):
            calls, inner = iter(range(1, 100)), getattr(Classifier, where)

            def send(self: Classifier, *given: Any, calls=calls, inner=inner, call=call) -> Any:
                if next(calls) == call:
                    os.kill(os.getpid(), signal.SIGTERM)
                return inner(self, *given)

            name = f"{where} {call}"
            with monkeypatch.context() as patch:
                patch.setattr(Classifier, where, send)
                assert camlab(name, *plan)[0] == 143
            assert camlab(name, *plan)[0] == 0
            assert metrics(tmp_path / name) == metrics(tmp_path / "whole"), name
            rows = [(tmp_path / each / run_folder.METRICS).read_text().splitlines() for each in (name, "whole")]
            assert len(rows[0]) == len(rows[1]), name


# ---- files of other runs beside it


def test_the_result_of_another_configuration_is_not_reported(tmp_path, camlab):
    for name, seed in (("a", 0), ("b", 3)):
        assert camlab(name, f"seed={seed}")[0] == 0
    shutil.copy(tmp_path / "b" / run_folder.RESULT, tmp_path / "a" / run_folder.RESULT)
    assert run_folder.read_result(tmp_path / "a") is None


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_run_whose_data_are_unknown_is_not_reported(tmp_path, camlab, damage):
    assert camlab("a")[0] == 0
    noted = tmp_path / "a" / "data.json"
    content = noted.read_bytes()
    noted.unlink() if damage == "missing" else noted.write_bytes(content[:40])
    code, said = camlab("a")
    assert code == 2
    assert "data.json is missing or damaged, so it is unknown which data the run used" in said


def test_trackers_do_not_join_a_run_and_the_one_that_replaces_it(tmp_path, camlab):
    plan = ["trainer.max_epochs=1", "logger=[wandb,tensorboard]", "logger.wandb.mode=offline"]
    assert camlab("a", *plan)[0] == 0
    first = {path.name for path in (tmp_path / "a" / "wandb").glob("offline-run-*")}
    assert camlab("a", *plan, "optimizer.lr=0.01", "force=true")[0] == 0
    second = {path.name for path in (tmp_path / "a" / "wandb").glob("offline-run-*")}
    assert len(first) == len(second) == 1
    assert {name.rpartition("-")[2] for name in first} != {name.rpartition("-")[2] for name in second}
    assert {path.name for path in (tmp_path / "a" / "wandb.replaced-1").glob("offline-run-*")} == first
    assert (tmp_path / "a" / "tensorboard.replaced-1").is_dir()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_rank_in_the_surroundings_of_one_process_says_nothing(tmp_path, camlab, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert camlab("a", "trainer.max_epochs=1")[0] == 0
    assert run_folder.read_config_hash(tmp_path / "a") == read_result(tmp_path / "a")["config_hash"]
    assert (tmp_path / "a" / "data.json").is_file()
