"""Megabytes of the same maps as pictures, in TensorBoard's event files and W&B's media folder, beside the page.

    python experiments/viewer/as_pictures.py

The runs are those of measure.py with ten epochs; every map of CAM is drawn over its picture at 160 pixels, as `render`
does. Each further epoch takes as much again. Results are in results.csv.
"""

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import wandb
from measure import CLASSES, random_run
from torch.utils.tensorboard import SummaryWriter

from camlab.drawing import render
from camlab.viewer.content import RunContent
from camlab.viewer.document import make_document
from camlab.viewer.html import render_page

EPOCHS, PICTURES, CELLS, SIDE = 10, 20, 6, 160


def overlays(run: RunContent, epoch: int, classes: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The overlays of all pictures for each of some classes, with the name of the class."""
    for k in range(classes):
        drawn = []
        for i, picture in enumerate(run.pictures):
            large = render.enlarge(picture.image, SIDE)
            heat = np.maximum(run.series[0].maps[epoch, i, k].astype(np.float32), 0)
            heat = render.resize(heat / max(float(heat.max()), 1e-9), large.shape[:2])
            drawn.append(render.overlay(large, heat, 0.5, "jet"))
        yield run.class_names[k], drawn


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def measure(folder: Path, classes: int) -> list[tuple[str, float]]:
    run = random_run(EPOCHS, PICTURES, CELLS, folder)
    events = SummaryWriter(str(folder / "events"))
    logged = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
    for epoch in range(EPOCHS):
        for name, drawn in overlays(run, epoch, classes):
            for i, picture in enumerate(drawn):
                events.add_image(f"{name}/{i:02d}", picture, epoch, dataformats="HWC")
            logged.log({f"heatmaps/{name}": [wandb.Image(picture, file_type="jpg") for picture in drawn]})
    events.close()
    media = Path(logged.dir) / "media"
    logged.finish()
    page = len(render_page(make_document([run], 100))) / 1e6
    return [("page, all ten classes", page), ("TensorBoard", megabytes(folder / "events")), ("W&B", megabytes(media))]


if __name__ == "__main__":
    with open(Path(__file__).with_name("results.csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epochs", "pictures", "classes drawn", "kept as", "megabytes"])
        for classes in (1, CLASSES):
            with tempfile.TemporaryDirectory() as place:
                for kind, size in measure(Path(place), classes):
                    writer.writerow([EPOCHS, PICTURES, classes, kind, f"{size:.2f}"])
