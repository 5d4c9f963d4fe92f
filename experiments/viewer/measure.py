"""Size and opening time of the viewer's page, and frames per second while scrubbing, for runs of several sizes.

    python experiments/viewer/measure.py [FOLDER]

The maps and pictures are random, which compresses worst. The page is opened in chromium, headless, as a file.
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from camlab.viewer.content import MapSeries, Picture, RunContent
from camlab.viewer.document import make_document
from camlab.viewer.html import render_page

CLASSES, SIDE, FRAMES = 10, 32, 120
CASES = ((10, 20, 6), (50, 20, 6), (150, 20, 6), (150, 20, 13), (50, 108, 6), (150, 108, 6))  # epochs, pictures, cells
SCRUB = """async (frames) => {
  const began = performance.now();
  for (let i = 0; i < frames; i++) { goTo(i % about.epochs.length); await new Promise(requestAnimationFrame); }
  return 1000 * frames / (performance.now() - began);
}"""


def random_run(epochs: int, pictures: int, cells: int, folder: Path) -> RunContent:
    """A run with CAM of all classes and Grad-CAM of the predicted and true ones, float16."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(epochs, pictures, CLASSES))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = np.arange(pictures) % CLASSES
    explained = np.stack([shares.argmax(-1), np.broadcast_to(labels, (epochs, pictures))], -1)
    maps = random.normal(size=(epochs, pictures, CLASSES + 2, cells, cells)).astype(np.float16)
    images = random.integers(0, 256, (pictures, SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:20, 8:20] = True
    return RunContent(
        folder=folder,
        epochs=list(range(epochs)),
        class_names=[f"class {k}" for k in range(CLASSES)],
        pictures=[Picture("", int(label), image, mask) for label, image in zip(labels, images, strict=True)],
        predicted=explained[..., 0],
        class_idx=explained,
        probabilities=shares.astype(np.float32),
        series=[
            MapSeries("cam", "CAM", "a", maps[:, :, :CLASSES], True),
            MapSeries("grad_cam", "Grad-CAM", "a", maps[:, :, CLASSES:], False),
        ],
        curves={name: [(e, float(shares[e, 0, 0])) for e in range(epochs)] for name in ("val/acc", "train/loss")},
    )


def measure(folder: Path) -> list[dict[str, float]]:
    found = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for epochs, pictures, cells in CASES:
            path = folder / f"{epochs}-{pictures}-{cells}.html"
            began = time.perf_counter()
            path.write_text(render_page(make_document([random_run(epochs, pictures, cells, folder)], 100)))
            written = time.perf_counter() - began
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto("about:blank")
            began = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector("body.is-ready")
            opened = time.perf_counter() - began
            page.evaluate(SCRUB, epochs)  # decodes every map
            case = {"epochs": epochs, "pictures": pictures, "cells": cells, "megabytes": path.stat().st_size / 1e6}
            found.append({**case, "written_s": written, "opened_s": opened, "fps": page.evaluate(SCRUB, FRAMES)})
            print(json.dumps({key: round(value, 2) for key, value in found[-1].items()}), flush=True)
            page.close()
        browser.close()
    return found


if __name__ == "__main__":
    measure(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
