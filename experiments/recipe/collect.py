"""Collect the runs of run.sh: write results.csv (a row per epoch), curves.png and the last contact sheets.

    python experiments/recipe/collect.py OUT [DATA]

The files are written beside this one. If DATA, a folder with cifar-10-batches-py/, is given, docs/heatmaps.png is also
written. It shows the test image of each class that the frozen network is surest of.
"""

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure

from camlab.attribution.batch_explainer import BatchExplainer, Request
from camlab.data.cifar10 import Cifar10
from camlab.drawing.probe import Probe
from camlab.drawing.tiles import Style
from camlab.training.checkpoint import load_network

HERE = Path(__file__).parent
# Test accuracy of a plain PyTorch loop with the same recipe on the same images, after epochs 1 to 8, with seed 0.
PLAIN_LOOP = [45.0, 60.0, 64.0, 65.2, 69.4, 71.3, 70.2, 72.5]
KEYS = ("train/loss", "train/acc", "test/loss", "test/acc", "train/images_per_second")


def curves(run: Path) -> dict[int, dict[str, float]]:
    """Read the metrics by the number of epochs done. The final test repeats the values of the last epoch."""
    epochs: dict[int, dict[str, float]] = {}
    with open(run / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            values = {key: float(row[key]) for key in KEYS if row.get(key)}
            epochs.setdefault(int(float(row["epoch"])), {}).update(values)
    return epochs


def draw_for_readme(run: Path, data_root: str) -> None:
    """Draw the test image of each class that the network is surest of, as training draws images."""
    epochs = json.loads((run / "result.json").read_text())["epochs"]
    trained, data = load_network(run), Cifar10(root=data_root, verify=False, val_size=0)
    data.setup()
    test = data.splits["test"]
    with torch.inference_mode():
        logits = torch.cat([trained.network(trained.preprocess(part)) for part in test.images.split(100)])
    sure_NM = logits.softmax(1) * torch.nn.functional.one_hot(test.labels, len(test.class_names))
    chosen = test.subset(sure_NM.argmax(0))
    with tempfile.TemporaryDirectory() as place:
        names = [""] * len(chosen)
        probe = Probe(chosen.images, names, test.class_names, Style(boxes=False), Path(place))
        explainer = BatchExplainer(trained.network, Request(all_classes=True))
        results = explainer.explain(trained.preprocess(chosen.images), probe.sources, chosen.labels)
        probe.draw(results, explainer.layers, epochs)
        shutil.copy(Path(place, f"epoch_{epochs:04d}", "sheet.png"), HERE.parents[1] / "docs" / "heatmaps.png")


def main(out: Path) -> None:
    figure = Figure(figsize=(9, 3.5), dpi=120, layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    with open(HERE / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "seed", "epoch", *KEYS, "plain_loop_test_acc"])
        for name in ("finetune", "frozen", "vgg13"):
            result, epochs = json.loads((out / name / "result.json").read_text()), curves(out / name)
            for epoch, values in epochs.items():
                reference = PLAIN_LOOP[epoch - 1] / 100 if name == "finetune" else ""
                cells = [round(values[key], 4) if key in values else "" for key in KEYS]
                writer.writerow([name, result["seed"], epoch, *cells, reference])
            if name != "vgg13":
                accuracy.plot(list(epochs), [100 * v["test/acc"] for v in epochs.values()], "o-", ms=3, label=name)
                loss.plot(list(epochs), [v["train/loss"] for v in epochs.values()], "o-", ms=3, label=name)
            sheet = sorted((out / name / "heatmaps").glob("*/sheet.png"))[-1]
            shutil.copy(sheet, HERE / f"{name}.png")
            print(
                name, result["git_commit"], result["device"], result["wall_time_s"], "s", result["metrics"]["test/acc"]
            )
    accuracy.plot(range(1, 9), PLAIN_LOOP, "k--", lw=1, label="plain loop, fine-tuned")
    accuracy.set(xlabel="epoch", ylabel="test accuracy, %")
    loss.set(xlabel="epoch", ylabel="training loss")
    accuracy.legend(fontsize=8)
    figure.savefig(HERE / "curves.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", nargs="?", metavar="DATA")
    options = parser.parse_args()
    main(options.out)
    if options.data:
        draw_for_readme(options.out / "frozen", options.data)
