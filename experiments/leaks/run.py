"""Does a long run leak anything? Records memory, open files and threads after each epoch.

    python experiments/leaks/run.py [--epochs 300] [--out FOLDER]

AlexNet is fine-tuned at 64² on 40 synthetic pictures. After each epoch, heatmaps are written to files and to an offline
W&B run, and a checkpoint is written. So camlab does all that it can do, with little computation. The exit code is 1 if
memory, open files or threads grow in the second half of the run.
"""

import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import lightning as L
import psutil
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import machine, write_csv

from camlab import train

HERE = Path(__file__).parent
TINY = [
    "data=shapes", "data.train_size=60", "data.val_size=20", "data.test_size=20", "data.image_size=64",
    "data.batch_size=20", "arch.weights=null", "mode=finetune", "trainer.accelerator=cpu",
    "callbacks.heatmaps.per_class=1", "logger=wandb", "logger.wandb.mode=offline",
]  # fmt: skip
MOST = {"memory_mb": 20.0, "open_files": 0.0, "threads": 0.0}  # largest growth from the middle of the run to its end


class Watch(L.Callback):
    """Callback that records the memory, files and threads of this process when an epoch begins."""

    samples: list[dict[str, Any]] = []  # noqa: RUF012

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        process = psutil.Process()
        self.samples.append(
            {
                "epoch": trainer.current_epoch,
                "memory_mb": round(process.memory_info().rss / 1e6, 1),
                "open_files": process.num_fds(),
                "threads": threading.active_count(),
                "children": len(process.children(recursive=True)),
            }
        )


def plot(samples: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(9, 3), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), MOST, strict=True):
        axes.plot([s["epoch"] for s in samples], [s[name] for s in samples], lw=1)
        axes.set(xlabel="epoch", title=name.replace("_", " "), ylim=(0, None))
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=HERE)
    options = parser.parse_args()
    if options.out.is_file():
        parser.error(f"--out {options.out}: it is a file; give a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = [f"hydra.run.dir={place}/run", f"paths.cache={place}/cache"]
        sys.argv = ["camlab-train", *TINY, *folder, f"trainer.max_epochs={options.epochs}"]
        sys.argv.append("+callbacks.watch._target_=run.Watch")
        os.environ.setdefault("WANDB_SILENT", "true")
        train.main()
    import run  # Hydra imported this file as `run`, and only that module has the samples

    samples = run.Watch.samples
    write_csv(options.out / "results.csv", [{**sample, **machine()} for sample in samples[:1]] + samples[1:])
    plot(samples, options.out / "results.png")
    middle, end = samples[len(samples) // 2], samples[-1]
    grown = {name: end[name] - middle[name] for name in MOST}
    print(f"from epoch {middle['epoch']} to {end['epoch']}: {grown}")
    sys.exit(int(any(grown[name] > most for name, most in MOST.items())))


if __name__ == "__main__":
    main()
