"""Temporary changes to a network while a pass runs (hooks, eval mode, grad mode); all are undone afterwards."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from camlab.errors import UserError
from camlab.maps import gradient_safe
from camlab.models.evaluating import evaluating


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of torch.compile and of (Distributed)DataParallel."""
    inner = getattr(model, "_orig_mod", None)
    if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else unwrapped(inner)


@contextmanager
def passing(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Set up a pass through a network: eval mode, no inference mode, no compiled graphs, a gradient-safe autocast."""
    with gradient_safe(device), _eager(), evaluating(model):
        yield


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled modules as they were written, because the graphs of `torch.compile` have no hooks."""
    if "torch._dynamo" in sys.modules:  # otherwise nothing has been compiled, and importing it takes time
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def cut(modules: Mapping[str, nn.Module], layers: Sequence[str], differentiate: bool) -> Iterator[dict[str, Tensor]]:
    """Keep the outputs of layers while a forward pass runs.

    Args:
        modules: The network's modules by name.
        layers: Names of the layers.
        differentiate: Replace the output of the first layer with a leaf tensor and record a graph from there on.

    Yields:
        Outputs by layer, N×K×H×W, filled as the pass proceeds.

    Raises:
        UserError: A layer is used twice or its output is not a map.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name in kept:
                raise UserError(f"layer={name}: used more than once in a pass; choose the block that contains it.")
            if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[2:].numel() < 2:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise UserError(
                    f"layer={name}: its output is {shape}; a map needs N×K×H×W, larger than 1×1."
                    " Give larger images or, for methods other than cam, an earlier layer."
                )
            if differentiate:
                if not kept or not output.requires_grad:  # the first layer, or one in a frozen branch parallel to it
                    output = output.detach().clone().requires_grad_()
                torch.set_grad_enabled(True)  # for the rest of the pass; the caller's `no_grad` restores the mode
            kept[name] = output
            return output.clone()  # an in-place ReLU after the layer changes the clone only

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def reading(classifier: nn.Linear | None) -> Iterator[list[Tensor]]:
    """Keep the inputs of a linear layer while a forward pass runs.

    Yields:
        A list with one detached tensor for each call of the layer, except for calls that pass the input by keyword.
    """
    inputs_read: list[Tensor] = []

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs_read.extend(tensor.detach() for tensor in inputs[:1])

    handle = classifier.register_forward_pre_hook(read) if classifier is not None else None
    try:
        yield inputs_read
    finally:
        if handle is not None:
            handle.remove()
