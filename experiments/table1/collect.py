"""Collect the runs of run.sh: write results.csv, curves.png and epochs.jpg (heatmaps by epoch) beside this file.

python experiments/table1/collect.py OUT DATA
"""

import argparse
import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from camlab import maps
from camlab.attribution.methods import METHODS
from camlab.data.cifar10 import Cifar10
from camlab.drawing import layout, render
from camlab.drawing.maps_file import read_maps
from camlab.drawing.tiles import titled

HERE = Path(__file__).parent
IMAGES = 50_000
REPORT = 79.92  # test accuracy of the frozen row in the report, in %
EPOCHS = (0, 10, 50, 150)
SHOWN = (0, 2, 6, 9, 13, 14, 16, 19)  # of the probe's 20 training images


def row(run: Path) -> dict[str, Any]:
    """Read the results of one run and the time that its parts took."""
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
    """Read the test accuracy, in %, by the number of epochs done."""
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
    seen = {epoch: read_maps(run / "heatmaps" / f"epoch_{epoch:04d}" / "maps.npz") for epoch in EPOCHS}
    rows = []
    for i in SHOWN:
        tiles = [titled(pictures[i], "Picture", train.class_names[int(train.labels[probe[i]])])]
        for epoch, stored in seen.items():
            predicted = train.class_names[int(stored.class_idx[i, 0])]
            for method, (signed,) in stored.maps.items():
                own = torch.from_numpy(signed[i, 0]).float()
                heat = maps.upsample(maps.normalize(own), pictures.shape[1:3])
                drawn = render.overlay(pictures[i], heat.numpy())
                tiles.append(titled(drawn, f"{epoch}: {METHODS[method].title}", predicted))
        rows.append(layout.beside(tiles, 6))
    render.write_image(HERE / "epochs.jpg", layout.frame(layout.below(rows, 24), 18))


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
