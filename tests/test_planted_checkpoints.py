"""Planted checkpoints: whatever is in them, one line refuses them, and names the file."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_belonging import QUICK
from test_entries import command

from camlab import train
from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.training import run
from camlab.training.run import begin

SGD = ["optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9"]
SCHEDULE = ["+scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler._partial_=true",
            "+scheduler.step_size=1"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Callable[[Path], Any]]:
    """Two finished runs of one epoch, `plain`, and `sgd` with a schedule: what they call to continue a checkpoint."""
    folder, begun = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        for name, more in (("plain", []), ("sgd", [*SGD, *SCHEDULE])):
            given: list[Any] = []
            patch.setattr(run, "begin", lambda *args, given=given: (given.extend(args), begin(*args))[1])
            assert command(patch, train.main, *QUICK, *more, "trainer.max_epochs=1", f"out={folder / name}") == 0
            settings = {**given[0], "trainer": {**given[0]["trainer"], "max_epochs": 2}}
            begun[name] = functools.partial(_continue, settings, folder / name, given[3], given[4])
    return begun


def _continue(settings: dict, folder: Path, classifier: Any, data: Any, plant: Any, file: Path) -> run.Run:
    content = torch.load(folder / run_folder.LAST, weights_only=True)
    plant(content)
    torch.save(content, file)
    return begin(settings, file.parent / "b", file, classifier, data, True)


def in_optimizer(key: str, change: Callable[[torch.Tensor], Any]) -> Callable[[dict], None]:
    def plant(content: dict[str, Any]) -> None:
        state = content["optimizer_states"][0]["state"][0]
        state[key] = change(state[key])

    return plant


def at(*path: Any, value: Any) -> Callable[[dict], None]:
    """Put a value, or what a function makes of the present one, at a place in the content of a checkpoint."""

    def plant(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value(content[path[-1]]) if callable(value) else value

    return plant


def nan_in(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0] = float("nan")
    return tensor


WEIGHT = "network.fc.weight"
GROUP = ("optimizer_states", 0, "param_groups", 0)
EPOCHS = ("loops", "fit_loop", "epoch_progress", "current")
BEST = "ModelCheckpoint{'monitor': 'val/acc', 'mode': 'max', 'every_n_train_steps': 0, 'every_n_epochs': 1,"
BEST += " 'train_time_interval': None}"


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (in_optimizer("exp_avg", lambda _: torch.zeros(2)), "exp_avg of parameter 0 has the shape 2"),
        (in_optimizer("exp_avg", lambda _: torch.zeros(())), "exp_avg of parameter 0 has the shape a scalar"),
        (
            in_optimizer("exp_avg", lambda t: torch.zeros(1).expand(t.shape)),
            "exp_avg is a view whose elements share their places",
        ),
        (in_optimizer("exp_avg", lambda t: t.to_sparse()), "exp_avg is sparse"),
        (in_optimizer("exp_avg", lambda t: t.to("meta")), "exp_avg is on the meta device"),
        (in_optimizer("exp_avg", lambda t: t.long()), "exp_avg of parameter 0 cannot be 10×256×3×3"),
        (in_optimizer("exp_avg", nan_in), "exp_avg of parameter 0 holds NaN"),
        (in_optimizer("step", lambda _: torch.zeros(3)), "step of parameter 0 has the shape 3"),
        (in_optimizer("step", lambda t: -t), "step of parameter 0 is negative"),
        (at("optimizer_states", 0, "state", 0, value=3), "the state of parameter 0 cannot be 3"),
        (at(*GROUP, "lr", value="x"), "param_groups.lr cannot be 'x'"),
        (at(*GROUP, "lr", value=float("inf")), "param_groups.lr cannot be inf"),
        (at(*GROUP, "amsgrad", value=True), "max_exp_avg_sq"),
        (at("state_dict", WEIGHT, value=lambda t: t.to_sparse()), f"{WEIGHT} is sparse"),
        (at("state_dict", WEIGHT, value=lambda t: t.to("meta")), f"{WEIGHT} is on the meta device"),
        (at("camlab_run", "rng_state", value=torch.zeros(3, dtype=torch.uint8)), "RNG state"),
        (at("camlab_run", "rng_state", value="x"), ""),
        (at("camlab_run", "rows", value=[{"step": float("inf")}]), "rows: 'step' cannot be inf"),
        (at("camlab_run", "rows", value=[{"epoch": 1.0}]), "step"),
        (at(*EPOCHS, "completed", value=torch.zeros(2)), "current.completed cannot be 2"),
        (at(*EPOCHS[:-1], "current", value=1), ""),
        (at("camlab", "best_acc", value="x" * 9999), "best_acc cannot be 'xxx"),
        (at("camlab", "last_rate", value="x"), "last_rate cannot be 'x'"),
        (at("callbacks", BEST, "best_model_score", value="x"), "best_model_score cannot be 'x'"),
    ],
)
def test_a_planted_checkpoint_is_refused_before_anything_is_restored(runs, tmp_path, plant, reason):
    with pytest.raises(UserError) as refused:
        runs["plain"](plant, tmp_path / "x.ckpt")
    said = str(refused.value)
    assert said.startswith(f"resume={tmp_path / 'x.ckpt'}: ")
    assert reason in said
    assert len(said.splitlines()) == 1
    assert len(said) < 400


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (in_optimizer("momentum_buffer", lambda _: torch.zeros(2)), "momentum_buffer of parameter 0 has the shape 2"),
        (at("lr_schedulers", 0, "last_epoch", value="x"), "lr_schedulers.last_epoch cannot be 'x'"),
        (at("lr_schedulers", 0, "step", value=1), "lr_schedulers cannot have 'step'"),
        (at("lr_schedulers", value=[]), "0 learning rate schedules"),
    ],
)
def test_a_planted_schedule_is_refused(runs, tmp_path, plant, reason):
    with pytest.raises(UserError, match=reason):
        runs["sgd"](plant, tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["plain", "sgd"])
def test_a_checkpoint_as_it_was_written_is_taken(runs, tmp_path, name):
    assert runs[name](lambda content: None, tmp_path / "x.ckpt").continued.best is None
