"""Two processes (gloo, on a CPU) end where one does, to float tolerance: the same global batches, uneven tails too."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

SETTINGS = [
    "data=shapes",
    "data.train_size=150",
    "data.val_size=50",
    "data.test_size=51",  # 26 and 25: each image counts once
    "data.image_size=64",
    "data.batch_size=33",  # 100 = 33 + 33 + 33 + 1: a rank with nothing in the last step
    "arch.weights=null",
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "callbacks.heatmaps.per_class=1",
    "logger=csv",
]


def run(folder: Path, mode: str, devices: int) -> tuple[dict[str, torch.Tensor], list[dict[str, str]]]:
    place = [f"hydra.run.dir={folder}/{devices}", f"paths.cache={folder}/cache{devices}", f"mode={mode}"]
    command = [sys.executable, "-m", "camlab.train", *SETTINGS, f"trainer.devices={devices}", *place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr
    state = torch.load(folder / str(devices) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    with open(folder / str(devices) / "metrics.csv") as file:
        return state, list(csv.DictReader(file))


@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_two_processes_end_where_one_does(tmp_path, mode):
    (one, one_metrics), (two, two_metrics) = run(tmp_path, mode, 1), run(tmp_path, mode, 2)
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-4, msg=name)
    for a, b in zip(one_metrics, two_metrics, strict=True):
        for key in a:
            if a[key] and key != "train/images_per_second":
                assert float(b[key]) == pytest.approx(float(a[key]), abs=1e-4), key
