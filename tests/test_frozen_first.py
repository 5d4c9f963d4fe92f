"""A head that is trained alone in the first epochs, its learning rate, and the rate that is logged."""

import copy
import functools
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import Coloured
from test_training import classifier, trainer, weights

from camlab.errors import UserError
from camlab.models.cam_net import CamNet
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.frozen_first import FrozenFirst
from camlab.training.changes import Optimizing, check_changes
from camlab.training.classifier import Classifier
from camlab.training.run import Run

SCHEDULES = {
    "by epoch": functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1),
    "by step": functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01),
    "by loss": functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9),
}


class Rates(L.Callback):
    """Keeps the learning rate of every step, and the checkpoint that the third one begins from."""

    def __init__(self, folder: Path) -> None:
        self.used: list[float] = []
        self.folder = folder

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 3 and not (self.folder / "within.ckpt").exists():
            shutil.copy(self.folder / "checkpoints" / "last.ckpt", self.folder / "within.ckpt")

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.used.append(optimizer.param_groups[0]["lr"])


@functools.cache
def _network() -> CamNet:
    network = CamNet("alexnet", num_classes=4, cam_channels=8, keep_last_pool=False)
    network.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 256, 8, stride=8), torch.nn.ReLU())
    return network


def tiny(mode: str = "finetune", schedule: str | None = None) -> Classifier:
    network = copy.deepcopy(_network())
    network.freeze(mode == "frozen")
    return Classifier(network, functools.partial(torch.optim.Adam, lr=1e-3), SCHEDULES.get(schedule))


def fitted(
    folder: Path, module: Classifier, epochs: int, first: FrozenFirst | None = None, checkpoint: Path | None = None
) -> tuple[list[float], L.Trainer]:
    """Train in epochs of two steps; return the rates of the steps, and the Trainer."""
    rates, saving = Rates(folder), checkpoints(Run(folder), has_validation=False, every=1)
    data = Coloured(image_size=32, n_train=8, n_test=4, val_size=4, batch_size=2)
    run = trainer(folder, max_epochs=epochs, callbacks=[rates, *([first] if first else []), *saving])
    run.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return rates.used, run


@pytest.mark.slow  # three trainings of AlexNet
def test_the_backbone_learns_after_the_first_epochs_and_a_resumed_run_does_the_same(tmp_path):
    def fitted(epochs: int, resume: bool = False) -> dict[str, torch.Tensor]:
        module, data = classifier(), Coloured(n_train=24, n_test=4, val_size=8, batch_size=8)
        saving = checkpoints(Run(tmp_path), has_validation=False)
        last = tmp_path / "checkpoints" / "last.ckpt"
        run = trainer(tmp_path, max_epochs=epochs, callbacks=[FrozenFirst(1), *saving])
        run.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
        return weights(module.network)

    untrained = weights(classifier().network)
    whole, first = fitted(2), fitted(1)
    changed = {name for name, tensor in first.items() if not torch.equal(tensor, untrained[name])}
    assert changed
    assert not any(name.startswith("backbone") for name in changed)
    assert any(not torch.equal(whole[name], first[name]) for name in whole if name.startswith("backbone"))
    continued = fitted(2, resume=True)
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())


def test_a_network_that_is_frozen_for_good_stays_so(tmp_path):
    module, data = classifier(mode="frozen"), Coloured(n_train=16, n_test=4, val_size=0)
    before = weights(module.network.backbone)
    trainer(tmp_path, callbacks=[FrozenFirst(1)], limit_val_batches=0, max_epochs=2).fit(module, datamodule=data)
    assert module.network.frozen
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(module.network.backbone).items())


@pytest.mark.slow  # six trainings
def test_the_rate_falls_once_and_with_the_whole_network_only(tmp_path):
    first = FrozenFirst(1, lr_factor=0.1)
    whole = [1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4]
    assert fitted(tmp_path, tiny("frozen"), 2, FrozenFirst(1, lr_factor=0.1))[0] == [1e-3] * 4
    (tmp_path / "within.ckpt").unlink()
    assert fitted(tmp_path, tiny(), 1, first)[0] == whole[:2]
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert fitted(tmp_path, tiny(), 2, FrozenFirst(1, lr_factor=0.1), last)[0] == pytest.approx(whole[2:4])
    assert fitted(tmp_path, tiny(), 3, first)[0] == pytest.approx(whole), "a callback that is used again"
    within = tmp_path / "within.ckpt"
    assert fitted(tmp_path, tiny(), 3, FrozenFirst(1, lr_factor=0.1), within)[0] == pytest.approx(whole[3:])
    content, optimizing = (
        torch.load(within, weights_only=True),
        Optimizing({"lr": 0.1}, {"step", "exp_avg", "exp_avg_sq"}),
    )
    with pytest.raises(UserError, match=r"cannot change when a run continues: optimizer\.lr 0\.001 → 0\.01"):
        check_changes({"optimizer.lr": (1e-3, 1e-2)}, {}, content, optimizing)
    with pytest.raises(UserError, match=r"frozen_first\.lr_factor=0\.1: a schedule sets the learning rate\. Give"):
        fitted(tmp_path, tiny(schedule="by epoch"), 1, first)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_logged_rate_is_that_of_the_last_step_of_the_epoch(tmp_path, schedule):
    used, run = fitted(tmp_path, tiny("frozen", schedule), 2)
    assert float(run.callback_metrics["train/lr"]) == pytest.approx(used[-1], rel=1e-6)
    assert run.optimizers[0].param_groups[0]["lr"] != pytest.approx(used[-1], rel=0.1), "the next one is another"
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["camlab"]["last_rate"]
    assert kept == used[-1], "for a run that continues before the epoch's end"
