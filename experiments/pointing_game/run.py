"""Does training move the heat onto the object? Plays the pointing game with untrained and trained AlexNets.

    python experiments/pointing_game/run.py WEIGHTS

WEIGHTS is a file of features (alexnet-imagenet1k-features.safetensors) or `imagenet`. AlexNet without its last pooling
layer is trained on 6,000 synthetic shapes at 96², with three seeds: 3 epochs with fine-tuning, 15 with a frozen
backbone. The script writes results.csv beside this file. It takes about 10 minutes on 2 cores.
"""

import argparse
import csv
import functools
import statistics
import tempfile
import time
from pathlib import Path

import lightning as L
import torch

from camlab.data.shapes import Shapes
from camlab.models.cam_net import CamNet
from camlab.training.callbacks.feature_cache import FeatureCache
from camlab.training.callbacks.pointing_game import PointingGame
from camlab.training.classifier import Classifier

SEEDS = (0, 1, 2)
SETUPS = {  # name: (whether ImageNet weights are loaded, whether the backbone is frozen, learning rate, epochs)
    "untrained": (False, False, 1e-4, 0),
    "untrained, ImageNet backbone": (True, False, 1e-4, 0),
    "frozen": (True, True, 1e-3, 15),
    "fine-tuned": (True, False, 1e-4, 3),
}


def measure(weights: str | None, frozen: bool, lr: float, epochs: int, seed: int, cache: str) -> dict[str, float]:
    L.seed_everything(seed, verbose=False)
    data = Shapes(image_size=96, val_size=500, batch_size=64, seed=seed)
    network = CamNet("alexnet", keep_last_pool=False, weights=weights, frozen=frozen)
    classifier = Classifier(network, functools.partial(torch.optim.Adam, lr=lr))
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[PointingGame(), FeatureCache(cache)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    began = time.perf_counter()
    if epochs:
        trainer.fit(classifier, datamodule=data)
    seconds = time.perf_counter() - began
    trainer.test(classifier, datamodule=data, verbose=False)
    scores = {
        key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items() if "test/" in key
    }
    return {**scores, "training_s": seconds}


def main(weights: str, cache: str) -> None:
    rows = []
    for name, (pretrained, frozen, lr, epochs) in SETUPS.items():
        for seed in SEEDS:
            scores = measure(weights if pretrained else None, frozen, lr, epochs, seed, cache)
            rows.append({"network": name, "seed": seed, **{key: round(value, 4) for key, value in scores.items()}})
            print(rows[-1], flush=True)
        own = [row["pointing_game"] for row in rows if row["network"] == name]
        print(f"{name}: {100 * statistics.mean(own):.1f} ± {100 * statistics.stdev(own):.1f} %", flush=True)
    with open(Path(__file__).parent / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="a file of features, or imagenet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.weights, folder)
