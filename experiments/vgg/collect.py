"""Collect the runs of run.sh: write results.csv (a row per run), accuracy by epoch and the last contact sheet.

    python experiments/vgg/collect.py OUT

The files are written beside this one.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).parent
LAST = 10  # epochs whose mean is given, since the accuracy changes from epoch to epoch


def accuracies(run: Path) -> list[float]:
    """Read the test accuracy after each epoch, in %."""
    with open(run / "metrics.csv", newline="") as file:
        tested = [row for row in csv.DictReader(file) if row["test/acc"]]
    by_epoch = {float(row["epoch"]): 100 * float(row["test/acc"]) for row in tested}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def row(run: Path) -> dict[str, Any]:
    result, curve = json.loads((run / "result.json").read_text()), accuracies(run)
    return {
        "run": run.name,
        "epochs": result["epochs"],
        "test_acc_%": round(100 * result["metrics"]["test/acc"], 2),
        f"mean_of_last_{LAST}_%": round(statistics.mean(curve[-LAST:]), 2),
        "train_acc_%": round(100 * result["metrics"]["train/acc"], 2),
        "device": result["device"],
        "commit": result["git_commit"][:7],
    }


def draw(runs: list[Path]) -> None:
    figure = Figure(figsize=(6, 3.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for run in runs:
        name, seed = run.name.split("-")
        label = f"{name} frozen" if seed == "0" else None
        curve = accuracies(run)
        axes.plot(range(1, len(curve) + 1), curve, lw=1, color="C0" if name == "vgg16" else "C1", label=label)
    axes.set(xlabel="epoch", ylabel="test accuracy, % (1,017 pictures)")
    axes.legend(fontsize=8)
    figure.savefig(HERE / "accuracy.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    out = parser.parse_args().out
    runs = sorted(out.glob("*-[0-9]"))
    rows = [row(run) for run in runs]
    with open(HERE / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for name in ("vgg16", "alexnet"):
        own = [one["test_acc_%"] for one in rows if one["run"].startswith(name)]
        print(f"{name}: {statistics.mean(own):.2f} ± {statistics.stdev(own):.2f} % over {len(own)} seeds")
    draw(runs)
    sheet = sorted((out / "vgg16-0" / "heatmaps").glob("epoch_*/sheet.png"))[-1]
    with Image.open(sheet) as picture:
        picture.convert("RGB").save(HERE / "vgg16-0.jpg", quality=85)


if __name__ == "__main__":
    main()
