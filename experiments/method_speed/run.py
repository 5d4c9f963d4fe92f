"""How much time does each method take? Compares camlab's maps with other libraries' and with the forward pass alone.

    pip install timm grad-cam torchcam captum ttach
    python experiments/method_speed/run.py [--rounds N] [--tiny] [--out FILE]

ResNet-50 and ViT-S/16 with random weights compute maps of the predicted classes of 16 pictures of 224². All contestants
of a network take turns; a ratio is the time divided by that of the forward pass in the same round. Other libraries get
the layers and the reshaping that their documentation names. A library is listed only where its result is a map of the
picture: torchcam and captum take a transformer's tokens for rows. Peak memory is measured in a separate process for
each contestant. Libraries that are not installed are left out. This takes about 20 minutes on 2 cores.
"""

import argparse
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import alternate, csv_file, machine, peak_mb, quartiles, ratios, resident_mb, warn_if_busy, write_csv

from camlab import Explainer
from camlab.attribution.methods import METHODS

Contestant = Callable[[nn.Module, Tensor], Callable[[], Any]]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NETWORKS = {"resnet50": "resnet50", "vit_small": "vit_small_patch16_224"}  # names of timm's
TINY = {"resnet50": "test_resnet", "vit_small": "test_vit"}
LAYERS = {"resnet50": "layer4", "vit_small": "blocks.11.norm1"}  # as pytorch-grad-cam's documentation says
LEFT_OUT = (
    *("score_cam", "ablation_cam"),  # a forward pass for each channel of the layer: minutes, and known beforehand
    *("grad_cam_plus_plus", "xgrad_cam", "layer_cam"),  # the passes of Grad-CAM and HiResCAM
)


def network(name: str, tiny: bool) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model(TINY[name] if tiny else NETWORKS[name], num_classes=1000).eval().to(DEVICE)


def layer(model: nn.Module, name: str) -> nn.Module:
    """The layer that other libraries read; a tiny network has fewer blocks."""
    return model.get_submodule(LAYERS[name]) if name == "resnet50" else model.blocks[-1].norm1  # type: ignore[union-attr, index]


def forward(model: nn.Module, images: Tensor) -> Callable[[], Any]:
    return torch.inference_mode()(lambda: model(images))


def camlab(method: str, model: nn.Module, images: Tensor) -> Callable[[], Any]:
    explainer = Explainer(model)
    return lambda: explainer(images, method)


def reshape(tokens: Tensor) -> Tensor:
    """The function of pytorch-grad-cam's documentation for a ViT with one class token."""
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)


def pytorch_grad_cam(name: str, model: nn.Module, images: Tensor) -> Callable[[], Any]:
    from pytorch_grad_cam import GradCAM

    cam = GradCAM(model, [layer(model, name)], reshape_transform=reshape if name == "vit_small" else None)
    return lambda: cam(images, targets=None)


def torchcam(name: str, model: nn.Module, images: Tensor) -> Callable[[], Any]:
    from torchcam.methods import GradCAM

    extractor = GradCAM(model, target_layer=LAYERS[name])

    def run() -> list[Tensor]:
        scores = model(images)
        return extractor(scores.argmax(dim=1).tolist(), scores)

    return run


def captum(name: str, model: nn.Module, images: Tensor) -> Callable[[], Any]:
    from captum.attr import LayerAttribution, LayerGradCam

    cam = LayerGradCam(model, layer(model, name))

    def run() -> Tensor:
        with torch.no_grad():
            classes = model(images).argmax(dim=1)
        return LayerAttribution.interpolate(cam.attribute(images, target=classes), images.shape[2:], "bilinear")

    return run


PEERS: dict[str, tuple[str, Callable[..., Any], tuple[str, ...]]] = {  # module, contestant, networks with a map
    "pytorch-grad-cam grad_cam": ("pytorch_grad_cam", pytorch_grad_cam, ("resnet50", "vit_small")),
    "torchcam grad_cam": ("torchcam", torchcam, ("resnet50",)),
    "captum grad_cam": ("captum", captum, ("resnet50",)),
}


def contestants(name: str, images: Tensor, tiny: bool) -> dict[str, Contestant]:
    """Everyone whose result is a map of this network, by name."""
    explainer = Explainer(network(name, tiny))
    found: dict[str, Contestant] = {"forward": forward}
    for method in METHODS:
        if method not in LEFT_OUT and explainer.supports(method, images):
            found[f"camlab {method}"] = functools.partial(camlab, method)
    for who, (module, make, names) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{who} is left out: {module} is not installed.", file=sys.stderr)
        elif name in names:
            found[who] = functools.partial(make, name)
    return found


def rows(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    images = options.images
    found = contestants(name, images, options.tiny)
    runs = {who: make(network(name, options.tiny), images) for who, make in found.items()}
    seconds = alternate(runs, options.rounds)
    for who, values in seconds.items():
        row = {"network": name, "batch": len(images), "contestant": who, "n": len(values)}
        yield {**row, "unit": "s", **quartiles(values)}
        yield {**row, "unit": "ratio to forward", **quartiles(ratios(values, seconds["forward"]))}
        command = [sys.executable, __file__, "--memory", name, who, *(["--tiny"] if options.tiny else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield {**row, "n": 1, "unit": "peak MB above network and input", "median": float(done.stdout.split()[-1])}


def report_peak(name: str, who: str, options: argparse.Namespace) -> None:
    run = contestants(name, options.images, options.tiny)[who](network(name, options.tiny), options.images)
    before = resident_mb()
    run()
    print(peak_mb() - (0 if torch.cuda.is_available() else before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the script")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of measurements")
    parser.add_argument("--memory", nargs=2, metavar=("NETWORK", "WHO"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=csv_file, metavar="FILE", default=Path(__file__).with_name("results.csv"))
    options = parser.parse_args()
    side, batch, options.rounds = (160, 2, 2) if options.tiny else (224, 16, options.rounds)
    options.images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    if options.memory:
        report_peak(*options.memory, options)
        return
    about, results = {**machine(), "load": round(warn_if_busy(), 2)}, []
    for row in (row for name in NETWORKS for row in rows(name, options)):
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        results.append({**row, **about})
    write_csv(options.out, results)


if __name__ == "__main__":
    main()
