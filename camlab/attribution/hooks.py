"""What is changed in a network while a pass runs, and put back behind it: hooks, wrappers, compiled graphs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from camlab.errors import UserError


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's and (Distributed)DataParallel's wrappers."""
    inner = getattr(model, "_orig_mod", None)
    if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else unwrapped(inner)


@contextmanager
def eager() -> Iterator[None]:
    """Run what `torch.compile` has compiled as it was written: compiled graphs have no hooks."""
    if "torch._dynamo" in sys.modules:  # without it nothing is compiled: neither the network nor a part of it
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def cut(modules: dict[str, nn.Module], layers: Sequence[str], differentiate: bool) -> Iterator[dict[str, Tensor]]:
    """Keep the layers' outputs while a forward pass runs; a graph is recorded from the first of them on."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name in kept:
                raise UserError(f"layer={name}: used more than once in a pass; choose the block that holds it.")
            if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[2:].numel() < 2:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise UserError(f"layer={name}: its output is {shape}; a map needs N×K×H×W, larger than 1×1.")
            if differentiate:
                if not kept or not output.requires_grad:  # the first, or one beside it with frozen parameters
                    output = output.detach().clone().requires_grad_()
                torch.set_grad_enabled(True)  # for the rest of the pass; the caller's no_grad puts it back
            kept[name] = output
            return output.clone()  # an in-place ReLU behind the layer changes this one

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def reading(classifier: nn.Linear | None, pooled: list[Tensor]) -> Iterator[None]:
    """Keep what the classifier reads."""

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pooled.extend(tensor.detach() for tensor in inputs[:1])  # none if it is given by name

    handle = classifier.register_forward_pre_hook(read) if classifier is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
