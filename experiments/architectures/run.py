"""Which map finds the object, on which architecture? Trains small networks on shapes and scores every method.

    python experiments/architectures/run.py [--only NETWORK …] [--seeds 0 1 2] [--keep FOLDER] [--out FILE] [--tiny]

A vision transformer, a Swin, a ResNet-18 and a ConvNeXt (torchvision's classes, made small for pictures of 32²) are
trained from scratch on 20,000 synthetic shapes, with flips, for each seed. Each method that applies is then scored on
200 test pictures, for the true class: `auroc` (the chance that a pixel of the object is hotter than one beside it; 0.5
for a map that knows nothing) and `energy` (share of the heat on the object, beside the object's share of the picture).
Gradient methods are scored at the default layer and at the others that are named in the results. A row is written after
each network, and networks that are in the results already are skipped, so that a run that was stopped can go on. With
--keep, the trained weights are kept in a folder, and networks that are there are not trained again. It takes an hour or
two on 2 cores.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import machine, settled

from camlab import Explainer, scores
from camlab.attribution.methods import METHODS
from camlab.data.shape_drawing import CLASS_NAMES, draw_shapes
from camlab.errors import UserError

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES, SIDE, TEST, BATCH = len(CLASS_NAMES), 32, 200, 50
RESULTS = Path(__file__).with_name("results.csv")


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(SIDE, 4, 4, 4, 64, 128, num_classes=CLASSES)


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer([2, 2], 24, [2, 2, 2], [2, 4, 8], [4, 4], num_classes=CLASSES)


class NarrowResNet(torchvision.models.ResNet):
    """A ResNet-18 with a quarter of the channels, and a stem that keeps the size: its last maps have 4×4 cells."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.maxpool = nn.Identity()
        self.fc = nn.Linear(128, CLASSES)

    def _make_layer(self, block: Any, planes: int, *settings: Any, **options: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 4, *settings, **options)


def convnext() -> nn.Module:
    stages = [CNBlockConfig(24, 48, 2), CNBlockConfig(48, 96, 2), CNBlockConfig(96, None, 2)]
    network = torchvision.models.ConvNeXt(stages, layer_scale=0.1, num_classes=CLASSES)
    network.features[0][0] = nn.Conv2d(3, 24, 2, stride=2)
    for layer in network.modules():  # torchvision starts with weights for wide networks, which hardly learn here
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {  # name: (network, epochs, learning rate)
    "vit": (vit, 10, 1e-3),
    "resnet18": (NarrowResNet, 1, 2e-3),
    "swin": (swin, 7, 1e-3),
    "convnext": (convnext, 7, 2e-3),
}
LAYERS = {  # layers beside the default, for gradient methods
    "vit": ("encoder.layers.encoder_layer_1.ln_1", "encoder.layers.encoder_layer_3.ln_1"),
    "swin": ("features.1", "features.5.1.norm1", "norm"),
    "resnet18": ("layer3",),
    "convnext": ("features.3",),
}


def prepared(images: Tensor) -> Tensor:
    """Pictures as the networks see them, from uint8."""
    return (images.to(DEVICE).float() / 255 - 0.5) / 0.25


def train(network: nn.Module, epochs: int, rate: float, seed: int, count: int) -> None:
    images, labels, _ = (torch.from_numpy(array) for array in draw_shapes(count, 1000 + seed))
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.05)
    steps = epochs * (count // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.2)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(count).split(64)[: count // 64]:
            batch = prepared(images[chosen])
            flipped = (torch.rand(len(batch)) < 0.5).to(DEVICE)
            batch[flipped] = batch[flipped].flip(3)
            loss = F.cross_entropy(network(batch), labels[chosen].to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def scored(network: nn.Module, name: str) -> Iterator[dict[str, Any]]:
    """Scores of each method, at each layer, on the test pictures."""
    images, labels, masks = (torch.from_numpy(array) for array in draw_shapes(TEST, 7))
    for method in METHODS.values():
        layers = LAYERS[name] if method.kind in ("gradients", "activations") else ()
        for layer in (None, *layers):
            explainer = Explainer(network, layer)
            shown: list[Tensor] = []
            began = settled()
            try:
                for batch, classes in zip(prepared(images).split(BATCH), labels.split(BATCH), strict=True):
                    explained = explainer.explain(batch, [method.name], classes[:, None].to(DEVICE))
                    shown.append(explained.maps[method.name][0][:, 0].cpu())
            except UserError as error:
                print(f"{name}, {method.name} at {layer}: {error}", file=sys.stderr)
                continue
            signed, seconds = torch.cat(shown), settled() - began
            yield {
                "method": method.name,
                "layer": explained.layers[method.name][0],
                "is_default": layer is None,
                "is_auto": layer is None and explainer.method_for(prepared(images[:1])) == method.name,
                "auroc": round(float(scores.auroc(signed, masks).mean()), 4),
                "energy": round(float(scores.energy(signed, masks).mean()), 4),
                "area": round(float(masks.float().mean()), 4),
                "without_heat": int(scores.without_evidence(signed).sum()),
                "ms_per_image": round(1000 * seconds / TEST, 2),
            }


def trained(name: str, seed: int, options: argparse.Namespace) -> tuple[nn.Module, float]:
    """A network that was trained now, or in a run before; with the seconds that the training took."""
    make, epochs, rate = NETWORKS[name]
    torch.manual_seed(seed)
    network, began = make().to(DEVICE), settled()
    file = options.keep and options.keep / f"{name}_{seed}{'_tiny' if options.tiny else ''}.pt"
    if file and file.exists():
        kept = torch.load(file, weights_only=True, map_location=DEVICE)
        network.load_state_dict(kept["network"])
        return network.eval(), kept["train_s"]
    train(network, 1 if options.tiny else epochs, rate, seed, 512 if options.tiny else 20_000)
    seconds = settled() - began
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"network": network.state_dict(), "train_s": seconds}, file)
    return network, seconds


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    images, labels, _ = (torch.from_numpy(array) for array in draw_shapes(2000, 3))
    right = sum(
        int((network(prepared(batch)).argmax(dim=1).cpu() == classes).sum())
        for batch, classes in zip(images.split(BATCH), labels.split(BATCH), strict=True)
    )
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="folder for trained weights, or with weights of a run before")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="few pictures and one epoch: a trial of this script")
    options = parser.parse_args()
    known: list[dict[str, Any]] = list(csv.DictReader(options.out.open())) if options.out.exists() else []
    done = {(row["network"], int(row["seed"])) for row in known}
    for seed in options.seeds:
        for name in options.only:
            if (name, seed) in done:
                continue
            network, seconds = trained(name, seed, options)
            about: dict[str, Any] = {"network": name, "seed": seed, "train_s": round(seconds)}
            about |= machine()
            about["accuracy"] = round(accuracy(network), 4)
            print(about, flush=True)
            known += [{**about, **scores} for scores in scored(network, name)]
            with options.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, known[-1], lineterminator="\n")
                writer.writeheader()
                writer.writerows(known)


if __name__ == "__main__":
    main()
