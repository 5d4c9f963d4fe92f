"""Run a network once and record what the methods need.

The pass runs without a graph up to the target layer. A forward hook replaces that layer's output with a leaf tensor,
and a graph is recorded from there on. Nothing before the layer is differentiated, no parameter gets a gradient, and
weights, train/eval flags, hooks and the states of random number generators stay as they were. The pass works under
`no_grad`, `inference_mode` and autocast, and with frozen parameters, in-place ReLUs, and compiled or DDP-wrapped
modules.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.classes import logits_of
from camlab.attribution.hooks import cut, passing, reading
from camlab.attribution.network_input import check_logits, output_of
from camlab.errors import UserError


@dataclass(frozen=True)
class ForwardPass:
    """Detached results of one pass through the network.

    Attributes:
        images: The network's input, N×C×H×W; never an inference tensor.
        logits: The network's output, N×M.
        class_idx: The classes to explain, N×R.
        activations: Output of each target layer, N×K×H×W.
        gradients: Gradient of each class's score with respect to each layer's activations, R×N×K×H×W.
        classifier_inputs: Inputs of the network's last linear layer, one for each call.
    """

    images: Tensor
    logits: Tensor
    class_idx: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    classifier_inputs: list[Tensor]


def record_pass(
    model: nn.Module,
    images: Tensor,
    modules: Mapping[str, nn.Module],
    layers: Sequence[str],
    choose: Callable[[Tensor], Tensor],
    differentiate: bool,
    whole_graph: bool = False,
) -> ForwardPass:
    """Run a network once and keep the outputs of layers, with gradients if they are wanted.

    Args:
        model: The network.
        images: Its input, N×C×H×W.
        modules: The network's modules by name.
        layers: Names of the target layers.
        choose: Function that chooses the classes to explain from the logits, N×M → N×R.
        differentiate: Compute the gradients of the chosen classes' scores.
        whole_graph: Enable gradients before the first target layer, too.

    Raises:
        UserError: A layer is not used, is used twice, has no spatial output or gets no gradient; the classes do not fit
            the images or the network; the network cannot take the images, or its output is not finite.
    """
    grad_mode = torch.enable_grad() if whole_graph else torch.no_grad()
    with passing(model, images.device), grad_mode:
        inputs = images.clone() if images.is_inference() else images
        with cut(modules, layers, differentiate) as kept, reading(last_linear(model)) as classifier_inputs:
            logits = logits_of(output_of(model, inputs))
        for layer in layers:
            if layer not in kept:
                raise UserError(f"layer={layer}: the network does not use it for these images.")
        if differentiate and not logits.requires_grad and not whole_graph:
            # A network that runs its backbone in `no_grad` restores the grad mode of this pass when it leaves that
            # block. This undoes what the hook has set, so the pass is repeated with gradients enabled throughout.
            return record_pass(model, images, modules, layers, choose, differentiate, whole_graph=True)
        check_logits(logits)
        class_idx = choose(logits)
        gradients = _gradients(logits, class_idx, kept) if differentiate else {}
    activations = {name: tensor.detach() for name, tensor in kept.items()}
    return ForwardPass(inputs.detach(), logits.detach(), class_idx, activations, gradients, classifier_inputs)


def last_linear(model: nn.Module) -> nn.Linear | None:
    """Return the linear layer that was defined last; in a network that supports CAM, no other follows the pooling.

    Example:
        >>> last_linear(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)))
        Linear(in_features=4, out_features=2, bias=True)
    """
    return next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)


def _gradients(logits: Tensor, class_idx: Tensor, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of each class's score, R×N×K×H×W for each layer.

    Scores are summed over the images before they are differentiated, because images do not depend on each other in
    eval mode.
    """
    ranks = []
    with torch.enable_grad():
        scores = logits.gather(1, class_idx).sum(dim=0)
    for rank, score in enumerate(scores):
        more = rank + 1 < len(scores)
        parts: Sequence[Tensor | None] = [None] * len(kept)
        if score.requires_grad:
            parts = torch.autograd.grad(score, list(kept.values()), retain_graph=more, allow_unused=True)
        for name, part in zip(kept, parts, strict=True):
            if part is None:
                raise UserError(f"layer={name}: no gradient reaches it; the network cuts the graph (detach, no_grad).")
        ranks.append(parts)
    return {name: torch.stack(parts) for name, parts in zip(kept, zip(*ranks, strict=True), strict=True)}
