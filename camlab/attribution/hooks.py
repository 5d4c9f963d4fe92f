"""Temporary changes to a network while a pass runs (hooks, eval mode, grad mode); all are undone afterwards."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from camlab.errors import UserError
from camlab.maps import gradient_safe
from camlab.models.evaluating import evaluating

_GUARD = threading.Lock()
_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of torch.compile and of (Distributed)DataParallel."""
    inner = getattr(model, "_orig_mod", None)
    if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else unwrapped(inner)


@contextmanager
def passing(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Set up a pass through a network: eval mode, no inference mode, no compiled graphs, a gradient-safe autocast.

    Other threads that explain the same network wait. Random numbers that it draws do not change the generators' states.
    Gradient checkpointing as in timm is off, since it runs parts of the network again when hooks are gone.

    Raises:
        UserError: The network calls torch.utils.checkpoint itself, and a gradient goes through such a part.
    """
    with (
        _alone(model),
        _generators(device),
        gradient_safe(device),
        _eager(),
        evaluating(model),
        _without_checkpointing(model),
    ):
        try:
            yield
        except RuntimeError as error:
            if "torch.utils.checkpoint" not in str(error):
                raise
            raise UserError(
                "The network computes parts of itself again in the backward pass (torch.utils.checkpoint), where hooks"
                " are gone. Switch its gradient checkpointing off for heatmaps."
            ) from error


@contextmanager
def _generators(device: torch.device) -> Iterator[None]:
    """Restore the states of the random number generators of the CPU and of a GPU."""
    state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            if state is not None:
                torch.mps.set_rng_state(state)


@contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """Let one thread at a time change a network."""
    with _GUARD:
        lock = _LOCKS.setdefault(model, threading.RLock())
    with lock:
        yield


@contextmanager
def _without_checkpointing(model: nn.Module) -> Iterator[None]:
    flagged = [module for module in model.modules() if getattr(module, "grad_checkpointing", False) is True]
    try:
        for module in flagged:
            module.__dict__["grad_checkpointing"] = False
        yield
    finally:
        for module in flagged:
            module.__dict__["grad_checkpointing"] = True


class _Eager:
    """Runs compiled modules as they were written, because the graphs of `torch.compile` have no hooks.

    The stance holds for all threads: the first that enters sets it, and the last that leaves restores it.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._stance = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with _GUARD:
            if self._inside == 0 and "torch._dynamo" in sys.modules:  # otherwise nothing has been compiled
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._inside += 1
        try:
            yield
        finally:
            with _GUARD:
                self._inside -= 1
                if self._inside == 0:
                    self._stance.close()


_eager = _Eager()


@contextmanager
def cut(modules: Mapping[str, nn.Module], layers: Iterable[str], differentiate: bool) -> Iterator[dict[str, Tensor]]:
    """Keep the outputs of layers while a forward pass runs.

    Args:
        modules: The network's modules by name.
        layers: Names of the layers, which are called once each. Of an output that is a tuple, the first tensor is kept.
        differentiate: Replace the output of the first layer with a leaf tensor and record a graph from there on.

    Yields:
        Outputs by layer, in the layer's own layout, filled as the pass proceeds.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., object]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], given: object) -> object:
            output = first_tensor(given)
            assert output is not None, name
            if differentiate:
                if not kept or not output.requires_grad:  # the first layer, or one in a frozen branch parallel to it
                    output = output.detach().clone().requires_grad_()
                torch.set_grad_enabled(True)  # for the rest of the pass; the caller's `no_grad` restores the mode
            kept[name] = output
            return with_first(given, output.clone())  # an in-place ReLU after the layer changes the clone only

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the output of a module while a forward pass runs; of a tuple, the first tensor."""

    def hook(_: nn.Module, inputs: tuple[object, ...], given: object) -> object:
        output = first_tensor(given)
        return given if output is None else with_first(given, replace(output))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def first_tensor(output: object) -> Tensor | None:
    """Return the output of a module if it is a tensor, or the first element if it is a tuple or list of tensors."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_first(output: Any, tensor: Tensor) -> object:
    """Return the output of a module with another tensor, or with another first element if it is a tuple or list."""
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: tensor})
    return type(output)((tensor, *output[1:])) if isinstance(output, (tuple, list)) else tensor


@contextmanager
def reading(classifier: nn.Linear | None, detach: bool = True) -> Iterator[list[Tensor]]:
    """Keep the inputs of a linear layer while a forward pass runs.

    Yields:
        A list with one tensor, detached by default, for each call of the layer, except for calls that pass the input by
        keyword.
    """
    inputs_read: list[Tensor] = []

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs_read.extend(tensor.detach() if detach else tensor for tensor in inputs[:1])

    handle = classifier.register_forward_pre_hook(read) if classifier is not None else None
    try:
        yield inputs_read
    finally:
        if handle is not None:
            handle.remove()
