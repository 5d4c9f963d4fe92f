"""Folders of runs with heatmaps, as training leaves them, for the tests of the viewer."""

import csv
from pathlib import Path

import numpy as np
import torch

from camlab.attribution.results import PictureResult, Source
from camlab.drawing import render
from camlab.drawing.maps_file import write_maps
from camlab.runs import run_folder

SIDE = 16  # pixels of the pictures


def results_of(
    pictures: int,
    classes: int,
    grid: tuple[int, int],
    generator: torch.Generator,
    names: list[str] | None = None,
    size: tuple[int, int] = (SIDE, SIDE),
    labelled: bool = True,
) -> list[PictureResult]:
    """Random results of an epoch; picture i is of class i (modulo the number of classes)."""
    results = []
    for i in range(pictures):
        logits = torch.randn(classes, generator=generator)
        label = i % classes
        explained = (int(logits.argmax()), label)
        every = torch.randn(classes, *grid, generator=generator).half().float()
        maps = {"cam": [every[list(explained)]], "grad_cam": [3 * every[list(explained)] + 0.5]}
        name = names[i] if names else ""
        source = Source(Path(f"{i:02d}.png"), name, i, size, (0, 0, *size))
        known = label if labelled else None
        results.append(PictureResult(source, explained, logits.softmax(0), maps, known, every))
    return results


def make_run(
    folder: Path,
    epochs: tuple[int, ...] = (0, 1, 2, 3),
    pictures: int = 6,
    class_names: tuple[str, ...] = ("cat", "dog", "frog"),
    grid: tuple[int, int] = (3, 4),
    masks: bool = True,
    seed: int = 0,
    names: list[str] | None = None,
    config: str = "seed: 0\n",
    size: tuple[int, int] = (SIDE, SIDE),
    labelled: bool = True,
) -> dict[int, list[PictureResult]]:
    """Make the folder of a run; the pictures are the same whatever the seed is. Returns the results by epoch."""
    generator, heatmaps = torch.Generator().manual_seed(seed), folder / run_folder.HEATMAPS
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(f"- seed={seed}\n- optimizer.lr=0.01\n")
    run_folder.write_config(folder, config, "0123456789abcdef")
    with open(folder / run_folder.METRICS, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "train/lr", "train/loss", "val/acc", "val/loss"])
        for epoch in epochs[1:]:
            writer.writerow([epoch, epoch * 10, 0.01, 1 / epoch, 0.2 * epoch, 1.5 / epoch])
    noise = np.random.default_rng(5)
    for name in ("pictures", "masks") if masks else ("pictures",):
        (heatmaps / name).mkdir(parents=True)
    for i in range(pictures):
        picture = noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        render.write_image(heatmaps / "pictures" / f"{i:02d}.png", picture)
        if masks:
            mask = np.zeros((size[1], size[0], 3), np.uint8)
            mask[4:9, 4 : 9 + i % 3] = 255
            render.write_image(heatmaps / "masks" / f"{i:02d}.png", mask)
    every = {epoch: results_of(pictures, len(class_names), grid, generator, names, size, labelled) for epoch in epochs}
    layers = {"cam": ("backbone.12",), "grad_cam": ("backbone.12",)}
    for epoch, results in every.items():
        place = heatmaps / f"epoch_{epoch:04d}"
        place.mkdir()
        write_maps(place / "maps.npz", results, class_names, layers, Path("..", "pictures"), np.float16, epoch)
    return every
