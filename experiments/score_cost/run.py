"""How much time does a score take? Compares camlab's scores with other libraries' and with the forward passes alone.

    pip install torchcam grad-cam captum quantus
    python experiments/score_cost/run.py [--rounds N] [--only QUESTION …] [--tiny] [--out FILE]

A ResNet-18 with random weights, pictures of 224² and maps of 7×7 cells that are given, so that only the scoring is
measured. The contestants of a question score the same pictures at the same number of steps, and take turns; `passes`
are the bare forward passes, in batches, that the score needs. A ratio is the time divided by that of `passes` in the
same round. Other libraries get the maps in the form that they expect: as numpy arrays, upsampled to the pictures.
Libraries that are not installed are left out, and so is Quantus' ROAD, which fails for pictures of three channels
(0.6.0). This takes about 20 minutes on 2 cores.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import alternate, csv_file, machine, quartiles, ratios, warn_if_busy, write_csv

from camlab import maps, scores

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH, STEPS, COPIES, RADIUS = 64, 20, 10, 0.02
EXPLAINING = scores.Explaining("grad_cam")
QUANTUS_STEPS = 16  # Quantus wants steps that divide the number of pixels


class Work:
    """A network, pictures, and maps of the predicted classes."""

    def __init__(self, images: int, side: int) -> None:
        torch.manual_seed(0)
        self.network = torchvision.models.resnet18(num_classes=10).eval().to(DEVICE)
        self.images = torch.randn(images, 3, side, side, device=DEVICE)
        self.signed = torch.randn(images, 7, 7, device=DEVICE)
        self.upsampled = maps.upsample(self.signed, (side, side))
        self.masks = torch.zeros(images, side, side, dtype=torch.bool, device=DEVICE)
        self.masks[:, : side // 4, : side // 3] = True
        with torch.inference_mode():
            self.classes = self.network(self.images).argmax(dim=1)

    def passes(self, count: int) -> Callable[[], None]:
        """The bare forward passes of `count` changed copies of all pictures, in batches."""
        rows = torch.arange(len(self.images), device=DEVICE).repeat(count)

        @torch.inference_mode()
        def run() -> None:
            for some in rows.split(BATCH):
                self.network(self.images[some])

        return run

    def arrays(self) -> dict[str, Any]:
        """The same for Quantus, which takes numpy arrays."""
        return {
            "x_batch": self.images.cpu().numpy(),
            "y_batch": self.classes.cpu().numpy(),
            "a_batch": self.upsampled[:, None].cpu().numpy(),
        }


class GivenMaps:
    """An extractor as torchcam's metrics take it, which hands over maps that are given."""

    def __init__(self, model: nn.Module, signed: Tensor) -> None:
        self.model, self.signed = model, signed

    def __call__(self, class_idx: Any = None, scores: Any = None, **options: Any) -> list[Tensor]:
        return [self.signed]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> Any:
        return torch.no_grad()


def grad_cam(model: nn.Module, inputs: Any, targets: Any, **options: Any) -> Any:
    """Grad-CAM as all contestants of a question explain: tensors give a tensor, arrays an array."""
    images, classes = (torch.as_tensor(part, device=DEVICE) for part in (inputs, targets))
    found = EXPLAINING(model, images.float(), classes)["grad_cam"]
    return found if isinstance(inputs, Tensor) else maps.upsample(found, tuple(images.shape[2:]))[:, None].cpu().numpy()


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)


def deletion_and_insertion(work: Work) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "passes", work.passes(2 * STEPS)  # intact, emptied, and 2 · 19 in between

    def camlab() -> Tensor:
        passes = scores.Passes(work.network, work.images, work.classes, batch_size=BATCH)
        return scores.removal_curves(passes, work.signed, "mean", STEPS).srg

    yield "camlab", camlab
    if installed("torchcam"):
        from torchcam.metrics import DeletionInsertionMetric

        metric = DeletionInsertionMetric(GivenMaps(work.network, work.signed), softmax, steps=STEPS, batch_size=BATCH)
        yield "torchcam", lambda: metric.update(work.images, work.classes.tolist())


def deletion(work: Work) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "passes", work.passes(QUANTUS_STEPS + 1)

    def camlab() -> Tensor:
        return scores.deletion(
            work.network, work.images, work.signed, work.classes, "mean", QUANTUS_STEPS, batch_size=BATCH
        )

    yield "camlab", camlab
    if installed("quantus"):
        import quantus

        pixels = work.images.shape[2] * work.images.shape[3]
        metric = quantus.PixelFlipping(
            features_in_step=pixels // QUANTUS_STEPS, perturb_baseline="mean", disable_warnings=True
        )
        arrays = work.arrays()
        yield "quantus", lambda: metric(model=work.network, **arrays, device=str(DEVICE), batch_size=BATCH)


def average_drop_and_increase(work: Work) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "passes", work.passes(2)

    def camlab() -> tuple[Tensor, Tensor]:
        passes = scores.Passes(work.network, work.images, work.classes, batch_size=BATCH)
        left = scores.masked_probabilities(passes, work.signed)
        return scores.average_drop_of(passes.intact, left), scores.increase_of(passes.intact, left)

    yield "camlab", camlab
    if installed("torchcam"):
        from torchcam.metrics import ClassificationMetric

        metric = ClassificationMetric(GivenMaps(work.network, work.signed), softmax)
        yield "torchcam", lambda: metric.update(work.images, work.classes.tolist())


def road(work: Work) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "passes", work.passes(1 + 2 * 9)
    yield "camlab", lambda: scores.road(work.network, work.images, work.signed, work.classes, batch_size=BATCH)
    if installed("pytorch_grad_cam"):
        from pytorch_grad_cam.metrics.road import ROADCombined
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

        targets = [ClassifierOutputSoftmaxTarget(index) for index in work.classes.tolist()]
        shown = work.upsampled.cpu().numpy()
        yield "pytorch-grad-cam", lambda: ROADCombined()(work.images, shown, targets, work.network)


def max_sensitivity(work: Work) -> Iterator[tuple[str, Callable[[], Any]]]:
    def passes() -> None:
        for _ in range(COPIES + 1):
            grad_cam(work.network, work.images, work.classes)

    yield "passes", passes  # here, the maps of the copies, since the score compares these

    def camlab() -> Any:
        return scores.max_sensitivity(work.network, work.images, EXPLAINING, work.classes, RADIUS, COPIES)

    yield "camlab", camlab
    if installed("captum"):
        from captum.metrics import sensitivity_max

        def explain(inputs: Any) -> tuple[Tensor]:
            images = inputs[0] if isinstance(inputs, tuple) else inputs
            classes = work.classes.repeat_interleave(len(images) // len(work.classes))
            return (grad_cam(work.network, images, classes),)

        def of_captum() -> Tensor:
            return sensitivity_max(explain, work.images, perturb_radius=RADIUS, n_perturb_samples=COPIES)

        yield "captum", of_captum
    if installed("quantus"):
        import quantus

        metric = quantus.MaxSensitivity(nr_samples=COPIES, lower_bound=RADIUS, disable_warnings=True)
        arrays = work.arrays()
        yield (
            "quantus",
            lambda: metric(model=work.network, **arrays, explain_func=grad_cam, device=str(DEVICE), batch_size=BATCH),
        )


def energy(work: Work) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "camlab", lambda: scores.energy(work.signed, work.masks)
    if installed("quantus"):
        import quantus

        metric = quantus.RelevanceMassAccuracy(disable_warnings=True)
        arrays, masks = work.arrays(), work.masks[:, None].cpu().numpy()
        yield "quantus", lambda: metric(model=work.network, **arrays, s_batch=masks, device=str(DEVICE))


Contestants = Callable[[Work], Iterator[tuple[str, Callable[[], Any]]]]
QUESTIONS: dict[str, tuple[Contestants, int]] = {  # name: (contestants, number of pictures)
    "deletion and insertion, 20 steps": (deletion_and_insertion, 16),
    "deletion, 16 steps": (deletion, 16),
    "average drop and increase": (average_drop_and_increase, 64),
    "road, 9 shares, both orders": (road, 2),  # the others solve each system on one core, seconds for each
    "max_sensitivity of Grad-CAM, 10 copies": (max_sensitivity, 16),
    "energy": (energy, 64),
}


def installed(module: str) -> bool:
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"{module} is left out: it is not installed.", file=sys.stderr)
    return found


def rows(question: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    contestants, images = QUESTIONS[question]
    work = Work(2 if options.tiny else images, 64 if options.tiny else 224)
    seconds = alternate(dict(contestants(work)), options.rounds)
    base = seconds.get("passes")
    for who, values in seconds.items():
        row = {"question": question, "contestant": who, "images": len(work.images), "n": len(values)}
        yield {**row, "unit": "ms per image", **quartiles([1000 * value / len(work.images) for value in values])}
        if base is not None:
            yield {**row, "unit": "ratio to passes", **quartiles(ratios(values, base))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of measurements")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="QUESTION")
    parser.add_argument("--tiny", action="store_true", help="few small pictures, to try the script")
    parser.add_argument("--out", type=csv_file, metavar="FILE", default=Path(__file__).with_name("results.csv"))
    options = parser.parse_args()
    about, results = {**machine(), "load": round(warn_if_busy(), 2)}, []
    for row in (row for question in options.only for row in rows(question, options)):
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        results.append({**row, **about})
    write_csv(options.out, results)


if __name__ == "__main__":
    main()
