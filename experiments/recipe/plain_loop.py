"""Do Lightning, the data module or the metrics change what is learnt? Compares camlab with a plain PyTorch loop.

    python experiments/recipe/plain_loop.py DATA WEIGHTS [--size 224] [--epochs 3] [--bf16] [--tiny]

Both fine-tune AlexNet from the same weights, with the same batches and flips; no other code is shared. With --bf16,
camlab does so once more with `trainer.precision=bf16-mixed`. The script uses three seeds and writes the test accuracies
to plain_loop.csv beside this file, where it keeps those of other sizes. It takes 8 minutes at 64² on one core, and an
hour at 224² on two.
"""

import argparse
import csv
import functools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import machine, write_csv

from camlab.data.cifar10 import Cifar10
from camlab.data.loader import epoch_flips, epoch_order
from camlab.data.module import ImageData
from camlab.data.shapes import Shapes
from camlab.models.cam_net import CamNet
from camlab.training.classifier import Classifier

LR, BATCH, SEEDS = 1e-4, 128, (0, 1, 2)
RESULTS = Path(__file__).with_name("plain_loop.csv")


class Curve(L.Callback):
    """Test accuracy after every epoch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.values.append(100 * float(trainer.callback_metrics["test/acc"]))


def by_camlab(network: CamNet, data: ImageData, epochs: int, precision: str = "32-true") -> list[float]:
    curve = Curve()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=epochs,
            precision=precision,
            callbacks=[curve],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.fit(Classifier(network, functools.partial(torch.optim.Adam, lr=LR, fused=True)), datamodule=data)
    return curve.values


def prepared(images: Tensor, size: int) -> Tensor:
    """Resize uint8 images, N×3×32×32, to float images in [-1, 1], N×3×size×size."""
    return F.interpolate(images.float() / 255, size=(size, size), mode="bilinear", antialias=False).sub(0.5).div(0.5)


def by_hand(network: nn.Module, data: ImageData, epochs: int, size: int, seed: int) -> Iterator[float]:
    train, test = data.splits["train"], data.splits["test"]
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    for epoch in range(epochs):
        network.train()
        flips = epoch_flips(len(train), 0.5, seed, epoch)
        for chosen in epoch_order(len(train), seed, epoch).split(BATCH):
            images = torch.where(flips[chosen, None, None, None], train.images[chosen].flip(3), train.images[chosen])
            loss = F.cross_entropy(network(prepared(images, size)), train.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            right = [
                network(prepared(images, size)).argmax(dim=1) == labels
                for images, labels in zip(test.images.split(BATCH), test.labels.split(BATCH), strict=True)
            ]
        yield 100 * float(torch.cat(right).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="train once more with bf16-mixed precision")
    parser.add_argument(
        "--tiny", action="store_true", help="test this script with synthetic pictures and random weights"
    )
    options = parser.parse_args()
    rows = [row for row in kept() if int(row["image_size"]) != options.size]
    for seed in SEEDS:
        common = {"image_size": options.size, "batch_size": BATCH, "val_size": 0, "seed": seed, "test_each_epoch": True}
        data = Shapes(300, 100, **common) if options.tiny else Cifar10(root=options.data, verify=False, **common)
        data.setup()
        loops = {"camlab_%": by_camlab, "plain_%": functools.partial(by_hand, size=options.size, seed=seed)}
        if options.bf16:
            loops["camlab_bf16_%"] = functools.partial(by_camlab, precision="bf16-mixed")
        curves = {}
        for name, learn in loops.items():
            L.seed_everything(seed, verbose=False)
            network = CamNet("alexnet", weights=None if options.tiny else options.weights)
            curves[name] = list(learn(network, data, options.epochs))
        for epoch in range(options.epochs):
            accuracies = {name: round(curve[epoch], 2) for name, curve in curves.items()}
            rows.append({"seed": seed, "epoch": epoch + 1, "image_size": options.size, **accuracies, **machine()})
            print(rows[-1], flush=True)
    for name in [name for name in curves if name != "camlab_%"]:
        pairs = [(row["camlab_%"], row[name]) for row in rows[-len(SEEDS) * options.epochs :]]
        last = [ours - other for ours, other in pairs[options.epochs - 1 :: options.epochs]]
        mean, spread = statistics.mean(last), statistics.stdev(last)
        print(f"camlab_% - {name} after {options.epochs} epochs: {mean:+.2f} ± {spread:.2f}")
    if not options.tiny:
        write_csv(RESULTS, rows)


def kept() -> list[dict[str, Any]]:
    """The rows of former runs."""
    return list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []


if __name__ == "__main__":
    main()
