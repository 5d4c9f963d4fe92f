"""Change colours of a batch, with separate parameters for each image. Images are float in [0, 1], N×3×H×W."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from camlab.data.augment_numbers import COLOURS, MAGNITUDES, OPERATIONS
from camlab.data.augment_steps import Steps
from camlab.errors import UserError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def check_kornia(steps: Steps) -> None:
    """Refuse steps that kornia applies, if it is not installed.

    Raises:
        UserError: It is not installed.
    """
    needing = ["randaugment"] if "randaugment" in steps else []
    needing += ["color.hue"] if "color" in steps and steps["color"]["hue"] > 0 else []
    if not needing:
        return
    try:
        import kornia.enhance  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"data.augment: {' and '.join(needing)} need kornia. Run: pip install camlab[augment]; or choose other"
            " steps, such as data.augment=standard."
        ) from error


def adjust(images: Tensor, factors_N3: Tensor) -> Tensor:
    """Change brightness, contrast and saturation, in this order, as torchvision does, but clamp only once.

    Args:
        images: Float in [0, 1], N×3×H×W.
        factors_N3: Factor of each; 1 changes nothing.

    Example:
        >>> adjust(torch.full((1, 3, 1, 1), 0.5), torch.tensor([[0.5, 1.0, 1.0]])).flatten().tolist()
        [0.25, 0.25, 0.25]
    """
    bright, contrast, saturation = (factor[:, None, None] for factor in factors_N3.T)
    red, green, blue = images.unbind(1)
    grey = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    # A sum of whole numbers does not depend on the order of the summands, and so not on the batch.
    total = (255 * grey).round().to(torch.int32).flatten(1).sum(dim=1)
    mean = bright * (total / (255 * grey[0].numel())).float()[:, None, None]
    shift = (1 - saturation) * bright * contrast * grey + (1 - contrast) * mean
    return (images * (saturation * bright * contrast)[:, None] + shift[:, None]).clamp_(0, 1)


def turn_hue(images: Tensor, radians_N: Tensor) -> Tensor:
    """Turn the hue of each image by its own angle, by kornia."""
    from kornia.enhance import adjust_hue

    changed: Tensor = adjust_hue(images, radians_N)
    return changed


def apply_operations(images: Tensor, operations: Tensor, signs: Tensor, magnitude: float) -> Tensor:
    """Apply the operations of RandAugment that change colours: to each image its own, one after the other.

    Args:
        images: Float in [0, 1], N×3×H×W.
        operations: Indices into `OPERATIONS`, N×number.
        signs: -1 or 1, N×number, for operations that can go both ways.
        magnitude: 0 to 30.

    Returns:
        The images, of which those that are changed replace the given ones in place.
    """
    on_cpu = operations.cpu()  # one wait for the device, and not one for each operation
    for turn in range(operations.shape[1]):
        for name in COLOURS:
            rows = (on_cpu[:, turn] == OPERATIONS.index(name)).nonzero().flatten().to(images.device)
            if len(rows):
                change = _change(name, magnitude / MAGNITUDES)
                images[rows] = change(images[rows], signs[rows, turn])
    return images


def _change(name: str, strength: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of images and signs that changes colours with a strength from 0 to 1."""
    from kornia import enhance

    if name in ("brightness", "contrast", "saturation"):
        column = ("brightness", "contrast", "saturation").index(name)
        return lambda images, signs: adjust(images, _one_factor(1 + 0.9 * strength * signs, column))
    if name == "sharpness":
        return lambda images, signs: enhance.sharpness(images, (1 + 0.9 * strength * signs).float())
    if name == "posterize":
        return lambda images, signs: enhance.posterize(images, 8 - round(4 * strength))
    if name == "solarize":
        return lambda images, signs: enhance.solarize(images, 1 - strength)
    if name == "autocontrast":
        return lambda images, signs: _stretched(images)
    return lambda images, signs: enhance.equalize(images)


def _one_factor(factor_N: Tensor, column: int) -> Tensor:
    factors = torch.ones(len(factor_N), 3, device=factor_N.device)
    factors[:, column] = factor_N
    return factors


def _stretched(images: Tensor) -> Tensor:
    """Stretch each channel to the range from 0 to 1; a channel of one value stays as it is."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=math.ulp(0.5)), images)
