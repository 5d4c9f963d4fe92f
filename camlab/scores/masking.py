"""How the class probability changes when only the heat is left: average drop and increase in confidence.

See Chattopadhay et al. 2018 (Grad-CAM++). A map of ones scores a perfect drop, so neither may stand alone.
"""

import torch
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.classifier import Output
from camlab.scores.checked import check_same_images, check_tensors, checked_maps
from camlab.scores.passes import Passes, Target


def masked_probabilities(passes: Passes, maps_NHW: Tensor) -> Tensor:
    """Class probability of the images times the heat in [0, 1], H·x, N.

    Args:
        passes: The network with the images.
        maps_NHW: Signed maps, N×h×w; they are rectified, divided by their maximum and upsampled.

    Raises:
        UserError: The maps are not finite or of other images.
    """
    signed = checked_maps(maps_NHW).to(passes.images.device)
    check_same_images(signed, passes.images, "maps and images")
    heat = maps.upsample(maps.normalize(signed), passes.size)[:, None].to(passes.images.dtype)
    rows = torch.arange(len(signed), device=signed.device)
    return passes.probabilities(rows, lambda jobs: passes.images[jobs] * heat[jobs])


def average_drop(
    model: nn.Module, images: Tensor, maps_NHW: Tensor, target: Target = None, output: Output | None = None
) -> Tensor:
    """Drop of the class probability when only the heat is left, as a share of it: max(0, p - o) / p.

    For comparison with the literature. For several maps of the same images, or for both scores, use
    `Passes`, `masked_probabilities`, `average_drop_of` and `increase_of`.

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W.
        maps_NHW: Signed maps, N×h×w, of one class for each image.
        target: That class: None for the predicted one, an index for all images, or one index per image.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.

    Returns:
        One value in [0, 1] for each image, N; low ones speak for the map. A map of ones scores 0.

    Raises:
        UserError: As for `Passes`; the maps are not finite or of other images.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> average_drop(network, torch.rand(2, 3, 8, 8), torch.ones(2, 4, 4)).tolist()
        [0.0, 0.0]
    """
    passes = Passes(model, images, target, output)
    return average_drop_of(passes.intact, masked_probabilities(passes, maps_NHW))


def increase(
    model: nn.Module, images: Tensor, maps_NHW: Tensor, target: Target = None, output: Output | None = None
) -> Tensor:
    """Whether the class probability rises when only the heat is left: 1 where o > p, else 0.

    For comparison with the literature; arguments and errors as for `average_drop`.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> increase(network, torch.rand(2, 3, 8, 8), torch.ones(2, 4, 4)).tolist()
        [0.0, 0.0]
    """
    passes = Passes(model, images, target, output)
    return increase_of(passes.intact, masked_probabilities(passes, maps_NHW))


def average_drop_of(intact_N: Tensor, left_N: Tensor) -> Tensor:
    """`average_drop` from the probabilities of the unchanged images and of their heat alone: N."""
    check_tensors(intact_N=intact_N, left_N=left_N)
    check_same_images(intact_N, left_N, "probabilities")
    return (intact_N - left_N).relu() / intact_N.clamp(min=torch.finfo(torch.float32).tiny)


def increase_of(intact_N: Tensor, left_N: Tensor) -> Tensor:
    """`increase` from the probabilities of the unchanged images and of their heat alone: N."""
    check_tensors(intact_N=intact_N, left_N=left_N)
    check_same_images(intact_N, left_N, "probabilities")
    return (left_N > intact_N).float()
