"""Does a method's heat tell networks that rely on a planted shortcut from those that do not?

    python experiments/shortcut/run.py                       # shapes: trains 15 tiny networks
    python -m camlab.train -m experiment=shortcut data=cifar10 mode=frozen sweep=shortcut_cifar10
    python experiments/shortcut/run.py --runs outputs/sweeps/shortcut_cifar10 cifar10

Networks are trained with a mark on one class, on 0, 50, 80, 95 and 100 % of its pictures, with three seeds. Whether a
network relies on the mark is measured by intervention: it does if the mark, pasted on other classes, moves a tenth of
the predictions to its class (`reliance`). The script writes NAME.csv (networks), NAME_methods.csv and NAME.png beside
this file, and a contact sheet of a network that cheats, NAME_sheet.png. Networks in NAME.csv are not trained again.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from camlab import scores
from camlab.data.cifar10 import Cifar10
from camlab.data.module import ImageData
from camlab.data.planted_set import on_another_class, on_own_class
from camlab.data.shapes import Shapes
from camlab.training.callbacks.known_truth import heat_on_mark
from camlab.training.checkpoint import load_network

HERE = Path(__file__).parent
STRENGTHS, SEEDS = (0.0, 0.5, 0.8, 0.95, 1.0), (0, 1, 2)
METHODS = ("cam", "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam")
RELIES, ALARM = 0.1, 2.0  # reliance from which a network counts as cheating; heat, in units of chance, that is an alarm
EPOCHS, BATCH = 6, 32


def data_of(strength: float, seed: int) -> Shapes:
    options = {"shortcut": "patch", "shortcut_classes": [0], "shortcut_strength": strength, "split_seed": seed}
    data = Shapes(train_size=1600, test_size=400, val_size=0, image_size=32, seed=seed, **options)
    data.setup()
    return data


def tiny_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in ((3, 12), (12, 24), (24, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if after < 32 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def trained(data: Shapes, seed: int) -> nn.Sequential:
    network, whole = tiny_network(seed), data.splits["train"].to(torch.device("cpu"))
    inputs, n = data.preprocess(whole.images), len(whole)
    steps = EPOCHS * -(-n // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for some in torch.randperm(n).split(BATCH):
            flipped = torch.rand(len(some)) < 0.5
            images = torch.where(flipped[:, None, None, None], inputs[some].flip(-1), inputs[some])
            loss = F.cross_entropy(network(images), whole.labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def measured(network: nn.Module, data: Shapes) -> dict[str, float]:
    test, shortcut = data.splits["test"], data.shortcut
    own, other = on_own_class(test, shortcut, "test"), on_another_class(test, shortcut, "test")

    def predicted(pictures) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(data.preprocess(some.images)).argmax(1) for some in pictures.batches(200)])

    before, after = predicted(other.pictures), predicted(other)
    moved = scores.reliance(before, after, torch.tensor(shortcut.classes)[other.marks.of])
    figures = {"acc": (predicted(test) == test.labels).float().mean(), "reliance": moved.mean()}
    for name, pictures in (("acc_absent", own.pictures), ("acc_present", own)):
        figures[name] = (predicted(pictures) == own.labels).float().mean()
    figures["acc_elsewhere"] = (after == other.labels).float().mean()
    figures |= heat_on_mark(network, data.preprocess, own, METHODS)
    return {name: round(float(value), 4) for name, value in figures.items()}


def train_shapes(file: Path) -> list[dict[str, float]]:
    rows, keep = read(file), None
    for seed in SEEDS:
        for strength in STRENGTHS:
            done = any((row["strength"], row["seed"]) == (strength, seed) for row in rows)
            if done and not (strength == 1.0 and seed == 0):
                continue
            began, data = time.process_time(), data_of(strength, seed)
            network = trained(data, seed)
            if (strength, seed) == (1.0, 0):
                keep = network, data
            if not done:
                rows.append({"strength": strength, "seed": seed, **measured(network, data)})
                write(file, rows)
                print(rows[-1], f"{time.process_time() - began:.0f} s of processor time", flush=True)
    if keep is not None:
        sheet(*keep, HERE / "shapes_sheet.png")
    return rows


def sheet(network: nn.Module, data: ImageData, file: Path) -> None:
    """Pictures of the mark's class with and without it, and of other classes with it, beside their heatmaps."""
    test, shortcut = data.splits["test"], data.shortcut
    own, other = on_own_class(test, shortcut, "test"), on_another_class(test, shortcut, "test")
    first, three = torch.arange(3), torch.tensor([0, 7, 14])
    groups = (("its class, mark", own.part(first)), ("its class, no mark", own.pictures.part(first)),
              ("other class, mark", other.part(three)))  # fmt: skip
    shown = ("cam", "grad_cam", "hires_cam", "layer_cam", "eigen_cam")
    figure, axes = plt.subplots(9, len(shown) + 1, figsize=(9, 14), layout="constrained")
    for group, (name, pictures) in enumerate(groups):
        some = pictures.subset(torch.arange(3))
        inputs = data.preprocess(some.images)
        with torch.no_grad():
            classes = network(inputs).argmax(1)
        marked = torch.full_like(classes, shortcut.classes[0])  # the heat of the mark's class is the question
        maps = scores.Explaining(shown)(network, inputs, marked)
        for k in range(3):
            row = axes[3 * group + k]
            row[0].imshow(some.images[k].permute(1, 2, 0))
            row[0].set_title(f"{name}\n→ {test.class_names[classes[k]]}", fontsize=8)
            for axis, method in zip(row[1:], shown, strict=True):
                axis.imshow(some.images[k].permute(1, 2, 0))
                axis.imshow(scores.heat(maps[method][k : k + 1], (32, 32))[0], cmap="jet", alpha=0.5, vmin=0, vmax=1)
                axis.set_title(method, fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle(f"A network that cheats: heatmaps of {test.class_names[shortcut.classes[0]]}, the mark's class")
    figure.savefig(file, dpi=90)


def read_runs(folder: Path) -> list[dict[str, float]]:
    """The figures of finished runs of a sweep."""
    rows = []
    for file in sorted(folder.glob("*/result.json")):
        result = json.loads(file.read_text())
        metrics = {k.removeprefix("test/"): v for k, v in result["metrics"].items() if k.startswith("test/")}
        text = (file.parent / "config.yaml").read_text()
        strength = float(text.split("shortcut_strength:")[1].split()[0])
        rows.append({"strength": strength, "seed": result["seed"], **metrics})
    return rows


def sheet_of_run(folder: Path, file: Path) -> None:
    """Draw the sheet of a run with the mark on every picture of its class, if there is one."""
    for run in sorted(folder.glob("*strength-1_*seed-0")) or sorted(folder.glob("*strength-*")):
        settings = yaml.safe_load((run / "config.yaml").read_text())["data"]
        data = Cifar10(**{key: value for key, value in settings.items() if key != "_target_"})
        data.setup()
        sheet(load_network(run / "checkpoints" / "last.ckpt").network, data, file)
        return


def found(rows: list[dict[str, float]]) -> list[dict[str, object]]:
    """How well the heat of each method tells networks that rely on the mark from the others."""
    from sklearn.metrics import roc_auc_score

    relies = [row["reliance"] >= RELIES for row in rows]
    lines = []
    for key in (key for key in rows[0] if key.startswith("heat_on_mark/")):
        ratio = [row[key] / row["heat_on_mark_chance"] for row in rows]
        of = {kind: [r for r, own in zip(ratio, relies, strict=True) if own is kind] for kind in (True, False)}
        both = of[True] and of[False]
        lines.append(
            {
                "method": key.partition("/")[2],
                "auroc": round(roc_auc_score(relies, ratio), 3) if both else None,
                "found": f"{sum(r > ALARM for r in of[True])} of {len(of[True])}",
                "false_alarms": f"{sum(r > ALARM for r in of[False])} of {len(of[False])}",
                "ratio_relies": round(sum(of[True]) / len(of[True]), 1) if of[True] else None,
                "ratio_others": round(sum(of[False]) / len(of[False]), 1) if of[False] else None,
            }
        )
    return lines


def draw(rows: list[dict[str, float]], file: Path) -> None:
    methods = [key for key in rows[0] if key.startswith("heat_on_mark/")]
    figure, axes = plt.subplots(1, len(methods), figsize=(2.3 * len(methods), 2.8), sharey=True, layout="constrained")
    for axis, key in zip(axes, methods, strict=True):
        ratio = [row[key] / row["heat_on_mark_chance"] for row in rows]
        points = axis.scatter([row["reliance"] for row in rows], ratio, c=[row["strength"] for row in rows], s=18)
        axis.axhline(1, color="grey", lw=0.8, ls=":")
        axis.axvline(RELIES, color="grey", lw=0.8, ls=":")
        axis.set(title=key.partition("/")[2], xlabel="reliance", xlim=(-0.05, 1.05))
    axes[0].set_ylabel("heat on the mark / its area")
    figure.colorbar(points, label="strength")
    figure.savefig(file, dpi=90)


def read(file: Path) -> list[dict[str, float]]:
    if not file.exists():
        return []
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file.open())]


def write(file: Path, rows: list[dict]) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="shapes", help="name of the files that are written")
    parser.add_argument("--runs", type=Path, help="folder of a sweep, whose results are read instead of training")
    arguments = parser.parse_args()
    file = HERE / f"{arguments.name}.csv"
    if arguments.runs is None:
        rows = train_shapes(file)
    else:
        rows = read_runs(arguments.runs)
        sheet_of_run(arguments.runs, HERE / f"{arguments.name}_sheet.png")
    write(file, rows)
    table = found(rows)
    write(HERE / f"{arguments.name}_methods.csv", table)
    for line in table:
        print(line)
    draw(rows, HERE / f"{arguments.name}.png")


if __name__ == "__main__":
    main()
