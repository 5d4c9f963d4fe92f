"""Find the network in any LightningModule."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from camlab.attribution.classifier import Classifier, Output
from camlab.attribution.hooks import passing, unwrapped
from camlab.errors import UserError, did_you_mean, first_line


def find_network(
    module: L.LightningModule, image: Tensor, name: str | None = None, output: Output | None = None
) -> nn.Module:
    """Find the module that maps images to logits.

    It is the module itself if its `forward` does so, else its only part with weights. If that part gives the same
    logits as the whole, it is preferred, and so on inwards: names of layers are then those of the network itself.

    Args:
        module: Any LightningModule.
        image: One image, 1×C×H×W, on the module's device.
        name: Name of the network in the module, for instance `model` or `student.net`, if it is known.
        output: Which part of an odd output is the logits.

    Raises:
        UserError: There is no network, or no part of this name; the message names the parts.
    """
    if name is not None:
        named = _named(module, name)
        logits(named, image, output)
        return named
    has_forward = type(module).forward is not L.LightningModule.forward
    network: nn.Module | None = module if has_forward else _only_part(module)
    if network is None:
        raise UserError(f"{type(module).__name__} has no forward. {_ways_out(module)}")
    try:
        whole = logits(network, image, output)
    except UserError as error:
        advice = "Give images like those of its batches, or" if str(error).startswith("images:") else "Give"
        raise UserError(f"{first_line(error).rstrip('.')}. {_ways_out(module, advice)}") from error
    while (part := _only_part(network)) is not None and _gives(part, image, whole, output):
        network = part
    return network


def logits(network: nn.Module, image: Tensor, output: Output | None = None) -> Tensor:
    """Run a network in eval mode and return its logits, N×M.

    Raises:
        UserError: The network cannot take the image or gives no logits.
    """
    with passing(network, image.device), torch.no_grad():
        return Classifier(network, output).logits(image.clone())


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Restore the states of random number generators, and buffers that passes in eval mode have changed or replaced."""
    before = [
        (part, name, buffer, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    with isolate_rng():
        try:
            yield
        finally:
            with torch.no_grad():
                for part, name, buffer, value in before:
                    part._buffers[name] = buffer  # a forward pass may have assigned another tensor
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)


def _named(module: nn.Module, name: str) -> nn.Module:
    parts = dict(module.named_modules(remove_duplicate=False))
    if not name or name not in parts:
        raise UserError(
            f"model={name}: {type(module).__name__} has no such part. {did_you_mean(name, parts)}{_ways_out(module)}"
        )
    return unwrapped(parts[name])


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """The direct parts that have weights (losses and metrics have none), and those in a ModuleDict or ModuleList."""
    parts: dict[str, nn.Module] = {}
    for name, part in module.named_children():
        if isinstance(part, (nn.ModuleDict, nn.ModuleList)):  # it has no forward
            parts |= {f"{name}.{inner}": own for inner, own in _parts(part).items()}
        elif next(part.parameters(), None) is not None:
            parts[name] = part
    return parts


def _only_part(module: nn.Module) -> nn.Module | None:
    parts = list(_parts(module).values())
    own = next(module.parameters(recurse=False), None)
    return unwrapped(parts[0]) if len(parts) == 1 and own is None else None


def _gives(part: nn.Module, image: Tensor, wanted: Tensor, output: Output | None) -> bool:
    try:
        return torch.equal(logits(part, image, output), wanted)
    except Exception:  # a part may need other arguments than the whole
        return False


def _ways_out(module: nn.Module, advice: str = "Give") -> str:
    names = ", ".join(_parts(module))
    where = f": {names}, or one inside them" if names else ""
    return f"{advice} model=NAME, the part that maps images to logits{where}."


def inputs_for(module: L.LightningModule, images: Tensor) -> Tensor:
    """The network's input, on the module's device and in its precision (16 bits under `precision=bf16-true`)."""
    if not images.is_floating_point():
        return images.to(module.device)
    weight = next(module.parameters(), images)
    return images.to(module.device, weight.dtype if weight.is_floating_point() else images.dtype)
