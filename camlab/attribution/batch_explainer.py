"""Compute the maps of a batch of pictures; training and `explain` share this step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.classifier import Output
from camlab.attribution.doubts import doubts_of
from camlab.attribution.explainer import Explainer
from camlab.attribution.layouts import Reshape
from camlab.attribution.results import MOST_NAMED, PictureResult, Source, results_of
from camlab.errors import UserError

_MOST_YES = 10  # classes of a picture: an untrained network may say yes to half of a thousand


@dataclass(frozen=True)
class Request:
    """The maps that are to be computed.

    Attributes:
        methods: Names from `camlab.attribution.methods.METHODS`, or `auto` for the method that suits the network. None
            stands for the usual ones: CAM where it is exact and Grad-CAM for convolutional networks, and for others the
            method that `auto` names.
        layers: Names of the network's layers, or None for the default.
        target: A class index for all pictures, or None for the `top_k` classes with the highest scores.
        top_k: Number of classes for each picture if `target` is None. None stands for one or, if a picture may have
            several classes, for all whose probability is above ½, ten at most; the likeliest one is always among them.
        counterfactual: Whether to show the evidence against the class; for gradient methods only.
        all_classes: Whether to keep the CAM of every class as well.
        multi_label: Whether a picture may have several classes, so that probabilities are sigmoids and not a softmax.
    """

    methods: Sequence[str] | None = None
    layers: Sequence[str] | None = None
    target: int | None = None
    top_k: int | None = 1
    counterfactual: bool = False
    all_classes: bool = False
    multi_label: bool = False


class BatchExplainer:
    """Computes the maps of batches and splits them into the pictures' results.

    Args:
        network: Any classifier. Its weights, gradients and train/eval flags and the random state are not changed.
        request: The maps to compute.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.
        reshape: Layout of the requested layers where it cannot be found out, as in `camlab.heatmaps`.

    Attributes:
        network: The network.
        layers: Names of the target layers by method; empty before the first batch.
        doubts: Reasons to doubt the maps, with the ways out; none before the first batch.

    Raises:
        UserError: The network has no layer of a requested name.
    """

    def __init__(
        self, network: nn.Module, request: Request, output: Output | None = None, reshape: Reshape | None = None
    ) -> None:
        self.request = request
        self._output, self._reshape = output, reshape
        self.layers: dict[str, tuple[str, ...]] = {}
        self.doubts: list[str] = []
        self.network = network
        self._start()

    def _start(self) -> None:
        self._explainer = Explainer(self.network, self.request.layers, self._output, self._reshape)
        self._methods: list[str] = []

    def explain(self, inputs: Tensor, sources: Sequence[Source], labels: Tensor | None = None) -> list[PictureResult]:
        """Compute the maps of a batch.

        Args:
            inputs: The network's input, N×C×H×W.
            sources: The N pictures.
            labels: True classes, N, or N×M with ones for them if there may be several. If they are given, the maps are
                of the predicted and of the true classes; of several, of those with the highest scores.

        Raises:
            UserError: As for `camlab.attribution.explainer.heatmaps`.
        """
        request = self.request
        try:
            self._methods = self._methods or self._find_methods(inputs[:1])
            explanation = self._explainer.explain(
                inputs, self._methods, self._classes(inputs, labels), request.top_k or 1, request.counterfactual
            )
        except UserError:
            self._start()  # what has been found may hold for these weights only: a head of zeros passes no gradients on
            raise
        if not self.layers:
            is_auto = request.methods is None or "auto" in request.methods
            self.doubts = doubts_of(explanation, self._explainer, inputs, is_auto)
        self.layers = explanation.layers
        return results_of(explanation, sources, labels, request.all_classes, request.multi_label)

    def _classes(self, inputs: Tensor, labels: Tensor | None) -> Tensor | Callable[[Tensor], Tensor] | None:
        if labels is not None:
            return lambda logits: _predicted_and_true(logits, labels.to(logits.device), self.request.top_k or 1)
        if self.request.target is not None:
            return torch.full((len(inputs), 1), self.request.target, device=inputs.device)
        return _decided_yes if self.request.top_k is None and self.request.multi_label else None

    def _find_methods(self, one: Tensor) -> list[str]:
        """Find the names of the methods; what `auto` stands for is found with one picture.

        CAM is left out of counterfactuals, because it has no gradients to negate.
        """
        asked = self.request.methods
        if asked is not None and "auto" not in asked:
            return list(asked)
        named = self._explainer.method_for(one, self.request.counterfactual)
        if asked is None:
            return ["cam", "grad_cam"] if named == "cam" else [named]
        return list(dict.fromkeys(named if method == "auto" else method for method in asked))


def _decided_yes(logits: Tensor) -> Tensor:
    """The likeliest class and up to nine more above a probability of ½: N×R; an image with fewer repeats its first.

    Example:
        >>> _decided_yes(torch.tensor([[-1.0, 30.0, 20.0], [-1.0, -2.0, -3.0]])).tolist()
        [[1, 2], [0, 0]]
    """
    most = min(max(1, int((logits > 0).sum(dim=1).max())), _MOST_YES)
    best = logits.topk(most, dim=1)
    return torch.where(best.values > 0, best.indices, best.indices[:, :1])


def _predicted_and_true(logits: Tensor, labels: Tensor, top_k: int) -> Tensor:
    """The `top_k` classes with the highest scores and the true ones: N×R; an image with fewer repeats its first."""
    best = logits.topk(min(top_k, logits.shape[1]), dim=1).indices
    if labels.dim() == 1:
        return torch.cat([best, labels[:, None]], dim=1)
    scores = logits.float().masked_fill(labels == 0, -torch.inf)
    most = max(1, min(MOST_NAMED, int((labels != 0).sum(dim=1).max())))
    true = scores.topk(most, dim=1)
    return torch.cat([best, torch.where(true.values.isfinite(), true.indices, best[:, :1])], dim=1)
