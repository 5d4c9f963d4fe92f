"""Maps that know nothing of the network, scored beside real ones: a score that one of them wins is no evidence."""

import torch
import torch.nn.functional as F
from torch import Tensor

from camlab.attribution.network_input import check_images
from camlab.scores import noise
from camlab.scores.checked import check_sides, check_whole, checked_masks

CENTRE = 0.2  # standard deviation of `centre`, as a share of the map's height and width
_CHANNEL = 0xC0FFEE  # added to the seed, so that random maps do not share numbers with the shuffling of ties


def random(n: int, grid: tuple[int, int], seed: int = 0, numbers: Tensor | None = None) -> Tensor:
    """Uniform noise in (0, 1) on a method's grid, N×h×w; an image's noise depends on the seed and its number alone.

    Args:
        n: Number of images.
        grid: (rows, columns) of the maps.
        seed: Random seed.
        numbers: Numbers of the images in their set; None for 0 to N - 1. The maps are on their device.

    Example:
        >>> random(2, (7, 7)).shape
        torch.Size([2, 7, 7])
    """
    device = torch.device("cpu") if numbers is None else numbers.device
    drawn = noise.uniform(seed + _CHANNEL, noise.image_numbers(n, numbers, device), grid[0] * grid[1])
    return drawn.reshape(n, *grid)


def constant(n: int, grid: tuple[int, int]) -> Tensor:
    """Maps of ones, N×h×w.

    Example:
        >>> constant(1, (1, 2)).tolist()
        [[[1.0, 1.0]]]
    """
    return torch.ones(n, *grid, device="cpu")


def centre(n: int, grid: tuple[int, int]) -> Tensor:
    """A Gaussian at the centre of the picture, whose standard deviation is a fifth of the picture, N×h×w in (0, 1].

    Example:
        >>> [round(value, 2) for value in centre(1, (1, 3)).flatten().tolist()]
        [0.25, 1.0, 0.25]
    """
    rows, columns = (
        (-0.5 * (((torch.arange(cells, device="cpu") + 0.5) / cells - 0.5) / CENTRE) ** 2).exp() for cells in grid
    )
    return (rows[:, None] * columns).expand(n, -1, -1)


def edges(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Magnitude of the Sobel gradient of the picture's mean channel, averaged over each cell, N×h×w.

    Args:
        images: N×C×H×W; border pixels are repeated outside the picture.
        grid: (rows, columns) of the maps.

    Example:
        >>> step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 3, 4, 4)
        >>> edges(step, (1, 4)).tolist()
        [[[0.0, 4.0, 4.0, 0.0]]]
    """
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device)
    with torch.autocast(images.device.type, enabled=False):
        grey = F.pad(images.float().mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        slopes = F.conv2d(grey, torch.stack([across, across.T])[:, None])
    return F.adaptive_avg_pool2d(slopes.norm(dim=1), grid)


def mask(masks_NHW: Tensor, grid: tuple[int, int]) -> Tensor:
    """The object's mask, as the share of each cell that it covers, N×h×w: the best map of the object on this grid.

    Example:
        >>> mask(torch.tensor([[[False, True, True, True]]]), (1, 2)).tolist()
        [[[0.5, 1.0]]]
    """
    return F.adaptive_avg_pool2d(checked_masks(masks_NHW, len(masks_NHW), grid).float(), grid)


def pseudo_maps(
    images: Tensor,
    grid: tuple[int, int],
    masks_NHW: Tensor | None = None,
    seed: int = 0,
    numbers: Tensor | None = None,
) -> dict[str, Tensor]:
    """Maps of all pseudo-methods by name, on the images' device.

    Args:
        images: The network's input, N×C×H×W.
        grid: (rows, columns) of the maps.
        masks_NHW: Masks of the objects, bool, N×H×W, if there are any.
        seed: Random seed of `random`.
        numbers: Numbers of the images in their set.

    Example:
        >>> list(pseudo_maps(torch.rand(2, 3, 8, 8), (4, 4)))
        ['random', 'constant', 'centre', 'edges']
    """
    check_images(images)
    check_sides(grid, "grid")
    check_whole(seed, "seed")
    n, numbered = len(images), noise.image_numbers(len(images), numbers, images.device)
    found = {
        "random": random(n, grid, seed, numbered),
        "constant": constant(n, grid),
        "centre": centre(n, grid),
        "edges": edges(images, grid),
    }
    if masks_NHW is not None:
        found["mask"] = mask(masks_NHW, grid)
    return {name: signed.to(images.device) for name, signed in found.items()}
