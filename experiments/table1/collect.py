"""Collect the runs of run.sh: results.csv, curves.png and epochs.png (heatmaps by epoch), beside this file.

python experiments/table1/collect.py OUT DATA
"""

import argparse
import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from camlab import maps
from camlab.data.cifar10 import Cifar10
from camlab.drawing import render

HERE = Path(__file__).parent
IMAGES = 50_000
REPORT = 79.92  # % test accuracy of the frozen row
EPOCHS = (0, 10, 50, 150)
SHOWN = (0, 2, 6, 9, 13, 14, 16, 19)  # of the probe's 20 training images


def row(run: Path) -> dict[str, Any]:
    """The results of one run, and the time of its parts."""
    result = json.loads((run / "result.json").read_text())
    waited = re.search(r"Features are there after ([\d.]+) s", (run / "train.log").read_text())
    return {
        "run": run.name,
        "seed": result["seed"],
        "epochs": result["epochs"],
        "test_acc_%": round(100 * result["metrics"]["test/acc"], 2),
        "train_loss": round(result["metrics"]["train/loss"], 4),
        "wall_time_s": result["wall_time_s"],
        "images_per_s": round(result["metrics"]["train/images_per_second"], 1),
        "feature_pass_s": float(waited[1]) if waited else "",
        "device": result["device"],
        "commit": result["git_commit"][:7],
    }


def accuracy_curve(run: Path) -> dict[int, float]:
    """Test accuracy in % by epochs done."""
    with open(run / "metrics.csv", newline="") as file:
        return {int(float(r["epoch"])): 100 * float(r["test/acc"]) for r in csv.DictReader(file) if r["test/acc"]}


def draw_curves(runs: list[Path]) -> None:
    figure = Figure(figsize=(6, 3.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for run in runs:
        curve = accuracy_curve(run)
        axes.plot(list(curve), list(curve.values()), lw=1, label=run.name)
    axes.axhline(REPORT, color="k", ls="--", lw=1, label="report (lossless CIFAR-10)")
    axes.set(xlabel="epoch", ylabel="test accuracy, %")
    axes.legend(fontsize=8)
    figure.savefig(HERE / "curves.png")


def draw_epochs(run: Path, data_root: str) -> None:
    """Draw CAM and Grad-CAM of the same training images after some epochs, for the class predicted at that time."""
    data = Cifar10(root=data_root, verify=False, val_size=0)
    data.setup()
    train = data.splits["train"]
    probe = torch.cat([torch.nonzero(train.labels == label).flatten()[:2] for label in range(10)])
    pictures = train.images[probe].permute(0, 2, 3, 1).numpy()
    seen = {epoch: np.load(run / "heatmaps" / f"epoch_{epoch:04d}" / "maps.npz") for epoch in EPOCHS}
    panels = []
    for i in SHOWN:
        tiles = [(train.class_names[int(train.labels[probe[i]])], pictures[i])]
        for epoch, arrays in seen.items():
            predicted = int(arrays["probabilities"][i].argmax())
            for method, signed in (("CAM", arrays["cam"][i, predicted]), ("Grad-CAM", arrays["grad_cam"][i])):
                heat = maps.upsample(maps.normalize(torch.from_numpy(signed.astype(np.float32))), pictures.shape[1:3])
                title = f"{epoch}: {method} {train.class_names[predicted]}"
                tiles.append((title, render.overlay(pictures[i], heat.numpy())))
        panels.append(render.panel(tiles))
    render.write_image(HERE / "epochs.png", render.contact_sheet(panels, columns=1))


def main(out: Path, data_root: str) -> None:
    runs = sorted(out.glob("frozen-*"))
    rows = [row(run) for run in [*runs, out / "uncached"]]
    with open(HERE / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    accuracies = [r["test_acc_%"] for r in rows[:-1]]
    print(f"frozen: {statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f} % over {len(runs)} seeds")
    cold, uncached_epoch_s = rows[0], IMAGES / rows[-1]["images_per_s"]  # without its test
    print(f"cold run: {cold['wall_time_s'] / cold['feature_pass_s']:.2f} × its feature pass")
    print(f"150 uncached epochs: {150 * uncached_epoch_s / cold['wall_time_s']:.0f} × the cold run")
    draw_curves(runs)
    draw_epochs(runs[0], data_root)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", metavar="DATA")
    options = parser.parse_args()
    main(options.out, options.data)
