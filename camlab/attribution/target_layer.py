"""Find the layers at which maps are computed: those that the user names, or the defaults of a network."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from camlab.attribution.network_input import output_of
from camlab.errors import UserError, did_you_mean

Layer = str | nn.Module

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish)


def layer_names(modules: Mapping[str, nn.Module], layers: Layer | Sequence[Layer]) -> tuple[str, ...]:
    """Return the names of one or several layers, which are given by name or as modules.

    Args:
        modules: The network's modules by name.
        layers: One layer or a sequence of layers.

    Raises:
        UserError: A layer is not part of the network.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> layer_names(dict(network.named_children()), [network[1], "0"])
        ('1', '0')
    """
    each = layers if isinstance(layers, (list, tuple)) else (layers,)
    return tuple(_name_of(layer, modules) for layer in each)


def _name_of(layer: Layer, modules: Mapping[str, nn.Module]) -> str:
    parts = ", ".join(name for name in modules if "." not in name)
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name
        raise UserError(
            f"layer: this {type(layer).__name__} is not one of the network's modules. Give a module of this network,"
            f" or a name: {parts}, or a layer inside them."
        )
    if layer not in modules:
        raise UserError(
            f"layer={layer}: no such layer. {did_you_mean(layer, modules, most=3)}Choose from {parts}, or a layer"
            " inside them."
        )
    return layer


def find_layers(model: nn.Module, image: Tensor) -> tuple[str, str]:
    """Find the default layers of a network for images of one size, by running one image through it.

    Args:
        model: A network in eval mode.
        image: 1×C×H×W.

    Returns:
        The name of the layer for gradient methods, then the name of the layer for CAM. The layer for CAM is the last
        one that is used once and has an output larger than 1×1. The layer for gradient methods is the activation after
        the last convolution if it is used once and no pooling comes before it; otherwise it is the layer for CAM.

    Raises:
        UserError: No layer has a spatial output.
    """
    calls = _spatial_calls(model, image)
    names = [name for name, _, _ in calls]
    once = [name for name in names if names.count(name) == 1]
    if not once:
        raise UserError("The network has no layer with a spatial output (larger than 1×1) that is used once.")
    last = once[-1]
    convolutions = [i for i, (_, module, _) in enumerate(calls) if isinstance(module, nn.Conv2d)]
    if not convolutions:
        return last, last
    shape = calls[convolutions[-1]][2]
    for name, module, size in calls[convolutions[-1] + 1 :]:
        if size != shape:
            break
        if isinstance(module, _ACTIVATIONS) and names.count(name) == 1:
            return name, last
    return last, last


def _spatial_calls(model: nn.Module, image: Tensor) -> list[tuple[str, nn.Module, torch.Size]]:
    """Calls of modules whose output is larger than 1×1, in order: name, module, shape of the output."""
    calls: list[tuple[str, nn.Module, torch.Size]] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
                calls.append((name, module, output.shape))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in model.named_modules() if name]
    try:
        output_of(model, image)
    finally:
        for handle in handles:
            handle.remove()
    return calls
