"""Training with real networks and a real Trainer: both modes, metrics, checkpoints, precisions."""

import functools
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import Coloured
from torch.utils._python_dispatch import TorchDispatchMode

from camlab import Explainer
from camlab.errors import UserError
from camlab.models.cam_net import CamNet
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.feature_cache import FeatureCache
from camlab.training.callbacks.loss_guard import LossGuard
from camlab.training.checkpoint import load_network
from camlab.training.classifier import Classifier
from camlab.training.run import Run


def classifier(
    backbone: str = "alexnet", mode: str = "finetune", lr: float = 1e-3, kind: Any = CamNet, **options: Any
) -> Classifier:
    torch.manual_seed(0)
    network = kind(backbone, num_classes=4, frozen=mode == "frozen", **options)
    return Classifier(network, functools.partial(torch.optim.Adam, lr=lr))


def trainer(folder: Path, **options: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": "callbacks" in options,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": str(folder),
    }
    return L.Trainer(**{**defaults, **options})


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
@pytest.mark.parametrize("backbone", ["alexnet", pytest.param("vgg13", marks=pytest.mark.slow)])
def test_each_arch_and_mode_trains(tmp_path, backbone, mode):
    module, data = classifier(backbone, mode), Coloured(n_train=48, val_size=8, n_test=8)
    run = trainer(tmp_path)
    run.fit(module, datamodule=data)
    fitted = dict(run.callback_metrics)
    run.test(module, datamodule=data, verbose=False)
    names = {"train/loss", "train/acc", "val/loss", "val/acc", "train/lr", "train/images_per_second", "epoch"}
    assert names <= set(fitted)
    assert {"test/loss", "test/acc"} <= set(run.callback_metrics)
    assert all(torch.isfinite(value) for value in fitted.values())
    assert fitted["train/images_per_second"] > 0


@pytest.mark.parametrize("backbone", ["alexnet", pytest.param("vgg11_bn", marks=pytest.mark.slow)])
def test_frozen_is_bit_identical(tmp_path, backbone):
    module = classifier(backbone, "frozen")
    before = weights(module.network)
    trainer(tmp_path, max_epochs=2).fit(module, datamodule=Coloured())
    after = weights(module.network)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith("backbone"), name


def test_finetuning_moves_everything(tmp_path):
    module = classifier()
    before = weights(module.network)
    trainer(tmp_path).fit(module, datamodule=Coloured())
    assert not any(torch.equal(tensor, before[name]) for name, tensor in weights(module.network).items())


@pytest.mark.slow
def test_it_learns(tmp_path):
    module = classifier("alexnet", "frozen", lr=1e-2, keep_last_pool=False)
    run = trainer(tmp_path, max_epochs=25)
    run.fit(module, datamodule=Coloured(n_train=144))
    assert run.callback_metrics["val/acc"] > 0.9
    assert run.callback_metrics["train/loss"] < 1.0


def test_metrics_equal_a_count_by_hand(tmp_path):
    module, data = classifier(), Coloured(n_test=21)  # 16 and 5: an uneven tail
    run = trainer(tmp_path)
    run.test(module, datamodule=data, verbose=False)
    test = data.splits["test"]
    with torch.no_grad():
        logits = module.network.eval()(data.preprocess(test.images))
    assert run.callback_metrics["test/acc"] == pytest.approx(float((logits.argmax(1) == test.labels).float().mean()))
    loss = torch.nn.functional.cross_entropy(logits, test.labels)
    assert float(run.callback_metrics["test/loss"]) == pytest.approx(float(loss), abs=1e-5)


class HostReads(TorchDispatchMode):
    """Counts operations that make the host wait for a GPU: reading values back, and shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waiting = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += func in waiting
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_a_step_reads_nothing_back_from_the_device(tmp_path, mode):
    def reads(steps: int) -> int:
        module = classifier("alexnet", mode)
        module._make_optimizer = functools.partial(torch.optim.Adam, lr=1e-3, fused=True)
        cached = [FeatureCache(str(tmp_path))] if mode == "frozen" else []
        run = trainer(tmp_path, max_epochs=2, limit_train_batches=steps, callbacks=cached, enable_checkpointing=False)
        with HostReads() as counted:
            run.fit(module, datamodule=Coloured(n_train=80))
        return counted.count

    if mode == "frozen":
        reads(2)  # from now on, the features are cached
    assert reads(2) == reads(4)


def test_a_compiled_network_trains_and_is_kept_as_any_other(tmp_path):
    plain, module = classifier(), classifier()
    module.network.compile(backend="eager")
    for each in (plain, module):
        trainer(tmp_path).fit(each, datamodule=Coloured())
    assert weights(module.network).keys() == weights(plain.network).keys()
    for name, tensor in weights(module.network).items():
        torch.testing.assert_close(tensor, weights(plain.network)[name])
    Explainer(module.network).explain(torch.randn(2, 3, 96, 96), ["cam", "grad_cam"])


def test_same_seed_same_weights(tmp_path):
    modules = [classifier() for _ in range(2)]
    for module in modules:
        trainer(tmp_path).fit(module, datamodule=Coloured())
    first, second = (weights(module) for module in modules)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_test_curves_on_request(tmp_path):
    module = classifier()
    run = trainer(tmp_path)
    run.fit(module, datamodule=Coloured(val_size=0, test_each_epoch=True))
    assert "test/acc" in run.callback_metrics
    assert "val/acc" not in run.callback_metrics


def test_checkpoints_hold_plain_values_and_come_back(tmp_path):
    module, data = classifier(cam_channels=6), Coloured()
    run = trainer(tmp_path, callbacks=checkpoints(Run(tmp_path), has_validation=True))
    run.fit(module, datamodule=data)
    for name in ("last", "best"):
        torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
    trained = load_network(tmp_path)
    assert trained.class_names == data.class_names
    assert trained.preprocess == data.preprocess
    assert trained.network.spec["cam_channels"] == 6
    for name, tensor in trained.network.state_dict().items():
        assert torch.equal(tensor, module.network.state_dict()[name])
    with pytest.raises(UserError, match="no checkpoint there"):
        load_network(tmp_path / "nowhere")


def test_batches_kept_on_the_host_train_the_same(tmp_path):
    results = []
    for placement in ("device", "host"):
        module = classifier()
        trainer(tmp_path).fit(module, datamodule=Coloured(placement=placement))
        results.append(weights(module.network))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


TOLERANCE = {"bf16-true": 3e-2, "16-true": 3e-3, "64-true": 1e-5}


@pytest.mark.parametrize("mode", ["frozen", pytest.param("finetune", marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_whole_network_in_another_precision(tmp_path, caplog, precision, mode):
    """The first loss is that of 32 bits, within rounding, and the network learns; if frozen, from cached features."""
    caplog.set_level("INFO")
    module, data = classifier("alexnet", mode, keep_last_pool=False), Coloured()
    module._make_optimizer = functools.partial(torch.optim.Adam, lr=1e-3, eps=1e-4, fused=True)
    trainer(tmp_path).test(module, datamodule=data, verbose=False)
    expected = float(module.trainer.callback_metrics["test/loss"])
    run = trainer(tmp_path, precision=precision, max_epochs=2, callbacks=[FeatureCache(str(tmp_path / "cache"))])
    run.test(module, datamodule=data, verbose=False)
    assert float(run.callback_metrics["test/loss"]) == pytest.approx(expected, abs=TOLERANCE[precision])

    run.fit(module, datamodule=data)
    first, last = (run.callback_metrics[f"{split}/loss"] for split in ("train", "val"))
    assert last < first < 2
    dtype = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}[precision]
    assert module.network.fc.weight.dtype == dtype
    kept = {value.dtype for value in data.head_statistics.values()}
    assert kept == ({dtype} if mode == "frozen" and precision != "64-true" else set())
    asked = "they are kept in 32 bits, and trainer.precision=64-true asks for more"
    assert (asked in caplog.text) == (precision == "64-true" and mode == "frozen")


def test_losses_are_summed_in_32_bits_whatever_the_networks_precision(tmp_path):
    """In bf16, 256 + 1 is 256: a sum of many losses would stop growing."""
    module = classifier("alexnet", "frozen")
    trainer(tmp_path, precision="bf16-true").fit(module, datamodule=Coloured())
    assert {state.dtype for state in module.metrics.state_dict().values()} <= {torch.float32, torch.int64}
    assert module.network.fc.weight.dtype == torch.bfloat16


@pytest.mark.slow
def test_a_loss_that_16_bits_cannot_hold_says_what_to_give(tmp_path):
    module = classifier("alexnet", "finetune", keep_last_pool=False)
    run = trainer(tmp_path, precision="16-true", max_epochs=2, callbacks=[LossGuard(tmp_path)])
    with pytest.raises(UserError, match=r"optimizer\.eps=1e-4"):
        run.fit(module, datamodule=Coloured())
