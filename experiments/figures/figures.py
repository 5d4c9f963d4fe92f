"""Draw the report's Figures 3 and 4, with a score under each heatmap.

    python experiments/figures/figures.py figure3 FROZEN_RUN FINETUNED_RUN DATA
    python experiments/figures/figures.py figure4 RUN PHOTOS NAME

Figure 3 shows the first two CIFAR-10 test images of each class, with the map of a frozen and a fine-tuned network for
the class that each predicts. Figure 4 shows photographs, with the map of the method that `auto` chooses and Grad-CAM.
The score is SRG (0 is chance): how much more the class's probability falls when the hottest parts of the picture are
removed than when the coldest are. The pictures have no masks, so it is not known whether the heat is on the object.
The files figure3.jpg, figure4-NAME.jpg and their scores as CSV are written beside this file.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import write_csv

from camlab import maps, scores
from camlab.attribution.explainer import Explainer
from camlab.attribution.methods import METHODS
from camlab.data.cifar10 import Cifar10
from camlab.drawing import layout, render
from camlab.drawing.tiles import titled
from camlab.models.trained_network import TrainedNetwork
from camlab.training.checkpoint import load_network

HERE = Path(__file__).parent
PER_CLASS = 2
GAP, WIDTH = 4, 1800  # pixels

Row = dict[str, object]


def explained(
    trained: TrainedNetwork, images: Tensor, method: str, pictures: list[np.ndarray], heading: str | None = None
) -> tuple[list[np.ndarray], list[Row]]:
    """Draw the map of the predicted class over each picture, as the network sees it, and score it.

    Args:
        images: The network's input, N×3×S×S.
        pictures: N pictures, H×W×3, uint8.
        heading: What the tiles are called; None for the method.

    Returns:
        The N tiles, and N rows with the method, class, probability and SRG.
    """
    explainer = Explainer(trained.network)
    named = explainer.method_for(images) if method == "auto" else method
    found = explainer.explain(images, [named])
    heat, predicted = found.maps[named][0][:, 0], found.class_idx[:, 0]
    srg = scores.srg(trained.network, images, heat, predicted).tolist()
    probabilities = found.logits.softmax(dim=1)[range(len(images)), predicted].tolist()
    shown = maps.normalize(heat, "per_image")
    tiles, rows = [], []
    for i, picture in enumerate(pictures):
        upsampled = maps.upsample(shown[i : i + 1], picture.shape[:2]).numpy()
        name = trained.class_names[predicted[i]]
        title = f"{heading or METHODS[named].title}, SRG {signed(srg[i])}"
        subtitle = f"{name} {100 * probabilities[i]:.0f} %"
        tiles.append(titled(render.overlay(picture[None], upsampled)[0], title, subtitle))
        rows.append({"method": named, "predicted": name, "probability": probabilities[i], "srg": srg[i]})
    return tiles, rows


def figure3(frozen: Path, finetuned: Path, data_root: str) -> None:
    test = Cifar10(root=data_root, verify=False, val_size=0).load()[1]
    chosen = test.subset(torch.cat([torch.nonzero(test.labels == c).flatten()[:PER_CLASS] for c in range(10)]))
    pictures = list(chosen.images.permute(0, 2, 3, 1).numpy())
    names = [chosen.class_names[label] for label in chosen.labels]
    columns = [[titled(p, "Picture", name) for p, name in zip(pictures, names, strict=True)]]
    rows: list[Row] = []
    for heading, run in (("Frozen", frozen), ("Fine-tuned", finetuned)):
        trained = load_network(run)
        tiles, found = explained(trained, trained.preprocess(chosen.images), "auto", pictures, heading)
        columns.append(tiles)
        rows += [{"network": run.name, "picture": i, "class": names[i], **row} for i, row in enumerate(found)]
    write(HERE / "figure3.jpg", columns, rows)


def figure4(run: Path, photos: Path, name: str) -> None:
    trained = load_network(run)
    files = sorted(photos.glob("*.jpg"))
    decoded = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    tensors = [torch.from_numpy(picture).permute(2, 0, 1)[None] for picture in decoded]
    images = torch.cat([trained.preprocess(tensor) for tensor in tensors])
    pictures = [as_seen(picture) for picture in decoded]
    columns = [[titled(p, "Photograph", f.stem.replace("_", " ")) for p, f in zip(pictures, files, strict=True)]]
    rows: list[Row] = []
    for method in ("auto", "grad_cam"):
        tiles, found = explained(trained, images, method, pictures)
        columns.append(tiles)
        rows += [{"picture": file.stem, **row} for file, row in zip(files, found, strict=True)]
    write(HERE / f"figure4-{name}.jpg", columns, rows)


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def as_seen(picture: np.ndarray) -> np.ndarray:
    """Cut out the square in the centre of a picture, which is what the network sees of it."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def write(path: Path, columns: list[list[np.ndarray]], rows: list[Row]) -> None:
    """Write the pictures, those of one row side by side, and the scores."""
    beside = [layout.beside(list(row), GAP) for row in zip(*columns, strict=True)]
    sheet = layout.frame(layout.flow(beside, WIDTH, 4 * GAP), 4 * GAP)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    rounded = [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    write_csv(path.with_suffix(".csv"), rounded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="figure")
    third = commands.add_parser("figure3")
    for name, kind in (("frozen", Path), ("finetuned", Path), ("data_root", str)):
        third.add_argument(name, type=kind)
    fourth = commands.add_parser("figure4")
    for name, kind in (("run", Path), ("photos", Path), ("name", str)):
        fourth.add_argument(name, type=kind)
    options = vars(parser.parse_args())
    {"figure3": figure3, "figure4": figure4}[options.pop("figure")](**options)


if __name__ == "__main__":
    main()
