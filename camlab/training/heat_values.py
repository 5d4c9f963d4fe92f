"""Scores of the heatmaps of a fixed set of images at one moment of a training: one value for each image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from camlab import scores
from camlab.attribution.classifier import Output
from camlab.errors import UserError, first_line
from camlab.runs.watchers import OF_PLACE
from camlab.scores.heat import masks_for
from camlab.training.scored_maps import MapSource, ScoredMaps

_BATCH = {"cpu": 32}  # images in a pass, as for cached features
_DEFAULT_BATCH = 64

Prepare = Callable[[Tensor], Tensor]  # images on the host → the network's input, on its device and in its precision


@dataclass(frozen=True)
class ScoredSet:
    """The N images whose heatmaps are scored.

    Attributes:
        inputs: Input of the network that the maps are computed of, N×C×H×W.
        labels: True classes, N; None if they are not known.
        masks: Masks of the objects, bool N×H×W; None if there are none.
        mirrored: The input for the mirrored images where it is not the mirrored input; else None.
    """

    inputs: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    mirrored: Tensor | None = None


@dataclass
class HeatValues:
    """Scores of N images, and what the next scoring compares with.

    Attributes:
        values: By score, one value for each image, on the CPU; NaN where an image cannot be scored. `srg` is of the
            first images only.
        maps: The maps of `ScoredMaps.own`, N×h×w, on the CPU.
        class_idx: Their classes, N.
        predicted: The predicted classes, N.
        failed: By score, why it could not be computed.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    maps: Tensor = field(default_factory=lambda: torch.empty(0, 1, 1))
    class_idx: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    predicted: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    failed: dict[str, str] = field(default_factory=dict)


class HeatScorer:
    """Scores the maps of a set of images, whenever it is asked to.

    Args:
        source: Computes the maps.
        images: The images.
        whole: The network for passes of changed images, with the output that holds its logits.
        whole_inputs: The input of that network for the first images: those that `srg` scores.
        prepare: Function that turns images on the host into the network's input.
        tolerance: Tolerance of the pointing game, in pixels of the masks.
        batch_size: Number of images whose maps are computed together; None for one that suits the device.
    """

    def __init__(
        self,
        source: MapSource,
        images: ScoredSet,
        whole: tuple[nn.Module, Output | None],
        whole_inputs: Tensor,
        prepare: Prepare,
        tolerance: int = 2,
        batch_size: int | None = None,
    ) -> None:
        self.source, self.images, self.tolerance = source, images, tolerance
        self._whole, self._whole_inputs, self._prepare = whole, whole_inputs, prepare
        self._batch_size = batch_size

    def left_out(self, names: Sequence[str]) -> dict[str, str]:
        """Reasons, in words, why some of the scores cannot be had for this network and these images, by score.

        Raises:
            UserError: The network cannot take the images.
        """
        method = self.source.method(self._prepare(self.images.inputs[:1]))
        reasons: dict[str, str] = {}
        if self.images.masks is None:
            reasons |= dict.fromkeys(OF_PLACE, "there are no masks")
        if method != "cam":
            reasons |= dict.fromkeys(("feature_srg", "agreement"), f"the network's maps are {method}, not CAM")
        return {name: reasons[name] for name in names if name in reasons}

    def score(self, names: Sequence[str], before: HeatValues | None = None) -> HeatValues:
        """Score the maps of all images.

        Args:
            names: Names of scores.
            before: Result of the previous scoring, from which `drift` is measured.

        Raises:
            UserError: The maps cannot be computed.
        """
        found, parts = HeatValues(), list(self._batches())
        batches = [self._score_batch(part, names, before, found.failed) for part in parts]
        kept, of_batches = [maps for maps, _ in batches], [values for _, values in batches]
        for name in dict.fromkeys(name for values in of_batches for name in values):
            if name not in found.failed:
                found.values[name] = torch.cat([values[name] for values in of_batches])
        found.maps = torch.cat([maps.own.cpu() for maps in kept])
        found.class_idx = torch.cat([maps.class_idx.cpu() for maps in kept])
        found.predicted = torch.cat([maps.logits.argmax(dim=1).cpu() for maps in kept])
        if "srg" in names:
            first = torch.cat([maps.predicted for maps in kept])[: len(self._whole_inputs)]
            _try("srg", lambda: self._srg(first, found.predicted), found.values, found.failed)
        return found

    def _batches(self) -> list[slice]:
        size = self._batch_size or _batch_for(self._prepare(self.images.inputs[:1]))
        return [slice(start, start + size) for start in range(0, len(self.images.inputs), size)]

    def _score_batch(
        self, part: slice, names: Sequence[str], before: HeatValues | None, failed: dict[str, str]
    ) -> tuple[ScoredMaps, dict[str, Tensor]]:
        inputs, labels = self._prepare(self.images.inputs[part]), self.images.labels
        maps = self.source(inputs, None if labels is None else labels[part])
        numbers = torch.arange(len(self.images.inputs))[part]
        functions = {
            **self._of_place(maps, part),
            **_of_maps(maps, numbers),
            "drift": lambda: _drift(maps, part, before),
            "flip_consistency": lambda: self._flip_consistency(maps, inputs, part),
        }
        values: dict[str, Tensor] = {}
        for name in names:
            if name in functions and name not in failed and not (name == "drift" and before is None):
                _try(name, functions[name], values, failed)
        return replace(maps, rival=None, all_classes=None, grad_cam=None), values

    def _of_place(self, maps: ScoredMaps, part: slice) -> dict[str, Callable[[], Tensor]]:
        if self.images.masks is None:
            return {}
        grid = (maps.own.shape[1], maps.own.shape[2])
        masks = masks_for(self.images.masks[part].to(maps.own.device), grid)
        tolerance = self.tolerance * (masks.shape[1] // self.images.masks.shape[1])
        return {
            "auroc": lambda: scores.auroc(maps.own, masks),
            "energy_gain": lambda: scores.energy_gain(maps.own, masks),
            "pointing_game": lambda: scores.pointing_game(maps.own, masks, tolerance),
        }

    def _flip_consistency(self, maps: ScoredMaps, inputs: Tensor, part: slice) -> Tensor:
        kept = self.images.mirrored
        mirrored = inputs.flip(-1) if kept is None else self._prepare(kept[part])
        return scores.spearman(self.source.own(mirrored, maps.class_idx), maps.own.flip(-1))

    def _srg(self, maps: Tensor, predicted: Tensor) -> Tensor:
        (network, output), inputs = self._whole, self._prepare(self._whole_inputs)
        target = predicted[: len(maps)].to(inputs.device)
        passes = scores.Passes(network, inputs, target, output, batch_size=_batch_for(inputs))
        return scores.removal_curves(passes, maps.to(inputs.device)).srg


def _batch_for(images: Tensor) -> int:
    return _BATCH.get(images.device.type, _DEFAULT_BATCH)


def _of_maps(maps: ScoredMaps, numbers: Tensor) -> dict[str, Callable[[], Tensor]]:
    every, beside, rival = maps.all_classes, maps.grad_cam, maps.rival
    found: dict[str, Callable[[], Tensor]] = {"effective_area": lambda: scores.effective_area(maps.predicted)}
    if rival is not None:
        found["class_contrast"] = lambda: scores.class_contrast(maps.own, rival)
    if every is not None:
        best = maps.logits.argmax(dim=1)
        found["feature_srg"] = lambda: scores.feature_srg(every, maps.bias, maps.predicted, best, numbers=numbers)
    if beside is not None:
        found["agreement"] = lambda: scores.agreement(maps.predicted, beside)
    return found


def _drift(maps: ScoredMaps, part: slice, before: HeatValues | None) -> Tensor:
    """Change since the previous scoring; NaN where the maps are of another class than then."""
    assert before is not None
    then = before.maps[part].to(maps.own.device)
    same = maps.class_idx == before.class_idx[part].to(maps.own.device)
    return scores.drift(maps.own, then).where(same, torch.nan)


def _try(name: str, function: Callable[[], Tensor], values: dict[str, Tensor], failed: dict[str, str]) -> None:
    """Compute a score; the others go on if it cannot be computed."""
    try:
        values[name] = function().float().cpu()
    except UserError as error:
        failed[name] = first_line(error).rstrip(".")
