"""Which heatmaps and which scores can be trusted? Scores all methods on three architectures, trained on shapes.

    python experiments/scores_shapes/run.py OUT [--only NETWORK …] [--seeds 0 1 2] [--tiny]

Trains the demo's AlexNet, and the ResNet-18 and the vision transformer of experiments/architectures, with three seeds.
`camlab.score` then scores every method on 200 test shapes, with their masks. A command that was stopped goes on, and
networks in results.csv are not scored again. The script writes results.csv (one line for each network, seed, method and
score), table.md (means over the seeds) and methods.png beside this file. It takes about two hours on one core.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import write_csv

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
import run as architectures

from camlab.data.shape_drawing import CLASS_NAMES, draw_shapes

HERE = Path(__file__).parent
NETWORKS = ("alexnet", "resnet18", "vit")
SCORES = ("auroc", "energy", "energy_gain", "pointing_game", "max_box_acc", "pxap", "srg", "road", "insertion",
          "deletion", "average_drop", "increase", "effective_area", "class_contrast", "flip_consistency")  # fmt: skip
COSTLY = ("road", "insertion", "deletion", "average_drop", "increase")  # for the first seed only
PSEUDO = ("random", "constant", "centre", "edges", "mask")
HEADLINES = ("auroc", "energy", "srg_mean", "srg_blur", "mprt")
N, TEST_SEED = 200, 7  # the test pictures of experiments/architectures


def command(*words: str) -> None:
    """Run a command of camlab, with this folder's networks in reach."""
    subprocess.run([sys.executable, "-m", *words], check=True, env={**os.environ, "PYTHONPATH": str(HERE)})


def draw_pictures(folder: Path, count: int) -> None:
    """Write the test pictures as CLASS/K.png, and their masks as masks/CLASS/K.png."""
    for k, (picture, label, mask) in enumerate(zip(*draw_shapes(count, TEST_SEED), strict=True)):
        for root, pixels in ((folder, picture.transpose(1, 2, 0)), (folder / "masks", mask.astype("uint8") * 255)):
            file = root / CLASS_NAMES[int(label)] / f"{k:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)


def scored(name: str, seed: int, out: Path, tiny: bool) -> Path:
    """Train a network and score it, unless this is done; returns the folder with its scores."""
    folder = out / f"{name}-{seed}"
    if (folder / "scores.json").exists():
        return folder
    count, scores = "20" if tiny else str(N), [score for score in SCORES if seed == 0 or score not in COSTLY]
    common = [f"methods={'auto' if tiny else 'all'}", f"scores=[{','.join(scores)}]", f"n={count}", f"out={folder}"]
    if name == "alexnet":
        run = out / f"alexnet-{seed}-run"
        short = ["data.train_size=600", "trainer.max_epochs=1"] if tiny else []
        command("camlab.train", "experiment=demo", f"seed={seed}", f"out={run}", "callbacks.heatmaps=null",
                "callbacks.scores=null", *short)  # fmt: skip
        command("camlab.score", f"checkpoint={run}", *common)
        return folder
    options = argparse.Namespace(keep=out / "weights", tiny=tiny)
    network, _ = architectures.trained(name, seed, options)
    weights = out / "weights" / f"{name}-{seed}-state.pt"
    torch.save(network.state_dict(), weights)
    command("camlab.score", f"network=networks:{name}", f"network.weights={weights}", f"images={out / 'pictures'}",
            "maps=0", *common)  # fmt: skip
    return folder


def rows_of(name: str, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each method and score of a network; the sanity gate is the score `mprt`."""
    for method, about in json.loads((folder / "scores.json").read_text())["scores"].items():
        of = {"network": name, "seed": seed, "method": method}
        for score, figures in about["scores"].items():
            yield {
                **of,
                "score": score,
                **{key: _rounded(figures.get(key)) for key in ("mean", "low", "high", "chance")},
            }
        if about["gate"] is not None:
            gate = about["gate"]
            yield {**of, "score": "mprt", **{key: _rounded(gate["similarity"][key]) for key in ("mean", "low", "high")}}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


Figures = dict[tuple[str, str, str], list[float]]  # means of the seeds, by network, method and score


def by_method(rows: Iterable[dict[str, Any]]) -> Figures:
    figures: Figures = defaultdict(list)
    for row in rows:
        if row["mean"] is not None:
            figures[row["network"], row["method"], row["score"]].append(row["mean"])
    return figures


def table(figures: Figures, names: Sequence[str]) -> str:
    """Means over the seeds, with the least and the greatest, for the headline scores of each network."""
    lines = [f"| network | method | {' | '.join(HEADLINES)} |", "|---" * (2 + len(HEADLINES)) + "|"]
    for name in names:
        for method in methods_of(figures, name):
            values = [figures.get((name, method, score), []) for score in HEADLINES]
            cells = [f"{statistics.mean(of):.2f} ({min(of):.2f}–{max(of):.2f})" if of else "–" for of in values]
            lines.append(f"| {name} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def methods_of(figures: Figures, name: str) -> list[str]:
    return list(dict.fromkeys(method for network, method, _ in figures if network == name))


def draw(figures: Figures, names: Sequence[str], file: Path) -> None:
    """A row for each method: does it find the object, is it needed, does it depend on the weights? A point per seed."""
    known = {(network, method.split()[0]): method for network, method, _ in reversed(figures)}  # the coarsest grid
    rows = list(dict.fromkeys(method for _, method in reversed(known)))
    rows.sort(key=lambda method: statistics.mean(of_row(figures, known, names, method, "auroc")))
    asked = {
        "auroc": "finds the object (auroc)",
        "srg_blur": "is needed (srg, blur)",
        "mprt": "alike at random weights",
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 0.28 * len(rows) + 1.2), sharey=True, layout="constrained")
    for axis, (score, title), chance in zip(axes, asked.items(), (0.5, 0, 0.5), strict=True):
        for k, name in enumerate(names):
            for y, method in enumerate(rows):
                points = figures.get((name, known.get((name, method), ""), score), [])
                axis.scatter(points, [y + 0.2 * (1 - k)] * len(points), s=16, color=f"C{k}")
        axis.axvline(chance, color="grey", lw=0.8, ls=":")
        axis.set(title=title)
        axis.grid(axis="y", alpha=0.3)
    axes[2].axvspan(0.5, 1.05, color="red", alpha=0.07)
    axes[0].set_yticks(range(len(rows)), rows)
    for label in axes[0].get_yticklabels():
        label.set_color("grey" if label.get_text() in PSEUDO else "black")
    handles = [plt.Line2D([], [], marker="o", ls="", color=f"C{k}", label=name) for k, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(file, dpi=90)


def of_row(
    figures: Figures, known: dict[tuple[str, str], str], names: Sequence[str], method: str, score: str
) -> list[float]:
    """All values of a method's score, or 0 if there are none."""
    found = [figures.get((name, known.get((name, method), ""), score), []) for name in names]
    return [value for of in found for value in of] or [0.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for runs, weights and scores")
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tiny", action="store_true", help="few pictures and methods: a trial of this script")
    options = parser.parse_args()
    draw_pictures(options.out / "pictures", 20 if options.tiny else N)
    folder = options.out if options.tiny else HERE
    rows = known_rows(folder / "results.csv")
    done = {(row["network"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for name in options.only:
            if (name, seed) not in done:
                rows += rows_of(name, seed, scored(name, seed, options.out, options.tiny))
                write_csv(folder / "results.csv", rows)
    figures, names = by_method(rows), [name for name in NETWORKS if any(row["network"] == name for row in rows)]
    (folder / "table.md").write_text(table(figures, names))
    draw(figures, names, folder / "methods.png")


def known_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of former runs."""
    if not file.exists():
        return []
    numbers = ("mean", "low", "high", "chance")
    return [
        {**row, "seed": int(row["seed"]), **{key: float(row[key]) if row[key] else None for key in numbers}}
        for row in csv.DictReader(file.open())
    ]


if __name__ == "__main__":
    main()
