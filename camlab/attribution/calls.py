"""Record which modules of a network are called in a pass, in which order, and which outputs are known to be N×K×H×W."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from camlab.attribution.hooks import first_tensor
from camlab.attribution.network_input import output_of

# Modules whose input and output are N×K×H×W.
_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.LPPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Upsample,
    nn.Dropout2d,
    nn.LocalResponseNorm,
)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish)
_ELEMENTWISE = (*ACTIVATIONS, nn.Identity, nn.Dropout, nn.Sigmoid, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus)


@dataclass(frozen=True)
class Call:
    """A call of a module.

    Attributes:
        name: Name of the module in the network.
        module: The module.
        shape: Shape of its output or, if the output is a tuple, of the first tensor in it.
        is_nchw: Whether the output is known to be N×K×H×W.
        is_repeat: Whether the output is the tensor that an earlier module gave, as that of a container is its last
            child's, and that of a dropout in eval mode its input.
    """

    name: str
    module: nn.Module
    shape: torch.Size
    is_nchw: bool
    is_repeat: bool = False

    @property
    def is_vector(self) -> bool:
        """Whether the output of one image has no space left: K, K×1×1, or a single token."""
        if self.shape[0] != 1:  # pieces of the picture in the batch, or an axis of tokens before that of the batch
            return False
        return len(self.shape) <= 2 or prod(self.shape[2:]) == 1 or (len(self.shape) == 3 and self.shape[1] == 1)


@contextmanager
def hooked(model: nn.Module, record: Callable[[str, nn.Module, Sequence[object], Tensor], None]) -> Iterator[None]:
    """Call a function after each call of each module that gives a tensor."""

    def hook_of(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if (tensor := first_tensor(output)) is not None and tensor.dim() > 0:
                record(name, module, inputs, tensor)

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record_calls(model: nn.Module, image: Tensor) -> list[Call]:
    """Return the calls in order. Tensors are followed by identity, to know which of them are N×K×H×W."""
    seen: list[tuple[str, nn.Module, Tensor, bool]] = []
    given_before: set[tuple[int, int]] = set()  # an operation in place changes the version of a tensor
    nchw_ids: set[int] = set()
    same: list[tuple[int, int]] = []  # input and output of elementwise modules
    alive: list[object] = []  # so that no two tensors of the pass have the same id

    def record(name: str, module: nn.Module, inputs: Sequence[object], output: Tensor) -> None:
        alive.extend(inputs)
        state = (id(output), output._version)
        seen.append((name, module, output, state in given_before))
        given_before.add(state)
        given = [tensor for tensor in inputs if isinstance(tensor, Tensor)]
        if isinstance(module, _CHANNELS_FIRST):
            nchw_ids.update(id(tensor) for tensor in (output, *given) if tensor.dim() == 4)
        elif isinstance(module, _ELEMENTWISE):
            same.extend((id(tensor), id(output)) for tensor in given if tensor.shape == output.shape)

    with hooked(model, record):
        output_of(model, image)
    for one, other in (*same, *reversed(same)):
        if one in nchw_ids or other in nchw_ids:
            nchw_ids.update((one, other))
    return [Call(name, module, output.shape, id(output) in nchw_ids, again) for name, module, output, again in seen]
