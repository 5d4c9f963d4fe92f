"""How much slower is camlab than plain PyTorch? Measured on a GPU if there is one, else on the CPU.

    python experiments/speed/run.py [--weights FEATURES.safetensors] [--tiny] [--out FILE]

For each question, camlab and the alternative take turns in one run; `ratio` is camlab's speed divided by that of the
alternative in the same round. --tiny runs everything at small sizes, which tests the script but measures nothing. The
script takes about 8 minutes on 2 cores.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import alternate, csv_file, machine, quartiles, ratios, settled, warn_if_busy, write_csv

from camlab.data.image_set import ImageSet
from camlab.data.module import ImageData
from camlab.models.cam_net import CamNet
from camlab.storage.array_store import ArrayStore
from camlab.training.callbacks.feature_cache import BackbonePass, FeatureCache
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.training.classifier import Classifier

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Noise(ImageData):
    """Random pictures of CIFAR-10's size. The time does not depend on their content."""

    def __init__(self, n: int, **options: Any) -> None:
        super().__init__(val_size=0, **options)
        self.n = n

    def load(self) -> tuple[ImageSet, ImageSet]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (self.n, 3, 32, 32), dtype=torch.uint8, generator=generator)
        every = ImageSet(images, torch.arange(self.n) % 10, tuple("abcdefghij"))
        return every, every.subset(torch.arange(min(self.n, 20)))


def trainer(**options: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{"accelerator": "auto", "devices": 1, "num_sanity_val_steps": 0, **quiet, **options})


def classifier(weights: str | None, frozen: bool) -> Classifier:
    torch.manual_seed(0)
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3 if frozen else 1e-4)
    return Classifier(CamNet("alexnet", weights=weights, frozen=frozen), optimizer)


def inputs(batch: int, side: int) -> torch.Tensor:
    """Prepare the input of a plain loop, which is not timed: resized, normalised, on the device, channels last."""
    return torch.randn(batch, 3, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)


def feature_pass(options: argparse.Namespace) -> dict[str, list[float]]:
    """Compare the cached features of n images and their mirror images with `features(x)` of as many tensors."""
    data = Noise(options.images, image_size=options.side)
    data.setup()
    run = trainer()
    data.trainer = run
    network = classifier(options.weights, frozen=True).network.to(DEVICE)
    one_pass, ready, count = BackbonePass(run, network, data), inputs(128, options.side), iter(range(1000))

    def camlab() -> None:
        with tempfile.TemporaryDirectory() as folder:
            compute = functools.partial(one_pass.run, "train")
            ArrayStore(Path(folder)).get(f"{next(count)}", one_pass.shape("train"), compute, "")

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(2 * options.images // 128):
            network.forward_backbone(ready)

    seconds = alternate({"camlab": camlab, "bare": bare}, options.rounds)
    return {name: [2 * options.images / s for s in values] for name, values in seconds.items()}


class Alternating(L.Callback):
    """Callback that times each epoch, and another function after each epoch. The first round warms up."""

    def __init__(self, other: Callable[[], None]) -> None:
        self.other = other
        self.camlab: list[float] = []
        self.bare: list[float] = []
        self._began = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self._began = settled()

    def on_train_epoch_end(self, *_: Any) -> None:
        between = settled()
        self.camlab.append(between - self._began)
        self.other()
        self.bare.append(settled() - between)


def against_bare_loop(options: argparse.Namespace, frozen: bool) -> dict[str, list[float]]:
    """Compare epochs of camlab with forward pass, backward pass and Adam on prepared tensors."""
    n = options.cached_images if frozen else options.images
    data = Noise(n, image_size=options.side)
    module = classifier(options.weights, frozen)
    own = classifier(options.weights, frozen).network.to(DEVICE)
    optimizer = torch.optim.Adam([p for p in own.parameters() if p.requires_grad], lr=1e-4)
    precision = torch.autocast(DEVICE.type, torch.bfloat16, enabled=options.precision == "bf16-mixed")
    labels = torch.randint(0, 10, (128,), device=DEVICE)
    ready = torch.rand(128, 2304, device=DEVICE) if frozen else inputs(128, options.side)

    def bare() -> None:
        for _ in range(n // 128):
            with precision:
                loss = F.cross_entropy(own.forward_head_statistic(ready) if frozen else own(ready), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    timed = Alternating(bare)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [timed, *([FeatureCache(folder)] if frozen else [])]
        trainer(max_epochs=options.rounds + 1, callbacks=callbacks, precision=options.precision).fit(module, data)
    return {"camlab": [n / s for s in timed.camlab[1:]], "bare": [n / s for s in timed.bare[1:]]}


class Pictures(Dataset):
    """Usual data set: PIL and torchvision's transforms, one picture at a time, in worker processes."""

    def __init__(self, images: ImageSet, side: int) -> None:
        self.pictures = [Image.fromarray(np.ascontiguousarray(i.permute(1, 2, 0).numpy())) for i in images.images]
        normalize = transforms.Normalize([0.5] * 3, [0.5] * 3)
        steps = [transforms.Resize(side), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalize]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[i]), 0


def pipelines(options: argparse.Namespace) -> dict[str, list[float]]:
    """Compare the images/s that reach the device from camlab's loader with those from a usual DataLoader."""
    data = Noise(options.pipeline_images, image_size=options.side)
    data.setup()
    run = trainer(max_epochs=1)
    data.trainer, run.state.stage = run, "train"
    run.training = True
    pictures = Pictures(data.splits["train"], options.side)
    usual = DataLoader(pictures, 128, True, num_workers=options.workers, persistent_workers=True, pin_memory=True)

    def camlab() -> None:
        for batch in data.train_dataloader():
            data.on_after_batch_transfer(batch, 0)

    def dataloader() -> None:
        for images, _ in usual:
            images.to(DEVICE, non_blocking=True)

    seconds = alternate({"camlab": camlab, "dataloader": dataloader}, options.rounds)
    return {name: [options.pipeline_images / s for s in values] for name, values in seconds.items()}


def heatmaps(options: argparse.Namespace) -> list[float]:
    """Measure the seconds that HeatmapLogger takes for one epoch, with its defaults, when it writes files."""
    data, module = Noise(200, image_size=options.side), classifier(options.weights, False)
    logger = HeatmapLogger()
    with tempfile.TemporaryDirectory() as folder:
        run = trainer(max_epochs=1, limit_train_batches=1, callbacks=[logger], default_root_dir=folder)
        run.fit(module, data)
        module.to(DEVICE)
        return alternate({"draw": lambda: logger.on_train_epoch_end(run, module)}, options.rounds)["draw"]


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    def rows(question: str, unit: str, measured: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
        (ours, a), (other, b) = measured.items()
        compared = {"question": question, "unit": unit, "n": len(a)}
        yield {**compared, "contestant": ours, **quartiles(a)}
        yield {**compared, "contestant": other, **quartiles(b)}
        yield {**compared, "unit": "", "contestant": f"ratio {ours}/{other}", **quartiles(ratios(a, b))}

    yield from rows("feature pass", "images/s", feature_pass(options))
    tuned = against_bare_loop(options, frozen=False)
    yield from rows("fine-tuning", "images/s", tuned)
    yield from rows("head on cached features", "images/s", against_bare_loop(options, frozen=True))
    yield from rows("input pipeline", "images/s", pipelines(options))
    drawing = heatmaps(options)
    yield {"question": "heatmaps", "unit": "s", "n": len(drawing), "contestant": "one epoch's", **quartiles(drawing)}
    epoch = 45_000 / quartiles(tuned["camlab"])["median"]
    share = {"question": "heatmaps", "unit": "", "n": len(drawing), "contestant": "share of a fine-tuned epoch"}
    yield {**share, **quartiles([s / epoch for s in drawing])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=csv_file, metavar="FILE", default=Path(__file__).parent / "results.csv")
    parser.add_argument("--precision", default="bf16-mixed" if DEVICE.type == "cuda" else "32-true")
    parser.add_argument("--workers", type=int, default=16 if DEVICE.type == "cuda" else 2)
    options = parser.parse_args()
    many = 100 if DEVICE.type == "cuda" else 1
    options.side, options.rounds, options.images = 224, 7, 512 * many
    options.cached_images, options.pipeline_images = (2048, 2048) if many == 1 else (25_600, 25_600)
    if options.tiny:
        options.side, options.rounds, options.images, options.cached_images, options.pipeline_images = (
            64,
            2,
            128,
            256,
            256,
        )
    about = {**machine(), "load": round(warn_if_busy(), 2)}
    results = []
    for row in measure(options):
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        results.append({**row, **about})
    write_csv(options.out, results)


if __name__ == "__main__":
    main()
