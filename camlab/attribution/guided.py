"""Guided backpropagation: gradients with respect to the picture in which ReLUs pass only positive gradients."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from camlab.attribution.classifier import Classifier
from camlab.errors import UserError

_RELU = {F.relu, torch.relu, Tensor.relu}
# Operations, as autograd names them, that are other activations, or ReLUs that were not replaced.
_OTHERS = {
    "Relu", "Gelu", "Silu", "Elu", "Selu", "Celu", "Mish", "LeakyRelu", "Hardswish", "Hardtanh", "Softplus",
    "LogSigmoid", "Clamp", "ClampMin", "ClampMax", "Maximum", "Minimum", "Threshold", "PreluKernel",
    "RreluWithNoise", "Tanh", "Glu", "Hardshrink", "Softshrink", "Softsign", "Where", "Abs", "Sin", "Cos",
}  # fmt: skip


class _GuidedReLU(torch.autograd.Function):
    """A ReLU whose backward pass lets through positive gradients only."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return gradients[0].relu() * (inputs > 0)


class _GuidedReLUs(TorchFunctionMode):
    """Replaces the ReLUs that are called within the context; modules and hooks are not touched.

    Attributes:
        count: Number of ReLUs that were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _RELU:
            self.count += 1
            return _GuidedReLU.apply(args[0] if args else (kwargs or {})["input"])
        return func(*args, **(kwargs or {}))


def _other_activation(output: Tensor) -> str | None:
    """Return the name of an activation between the picture and a tensor that is not a guided ReLU, if there is one.

    The graph shows it however it was called: as a module, a function, an operator, or written as x · sigmoid(x).
    """
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name().partition("Backward")[0]
        if name in _OTHERS:
            return "ReLUs that cannot be replaced" if name == "Relu" else name.lower()
        if name == "Mul" and _gates_itself(node):
            return "x · sigmoid(x)"
        if name == "Mul" and _is_masked(node):
            return "x · (x > 0), or another product with a bool mask"
        waiting += [before for before, _ in node.next_functions]
    return None


def _is_masked(product: Any) -> bool:
    """Whether a node of the graph is a product with a bool tensor."""
    factors = (getattr(product, "_saved_self", None), getattr(product, "_saved_other", None))
    return any(isinstance(factor, Tensor) and factor.dtype == torch.bool for factor in factors)


def _gates_itself(product: Any) -> bool:
    """Whether a node of the graph is x · sigmoid(x) or x · sigmoid(c x); a gate that is computed from x is another."""
    factors = [factor for factor, _ in product.next_functions]
    for gate in factors:
        if gate is not None and gate.name().startswith("Sigmoid"):
            inner = gate.next_functions[0][0]
            scaled = [before for before, _ in inner.next_functions] if inner and inner.name().startswith("Mul") else []
            if any(factor is not None and factor in (inner, *scaled) for factor in factors if factor is not gate):
                return True
    return False


def guided_gradients(classifier: Classifier, images: Tensor, class_idx: Tensor, sign: int, expected: Tensor) -> Tensor:
    """Guided gradients of class scores with respect to the images (Springenberg et al. 2015), R×N×C×H×W.

    Args:
        classifier: The network, in a context for passes (`camlab.attribution.hooks.passing`).
        images: Its input, N×C×H×W.
        class_idx: The classes, N×R.
        sign: -1 to differentiate the negative scores, 1 otherwise.
        expected: The network's logits for the images.

    Raises:
        UserError: The network has no ReLUs or other activations, relies on ReLUs that work in place, or cuts the graph.
    """
    if not images.is_floating_point():
        raise UserError("guided_grad_cam: images of whole numbers have no gradient. Choose another method.")
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        with _GuidedReLUs() as relus:
            logits = classifier.logits(leaf)
        if (other := _other_activation(logits)) is not None:
            raise UserError(
                f"guided_grad_cam: guided backpropagation is defined for ReLUs, but the network uses {other}."
                " Choose another method."
            )
        if not relus.count or not torch.allclose(logits, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
            raise UserError(
                "guided_grad_cam: guided backpropagation is defined for ReLUs that can be replaced, and the network has"
                " none or depends on their working in place. Choose another method."
            )
        scores = sign * logits.gather(1, class_idx).sum(dim=0)
        if not scores.requires_grad:
            raise UserError(
                "guided_grad_cam: no gradient reaches the picture (detach, no_grad). Choose another method."
            )
        return torch.stack([torch.autograd.grad(score, leaf, retain_graph=True)[0] for score in scores])
