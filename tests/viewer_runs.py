"""Folders of runs with heatmaps, as training leaves them, for the tests of the viewer."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from camlab.attribution.results import PictureResult, Source
from camlab.drawing import render
from camlab.drawing.maps_file import write_maps
from camlab.evaluation.scoring.picture_set import PictureSet
from camlab.evaluation.scoring.report import write_tables
from camlab.evaluation.scoring.request import Request
from camlab.evaluation.scoring.score_pictures import score_pictures
from camlab.evaluation.scoring.shown_maps import write_shown_maps
from camlab.evaluation.scoring.summary import Summary
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.runs import run_folder
from tests.scores.networks import small_network

Keep = Callable[[Path, int], None]
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
        scores = ["val/heat/srg", "val/heat/auroc", "val/heat/auroc_chance"]
        writer.writerow(["epoch", "step", "train/lr", "train/loss", "val/acc", "val/loss", *scores])
        for epoch in epochs[1:]:
            values = [0.3 - 0.3 * epoch, 0.5 + 0.1 * epoch, 0.5 if epoch == epochs[1] else ""]
            writer.writerow([epoch, epoch * 10, 0.01, 1 / epoch, 0.2 * epoch, 1.5 / epoch, *values])
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


def make_explained(
    folder: Path,
    photos: Path,
    pictures: int = 3,
    size: tuple[int, int] = (60, 40),
    class_names: tuple[str, ...] = ("cat", "dog", "frog"),
    top_k: int = 2,
    target: int | None = None,
    seed: int = 0,
    counterfactual: bool = False,
) -> list[PictureResult]:
    """Make a folder of `camlab.explain` and, unless they are there, its photographs. Returns the results."""
    generator, noise = torch.Generator().manual_seed(seed), np.random.default_rng(7)
    folder.mkdir(parents=True)
    photos.mkdir(exist_ok=True)
    results, (width, height) = [], size
    for i in range(pictures):
        file = photos / f"{i:02d}.png"
        picture = cv2.resize(noise.integers(0, 256, (4, 6, 3), dtype=np.uint8), size, interpolation=cv2.INTER_LINEAR)
        if not file.exists():
            render.write_image(file, picture)
        probabilities = torch.randn(len(class_names), generator=generator).softmax(0)
        explained = probabilities.topk(top_k).indices.tolist() if target is None else [target]
        maps = {
            method: [torch.randn(len(explained), 3, 3, generator=generator)] for method in ("grad_cam", "layer_cam")
        }
        visible = ((width - height) / 2, 0, (width + height) / 2, height)
        source = Source(file, file.name, i, size, visible)
        results.append(PictureResult(source, tuple(explained), probabilities, maps))
    layers = {"grad_cam": ("features.28",), "layer_cam": ("features.28",)}
    write_maps(folder / "maps.npz", results, class_names, layers, folder, counterfactual=counterfactual)
    style = {"normalize": "per_image", "alpha": 0.6, "colormap": "viridis", "boxes": True, "target": target}
    about = {"network": {"name": "vgg16"}, "settings": style, "images": str(photos)}
    (folder / "explain.json").write_text(json.dumps(about))
    return results


def make_scored(
    folder: Path, count: int = 4, names: tuple[str, ...] = ("cat", "dog", "frog"), n: int = 6
) -> tuple[Summary, nn.Module, Keep]:
    """Make a folder of `camlab.score` for the small network and pictures of noise with masks, as the command does.

    Returns:
        What was found, the network, and a function that writes the maps of some pictures into a folder.
    """

    def keep(place: Path, wanted: int) -> None:
        write_shown_maps(trained, summary, place, request, torch.device("cpu"), wanted)

    images = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    masks = torch.zeros(n, SIDE, SIDE, dtype=torch.bool)
    masks[:-1, 4:9, 4:10] = True  # the last picture has none
    labels = torch.arange(n) % 3
    places = tuple(f"{names[int(label)]}/{i}.png" for i, label in enumerate(labels))
    pictures = PictureSet(images, places, torch.arange(n), "photos", labels, masks)
    trained = TrainedNetwork(small_network(), Preprocess(SIDE), names, "small")
    request = Request(("cam", "grad_cam"), (), ("auroc", "deletion", "effective_area"))
    summary = score_pictures(trained, pictures, folder, request, torch.device("cpu"))
    about = {"network": {"name": "small"}, "pictures": {"place": "photos", "number": n}}
    write_tables(folder, summary, about)
    keep(folder, count)
    return summary, trained.network, keep
