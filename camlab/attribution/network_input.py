"""The input of a network: what cannot be explained is refused in one line, before and while the network reads it."""

import torch
from torch import Tensor, nn

from camlab.errors import UserError, first_line


def check_images(images: object) -> None:
    """Refuse what is no batch of images.

    Raises:
        UserError: Names what was given and what is needed.

    Example:
        >>> check_images(torch.zeros(3, 32, 32))
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: images: float32 3×32×32 was given; N×C×H×W is needed. For one image, images[None].
    """
    if not isinstance(images, Tensor):
        raise UserError(f"images: {type(images).__name__} was given; a tensor N×C×H×W is needed.")
    if images.dim() != 4 or images.shape[1:].numel() == 0:
        way_out = " For one image, images[None]." if images.dim() == 3 else ""
        raise UserError(f"images: {described(images)} was given; N×C×H×W is needed.{way_out}")


def check_values(images: Tensor) -> None:
    """Refuse images with values that are not finite.

    Raises:
        UserError: Tells how many images have such values.
    """
    if not torch.isfinite(images).all():
        raise UserError(f"images: {_which_are_not_finite(images)} NaN or infinite values; finite ones are needed.")


def output_of(model: nn.Module, images: Tensor) -> object:
    """The output of a network for a batch of images.

    Raises:
        UserError: The network refuses the images; the message names them and what torch says.
    """
    try:
        return model(images)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        if isinstance(error, UserError):
            raise
        one = described(images[0]).replace(" ", " images of ")
        raise UserError(f"images: the network cannot take {one}: {first_line(error)}") from error


def check_logits(logits: Tensor) -> None:
    """Refuse an output that is not finite, which has no evidence for any class.

    Raises:
        UserError: Tells for how many images the logits are NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise UserError(
            f"The network's output: {_which_are_not_finite(logits)} NaN or infinite logits, so that no map means"
            " anything. Check the weights, the range of the images and the precision."
        )


def check_maps(signed: Tensor, what: str) -> None:
    """Refuse maps that are not finite, as those of infinite gradients.

    Args:
        signed: Maps, N×….
        what: The method and the layer, for the message.

    Raises:
        UserError: Tells for how many images the map is NaN or infinite.
    """
    if not torch.isfinite(signed).all():
        bad = _which_are_not_finite(signed).replace(" ha", " images ha")
        raise UserError(f"{what}: {bad} NaN or infinite values in their map. Choose another layer or precision.")


def described(images: Tensor) -> str:
    """The number format and the shape of a tensor in words.

    Example:
        >>> described(torch.zeros(2, 3, 32, 32))
        'float32 2×3×32×32'
    """
    return f"{str(images.dtype).removeprefix('torch.')} {'×'.join(map(str, images.shape)) or 'scalar'}"


def _which_are_not_finite(batch: Tensor) -> str:
    bad = int((~torch.isfinite(batch)).flatten(1).any(dim=1).sum())
    return f"{bad} of {len(batch)} {'has' if bad == 1 else 'have'}"
