"""What does a network rely on? It is told by changing pictures and watching the predictions; no heatmap is needed."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlab.attribution.network_input import check_images
from camlab.errors import UserError
from camlab.scores.checked import check_number, check_same_images, check_tensors, check_whole, checked_masks
from camlab.scores.noise import image_numbers, normal
from camlab.scores.passes import Passes
from camlab.scores.statistics import bootstrap


def reliance(before_N: Tensor, after_N: Tensor, marked_N: Tensor) -> Tensor:
    """Whether a prediction moves to the class of a mark when the mark is pasted on another class's image.

    The mean is the share of predictions that the mark moves. 0 is a network that does not rely on the mark, and 1 is
    one that follows it always.

    Args:
        before_N: Predicted classes without the mark, int64, N.
        after_N: Predicted classes with the mark.
        marked_N: Classes whose mark is pasted.

    Returns:
        0 or 1 for each image, float32, N.

    Example:
        >>> reliance(torch.tensor([2, 1, 0]), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 0])).tolist()
        [1.0, 0.0, 0.0]
    """
    check_tensors(before_N=before_N, after_N=after_N, marked_N=marked_N)
    check_same_images(before_N, after_N, "predictions before and after")
    check_same_images(before_N, marked_N, "predictions and marks")
    return ((after_N == marked_N) & (before_N != marked_N)).float()


@dataclass(frozen=True)
class ForegroundSensitivity:
    """Relative foreground sensitivity of a network (Moayeri et al. 2022, arXiv:2201.10766).

    Attributes:
        rfs: (acc_background - acc_foreground) / (2 · min(ā, 1 - ā)), where ā is the mean of the two, in [-1, 1]. Above
            0, noise on the object does more harm than noise beside it. NaN if ā is 0 or 1, which tells nothing.
        low: Lower end of the 95 % bootstrap interval over images.
        high: Upper end.
        acc_background: Accuracy with noise in the background.
        acc_foreground: Accuracy with noise on the object.
        n: Number of images.
    """

    rfs: float
    low: float
    high: float
    acc_background: float
    acc_foreground: float
    n: int


def rfs(
    model: nn.Module,
    images: Tensor,
    masks_NHW: Tensor,
    true_N: Tensor,
    sigma: float = 1.0,
    seed: int = 0,
    numbers: Tensor | None = None,
    batch_size: int = 64,
) -> ForegroundSensitivity:
    """Tell whether a network relies on the object or on the background: relative foreground sensitivity.

    Chance is 0: noise does the same harm wherever it is. The score depends on the area of the object, too, since a
    larger area holds more noise; compare networks on the same images only.

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W, on the network's device.
        masks_NHW: Masks of the objects, bool, of any size. Images whose mask is empty or full are left out.
        true_N: True classes, int64, N; 0 or 1 for a network with one logit.
        sigma: Standard deviation of the noise, in the unit of the input.
        seed: Random seed of the noise, which depends on it and on an image's number alone.
        numbers: Numbers of the images in their set, N; None stands for 0 to N - 1.
        batch_size: Number of images in a pass.

    Raises:
        UserError: The masks or the classes do not fit the images; no mask is neither empty nor full.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> masks = torch.zeros(4, 8, 8, dtype=torch.bool).index_fill(1, torch.tensor([2, 3]), True)
        >>> rfs(network, torch.rand(4, 3, 8, 8), masks, torch.tensor([0, 1, 0, 1])).n
        4
    """
    right = noisy_hits(model, images, masks_NHW, true_N, sigma, seed, numbers, batch_size)
    return foreground_sensitivity(*right)


def noisy_hits(
    model: nn.Module,
    images: Tensor,
    masks_NHW: Tensor,
    true_N: Tensor,
    sigma: float = 1.0,
    seed: int = 0,
    numbers: Tensor | None = None,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Whether each prediction is right with noise in the background, and with noise on the object.

    Arguments and errors as for `rfs`, which is `foreground_sensitivity` of the result. Of a large set, give batches
    here, and join the results.

    Returns:
        Two times 0 or 1 for each image, float32, N; NaN where the mask is empty or full.
    """
    check_images(images)
    check_tensors(true_N=true_N)
    check_number(sigma, "sigma", 0)
    check_whole(seed, "seed")
    masks = checked_masks(masks_NHW, len(images)).to(images.device)
    if true_N.shape != (len(images),):
        raise UserError(f"true classes: got {tuple(true_N.shape)} for {len(images)} images. Give one for each.")
    numbers_N = image_numbers(len(images), numbers, images.device)
    inside = F.interpolate(masks[:, None].float(), size=images.shape[-2:], mode="nearest-exact") > 0.5
    drawn = normal(seed, numbers_N, images[0].numel()).view_as(images).to(images.dtype) * sigma
    known = masks.flatten(1).any(dim=1) & ~masks.flatten(1).all(dim=1)
    found = []
    for where in (~inside, inside):
        passes = Passes(model, images + drawn * where, batch_size=batch_size)
        hits = (passes.predicted == true_N.to(images.device)).float()
        found.append(hits.where(known, torch.nan))
    return found[0], found[1]


def foreground_sensitivity(background_N: Tensor, foreground_N: Tensor, seed: int = 0) -> ForegroundSensitivity:
    """Summarise what `noisy_hits` has found.

    Raises:
        UserError: No image has a mask that is neither empty nor full.

    Example:
        >>> found = foreground_sensitivity(torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
        >>> found.acc_background, found.acc_foreground, found.rfs
        (0.75, 0.25, 0.5)
    """
    check_tensors(background_N=background_N, foreground_N=foreground_N)
    check_same_images(background_N, foreground_N, "hits")
    both = torch.stack([background_N, foreground_N]).double().cpu()
    both = both[:, ~both.isnan().any(dim=0)]
    n = both.shape[1]
    if n == 0:
        raise UserError("masks: all are empty or cover the whole picture. Give masks with an inside and an outside.")
    low, high = bootstrap(lambda chosen: _relative(*both[:, chosen].mean(dim=2)).nan_to_num(0.0), n, seed=seed)
    background, foreground = both.mean(dim=1)
    value = float(_relative(background, foreground))
    known = not math.isnan(value)
    return ForegroundSensitivity(
        value, low if known else math.nan, high if known else math.nan, float(background), float(foreground), n
    )


def _relative(background: Tensor, foreground: Tensor) -> Tensor:
    mean = (background + foreground) / 2
    return (background - foreground) / (2 * torch.minimum(mean, 1 - mean))
