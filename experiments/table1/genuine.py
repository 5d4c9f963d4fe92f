"""How accurate are the networks that were trained on the JPEG copy of CIFAR-10 on genuine pictures?

    python experiments/table1/genuine.py --lossless FOLDER --jpeg FOLDER RUN [RUN …]

Each RUN is the folder of a finished run. Its network classifies the 1,017 test pictures whose originals are available,
as they are and as JPEG; a picture's JPEG is the nearest one of its class in the copy. Intervals are Wilson's, 95 %. The
results go to genuine.csv, and the accuracy by epoch to RUN.csv and accuracy.png, beside this file.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import write_csv

from camlab.data.cifar10 import Cifar10
from camlab.data.image_set import ImageSet
from camlab.training.checkpoint import load_network

HERE = Path(__file__).parent
REPORT = {"frozen": 79.92, "finetune": 90.02}  # test accuracy in the report, %


def test_set(folder: Path) -> ImageSet:
    return Cifar10(root=str(folder), verify=False, val_size=0).load()[1]


def counterparts(originals: ImageSet, copies: ImageSet) -> Tensor:
    """Index of the nearest copy of the same class for each original, N; they must be near, and all different."""
    found = torch.empty(len(originals.labels), dtype=torch.int64)
    for label in originals.labels.unique():
        mine, theirs = ((part.labels == label).nonzero()[:, 0] for part in (originals, copies))
        distances = torch.cdist(originals.images[mine].flatten(1).float(), copies.images[theirs].flatten(1).float())
        found[mine] = theirs[distances.argmin(dim=1)]
    off = (originals.images.float() - copies.images[found].float()).abs().mean(dim=(1, 2, 3))
    assert len(found.unique()) == len(found), "two originals have the same copy"
    assert off.max() < 20, f"a copy is {float(off.max()):.0f} grey levels off on average"
    return found


@torch.inference_mode()
def right(run: Path, pictures: Tensor, labels: Tensor) -> int:
    trained = load_network(run)
    network: nn.Module = trained.network.eval()
    batches = zip(pictures.split(64), labels.split(64), strict=True)
    return sum(int((network(trained.preprocess(some)).argmax(dim=1) == classes).sum()) for some, classes in batches)


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the limits of Wilson's 95 % interval of a share."""
    share, spread = hits / n, z * ((hits / n * (1 - hits / n) + z * z / (4 * n)) / n) ** 0.5
    return tuple((share + z * z / (2 * n) + sign * spread) / (1 + z * z / n) for sign in (-1, 1))  # type: ignore[return-value]


def rows(run: Path, originals: ImageSet, copies: ImageSet, same: Tensor) -> list[dict[str, Any]]:
    whole = json.loads((run / "result.json").read_text())["metrics"]["test/acc"]
    found = [row(run, "JPEG, all", round(whole * len(copies.labels)), len(copies.labels))]
    for name, pictures, labels in (
        ("JPEG, the same pictures", copies.images[same], copies.labels[same]),
        ("lossless", originals.images, originals.labels),
    ):
        found.append(row(run, name, right(run, pictures, labels), len(labels)))
    return found


def row(run: Path, pictures: str, hits: int, n: int) -> dict[str, Any]:
    low, high = wilson(hits, n)
    shares = {"test_acc_%": hits / n, "low_%": low, "high_%": high}
    return {"run": run.name, "pictures": pictures, "n": n, **{k: round(100 * v, 2) for k, v in shares.items()}}


def curve(run: Path) -> dict[int, float]:
    """Read the test accuracy, in %, by the number of epochs done, and write it to RUN.csv."""
    with open(run / "metrics.csv", newline="") as file:
        found = {int(float(r["epoch"])): 100 * float(r["test/acc"]) for r in csv.DictReader(file) if r["test/acc"]}
    write_csv(HERE / f"{run.name}.csv", [{"epoch": k, "test_acc_%": round(v, 2)} for k, v in found.items()])
    return found


def draw(runs: list[Path]) -> None:
    figure = Figure(figsize=(6, 3.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for run in runs:
        found = curve(run)
        axes.plot(list(found), list(found.values()), lw=1, label=f"{run.name}, JPEG copy")
        report = "report (lossless CIFAR-10)" if run == runs[0] else None
        axes.axhline(REPORT[run.name.partition("-")[0]], color="k", ls="--", lw=1, label=report)
    axes.set(xlabel="epoch", ylabel="test accuracy, %")
    axes.legend(fontsize=8)
    figure.savefig(HERE / "accuracy.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--lossless", type=Path, required=True, help="folder with the originals that are available")
    parser.add_argument("--jpeg", type=Path, required=True, help="folder with the JPEG copy")
    options = parser.parse_args()
    originals, copies = test_set(options.lossless), test_set(options.jpeg)
    same = counterparts(originals, copies)
    draw(options.runs)
    write_csv(HERE / "genuine.csv", [row for run in options.runs for row in rows(run, originals, copies, same)])


if __name__ == "__main__":
    main()
