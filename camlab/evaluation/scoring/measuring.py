"""Computes the values of one row of the table for a chunk of pictures."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlab import scores
from camlab.attribution.explainer import Explainer
from camlab.errors import UserError
from camlab.evaluation.scoring.chunks import Chunk
from camlab.evaluation.scoring.request import Request
from camlab.evaluation.scoring.rows import Row
from camlab.models.cam_net import CamNet
from camlab.scores import Explaining
from camlab.scores.catalogue import SCORES
from camlab.scores.heat import masks_for
from camlab.scores.localisation import TOLERANCE
from camlab.scores.removal import RISE_STEPS, RemovalCurves, removal_curves

log = logging.getLogger(__name__)

_OF_MAPS_AND_MASKS = ("auroc", "energy", "energy_gain")


class Measuring:
    """One row of the table: computes the maps of a chunk of pictures, and scores them.

    Args:
        network: The network, in eval mode.
        row: The method or pseudo-method.
        request: What is to be scored.
    """

    def __init__(self, network: nn.Module, row: Row, request: Request) -> None:
        self._network, self._row, self._request = network, row, request
        own = {row.method: lambda network, images, class_idx: scores.pseudo_maps(images, row.grid)[row.method]}
        self._explaining = Explaining(own) if row.is_pseudo else Explaining([row.method], layer=row.layer)

    def measure(self, chunk: Chunk) -> dict[str, Tensor]:
        """Values of the chunk's pictures, by the names of `Request.columns`.

        Raises:
            UserError: The method does not apply, or one of its maps is not finite.
        """
        needed, shown = self._maps(chunk)
        found = {"none_of_true": scores.without_evidence(shown), "none": scores.without_evidence(needed)}
        found |= self._place(shown, chunk)
        found |= self._need(needed, chunk)
        if self._request.gate and (not self._row.is_pseudo or self._row.method == "edges"):
            found |= self._sanity(needed, chunk)
        if not self._row.is_pseudo and chunk.runner_up is not None and "class_contrast" in self._request.scores:
            found["class_contrast"] = scores.class_contrast(shown, self._explained(chunk, chunk.runner_up))
        if "effective_area" in self._request.scores:
            found["effective_area"] = scores.effective_area(shown)
        return self._of_known_masks(found, chunk)

    def _of_known_masks(self, found: dict[str, Tensor], chunk: Chunk) -> dict[str, Tensor]:
        """The values; of the pseudo-method `mask`, only those of pictures that have a mask."""
        if self._row.method != "mask" or chunk.masks is None:
            return found
        known = chunk.masks.flatten(1).any(dim=1)
        columns = {name: values.float() if values.dtype == torch.bool else values for name, values in found.items()}
        for values in columns.values():
            if values.is_floating_point():
                values[~known] = torch.nan
        return columns

    def maps(self, chunk: Chunk) -> Tensor:
        """Signed maps of the chunk's classes, N×R×h×w; a pseudo-method has the same for all of them.

        Raises:
            UserError: A map is not finite.
        """
        if self._row.is_pseudo:
            return self._maps(chunk)[0][:, None].expand(-1, chunk.classes.shape[1], -1, -1)
        return torch.stack([self._explained(chunk, class_idx) for class_idx in chunk.classes.unbind(dim=1)], dim=1)

    def _maps(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Signed maps of the predicted and of the true class, N×h×w each."""
        passes = chunk.passes
        if self._row.is_pseudo:
            masks = None if chunk.masks is None else masks_for(chunk.masks, self._row.grid)
            every = scores.pseudo_maps(passes.images, self._row.grid, masks, passes.seed, passes.numbers)
            return every[self._row.method], every[self._row.method]
        needed = self._explained(chunk, passes.class_idx)
        wrong = chunk.true != passes.class_idx
        if not wrong.any():
            return needed, needed
        shown = needed.clone()
        shown[wrong] = self._explaining(self._network, passes.images[wrong], chunk.true[wrong])[self._row.method]
        return needed, shown

    def _explained(self, chunk: Chunk, class_idx: Tensor) -> Tensor:
        return self._explaining(self._network, chunk.passes.images, class_idx)[self._row.method]

    def _place(self, shown: Tensor, chunk: Chunk) -> dict[str, Tensor]:
        if chunk.masks is None or chunk.boxes is None:
            return {}
        wanted, masks = self._request.scores, masks_for(chunk.masks, self._row.grid)
        times = masks.shape[1] // chunk.masks.shape[1]
        found = {name: SCORES[name].function(shown, masks) for name in _OF_MAPS_AND_MASKS if name in wanted}
        if "pointing_game" in wanted:
            found["pointing_game"] = scores.pointing_game(shown, masks, times * TOLERANCE)
        if "max_box_acc" in wanted:
            boxes = chunk.boxes * times
            found["max_box_acc"] = scores.box_overlaps(shown, boxes, (masks.shape[1], masks.shape[2]))
        if "pxap" in wanted:
            found["pxap"] = scores.pixel_counts(shown, masks)
        return found

    def _need(self, needed: Tensor, chunk: Chunk) -> dict[str, Tensor]:
        wanted, passes, found = self._request.scores, chunk.passes, {}
        for imputer in self._request.imputers if "srg" in wanted else ():
            curves = removal_curves(passes, needed, imputer, self._request.steps)
            found[f"srg_{imputer}"], found[f"curves_{imputer}"] = curves.srg, _stacked(curves, self._request.steps)
        if "insertion" in wanted:
            found["insertion"] = removal_curves(passes, needed, "blur", RISE_STEPS, ("lowest_first",)).insertion
        if "deletion" in wanted:
            found["deletion"] = removal_curves(passes, needed, "mean", RISE_STEPS, ("highest_first",)).deletion
        if "average_drop" in wanted or "increase" in wanted:
            left = scores.masked_probabilities(passes, needed)
            drop, rise = scores.average_drop_of(passes.intact, left), scores.increase_of(passes.intact, left)
            found |= {name: of for name, of in (("average_drop", drop), ("increase", rise)) if name in wanted}
        if "road" in wanted:
            found["road"] = scores.road_of(passes, needed)
        if "feature_srg" in wanted and isinstance(self._network, CamNet):
            found |= self._on_features(needed, chunk, self._network)
        return found

    def _on_features(self, needed: Tensor, chunk: Chunk, network: CamNet) -> dict[str, Tensor]:
        """`feature_srg`, for maps on the grid of the network's CAM."""
        passes = chunk.passes
        cam = Explainer(network).explain(passes.images, ("cam",), passes.class_idx[:, None]).cam_of_all_classes
        if cam is None or cam.shape[2:] != needed.shape[1:]:
            return {}
        classes, seed, numbers = passes.class_idx, self._request.seed, passes.numbers
        return {"feature_srg": scores.feature_srg(cam, network.fc.bias, needed, classes, seed=seed, numbers=numbers)}

    def _sanity(self, needed: Tensor, chunk: Chunk) -> dict[str, Tensor]:
        passes, request, own = chunk.passes, self._request, self._row.method
        shared = (self._network, passes.images, self._explaining, passes.class_idx)
        found = self._randomised(needed, shared)
        if self._row.is_pseudo:  # the edges, by which the scoring checks itself
            return found
        if "max_sensitivity" in request.scores:
            found["max_sensitivity"] = scores.max_sensitivity(*shared, seed=request.seed, numbers=passes.numbers)[own]
        if "flip_consistency" in request.scores:
            found["flip_consistency"] = scores.flip_consistency(*shared)[own]
        return found

    def _randomised(self, needed: Tensor, shared: tuple[nn.Module, Tensor, Explaining, Tensor]) -> dict[str, Tensor]:
        """The sanity gate, and `emprt` if it is asked for; NaN where a random network overflows, as in float16."""
        own, has_entropy = self._row.method, "emprt" in self._request.scores and not self._row.is_pseudo
        try:
            of = scores.mprt(*shared, stages=1, seed=self._request.seed, before={own: needed})[own]
        except UserError as error:
            log.warning("%s: the sanity gate is unknown: %s", self._row.title, error)
            names = ("mprt", "pair", *(["emprt"] if has_entropy else []))
            return dict.fromkeys(names, torch.full((len(needed),), torch.nan, device=needed.device))
        found = {"mprt": of.similarity[:, -1], "pair": of.of_random_pair}
        return found | ({"emprt": scores.emprt(of.before, of.after)} if has_entropy else {})


def _stacked(curves: RemovalCurves, steps: int) -> Tensor:
    """Both curves side by side, N×2×(steps + 1), with NaN at the end if the grid has fewer cells than steps."""
    both = torch.stack([curves.highest_first, curves.lowest_first], dim=1)
    return F.pad(both, (0, steps + 1 - both.shape[2]), value=torch.nan)
