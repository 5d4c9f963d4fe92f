"""Measure Table 1 and every number that needs a GPU, in one command.

    python experiments/table1/gpu.py DATA WEIGHTS OUT [--tiny]

DATA is a folder with cifar-10-batches-py/, and WEIGHTS is `imagenet` or a file of features. Runs are written to OUT,
and results to gpu.csv beside this file, or to OUT/gpu.csv with --tiny. The script measures both rows of the table in
bf16 and float32, the speed without each of the choices of trainer=gpu, and experiments/speed/run.py in both precisions.
--tiny does all this with a few synthetic pictures on any device, which tests the script but measures nothing.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import machine, write_csv

from camlab.models.cam_net import CamNet

HERE = Path(__file__).parent
PEAK = {
    "bf16-mixed": 989e12,
    "32-true": 494e12,
}  # dense operations/s of an H200 (data sheet); cuDNN takes TF32 for float32
TINY = [
    "data=shapes", "data.train_size=150", "data.test_size=20", "data.image_size=64", "data.batch_size=50",
    "arch.weights=null", "trainer.max_epochs=3",
]  # fmt: skip


class Runs:
    """Training runs that are started as commands, and their results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.trainer = "gpu" if torch.cuda.is_available() else "default"

    def go(self, name: str, *settings: str) -> dict[str, Any]:
        """Run a training and return its row: accuracy, time, images/s in the last epoch, peak memory."""
        folder = self.options.out / name
        data = [f"data.root={self.options.data}", "data.verify=false", f"arch.weights={self.options.weights}"]
        command = [sys.executable, "-m", "camlab.train", "experiment=table1", f"trainer={self.trainer}", "logger=csv"]
        command += [f"hydra.run.dir={folder}", f"paths.cache={self.options.out}/cache"]
        subprocess.run([*command, *(TINY if self.options.tiny else data), *settings], check=True)
        result = json.loads((folder / "result.json").read_text())
        return {
            "question": name,
            "test_acc": round(result["metrics"]["test/acc"], 4),
            "epochs": result["epochs"],
            "wall_s": result["wall_time_s"],
            "images_per_s": round(result["metrics"]["train/images_per_second"]),
            "peak_memory_gb": result.get("peak_memory_gb", ""),
        }


def flops_per_image() -> float:
    """Count the operations of a forward and backward pass of the fine-tuned network. A multiply-add counts as two."""
    with torch.device("meta"):
        network, images = CamNet("alexnet"), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return counter.get_total_flops()


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    runs, on_gpu = Runs(options), torch.cuda.is_available()
    for precision in ("bf16-mixed", "32-true"):
        for mode in ("frozen", "finetune"):
            row = runs.go(f"{mode}-{precision}", f"mode={mode}", f"trainer.precision={precision}")
            if mode == "finetune" and on_gpu:
                row["share_of_peak"] = round(row["images_per_s"] * flops_per_image() / PEAK[precision], 4)
            yield row
    few = ["mode=finetune", "trainer.max_epochs=5"]  # the speed is that of the last epoch
    without = {
        "all": [],
        "compile": ["compile=true"],
        "unfused": ["optimizer.fused=false"],
        "host": ["data.placement=host"],
    }
    for name, settings in without.items():
        if name != "compile" or on_gpu:
            yield runs.go(f"choice-{name}", *few, *settings)
    yield runs.go("choice-no-heatmaps", *few, "callbacks.heatmaps=null")
    yield runs.go("choice-heatmaps-each-epoch", *few, "callbacks.heatmaps.every_n_epochs=1")


def speed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of experiments/speed, with their precision."""
    script = HERE.parent / "speed" / "run.py"
    for precision in ("bf16-mixed", "32-true"):
        out = options.out / f"speed-{precision}.csv"
        extra = ["--tiny"] if options.tiny else []
        command = [sys.executable, str(script), "--out", str(out), "--precision", precision, *extra]
        subprocess.run(command, check=True)
        with open(out, newline="") as file:
            yield from ({"precision": precision, **row} for row in csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("out", type=lambda text: Path(text).absolute())
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    about = machine()
    rows = [{**row, **about} for row in measure(options)] + list(speed(options))
    write_csv(options.out / "gpu.csv" if options.tiny else HERE / "gpu.csv", rows)


if __name__ == "__main__":
    main()
