"""Speed of the presets of `data.augment` on a CPU, without a network: images per second of one core's time.

    python experiments/own_data/augmentation.py --out experiments/own_data/augmentation.csv

Each round augments one batch with each preset, in turns. The batch is prepared for the network, too (normalised, and
resized where its size is not the network's), so that `none` is what remains without augmentation. The time is that of
the processor, in one thread, so that other programs on the machine count little.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from camlab.data.augment_steps import PRESETS
from camlab.data.loader import Batch
from camlab.data.training_views import TrainingViews
from camlab.models.preprocess import Preprocess

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import csv_file, machine, quartiles, warn_if_busy, write_csv

CONTESTANTS = {
    **{preset: preset for preset in PRESETS},
    "strong, mixup, cutmix": ["strong", "mixup", "cutmix"],
    "standard with hue": ["standard", {"color": {"hue": 0.1}}],
}


def measure(side: int, size: int, rounds: int) -> list[dict[str, object]]:
    """Measure images/s of all contestants with pictures of one size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size + 1, 3, side, side), generator=generator, dtype=torch.uint8)
    preprocess, index = Preprocess(side), torch.arange(size + 1)

    def augment(views: TrainingViews) -> None:
        n = size + views.mixes  # the partner of the last image
        batch = views.augmented(Batch(images[:n], index[:n], index[:n], size), 10_000, epoch=0)
        preprocess(batch.images)

    made = {name: TrainingViews(given, None, 0.5, 0, 0, preprocess) for name, given in CONTESTANTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for i in range(rounds + 1):  # the first one warms up
        for name, views in made.items():
            began = time.process_time()
            augment(views)
            seconds[name] += [time.process_time() - began] if i else []
    rows = []
    for name, taken in seconds.items():
        speed = quartiles([size / each for each in taken])
        rows.append({"side": side, "augment": name, "batch": size, "n": len(taken), **speed, **machine()})
        print(f"{side}² {name}: {speed['median']:,.0f} images/s of a core ({speed['q1']:,.0f} to {speed['q3']:,.0f})")
    return rows


def main() -> None:
    """Measure at all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 224], help="sizes of the pictures, in pixels")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, after one that warms up")
    parser.add_argument("--out", type=csv_file, help="CSV file for the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warn_if_busy()
    rows = [row for side in options.sides for row in measure(side, options.batch, options.rounds)]
    if options.out:
        write_csv(options.out, rows)


if __name__ == "__main__":
    main()
