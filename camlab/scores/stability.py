"""How stable are maps when the images are changed a little? The maps are computed again, by any method."""

import torch
from torch import Tensor, nn

from camlab.attribution.classifier import Output
from camlab.scores import noise
from camlab.scores.checked import check_number, check_whole
from camlab.scores.explaining import Methods, explaining_of
from camlab.scores.passes import Passes, Target
from camlab.scores.ranks import spearman

RADIUS = 0.02
COPIES = 10


def max_sensitivity(
    model: nn.Module,
    images: Tensor,
    methods: Methods,
    target: Target = None,
    radius: float = RADIUS,
    copies: int = COPIES,
    seed: int = 0,
    numbers: Tensor | None = None,
    output: Output | None = None,
) -> dict[str, Tensor]:
    """Largest relative change of the map among noisy copies: max ‖M(x + δ) - M(x)‖ / ‖M(x)‖ (Yeh et al. 2019).

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W.
        methods: One or several of camlab's methods, methods of one's own by name (`Explain`), or `Explaining`.
        target: The class: None for the predicted one, an index for all images, or one index per image.
        radius: The noise δ is uniform in ± this radius, in units of the network's input.
        copies: Number of noisy copies of each image.
        seed: Random seed of the noise.
        numbers: Numbers of the images in their set, as in `Passes`.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.

    Returns:
        By method, one value for each image, N: 0 for a map that does not change, NaN for a change from a map of zeros.

    Raises:
        UserError: As for `camlab.heatmaps`; the number of copies is not positive.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> max_sensitivity(network, torch.rand(2, 3, 8, 8), "cam", radius=0)["cam"].tolist()
        [0.0, 0.0]
    """
    check_number(radius, "radius", 0)
    check_whole(copies, "copies", least=1)
    class_idx, explaining = Passes(model, images, target, output).class_idx, explaining_of(methods, output)
    numbered = noise.image_numbers(len(images), numbers, images.device)
    first = explaining(model, images, class_idx)
    largest = {name: torch.zeros(len(images), device=images.device) for name in explaining.names}
    for copy in range(copies):
        drawn = 2 * noise.uniform(seed + copy, numbered, images.shape[1:].numel()).reshape(images.shape) - 1
        changed = explaining(model, images + (radius * drawn).to(images.dtype), class_idx)
        for name, before in first.items():
            largest[name] = torch.maximum(largest[name].to(before.device), _relative_change(before, changed[name]))
    return largest


def _relative_change(before_NHW: Tensor, after_NHW: Tensor) -> Tensor:
    """‖after - before‖ / ‖before‖, 0 where they are equal, and NaN for a change from a map of zeros: N."""
    unit = before_NHW.abs().amax(dim=(1, 2), keepdim=True)  # squares of very small values would be 0
    unit = unit.where(unit > 0, torch.nan)
    change = ((after_NHW - before_NHW) / unit).flatten(1).norm(dim=1)
    relative = change / (before_NHW / unit).flatten(1).norm(dim=1)
    return relative.where((after_NHW != before_NHW).flatten(1).any(dim=1), 0.0).float()


def flip_consistency(
    model: nn.Module, images: Tensor, methods: Methods, target: Target = None, output: Output | None = None
) -> dict[str, Tensor]:
    """Spearman's correlation of the map of the mirrored image with the mirrored map.

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W.
        methods: One or several of camlab's methods, methods of one's own by name (`Explain`), or `Explaining`.
        target: The class: None for the predicted one of the unmirrored image, an index for all images, or one index
            per image.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.

    Returns:
        By method, one value in [-1, 1] for each image, N; 1 for a network that mirrors what its input mirrors, NaN
        where all cells of a map are equal.

    Raises:
        UserError: As for `camlab.heatmaps`.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> flip_consistency(network, torch.rand(2, 3, 8, 8), "cam")["cam"].tolist()
        [1.0, 1.0]
    """
    class_idx, explaining = Passes(model, images, target, output).class_idx, explaining_of(methods, output)
    straight, mirrored = (explaining(model, of, class_idx) for of in (images, images.flip(-1)))
    return {name: spearman(mirrored[name], straight[name].flip(-1)) for name in explaining.names}
