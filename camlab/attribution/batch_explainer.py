"""Compute the maps of a batch of pictures; training and `explain` share this step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.explainer import Explainer
from camlab.attribution.results import PictureResult, Source, results_of


@dataclass(frozen=True)
class Request:
    """The maps that are to be computed.

    Attributes:
        methods: Names from `camlab.attribution.methods.METHODS`, or None for the usual ones: CAM where it is exact and
            Grad-CAM for convolutional networks, and for others the method that `auto` names.
        layers: Names of the network's layers, or None for the default.
        target: A class index for all pictures, or None for the `top_k` classes with the highest scores.
        top_k: Number of classes for each picture if `target` is None.
        counterfactual: Whether to show the evidence against the class; for gradient methods only.
        all_classes: Whether to keep the CAM of every class as well.
    """

    methods: Sequence[str] | None = None
    layers: Sequence[str] | None = None
    target: int | None = None
    top_k: int = 1
    counterfactual: bool = False
    all_classes: bool = False


class BatchExplainer:
    """Computes the maps of batches and splits them into the pictures' results.

    Args:
        network: Any classifier. Its weights, gradients and train/eval flags and the random state are not changed.
        request: The maps to compute.

    Attributes:
        layers: Names of the target layers by method; empty before the first batch.

    Raises:
        UserError: The network has no layer of a requested name.
    """

    def __init__(self, network: nn.Module, request: Request) -> None:
        self.request = request
        self.layers: dict[str, tuple[str, ...]] = {}
        self._explainer = Explainer(network, request.layers)
        self._methods: Sequence[str] | None = request.methods

    def explain(self, inputs: Tensor, sources: Sequence[Source], labels: Tensor | None = None) -> list[PictureResult]:
        """Compute the maps of a batch.

        Args:
            inputs: The network's input, N×C×H×W.
            sources: The N pictures.
            labels: True classes, N. If they are given, the maps are of the predicted and of the true class.

        Raises:
            UserError: As for `camlab.attribution.explainer.heatmaps`.
        """
        if self._methods is None:
            self._methods = self._usual_methods(inputs[:1])
        request = self.request
        explanation = self._explainer.explain(
            inputs, self._methods, self._classes(inputs, labels), request.top_k, request.counterfactual
        )
        self.layers = explanation.layers
        return results_of(explanation, sources, labels, request.all_classes)

    def _classes(self, inputs: Tensor, labels: Tensor | None) -> Tensor | Callable[[Tensor], Tensor] | None:
        if labels is not None:
            return lambda logits: torch.stack([logits.argmax(dim=1), labels.to(logits.device)], dim=1)
        if self.request.target is not None:
            return torch.full((len(inputs), 1), self.request.target, device=inputs.device)
        return None

    def _usual_methods(self, one: Tensor) -> tuple[str, ...]:
        """CAM where it is exact and Grad-CAM, for convolutional networks; otherwise the method that `auto` names.

        CAM is left out of counterfactuals, because it has no gradients to negate.
        """
        counterfactual = self.request.counterfactual
        named = self._explainer.method_for(one, counterfactual)
        return ("cam", "grad_cam") if named == "cam" else (named,)
