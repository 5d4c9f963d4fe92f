"""Does the heat settle before the accuracy does? Follows both over the epochs of finished runs.

    python experiments/scores_epochs/run.py RUN [RUN …]

Each RUN is the folder of a run that drew heatmaps at most epochs. Its raw maps give, for the CAM of each picture's true
class, how similar the map is to that of the last epoch (Spearman), over how much of the picture the heat is spread
(effective area), and how much the map depends on the class (1 - Spearman with the CAM of the likeliest other class).
Accuracy, and scores that need masks, are those that the run logged; before training, the accuracy is that of chance. A
quantity has settled at the first epoch from which on it stays within a tenth of its whole way from its mean over the
last fifth of the epochs. The results go to results.csv and epochs.png.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import write_csv

from camlab import scores
from camlab.storage.maps_file import StoredMaps, read_maps

HERE = Path(__file__).parent
LOGGED = ("val/acc", "test/acc", "val/heat/auroc", "val/heat/energy_gain")  # of the accuracies, the first that there is
Curve = dict[int, float]


def logged(run: Path) -> dict[str, Curve]:
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    curves = {name: {round(float(r["epoch"])): float(r[name]) for r in rows if r.get(name)} for name in LOGGED}
    if len(curves["val/acc"]) > 1:
        del curves["test/acc"]
    chance = 1 / len(json.loads((run / "data.json").read_text())["class_names"])
    known = {name: curve for name, curve in curves.items() if len(curve) > 1}
    return {name: {0: chance, **curve} if name.endswith("/acc") else curve for name, curve in known.items()}


def cam(stored: StoredMaps, class_idx: Tensor) -> Tensor:
    """CAM of one class of each picture, N×h×w."""
    assert stored.cam_of_all_classes is not None, "the run's network has no CAM"
    maps = torch.from_numpy(stored.cam_of_all_classes).float()
    return maps[torch.arange(len(maps)), class_idx]


def of_maps(run: Path) -> dict[str, Curve]:
    every = sorted((read_maps(file) for file in run.glob("heatmaps/epoch_*/maps.npz")), key=lambda one: one.epoch or 0)
    true = torch.from_numpy(every[0].labels)
    last = cam(every[-1], true)
    found: dict[str, Curve] = {"similarity to the last map": {}, "effective area": {}, "class contrast": {}}
    for one in every:
        probabilities = torch.from_numpy(one.probabilities).clone()
        probabilities[torch.arange(len(true)), true] = -1
        now, other = cam(one, true), cam(one, probabilities.argmax(dim=1))
        values = scores.spearman(now, last), scores.effective_area(now), scores.class_contrast(now, other)
        for curve, value in zip(found.values(), values, strict=True):
            curve[one.epoch or 0] = float(value.nanmean())
    del found["similarity to the last map"][every[-1].epoch or 0]  # 1 by definition
    return found


def settled(curve: Curve) -> int:
    """The first epoch from which on the values stay within a tenth of the whole way from those at the end."""
    epochs, values = list(curve), torch.tensor(list(curve.values()))
    end = values[-max(1, len(values) // 5) :].mean()
    far = (values - end).abs() > 0.1 * (values - end).abs().max()
    return epochs[min(int(far.nonzero().max()) + 1, len(epochs) - 1)] if far.any() else epochs[0]


def draw(found: Mapping[str, Mapping[str, Curve]]) -> None:
    figure = Figure(figsize=(4.2 * len(found), 3.4), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    drawn: dict[str, Any] = {}  # a line for each quantity, in the same colour in all panels
    for axes, (name, curves) in zip(panels, found.items(), strict=True):
        for quantity, curve in curves.items():
            label = "accuracy" if quantity.endswith("/acc") else quantity.removeprefix("val/heat/")
            colour = drawn[label].get_color() if label in drawn else f"C{len(drawn)}"
            drawn.setdefault(label, axes.plot(list(curve), list(curve.values()), lw=1.2, color=colour)[0])
            axes.plot(list(curve), list(curve.values()), lw=1.2, color=colour)
            axes.axvline(settled(curve), color=colour, lw=0.8, ls=":")
        axes.set(title=name, xlabel="epochs (dotted: settled)", ylim=(-0.1, 1.35))
    panels[0].set_ylabel("accuracy, score")
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn), fontsize=8, frameon=False)
    figure.savefig(HERE / "epochs.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    found = {run.resolve().name: {**logged(run), **of_maps(run)} for run in parser.parse_args().runs}
    rows = [
        {
            "run": name,
            "quantity": quantity,
            "epochs": max(curve),
            "settled_at_epoch": settled(curve),
            "first": round(next(iter(curve.values())), 3),
            "last": round(list(curve.values())[-1], 3),
        }
        for name, curves in found.items()
        for quantity, curve in curves.items()
    ]
    for row in rows:
        print(*row.values(), sep="  ")
    write_csv(HERE / "results.csv", rows)
    draw(found)


if __name__ == "__main__":
    main()
