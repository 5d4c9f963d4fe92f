"""How much does an unavailable W&B server slow training down, compared with logging to `metrics.csv` only?

    python experiments/wandb_outage/run.py [--tiny] [--out FILE]

AlexNet is fine-tuned on synthetic shapes, with heatmaps after every epoch and numbers after every step. A run connects
to a server on this machine, which then dies (connections are refused) or hangs. Training is timed from the first batch
to the end of the last epoch. The variants take turns; a ratio is the speed divided by that of `csv` in the same round.
This takes about 4 minutes on 2 cores.
"""

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from benchmark import csv_file, machine, quartiles, ratios, settled, warn_if_busy, write_csv
from wandb_stub import KEY, WandbStub

from camlab.data.shapes import Shapes
from camlab.models.cam_net import CamNet
from camlab.tracking import wandb_logger
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.tracking.wandb_logger import WandbLogger
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.training.classifier import Classifier

CONTESTANTS = ("csv", "server dead", "server hanging")


class Stopwatch(L.Callback):
    """Callback that times training and logs the loss of every step, which camlab itself does not do."""

    def on_train_start(self, *_: Any) -> None:
        self._began = settled()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({"train/step_loss": float(outputs["loss"])}, trainer.global_step)

    def on_train_end(self, *_: Any) -> None:
        self.seconds = settled() - self._began


def run(contestant: str, server: WandbStub, data: Shapes, epochs: int) -> float:
    """Train, and return the images/s."""
    torch.manual_seed(0)
    module = Classifier(
        CamNet("alexnet", num_classes=len(data.class_names)), functools.partial(torch.optim.Adam, lr=1e-4)
    )
    with tempfile.TemporaryDirectory() as folder:
        loggers: list[Any] = [MetricsCsv(Path(folder))]
        if contestant != "csv":
            loggers.append(WandbLogger(save_dir=folder, mode="online"))
            assert loggers[-1].experiment.url.startswith(server.url)
        match contestant:
            case "server dead":
                server.stop()
            case "server hanging":
                server.fault = "hang"
        watch = Stopwatch()
        L.Trainer(
            max_epochs=epochs,
            logger=loggers,
            callbacks=[HeatmapLogger(), watch],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        ).fit(module, data)
        if contestant != "csv":
            loggers[-1].finish()
        server.heal()
    return epochs * len(data.splits["train"]) / watch.seconds


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    wandb_logger._FINISH_TIMEOUT = 1.0  # finish() is not timed
    server = WandbStub()
    server.start()
    os.environ |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}
    data = Shapes(train_size=options.images, val_size=60, test_size=20, image_size=options.side, batch_size=50)
    data.setup()
    speeds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for i in range(options.rounds + 1):
        for name in CONTESTANTS:
            speed = run(name, server, data, options.epochs)
            print(f"round {i}, {name}: {speed:.1f} images/s", flush=True)
            if i:  # the first round warms up
                speeds[name].append(speed)
    for name in CONTESTANTS:
        row = {"contestant": name, "n": options.rounds}
        yield {**row, "unit": "images/s", **quartiles(speeds[name])}
        if name != "csv":
            yield {**row, "unit": "ratio to csv", **quartiles(ratios(speeds[name], speeds["csv"]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=csv_file, metavar="FILE", default=Path(__file__).parent / "results.csv")
    options = parser.parse_args()
    options.side, options.images, options.epochs = 96, 860, 1
    if options.tiny:
        options.side, options.images, options.epochs, options.rounds = 64, 100, 1, 2
    about = {**machine(), "load": round(warn_if_busy(), 2)}
    results = []
    for row in measure(options):
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        results.append({**row, **about})
    write_csv(options.out, results)


if __name__ == "__main__":
    main()
