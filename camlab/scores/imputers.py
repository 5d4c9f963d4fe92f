"""What replaces removed pixels: the mean, a blurred picture, or an interpolation from what is left (ROAD).

An imputer is a function of a batch of images, a seed and the images' numbers in their set. It returns a function that
fills in pixels: (rows R, removed R×H×W) → images R×C×H×W, where `rows` are indices of the batch's images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from camlab.errors import UserError, cut, did_you_mean
from camlab.scores import noise
from camlab.scores.linear_imputation import interpolated

Fill = Callable[[Tensor, Tensor], Tensor]
Imputer = Callable[[Tensor, int, Tensor], Fill]

BLUR = 0.1  # standard deviation of the blur, as a share of the picture's shorter side
ROAD_NOISE = 0.01  # standard deviation, in units of the network's input


def mean(images: Tensor, seed: int, numbers_N: Tensor) -> Fill:
    """Replace pixels by 0, the mean of normalised images.

    Example:
        >>> fill = mean(torch.ones(1, 1, 1, 2), 0, torch.tensor([0]))
        >>> fill(torch.tensor([0]), torch.tensor([[[True, False]]])).tolist()
        [[[[0.0, 1.0]]]]
    """
    return lambda rows, removed: images[rows].masked_fill(removed[:, None], 0)


def blur(images: Tensor, seed: int, numbers_N: Tensor) -> Fill:
    """Replace pixels by those of the picture blurred with a Gaussian of a tenth of its shorter side."""
    blurred = gaussian_blur(images, BLUR * min(images.shape[-2:]))
    return lambda rows, removed: torch.where(removed[:, None], blurred[rows], images[rows])


def road(images: Tensor, seed: int, numbers_N: Tensor) -> Fill:
    """Replace pixels by noisy linear interpolation of what is left (Rong et al. 2022, ROAD).

    The noise, which hides where the picture is smooth, is the same for every fill of an image. Where nothing is left,
    pixels become 0.
    """
    drawn = ROAD_NOISE * noise.normal(seed, numbers_N, images.shape[1:].numel()).reshape(images.shape)

    def fill(rows: Tensor, removed: Tensor) -> Tensor:
        smooth = interpolated(images[rows].float(), removed)
        return torch.where(removed[:, None], smooth + drawn[rows], images[rows]).to(images.dtype)

    return fill


IMPUTERS: dict[str, Imputer] = {"mean": mean, "blur": blur, "road": road}


def imputer_of(which: str | Imputer) -> Imputer:
    """Return the imputer of a name, or one that is given as a function.

    Raises:
        UserError: The name is unknown.

    Example:
        >>> imputer_of("mean") is mean
        True
        >>> imputer_of("blurr")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: imputer=blurr: unknown. Did you mean blur? Choose from mean, blur, road.
    """
    if callable(which):
        return which
    if which not in IMPUTERS:
        hint = did_you_mean(str(which), IMPUTERS)
        raise UserError(f"imputer={cut(str(which))}: unknown. {hint}Choose from {', '.join(IMPUTERS)}.")
    return IMPUTERS[which]


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images with a Gaussian; border pixels are repeated outside the picture.

    Args:
        images: N×C×H×W.
        sigma: Standard deviation in pixels.

    Example:
        >>> torch.allclose(gaussian_blur(torch.ones(1, 3, 8, 8), 2.0), torch.ones(1, 3, 8, 8))
        True
    """
    reach = max(1, round(3 * sigma))
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    kernel = (-0.5 * (places / max(sigma, 1e-3)) ** 2).exp()
    kernel = kernel / kernel.sum()
    blurred = images.float().flatten(0, 1)[:, None]
    with torch.autocast(images.device.type, enabled=False):
        for shape, pad in (((1, 1, -1, 1), (0, 0, reach, reach)), ((1, 1, 1, -1), (reach, reach, 0, 0))):
            blurred = F.conv2d(F.pad(blurred, pad, mode="replicate"), kernel.reshape(shape))
    return blurred.reshape(images.shape).to(images.dtype)
