"""Which layer a heatmap is drawn at, where none is given."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from camlab.errors import UserError

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish)


def find_layers(model: nn.Module, image: Tensor) -> tuple[str, str]:
    """Names of the default target layer, and of the last layer with an output larger than 1×1, by a recording pass.

    Args:
        model: in eval mode.
        image: 1×C×H×W.

    Returns:
        (the activation after the last convolution if there is one, used once and before any pooling, else the last
        layer; the last layer).

    Raises:
        UserError: no layer has a spatial output.
    """
    calls: list[tuple[str, nn.Module, torch.Size]] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
                calls.append((name, module, output.shape))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in model.named_modules() if name]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _, _ in calls]
    once = [call for call in calls if names.count(call[0]) == 1]
    if not once:
        raise UserError("The network has no layer with a spatial output (larger than 1×1) that is used once.")
    last = once[-1][0]
    convolutions = [i for i, (_, module, _) in enumerate(calls) if isinstance(module, nn.Conv2d)]
    if not convolutions:
        return last, last
    after = calls[convolutions[-1] + 1 :]
    shape = calls[convolutions[-1]][2]
    for name, module, size in after:
        if size != shape:
            break
        if isinstance(module, _ACTIVATIONS) and names.count(name) == 1:
            return name, last
    return last, last
