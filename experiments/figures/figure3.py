"""Draw the report's Figure 3: CAM of CIFAR-10 test images, with AlexNet frozen and fine-tuned side by side.

    python experiments/figures/figure3.py FROZEN_RUN FINETUNED_RUN DATA

FROZEN_RUN and FINETUNED_RUN are run folders of experiments/recipe/run.sh. The script writes figure3.png beside this
file.
"""

import argparse
from pathlib import Path

import torch

import camlab
from camlab import maps
from camlab.data.cifar10 import Cifar10
from camlab.drawing import layout, render
from camlab.drawing.tiles import titled
from camlab.training.checkpoint import load_network

PER_CLASS = 2
GAP, WIDTH = 4, 1200  # pixels


def main(frozen: Path, finetuned: Path, data_root: str) -> None:
    data = Cifar10(root=data_root, verify=False, val_size=0)
    data.setup()
    test = data.splits["test"]
    chosen = test.subset(torch.cat([torch.nonzero(test.labels == c).flatten()[:PER_CLASS] for c in range(10)]))
    pictures = chosen.images.permute(0, 2, 3, 1).numpy()
    tiles = [
        [titled(picture, "Picture", test.class_names[label])]
        for picture, label in zip(pictures, chosen.labels, strict=True)
    ]
    for name, run in (("frozen", frozen), ("fine-tuned", finetuned)):
        trained = load_network(run)
        inputs = trained.preprocess(chosen.images)
        with torch.no_grad():
            predicted = trained.network(inputs).argmax(dim=1)
        heat = camlab.heatmaps(trained.network, inputs, "cam", target=predicted)
        overlays = render.overlay(pictures, maps.upsample(heat, pictures.shape[1:3]).numpy())
        for row, picture, label in zip(tiles, overlays, predicted, strict=True):
            row.append(titled(picture, name, test.class_names[label]))
    sheet = layout.flow([layout.beside(row, GAP) for row in tiles], WIDTH, 4 * GAP)
    render.write_image(Path(__file__).parent / "figure3.png", layout.frame(sheet, 4 * GAP))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frozen", type=Path, metavar="FROZEN_RUN")
    parser.add_argument("finetuned", type=Path, metavar="FINETUNED_RUN")
    parser.add_argument("data", metavar="DATA")
    options = parser.parse_args()
    main(options.frozen, options.finetuned, options.data)
