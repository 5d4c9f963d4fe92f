"""What a network relies on, measured in the test by changing pictures: a planted shortcut, and object or background."""

import logging
from collections.abc import Iterator, Sequence

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlab.data.image_set import ImageSet, Pictures
from camlab.data.module import ImageData
from camlab.data.planted_set import PlantedSet, on_another_class, on_own_class
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.runs.score_names import METHODS_OF_AUTO
from camlab.scores.explaining import Explaining
from camlab.scores.localisation import area, energy
from camlab.scores.reliance import foreground_sensitivity, noisy_hits, reliance
from camlab.training.classifier import Classifier
from camlab.training.module_network import undisturbed

log = logging.getLogger(__name__)

_FEW = 10  # pictures, below which a share says little
_MOST = 1000  # test pictures that are changed, evenly spread
_MOST_MAPS = 200  # pictures whose maps are scored
_MAPS_BATCH = 32
_SIGMA = 0.25  # of the noise, for pixels in [0, 1], as in Moayeri et al. 2022


def known_truth(data: ImageData) -> list[L.Callback]:
    """The callbacks that apply to the test of a data set that has been set up; none if pictures have several labels."""
    if data.has_several_labels:
        return []
    tested = data.splits.get(data.test_split)
    found: list[L.Callback] = []
    if data.shortcut is not None and data.test_split == "test":
        found.append(ShortcutTest())
    if tested is not None and tested.masks is not None:
        found.append(BackgroundTest())
    return found


class ShortcutTest(L.Callback):
    """Tests with a planted shortcut: do predictions follow the mark, and does the heat lie on it?

    Test pictures carry no mark. Of 1000 of them, evenly spread, it logs

    - `test/acc_absent`: the accuracy on pictures of the classes that have a mark, without it;
    - `test/acc_present`: the accuracy on the same pictures, each with the mark of its own class;
    - `test/acc_elsewhere`: the accuracy on pictures with the mark of another class;
    - `test/reliance`: the share of the latter whose prediction the mark moves to its class;
    - `test/heat_on_mark/METHOD`: the share of the true class's heat (`energy`) on the mark of its own class, of 200
      pictures at most, with its chance level `test/heat_on_mark_chance`, the mark's share of the area. A tint, which
      covers the whole picture, has no such score.
    """

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        shortcut, tested = data.shortcut, _some(trainer, data)
        assert shortcut is not None
        own, other = (make(tested, shortcut, "test") for make in (on_own_class, on_another_class))
        figures: dict[str, Tensor] = {}
        with undisturbed(pl_module), torch.inference_mode(False), torch.no_grad():
            if len(own) < _FEW:
                log.warning("The shortcut is tested on %d pictures of its own classes: too few to judge.", len(own))
            if len(own):
                for name, pictures in (("absent", own.pictures), ("present", own)):
                    figures[f"acc_{name}"] = (_predicted(trainer, pl_module, pictures) == own.labels).float().mean()
            if len(other):
                before, after = (_predicted(trainer, pl_module, pictures) for pictures in (other.pictures, other))
                figures["acc_elsewhere"] = (after == other.labels).float().mean()
                figures["reliance"] = reliance(before, after, torch.tensor(shortcut.classes)[other.marks.of]).mean()
                if len(other) < _FEW:
                    log.warning("The shortcut is tested on %d pictures of other classes: too few to judge.", len(other))
            if len(own) and shortcut.has_place:
                figures |= heat_on_mark(pl_module.network, data.preprocess, own)
        pl_module.log_dict({f"test/{name}": value for name, value in figures.items()}, rank_zero_only=True)


class BackgroundTest(L.Callback):
    """Tests on pictures with masks whether noise on the object does more harm than noise in the background.

    Of 1000 test pictures, evenly spread, it logs `test/rfs` (`camlab.scores.rfs`; chance is 0, and above 0 the object
    counts more) and the two accuracies that it is made of, `test/acc_noise_background` and `test/acc_noise_object`.
    """

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        tested, device = _some(trainer, data), trainer.strategy.root_device
        sigma = _SIGMA / (sum(data.preprocess.std) / len(data.preprocess.std))
        found, start = [], 0
        with undisturbed(pl_module), torch.inference_mode(False), torch.no_grad():
            for some in tested.batches(data.batch_size):
                numbers = torch.arange(start, start := start + len(some))
                with trainer.precision_plugin.forward_context():
                    inputs, masks = _inputs(trainer, data, some), some.masks
                    assert masks is not None
                    labels = some.labels.to(device)
                    try:
                        found.append(noisy_hits(pl_module.network, inputs, masks, labels, sigma, numbers=numbers))
                    except UserError:  # logits that are not finite, which the accuracy reports
                        return
        try:
            result = foreground_sensitivity(*map(torch.cat, zip(*found, strict=True)))  # type: ignore[arg-type]
        except UserError:  # no picture has a mask
            return
        figures = {"acc_noise_background": result.acc_background, "acc_noise_object": result.acc_foreground}
        figures |= {"rfs": result.rfs} if result.rfs == result.rfs else {}
        pl_module.log_dict({f"test/{name}": value for name, value in figures.items()}, rank_zero_only=True)


def heat_on_mark(
    network: nn.Module, preprocess: Preprocess, marked: PlantedSet, methods: Sequence[str] = METHODS_OF_AUTO
) -> dict[str, Tensor]:
    """Share of the heat on the mark by method, `heat_on_mark/METHOD`, and the mark's share of the area.

    Args:
        network: The network that is explained, in eval mode.
        preprocess: Preparation of its input.
        marked: Pictures with marks, of which 200 are taken; the maps are of their true classes.
        methods: Names of methods; those that do not apply to the network are left out.
    """
    some = marked.part(_spread(len(marked), _MOST_MAPS))
    weight, side = next(network.parameters()), preprocess.image_size
    device, found, masks_of = weight.device, dict[str, Tensor](), list[Tensor]()
    for batch, rows in zip(some.batches(_MAPS_BATCH), torch.arange(len(some)).split(_MAPS_BATCH), strict=True):
        size = (batch.images.shape[-2], batch.images.shape[-1])
        masks = some.marks[rows].masks(size).float()[:, None]
        masks_of.append(F.interpolate(masks, size=(side, side), mode="nearest-exact")[:, 0] > 0.5)
    masks = torch.cat(masks_of)
    for method in methods:
        explaining, parts = Explaining(method), []
        try:
            for batch, inside in zip(some.batches(_MAPS_BATCH), masks.split(_MAPS_BATCH), strict=True):
                inputs = preprocess(batch.images.to(device)).to(weight.dtype)
                maps = explaining(network, inputs, batch.labels.to(device))[method]
                parts.append(energy(maps, inside.to(device)).cpu())
        except UserError:  # the method does not apply to this network
            continue
        found[f"heat_on_mark/{method}"] = torch.cat(parts).mean()
    return {**found, "heat_on_mark_chance": area(masks).mean()} if found else {}


def _some(trainer: L.Trainer, data: ImageData) -> Pictures:
    """The pictures that the test changes: evenly spread over those that it has seen."""
    tested = data.splits[data.test_split]
    seen = min(len(tested), int(sum(trainer.num_test_batches)) * data.batch_size)
    return tested.part(_spread(seen, _MOST))


def _spread(total: int, most: int) -> Tensor:
    n = min(total, most)
    return torch.arange(n) * total // max(n, 1)


def _predicted(trainer: L.Trainer, classifier: Classifier, pictures: Pictures) -> Tensor:
    """Predicted classes, int64, N, in main memory."""
    data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
    return torch.cat(list(_classes(trainer, classifier, data, pictures)))


def _classes(trainer: L.Trainer, classifier: Classifier, data: ImageData, pictures: Pictures) -> Iterator[Tensor]:
    for some in pictures.batches(data.batch_size):
        with trainer.precision_plugin.forward_context():
            yield classifier.network(_inputs(trainer, data, some)).argmax(dim=1).cpu()


def _inputs(trainer: L.Trainer, data: ImageData, some: ImageSet) -> Tensor:
    inputs: Tensor = data.preprocess(some.images.to(trainer.strategy.root_device))
    converted: Tensor = trainer.precision_plugin.convert_input(inputs)
    return converted
