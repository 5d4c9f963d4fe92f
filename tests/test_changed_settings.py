"""Settings that are changed when a run continues are applied, or refused by name; some settings are always refused."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf
from test_belonging import camlab, killed_in_its_test, metrics  # noqa: F401  (fixtures)
from test_entries import TINY, command

from camlab import train
from camlab.command_line.run_identity import recorded_settings
from camlab.errors import UserError
from camlab.models.weights import check_weights
from camlab.runs import run_folder
from camlab.runs.watchers import FORMER, WATCHERS
from camlab.training.changes import changed_settings, describe_changes
from camlab.training.checkpoint import load_network

pytestmark = [pytest.mark.slow, pytest.mark.long]

CYCLE = ["+scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "+scheduler._partial_=true",
         "+scheduler.max_lr=0.01", "+scheduler.pct_start=0.4"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folder with finished runs of two epochs: `plain`, and `cycle`, which used OneCycleLR."""
    folder = tmp_path_factory.mktemp("runs")
    quick = [*TINY, "logger=csv", "callbacks.heatmaps=null", "data.train_size=40", "mode=frozen", "cache=false"]
    with pytest.MonkeyPatch.context() as patch:
        for name, more in (("plain", []), ("cycle", CYCLE)):
            assert command(patch, train.main, *quick, "data.batch_size=5", *more, f"out={folder / name}") == 0
    return folder


def groups(run: Path) -> list[dict]:
    return torch.load(run / run_folder.LAST, weights_only=True)["optimizer_states"][0]["param_groups"]


def test_changed_settings_of_the_optimizer_are_applied(runs, tmp_path, camlab):  # noqa: F811
    changes = ["optimizer.lr=0.01", "optimizer.weight_decay=0.1", "+optimizer.betas=[0.5,0.6]"]
    code, said = camlab("b", f"resume={runs / 'plain'}", "trainer.max_epochs=3", *changes)
    assert code == 0
    for told in ("trainer.max_epochs 2 → 3", "optimizer.lr 0.001 → 0.01", "optimizer.betas null → [0.5, 0.6]"):
        assert told in said
    (group,) = groups(tmp_path / "b")
    assert (group["lr"], group["weight_decay"], tuple(group["betas"])) == (0.01, 0.1, (0.5, 0.6))
    assert metrics(tmp_path / "b")["train/lr"] == 0.01


def test_settings_without_effect_on_the_training_are_no_changes():
    game, averaging = {"_target_": WATCHERS["scores"], "tolerance": 2}, {"_target_": "swa", "swa_lrs": 0.1}
    then = {"data": {"root": "a", "download": False}, "callbacks": {"scores": game, "swa": averaging}}
    now = {"data": {"root": "b", "download": True}, "callbacks": {"heatmaps": None, "swa": averaging}}
    assert changed_settings(then, now) == {}
    before_scores = {**then, "callbacks": {"pointing_game": {"_target_": FORMER, "tolerance": 2}, "swa": averaging}}
    assert changed_settings(before_scores, {**now, "checkpoint_by": "val/acc"}) == {}, "from an earlier version"
    assert list(changed_settings(then, {**now, "checkpoint_by": "val/heat/srg"})) == ["checkpoint_by"]
    assert changed_settings(then, {**now, "callbacks": None}) == {
        "callbacks.swa._target_": ("swa", None), "callbacks.swa.swa_lrs": (0.1, None)
    }  # fmt: skip


def test_changes_are_shown_in_a_readable_length():
    assert len(describe_changes({f"{n}{'x' * 999}": ("y" * 999, None) for n in range(999)})) < 5000
    assert describe_changes({"a\x1b[2J": ("\n", "\x9b")}) == r"a\x1b[2J \n → \x9b"


def test_a_weights_file_may_move_but_not_change(tmp_path):
    def settings(name: str, content: str) -> dict:
        (tmp_path / name).write_text(content)
        return recorded_settings(OmegaConf.create({"arch": {"weights": str(tmp_path / name)}}))

    then = settings("w1.pth", "a")
    assert changed_settings(then, settings("w2.pth", "a")) == {}
    assert list(changed_settings(then, settings("w1.pth", "b"))) == ["arch.weights_sha256"]
    assert list(changed_settings(then, {"arch": {"weights": None}})) == ["arch.weights"]
    assert changed_settings({"arch": {"weights": str(tmp_path / "w1.pth")}}, then) == {}  # from an earlier version


@pytest.mark.parametrize(
    ("run", "changes", "named"),
    [
        ("plain", ["optimizer._target_=torch.optim.AdamW"], "optimizer._target_ torch.optim.Adam → torch.optim.AdamW"),
        ("plain", ["optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9"], "optimizer._target_"),
        ("plain", ["+optimizer.amsgrad=true"], "optimizer.amsgrad null → True"),
        ("plain", ["mode=finetune"], "arch.frozen True → False"),
        ("plain", ["seed=1"], "seed 0 → 1"),
        ("plain", CYCLE, "scheduler.max_lr null → 0.01"),
        ("cycle", [*CYCLE, "optimizer.lr=0.1"], "optimizer.lr 0.001 → 0.1"),
        ("cycle", CYCLE, "trainer.max_epochs 2 → 3"),
        ("cycle", [], "scheduler.max_lr 0.01 → null"),
    ],
)
def test_changes_that_cannot_be_applied_are_refused_by_name(runs, tmp_path, camlab, run, changes, named):  # noqa: F811
    code, said = camlab("b", f"resume={runs / run}", "trainer.max_epochs=3", *changes)
    assert (code, len(said.splitlines())) == (2, 2), said
    assert "cannot change when a run continues" in said
    assert named in said
    assert not (tmp_path / "b" / run_folder.CONFIG).exists()


def test_a_checkpoint_that_cannot_be_restored_is_reported_in_one_line(runs, tmp_path, camlab):  # noqa: F811
    content = torch.load(runs / "plain" / run_folder.LAST, weights_only=True)
    del content["optimizer_states"][0]["param_groups"][0]["params"][0]
    torch.save(content, tmp_path / "x.ckpt")
    code, said = camlab("b", f"resume={tmp_path / 'x.ckpt'}", "trainer.max_epochs=3")
    assert code == 2
    assert said.splitlines()[-1].startswith(f"resume={tmp_path / 'x.ckpt'}: incomplete, or from another version")


# ---- searches without validation


@pytest.mark.parametrize(
    "without", ["trainer.limit_val_batches=0", "+trainer.check_val_every_n_epoch=3", "+trainer.fast_dev_run=true",
                "+trainer.max_steps=1", "data.val_size=0"]
)  # fmt: skip
def test_nothing_is_chosen_by_the_test_accuracy(tmp_path, monkeypatch, capsys, without):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    plan = ["-m", "sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.params={optimizer.lr: 'choice(0.1)'}"]
    quick = [*TINY, "logger=csv", "callbacks.heatmaps=null", "data.train_size=40", "mode=frozen", "cache=false"]
    plan += [*quick, "data.batch_size=5", f"paths.outputs={tmp_path}"]
    assert command(monkeypatch, train.main, *plan, without) == 2
    assert "the test images must not be used" in capsys.readouterr().err
    assert not list(tmp_path.rglob(run_folder.RESULT))


# ---- weights that are not finite floating-point numbers


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.ones(2, dtype=torch.int8), "w holds int8, not floating-point numbers"),
        (torch.ones(2, dtype=torch.complex64), "w holds complex64, not floating-point numbers"),
        (torch.tensor([1.0, float("nan")]), "w holds NaN or infinite numbers"),
        (torch.tensor([1.0, 1e300], dtype=torch.float64), "w holds NaN or infinite numbers"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(value, reason):
    with pytest.raises(UserError, match=f"^arch.weights=FILE: {reason}"):
        check_weights({"w": value}, {"w": torch.zeros(2)}, "arch.weights=FILE")
    check_weights({"w": torch.ones(2, dtype=torch.float16)}, {"w": torch.zeros(2)}, "")


def test_a_weights_file_or_checkpoint_with_nan_is_named(runs, tmp_path, camlab):  # noqa: F811
    content = torch.load(runs / "plain" / run_folder.LAST, weights_only=True)
    name = "network.backbone.0.weight"
    content["state_dict"][name][0, 0, 0, 0] = float("nan")
    torch.save(content, tmp_path / "x.ckpt")
    code, said = camlab("b", f"resume={tmp_path / 'x.ckpt'}", "trainer.max_epochs=3")
    assert (code, said.splitlines()[-1]) == (
        2, f"resume={tmp_path / 'x.ckpt'}: {name} holds NaN or infinite numbers. Give another file."
    )  # fmt: skip
    with pytest.raises(UserError, match=r"x.ckpt: backbone.0.weight holds NaN"):
        load_network(tmp_path / "x.ckpt")
    backbone = {k.replace("network.backbone", "features"): v.contiguous() for k, v in content["state_dict"].items()}
    safetensors.torch.save_file(backbone, tmp_path / "x.safetensors")
    code, said = camlab("b", f"arch.weights={tmp_path / 'x.safetensors'}")
    assert code == 2
    assert said.splitlines()[-1].startswith(f"arch.weights={tmp_path / 'x.safetensors'}: features.0.weight holds NaN")


# ---- optimizers and schedules


def test_the_learning_rate_falls_where_validation_stands_still(tmp_path, camlab, killed_in_its_test):  # noqa: F811
    plateau = [
        "+scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "+scheduler._partial_=true",
        "+scheduler.patience=0", "+scheduler.threshold=10", "+scheduler.threshold_mode=abs", "trainer.max_epochs=3",
    ]  # fmt: skip
    code, said = camlab("a", *plateau)
    assert code == 0, said
    assert metrics(tmp_path / "a")["train/lr"] == pytest.approx(1e-4)
    killed_in_its_test("b", *plateau)
    (schedule,) = torch.load(tmp_path / "b" / run_folder.LAST, weights_only=True)["lr_schedulers"]
    assert schedule["last_epoch"] == 3
    assert camlab("c", *plateau, "trainer.limit_val_batches=0", "+scheduler.mode=max")[0] == 0
    assert metrics(tmp_path / "c")["train/lr"] == pytest.approx(1e-4)


def test_lbfgs_is_refused(camlab):  # noqa: F811
    code, said = camlab("a", "optimizer._target_=torch.optim.LBFGS", "~optimizer.weight_decay", "~optimizer.fused")
    assert code == 2
    assert said.splitlines()[-1].startswith("optimizer._target_=torch.optim.LBFGS: it computes several losses")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["optimizer._target_=torch.optim.RMSprop", "optimizer.lr=-1"], "optimizer: Invalid learning rate: -1."),
        (["optimizer._target_=torch.optim.SGD", "+optimizer.nesterov=true"], "optimizer: Nesterov momentum requires"),
        (["optimizer._target_=torch.optim.Adamax", "+optimizer.betas=[2,2]"], "optimizer: Invalid beta parameter"),
        (["optimizer._target_=torch.optim.RMSprop", "+optimizer.speed=1"], "optimizer: RMSprop.__init__() got an"),
        ([*CYCLE, "+scheduler.div_factor=x"], "scheduler: "),
    ],
)
def test_settings_that_torch_refuses_are_told_in_a_line(tmp_path, camlab, settings, said):  # noqa: F811
    code, told = camlab("a", "~optimizer.fused", *settings)
    assert (code, len(told.splitlines())) == (2, 1), told
    assert told.startswith(said)
    assert not (tmp_path / "a" / run_folder.CONFIG).exists()


def test_a_momentum_that_the_optimizer_has_not_kept_is_refused_by_name(tmp_path, camlab, killed_in_its_test):  # noqa: F811
    plan = ["optimizer._target_=torch.optim.RMSprop", "~optimizer.fused"]
    killed_in_its_test("a", *plan)
    resume = [*plan, f"resume={tmp_path / 'a'}", "trainer.max_epochs=3"]
    code, said = camlab("b", *resume, "+optimizer.momentum=0.9")
    assert (code, len(said.splitlines())) == (2, 2), said
    assert "cannot change when a run continues: optimizer.momentum null → 0.9." in said
    assert camlab("b", *resume, "+optimizer.alpha=0.9")[0] == 0


def test_a_run_that_averages_its_weights_does_not_continue(camlab, killed_in_its_test):  # noqa: F811
    averaging = ["+callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
                 "+callbacks.swa.swa_lrs=0.05", "+callbacks.swa.swa_epoch_start=1"]  # fmt: skip
    killed_in_its_test("a", *averaging)
    code, said = camlab("a", *averaging)
    assert (code, len(said.splitlines())) == (2, 1), said
    assert "StochasticWeightAveraging" in said
