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

from camlab.attribution.classifier import Classifier
from camlab.attribution.hooks import cut, passing, reading
from camlab.attribution.layouts import Layout
from camlab.attribution.network_input import check_logits
from camlab.errors import UserError
from camlab.maps import finer_scores

SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class": lambda logits, class_idx: logits.gather(1, class_idx[:, None])[:, 0],
    "finer": finer_scores,
}


@dataclass(frozen=True)
class ForwardPass:
    """Detached results of one pass through the network.

    Attributes:
        images: The network's input, N×C×H×W; never an inference tensor.
        logits: The network's output, N×M.
        class_idx: The classes to explain, N×R.
        activations: Output of each target layer, N×K×H×W.
        gradients: By score (`SCORES`) and layer, the gradient of each class's score with respect to the activations,
            R×N×K×H×W.
        classifier_inputs: Inputs of the network's last linear layer, one for each call.
    """

    images: Tensor
    logits: Tensor
    class_idx: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, dict[str, Tensor]]
    classifier_inputs: list[Tensor]


def record_pass(
    classifier: Classifier,
    images: Tensor,
    modules: Mapping[str, nn.Module],
    linear: nn.Linear | None,
    layouts: Mapping[str, Layout],
    choose: Callable[[Tensor], Tensor],
    scores: Sequence[str],
    whole_graph: bool = False,
) -> ForwardPass:
    """Run a network once and keep the outputs of layers, with gradients if they are wanted.

    Args:
        classifier: The network.
        images: Its input, N×C×H×W.
        modules: The network's modules by name.
        linear: Its last linear layer.
        layouts: Layouts of the target layers by name; each of them is called once.
        choose: Function that chooses the classes to explain from the logits, N×M → N×R.
        scores: Names of the scores to differentiate; none if no gradients are wanted.
        whole_graph: Enable gradients before the first target layer, too.

    Raises:
        UserError: A layer gets no gradient; the classes do not fit the images or the network; the network cannot take
            the images, or its output is not finite.
    """
    grad_mode = torch.enable_grad() if whole_graph else torch.no_grad()
    with passing(classifier.network, images.device), grad_mode:
        inputs = images.clone() if images.is_inference() else images
        with cut(modules, layouts, bool(scores)) as kept, reading(linear) as classifier_inputs:
            logits = classifier.logits(inputs)
        if scores and layouts and not logits.requires_grad and not whole_graph:
            # A network that runs its backbone in `no_grad` restores the grad mode of this pass when it leaves that
            # block. This undoes what the hook has set, so the pass is repeated with gradients enabled throughout.
            return record_pass(classifier, images, modules, linear, layouts, choose, scores, whole_graph=True)
        check_logits(logits)
        class_idx = choose(logits)
        with torch.enable_grad():
            totals = [[SCORES[name](logits, c).sum() for c in class_idx.unbind(1)] for name in scores]
        gradients = _gradients(dict(zip(scores, totals, strict=True)), kept)
    return ForwardPass(
        inputs.detach(),
        logits.detach(),
        class_idx,
        {name: layouts[name].to_map(output.detach()) for name, output in kept.items()},
        {score: _as_maps(found, layouts) for score, found in gradients.items()},
        classifier_inputs,
    )


def _as_maps(gradients: Mapping[str, Sequence[Tensor]], layouts: Mapping[str, Layout]) -> dict[str, Tensor]:
    """Gradients of the R classes by layer, R×N×K×h×w."""
    return {layer: torch.stack([layouts[layer].to_map(part) for part in parts]) for layer, parts in gradients.items()}


def _gradients(
    totals: Mapping[str, Sequence[Tensor]], kept: Mapping[str, Tensor]
) -> dict[str, dict[str, list[Tensor]]]:
    """Gradients of each class's score with respect to the kept outputs, by score and layer.

    Scores were summed over the images, because images do not depend on each other in eval mode.
    """
    found: dict[str, dict[str, list[Tensor]]] = {name: {layer: [] for layer in kept} for name in totals}
    left = sum(len(scores) for scores in totals.values())
    for name, scores in totals.items():
        for score in scores:
            left -= 1
            parts: Sequence[Tensor | None] = [None] * len(kept)
            if score.requires_grad:
                parts = torch.autograd.grad(score, list(kept.values()), retain_graph=left > 0, allow_unused=True)
            for layer, part in zip(kept, parts, strict=True):
                if part is None:
                    raise UserError(
                        f"layer={layer}: no gradient reaches it; the network cuts the graph (detach, no_grad)."
                    )
                found[name][layer].append(part)
    return found
