"""Two processes (gloo, on a CPU) give the same result as one, within rounding, also with uneven last batches.

They train in float64: in float32, Adam makes rounding visible where gradients are near 0, more on some processors.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

SETTINGS = [
    "data=shapes",
    "data.train_size=150",
    "data.val_size=50",
    "data.test_size=51",  # 26 and 25 on the two ranks; each image counts once
    "data.image_size=64",
    "data.batch_size=33",  # 100 = 33 + 33 + 33 + 1: one rank has no image in the last step
    "arch.weights=null",
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.precision=64-true",
    "trainer.max_epochs=3",
    "callbacks.heatmaps.per_class=1",
    "logger=csv",
]


def run(
    folder: Path, mode: str, devices: int, settings: Sequence[str] = SETTINGS
) -> tuple[dict[str, torch.Tensor], list[dict[str, str]]]:
    place = [f"hydra.run.dir={folder}/{devices}", f"paths.cache={folder}/cache{devices}", f"mode={mode}"]
    command = [sys.executable, "-m", "camlab.train", *settings, f"trainer.devices={devices}", *place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr
    state = torch.load(folder / str(devices) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    with open(folder / str(devices) / "metrics.csv") as file:
        return state, list(csv.DictReader(file))


@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_two_processes_end_where_one_does(tmp_path, mode):
    check_same(run(tmp_path, mode, 1), run(tmp_path, mode, 2))


def test_two_processes_share_stored_pictures_and_a_balanced_order(tmp_path):
    """One of them decodes the pictures, and both see those that one process alone would see."""
    for k in range(36):
        place = tmp_path / "photos" / ("many" if k % 4 else "few")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (70, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{k}.png")
    own = ["data=folder", f"data.root={tmp_path / 'photos'}", "data.balance=sampling", "data.batch_size=7"]
    few = ["data.image_size=64", "trainer.max_epochs=2", "callbacks.heatmaps=null", "callbacks.scores=null"]
    settings = [*own, *few, "arch.weights=null", "trainer=ddp", "trainer.accelerator=cpu", "logger=csv"]
    settings += ["trainer.precision=64-true"]
    check_same(*(run(tmp_path, "finetune", devices, settings) for devices in (1, 2)))


def check_same(first, second) -> None:
    """Check that two runs have the same weights and metrics, but for rounding."""
    (one, one_metrics), (two, two_metrics) = first, second
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(two[name], tensor, atol=1e-9, rtol=0, msg=name)
    for a, b in zip(one_metrics, two_metrics, strict=True):
        for key in a:
            if a[key] and key != "train/images_per_second":
                assert float(b[key]) == pytest.approx(float(a[key]), abs=1e-6), key


BAD_LOSS_ON_ONE_RANK = """
import sys
from pathlib import Path

import lightning as L
import torch
from conftest import Coloured
from test_training import classifier

from camlab.training.callbacks import loss_guard
from camlab.training.callbacks.checkpoints import CheckpointFiles


class Poison(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 3:
            batch.images[:] = float("nan")


folder = Path(sys.argv[1])
loss_guard.CHECK_EVERY = 4  # the bad loss is the last of a window: the other rank sees its effect only later
run = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=4, logger=False, enable_progress_bar=False,
    enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=str(folder),
    callbacks=[loss_guard.LossGuard(folder), Poison()], plugins=[CheckpointFiles()], enable_checkpointing=False,
)
run.fit(classifier(), datamodule=Coloured(n_train=128))
"""


def test_a_bad_loss_on_one_rank_stops_all_of_them(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(BAD_LOSS_ON_ONE_RANK)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode != 0
    assert done.stderr.count("UserError: The loss is nan at step 4 (epoch 1, ") == 2, done.stderr
    about = json.loads((tmp_path / "checkpoints" / "not_finite.json").read_text())
    assert (about["loss"], about["step"], len(about["image_idx"])) == ("nan", 4, 8)
