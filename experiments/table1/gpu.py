"""Measure Table 1 and every number of it that needs a GPU, in one command.

    python experiments/table1/gpu.py DATA WEIGHTS OUT [--only NAME …] [--tiny]

DATA is a folder with cifar-10-batches-py/, and WEIGHTS is `imagenet` or a file of features. Runs are written to OUT,
and a row after each of them to gpu.csv beside this file, or to OUT/gpu.csv with --tiny; the same command goes on where
it was stopped. The script measures both rows of the table in bf16 with three seeds, the speed without each of the
choices of trainer=gpu, and experiments/speed/run.py in both precisions. --tiny does all this with a few synthetic
pictures on any device, which tests the script but measures nothing.
"""

import argparse
import csv
import functools
import json
import subprocess
import sys
from collections.abc import Callable
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
}  # dense operations/s of an H100 or H200 (data sheet); cuDNN takes TF32 for float32
TINY = [
    "data=shapes", "data.train_size=150", "data.test_size=20", "data.image_size=64", "data.batch_size=50",
    "arch.weights=null", "trainer.max_epochs=3",
]  # fmt: skip


class Runs:
    """Training runs that are started as commands, and their results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.trainer = "gpu" if torch.cuda.is_available() else "default"

    def row(self, name: str, *settings: str) -> list[dict[str, Any]]:
        """Run a training and return its row: accuracy, time, images/s in the last epoch, peak memory."""
        folder = self.options.out / name
        data = [f"data.root={self.options.data}", "data.verify=false", f"arch.weights={self.options.weights}"]
        command = [sys.executable, "-m", "camlab.train", "experiment=table1", f"trainer={self.trainer}", "logger=csv"]
        command += [f"hydra.run.dir={folder}", f"paths.cache={self.options.out}/cache"]
        subprocess.run([*command, *(TINY if self.options.tiny else data), *settings], check=True)
        result = json.loads((folder / "result.json").read_text())
        images_per_s = result["metrics"]["train/images_per_second"]
        row = {
            "run": name,
            "test_acc": round(result["metrics"]["test/acc"], 4),
            "epochs": result["epochs"],
            "wall_s": result["wall_time_s"],
            "images_per_s": round(images_per_s),
            "peak_memory_gb": result.get("peak_memory_gb", ""),
        }
        if "mode=finetune" in settings and self.trainer == "gpu":
            peak = PEAK["32-true" if "trainer.precision=32-true" in settings else "bf16-mixed"]
            row["share_of_peak"] = round(images_per_s * flops_per_image() / peak, 4)
        return [row]


def flops_per_image() -> float:
    """Count the operations of a forward and backward pass of the fine-tuned network. A multiply-add counts as two."""
    with torch.device("meta"):
        network, images = CamNet("alexnet"), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return counter.get_total_flops()


def questions(options: argparse.Namespace) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """What is measured, by name: functions that return the rows of the results."""
    runs = Runs(options)
    few = ["mode=finetune", "trainer.max_epochs=5"]  # the speed is that of the last epoch
    settings = {
        f"{mode}-{seed}": [f"mode={mode}", f"seed={seed}", "callbacks.heatmaps.every_n_epochs=2"]
        for seed in range(3)
        for mode in ("finetune", "frozen")
    } | {
        "choice-all": few,
        "choice-float32": [*few, "trainer.precision=32-true"],
        "choice-compile": [*few, "compile=true"],
        "choice-unfused": [*few, "optimizer.fused=false"],
        "choice-host": [*few, "data.placement=host"],
        "choice-no-heatmaps": [*few, "callbacks.heatmaps=null"],
        "choice-heatmaps-each-epoch": [*few, "callbacks.heatmaps.every_n_epochs=1"],
    }
    if runs.trainer != "gpu":
        del settings["choice-compile"]
    asked = {name: functools.partial(runs.row, name, *more) for name, more in settings.items()}
    return asked | {f"speed-{precision}": functools.partial(speed, options, precision) for precision in PEAK}


def speed(options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    """Return the rows of experiments/speed in a precision."""
    out = options.out / f"speed-{precision}.csv"
    extra = ["--tiny"] if options.tiny else []
    script = HERE.parent / "speed" / "run.py"
    subprocess.run([sys.executable, str(script), "--out", str(out), "--precision", precision, *extra], check=True)
    with open(out, newline="") as file:
        return [{"run": f"speed-{precision}", **row} for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("out", type=lambda text: Path(text).absolute())
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of runs; by default, all")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    asked = questions(options)
    if unknown := set(options.only or ()) - set(asked):
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}. Choose from {', '.join(asked)}.")
    results = options.out / "gpu.csv" if options.tiny else HERE / "gpu.csv"
    rows = list(csv.DictReader(results.open(newline=""))) if results.exists() else []
    about, done = machine(), {row["run"] for row in rows}
    for name in options.only or asked:
        if name not in done:
            rows += [{**row, **about} for row in asked[name]()]
            write_csv(results, rows)


if __name__ == "__main__":
    main()
