"""The same maps, scores and runs on a GPU as on the CPU. These tests are skipped where there is none."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import camlab
from camlab import scores
from camlab.attribution.methods import METHODS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
]
SMALL_RUN = [
    *(
        "data=shapes",
        "data.train_size=300",
        "data.test_size=40",
        "data.val_size=50",
        "data.image_size=64",
        "data.batch_size=50",
    ),
    *("arch.weights=null", "trainer=gpu", "logger=csv", "deterministic=true"),
]


@pytest.fixture(autouse=True)
def full_precision():
    """Convolutions and products in float32, since a GPU takes TF32 by default."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def convolutional() -> nn.Module:
    return torchvision.models.resnet18(num_classes=5).eval()


def transformer() -> nn.Module:
    network = torchvision.models.VisionTransformer(64, 16, 3, 4, 48, 96, num_classes=5).eval()
    nn.init.normal_(network.heads.head.weight, std=0.2)  # torchvision starts with zeros, whose gradients vanish
    return network


@pytest.mark.parametrize("make", [convolutional, transformer])
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_the_cpu(make, method):
    torch.manual_seed(0)
    network, images = make(), torch.randn(3, 3, 64, 64)
    if not camlab.Explainer(network).supports(method, images):
        pytest.skip(f"{method} does not apply to this network")
    expected = camlab.heatmaps(network, images, method=method)
    found = camlab.heatmaps(network.cuda(), images.cuda(), method=method)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["srg", "road", "insertion", "deletion", "average_drop", "increase"])
def test_scores_with_passes_are_those_of_the_cpu(name):
    torch.manual_seed(0)
    network, images, signed = convolutional(), torch.randn(4, 3, 64, 64), torch.randn(4, 8, 8)
    expected = getattr(scores, name)(network, images, signed)
    found = getattr(scores, name)(network.cuda(), images.cuda(), signed.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["auroc", "energy", "energy_gain", "pointing_game", "max_box_acc"])
def test_scores_of_the_place_are_those_of_the_cpu(name):
    signed, masks = torch.randn(6, 7, 7), torch.zeros(6, 56, 56, dtype=torch.bool)
    masks[:, 10:30, 5:40] = True
    function = scores.SCORES[name].function
    torch.testing.assert_close(function(signed.cuda(), masks.cuda()).cpu(), function(signed, masks), rtol=0, atol=1e-5)


def test_the_gate_and_the_stability_of_maps_on_a_gpu():
    torch.manual_seed(0)
    network, images = convolutional().cuda(), torch.randn(6, 3, 64, 64).cuda()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    verdict = scores.gate(scores.mprt(network, images, ["cam"], stages=1)["cam"])
    assert -1 <= verdict.similarity.mean <= 1
    assert scores.max_sensitivity(network, images, "grad_cam")["grad_cam"].shape == (6,)
    assert scores.flip_consistency(network, images, "cam")["cam"].shape == (6,)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Module(L.LightningModule):
    """A classifier of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, 3)),
        )

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.filterwarnings("ignore")
def test_the_callback_changes_nothing_in_a_training_of_somebody_else(tmp_path, precision):
    def weights(*callbacks: L.Callback) -> dict[str, torch.Tensor]:
        L.seed_everything(0)
        data = TensorDataset(torch.randn(32, 3, 16, 16), torch.arange(32) % 3)
        trainer = L.Trainer(
            accelerator="gpu", devices=1, precision=precision, max_epochs=2, logger=False, deterministic=True,
            enable_checkpointing=False, enable_progress_bar=False, callbacks=list(callbacks), default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module := Module(), DataLoader(data, 8, shuffle=True), DataLoader(data, 8))
        return module.state_dict()

    drawn = weights(camlab.HeatmapCallback(torch.randn(4, 3, 16, 16), folder=tmp_path / "heatmaps"))
    assert len(list((tmp_path / "heatmaps").rglob("sheet.png"))) == 3
    assert all(torch.equal(value, drawn[name]) for name, value in weights().items())


def run(folder: Path, *settings: str) -> tuple[dict[str, object], list[dict[str, str]]]:
    """Train with a command, and return its result and its metrics without times."""
    command = [sys.executable, "-m", "camlab.train", *SMALL_RUN, f"hydra.run.dir={folder}", *settings]
    done = subprocess.run([*command, f"paths.cache={folder.parent / 'cache'}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if "second" not in k and "time" not in k} for row in csv.DictReader(file)]
    return json.loads((folder / "result.json").read_text()), rows


@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_a_run_that_is_resumed_on_a_gpu_is_the_whole_run(tmp_path, mode):
    whole, rows = run(tmp_path / "whole", f"mode={mode}", "trainer.max_epochs=3")
    assert "NVIDIA" in str(whole["device"]) or "cuda" in str(whole["device"]).lower()
    run(tmp_path / "parts", f"mode={mode}", "trainer.max_epochs=2")
    resumed, resumed_rows = run(
        tmp_path / "more", f"mode={mode}", "trainer.max_epochs=3", f"resume={tmp_path / 'parts'}"
    )
    assert resumed["metrics"]["test/acc"] == whole["metrics"]["test/acc"]
    assert resumed_rows == rows[-len(resumed_rows) :]


def test_a_compiled_network_and_pictures_on_the_host(tmp_path):
    _, rows = run(tmp_path / "plain", "trainer.max_epochs=1")
    _, host = run(tmp_path / "host", "trainer.max_epochs=1", "data.placement=host")
    losses = [float(next(row["val/loss"] for row in of if row["val/loss"])) for of in (rows, host)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)  # the kernels differ with the memory format
    compiled, _ = run(tmp_path / "compiled", "trainer.max_epochs=1", "compile=true")
    assert compiled["epochs"] == 1
    assert len(list((tmp_path / "compiled" / "heatmaps").rglob("sheet.png"))) == 2


def test_evaluation_and_explanation_on_a_gpu(tmp_path):
    run(tmp_path / "run", "trainer.max_epochs=1")
    for command in (
        ["camlab.evaluate", f"checkpoint={tmp_path / 'run'}"],
        ["camlab.explain", f"checkpoint={tmp_path / 'run'}", f"images={tmp_path / 'run/heatmaps/pictures'}",
         "device=gpu", f"out={tmp_path / 'explained'}"],
    ):  # fmt: skip
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
