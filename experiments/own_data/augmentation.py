"""Speed of the presets of `data.augment` on batches in memory, without a network.

    python experiments/own_data/augmentation.py --out experiments/own_data/augmentation.csv

Each round augments one batch with each preset, in turns. The batch is prepared for the network, too (normalised, and
resized where its size is not the network's), so that `none` is what remains without augmentation.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from camlab.data.augment_steps import PRESETS
from camlab.data.loader import Batch
from camlab.data.training_views import TrainingViews
from camlab.models.preprocess import Preprocess

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import alternate, csv_file, machine, quartiles, warn_if_busy, write_csv

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
    seconds = alternate({name: partial(augment, views) for name, views in made.items()}, rounds)
    rows = []
    for name, taken in seconds.items():
        speed = quartiles([size / each for each in taken])
        rows.append({"side": side, "augment": name, "batch": size, "n": len(taken), **speed, **machine()})
        print(f"{side}² {name}: {speed['median']:,.0f} images/s ({speed['q1']:,.0f} to {speed['q3']:,.0f})")
    return rows


def main() -> None:
    """Measure at all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 224], help="sizes of the pictures, in pixels")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, after one that warms up")
    parser.add_argument("--out", type=csv_file, help="CSV file for the results")
    options = parser.parse_args()
    warn_if_busy()
    rows = [row for side in options.sides for row in measure(side, options.batch, options.rounds)]
    if options.out:
        write_csv(options.out, rows)


if __name__ == "__main__":
    main()
