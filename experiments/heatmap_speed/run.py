"""How much time does a heatmap take? Compares camlab with other libraries and with the forward pass alone.

    pip install --no-deps grad-cam torchcam captum ttach
    python experiments/heatmap_speed/run.py [--photos FOLDER] [--only QUESTION] [--tiny] [--out FILE]

Each library turns image tensors into overlays, with unmodified networks of torchvision, the same ReLU layer and the
predicted classes, at 224². The libraries take turns; a ratio is the time divided by that of the forward pass in the
same round. Peak memory is measured in a separate process for each. --photos also compares the time from a thousand
picture files to their written heatmaps with the time for decoding and the forward pass. Libraries that are not
installed are left out. This takes about 15 minutes on 2 cores.
"""

import argparse
import csv
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import alternate, csv_file, machine, peak_mb, quartiles, ratios, resident_mb, warn_if_busy, write_csv

from camlab.attribution.batch_explainer import Request
from camlab.attribution.explainer import Explainer
from camlab.drawing import render
from camlab.drawing.explain_pictures import explain_pictures
from camlab.models.cam_net import CamNet
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.storage.pictures import read_picture

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SETUPS = {
    "alexnet": (64, "features.11"),
    "vgg16": (8, "features.29"),
}  # number of images, and the ReLU layer after the last convolution


class Work:
    """A network, its input, and the pictures to draw on."""

    def __init__(self, name: str, images: int, side: int) -> None:
        torch.manual_seed(0)
        self.model = torchvision.models.get_model(name, weights=None).eval().to(DEVICE)
        self.layer_name = SETUPS[name][1]
        self.layer = self.model.get_submodule(self.layer_name)
        self.pictures = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), np.uint8)
        as_float = torch.from_numpy(self.pictures).permute(0, 3, 1, 2).float() / 255
        self.inputs = ((as_float - 0.45) / 0.225).to(DEVICE)

    @torch.inference_mode()
    def forward(self) -> None:
        self.model(self.inputs)


def camlab(work: Work) -> Callable[[], np.ndarray]:
    explainer = Explainer(work.model)
    return lambda: render.overlay(work.pictures, explainer(work.inputs).cpu().numpy())


def pytorch_grad_cam(work: Work) -> Callable[[], list[np.ndarray]]:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import show_cam_on_image

    cam = GradCAM(model=work.model, target_layers=[work.layer])

    def run() -> list[np.ndarray]:
        heat = cam(work.inputs, targets=None)  # the predicted classes
        return [
            show_cam_on_image(p / np.float32(255), h, use_rgb=True) for p, h in zip(work.pictures, heat, strict=True)
        ]

    return run


def torchcam(work: Work) -> Callable[[], list[Any]]:
    from torchcam.methods import GradCAM
    from torchcam.utils import overlay_mask
    from torchvision.transforms.functional import to_pil_image

    extractor = GradCAM(work.model, target_layer=work.layer_name)

    def run() -> list[Any]:
        scores = work.model(work.inputs)
        (heat,) = extractor(scores.argmax(dim=1).tolist(), scores)
        pairs = zip(work.pictures, heat.cpu(), strict=True)
        return [overlay_mask(to_pil_image(p), to_pil_image(h, mode="F"), alpha=0.5) for p, h in pairs]

    return run


def captum(work: Work) -> Callable[[], np.ndarray]:
    from captum.attr import LayerAttribution, LayerGradCam

    cam = LayerGradCam(work.model, work.layer)

    def run() -> np.ndarray:
        with torch.no_grad():
            classes = work.model(work.inputs).argmax(dim=1)
        signed = cam.attribute(work.inputs, target=classes, relu_attributions=True).detach()
        heat = LayerAttribution.interpolate(signed, work.pictures.shape[1:3], interpolate_mode="bilinear")[:, 0]
        heat = heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
        return render.overlay(work.pictures, heat.clamp(0, 1).cpu().numpy())  # captum draws one picture at a time

    return run


CONTESTANTS = {"camlab": camlab, "pytorch-grad-cam": pytorch_grad_cam, "torchcam": torchcam, "captum": captum}
PEERS = {  # module of each other library, and the packages to install
    "pytorch-grad-cam": ("pytorch_grad_cam", "grad-cam ttach"),
    "torchcam": ("torchcam", "torchcam"),
    "captum": ("captum", "captum"),
}


def leave_out_missing() -> None:
    """Remove the libraries that are not installed from the comparison, and report each in one line."""
    for who, (module, packages) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            del CONTESTANTS[who]
            print(f"{who} is left out: it is not installed (pip install --no-deps {packages}).", file=sys.stderr)


def networks(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name, (images, _) in SETUPS.items():
        images = 2 if options.tiny else images * options.scale
        runs: dict[str, Callable[[], Any]] = {"forward": Work(name, images, options.side).forward}
        runs |= {who: make(Work(name, images, options.side)) for who, make in CONTESTANTS.items()}
        seconds = alternate(runs, options.rounds)
        for who, values in seconds.items():
            row = {"question": f"{name}, batch {images}", "contestant": who, "unit": "s", "n": len(values)}
            yield {**row, **quartiles(values)}
            if who != "forward":
                yield {**row, "unit": "ratio to forward", **quartiles(ratios(values, seconds["forward"]))}
            if who not in ("forward", "camlab"):
                yield {**row, "unit": "ratio to camlab", **quartiles(ratios(values, seconds["camlab"]))}
        for who in CONTESTANTS:
            yield {
                "question": f"{name}, batch {images}",
                "contestant": who,
                "unit": "peak MB above network and input",
                **peak(who, name, options),
            }


def all_classes(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare the time of CAM of all classes on a CamNet with that of its forward pass."""
    from camlab import maps

    images = 2 if options.tiny else 64 * options.scale
    network, inputs = CamNet("alexnet").eval().to(DEVICE), torch.randn(images, 3, options.side, options.side).to(DEVICE)

    @torch.inference_mode()
    def forward() -> None:
        network(inputs)

    @torch.inference_mode()
    def cam() -> None:
        features = network.forward_features(inputs)
        network.forward_head(features)
        maps.cam(features, network.fc.weight)

    seconds = alternate({"forward": forward, "cam": cam}, options.rounds)
    row = {"question": f"CamNet, CAM of all classes, batch {images}", "contestant": "camlab", "n": options.rounds}
    yield {**row, "unit": "ratio to forward", **quartiles(ratios(seconds["cam"], seconds["forward"]))}


def photographs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare the time from a thousand files to their written heatmaps with that of decoding and the forward pass."""
    count, name = (24, "alexnet") if options.tiny else (1000, "alexnet")
    model = torchvision.models.get_model(name, weights=None).eval().to(DEVICE)
    trained = TrainedNetwork(
        model, Preprocess(options.side, (0.45,) * 3, (0.225,) * 3), tuple(map(str, range(1000))), name
    )
    with tempfile.TemporaryDirectory() as place:
        folder, sources = Path(place) / "photos", sorted(Path(options.photos).glob("*.jpg"))
        folder.mkdir()
        for i in range(count):
            shutil.copy(sources[i % len(sources)], folder / f"{i:04d}.jpg")
        files = sorted(folder.iterdir())

        def square(path: Path) -> np.ndarray:
            return trained.preprocess.prepare(read_picture(path))

        def plain() -> None:
            with ThreadPoolExecutor(os.cpu_count()) as pool, torch.inference_mode():
                decoded = pool.map(square, files)
                while batch := [picture for _, picture in zip(range(64), decoded, strict=False)]:
                    pixels = torch.from_numpy(np.stack(batch)).to(DEVICE).permute(0, 3, 1, 2)
                    model(trained.preprocess(pixels))

        def explain() -> None:
            explain_pictures(trained, files, Path(place) / "out", Request(methods=("grad_cam",)))

        seconds = alternate({"plain": plain, "camlab": explain}, 1 if options.tiny else 9)
    row = {"question": f"{count} photographs from disk, {name}", "n": len(seconds["plain"])}
    for who, values in seconds.items():
        yield {**row, "contestant": who, "unit": "s", **quartiles(values)}
    yield {
        **row,
        "contestant": "camlab",
        "unit": "ratio to plain",
        **quartiles(ratios(seconds["camlab"], seconds["plain"])),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios to the forward pass: medians as bars, interquartile ranges as whiskers."""
    figure = Figure(figsize=(6, 3), dpi=120, layout="constrained")
    axes = figure.subplots()
    questions = [question for question in dict.fromkeys(row["question"] for row in rows) if "CamNet" not in question]
    for i, who in enumerate(CONTESTANTS):
        own = {r["question"]: r for r in rows if r["contestant"] == who and r["unit"] == "ratio to forward"}
        shown = [own[question] for question in questions if question in own]
        at = [questions.index(row["question"]) + 0.2 * (i - 1.5) for row in shown]
        medians = [row["median"] for row in shown]
        whiskers = [
            [m - row["q1"] for m, row in zip(medians, shown, strict=True)],
            [row["q3"] - m for m, row in zip(medians, shown, strict=True)],
        ]
        axes.bar(at, medians, 0.18, yerr=whiskers, capsize=2, label=who)
    axes.axhline(1, color="k", lw=1, ls="--")
    axes.set(xticks=range(2), xticklabels=questions[:2], ylabel="time / forward pass")
    axes.legend(fontsize=8)
    figure.savefig(path)


def peak(who: str, network: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure the peak memory, in MB, of a separate process, above its memory before the first map."""
    command = [sys.executable, __file__, "--memory", who, network, *(["--tiny"] if options.tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"n": 1, "median": float(done.stdout.split()[-1])}


def report_peak(who: str, network: str, options: argparse.Namespace) -> None:
    images = 2 if options.tiny else SETUPS[network][0] * options.scale
    run = CONTESTANTS[who](Work(network, images, options.side))
    before = resident_mb()
    for _ in range(3):
        run()
    print(peak_mb() - (0 if torch.cuda.is_available() else before))


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with an error of one line if the options name something that does not exist."""
    if options.only == "photographs" and not options.photos:
        parser.error("--only photographs: give --photos FOLDER, too")
    if options.photos and not list(Path(options.photos).glob("*.jpg")):
        parser.error(f"--photos {options.photos}: there are no .jpg files")
    if options.only and not options.out.is_file():
        parser.error(f"--only replaces a part of {options.out}, which does not exist; run without --only first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", metavar="FOLDER")
    parser.add_argument("--only", choices=("networks", "all_classes", "photographs"), help="repeat one measurement")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--memory", nargs=2, metavar=("WHO", "NETWORK"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=csv_file, metavar="FILE", default=Path(__file__).parent / "results.csv")
    options = parser.parse_args()
    options.side, options.rounds = (64, 2) if options.tiny else (224, 7)
    options.scale = 8 if torch.cuda.is_available() else 1
    if options.memory:
        report_peak(*options.memory, options)
        return
    check(parser, options)
    leave_out_missing()
    about, results = {**machine(), "load": round(warn_if_busy(), 2)}, []
    questions = [networks, all_classes, *([photographs] if options.photos else [])]
    chosen = [question for question in questions if options.only in (None, question.__name__)]
    for row in (row for question in chosen for row in question(options)):
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        results.append({**row, **about})
    if options.only:
        anew = {row["question"] for row in results}
        with open(options.out, newline="") as file:
            results = [row for row in csv.DictReader(file) if row["question"] not in anew] + results
    write_csv(options.out, results)
    if not options.only:
        plot(results, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
