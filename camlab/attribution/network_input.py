"""Checks of what a network is given and returns: images, logits and maps that make no sense are refused in one line."""

import torch
from torch import Tensor, nn

from camlab.errors import UserError, first_line


def check_model(model: object) -> None:
    """Refuse anything that is not a network whose layers can be read.

    Raises:
        UserError: It is no module, or it was compiled to TorchScript as a whole.

    Example:
        >>> check_model("resnet50")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: model: got str, but a torch.nn.Module is needed.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError(
            "model: a TorchScript network does not show its layers, so no map can be computed. Give the Python network"
            " that it was made from."
        )
    if not isinstance(model, nn.Module):
        raise UserError(f"model: got {_kind(model)}, but a torch.nn.Module is needed.")


def check_layers(layer: object) -> None:
    """Refuse anything that is not a layer, a sequence of layers or None; whether the network has them is not checked.

    Raises:
        UserError: The message names what was given.

    Example:
        >>> check_layers(["features.28", nn.ReLU()])
        >>> check_layers(5)
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: layer: got int, but a name or a module of the network is needed, or a list of them.
    """
    each = layer if isinstance(layer, (list, tuple)) and layer else (layer,)
    wrong = [one for one in each if not isinstance(one, (str, nn.Module))]
    if wrong and layer is not None:
        raise UserError(
            f"layer: got {_kind(wrong[0])}, but a name or a module of the network is needed, or a list of them."
        )


def check_images(images: object) -> None:
    """Refuse anything that is not a batch of images with values.

    Raises:
        UserError: The message names what was given and what is needed.

    Example:
        >>> check_images(torch.zeros(3, 32, 32))
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: images: got float32 3×32×32, but N×C×H×W is needed. For one image, give images[None].
    """
    if not isinstance(images, Tensor):
        raise UserError(f"images: got {_kind(images)}, but a tensor N×C×H×W is needed.")
    if images.is_nested or images.layout != torch.strided or images.is_quantized or images.is_meta:
        kind = "a tensor on the meta device" if images.is_meta else "a sparse, nested or quantised tensor"
        raise UserError(f"images: got {kind}, but an ordinary dense tensor N×C×H×W with values is needed.")
    if images.dim() != 4 or images.shape[1:].numel() == 0:
        way_out = " For one image, give images[None]." if images.dim() == 3 else ""
        raise UserError(f"images: got {described(images)}, but N×C×H×W is needed.{way_out}")


def check_values(values: Tensor, what: str = "images") -> None:
    """Refuse images, or other values of images, that are not finite.

    Args:
        values: Values of N images, N×….
        what: Name of the argument, for the message.

    Raises:
        UserError: The message says how many images have such values.
    """
    if not torch.isfinite(values).all():
        raise UserError(f"{what}: {_which_are_not_finite(values)} NaN or infinite values, but all must be finite.")


def output_of(model: nn.Module, images: Tensor) -> object:
    """Return the output of a network for a batch of images.

    Raises:
        UserError: The network cannot take the images; the message describes them and quotes torch's error.
    """
    try:
        return model(images)
    except torch.OutOfMemoryError:
        raise
    except UserError:
        raise
    except Exception as error:  # whatever the network raises
        one = f"{_number_format(images)} images of {_size(images[0])}"
        raise UserError(f"images: the network cannot take {one}: {first_line(error)}") from error


def check_logits(logits: Tensor) -> None:
    """Refuse logits that are not finite, because maps computed from them would be meaningless.

    Raises:
        UserError: The message says for how many images the logits are NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise UserError(
            f"The network's output: {_which_are_not_finite(logits)} NaN or infinite logits, so their maps would"
            " be meaningless. Check the weights, the range of the images and the precision."
        )


def check_maps(signed: Tensor, what: str) -> None:
    """Refuse maps that are not finite, for example because a gradient is infinite.

    Args:
        signed: Maps, N×….
        what: The method and the layer, for the message.

    Raises:
        UserError: The message says for how many images the map has NaN or infinite values.
    """
    if not torch.isfinite(signed).all():
        bad = _which_are_not_finite(signed, "images ")
        raise UserError(f"{what}: {bad} NaN or infinite values in the map. Choose another layer or precision.")


def network_dtype(network: nn.Module) -> torch.dtype:
    """Number format of a network's weights; float32 if it has none.

    Example:
        >>> network_dtype(nn.Linear(1, 1).half())
        torch.float16
    """
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def described(images: Tensor) -> str:
    """Describe a tensor by its number format and its shape.

    Example:
        >>> described(torch.zeros(2, 3, 32, 32))
        'float32 2×3×32×32'
    """
    return f"{_number_format(images)} {_size(images)}"


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _number_format(images: Tensor) -> str:
    return str(images.dtype).removeprefix("torch.")


def _size(images: Tensor) -> str:
    return "×".join(map(str, images.shape)) or "scalar"


def _which_are_not_finite(batch: Tensor, noun: str = "") -> str:
    bad = int((~torch.isfinite(batch)).flatten(1).any(dim=1).sum())
    return f"{bad} of {len(batch)} {noun}{'has' if bad == 1 else 'have'}"
