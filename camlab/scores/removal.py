"""Does the network need what is hot? Cells are removed in the order of a map, and the class probability is measured.

Shape letters: N images, Z = h·w cells of a map's own grid, P points of a curve. Cells are those of the map, because an
order among the pixels of one cell would come from interpolation alone; exactly k of them are gone at each point.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.classifier import Output
from camlab.errors import UserError, cut
from camlab.scores import noise
from camlab.scores.checked import check_same_images, check_shares, check_whole, checked_maps
from camlab.scores.heat import in_cells
from camlab.scores.imputers import Imputer
from camlab.scores.passes import Passes, Target

STEPS = 10
RISE_STEPS = 20
ROAD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class RemovalCurves:
    """Class probabilities while cells are removed, for each image.

    Attributes:
        shares: Share of the cells that are gone at each point, from 0 to 1, P.
        highest_first: Probabilities when the highest cells go first (MIF), N×P.
        lowest_first: Probabilities when the lowest cells go first (LIF), in the same order reversed, N×P.
    """

    shares: Tensor
    highest_first: Tensor
    lowest_first: Tensor

    @property
    def deletion(self) -> Tensor:
        """Area under the curve of the highest cells first, N; a low one speaks for the map (Petsiuk et al. 2018)."""
        return torch.trapezoid(self.highest_first, self.shares, dim=1)

    @property
    def insertion(self) -> Tensor:
        """Area under the curve of the lowest cells first, N; a high one speaks for the map.

        It is RISE's insertion: inserting the highest cells first is removing the lowest first, backwards.
        """
        return torch.trapezoid(self.lowest_first, self.shares, dim=1)

    @property
    def srg(self) -> Tensor:
        """Symmetric relevance gain, N: `insertion` - `deletion` (Blücher et al. 2024)."""
        return self.insertion - self.deletion


def srg(
    model: nn.Module,
    images: Tensor,
    maps_NHW: Tensor,
    target: Target = None,
    imputer: str | Imputer = "mean",
    steps: int = STEPS,
    seed: int = 0,
    numbers: Tensor | None = None,
    output: Output | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Symmetric relevance gain: AUC(lowest cells first) - AUC(highest cells first) (Blücher et al. 2024, 2401.06754).

    Either area alone ranks methods contradictorily, depending on the imputer. Chance is 0. For several maps of the same
    images, use `Passes` and `removal_curves`, which run the unchanged images once.

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W.
        maps_NHW: Signed maps, N×h×w, of one class for each image.
        target: That class: None for the predicted one, an index for all images, or one index per image.
        imputer: What replaces removed pixels: `mean` (0 of normalised images), `blur`, `road`, or an imputer. Give two
            at least, since they may rank methods differently.
        steps: Number K of steps; by step s, round(s·Z/K) cells are gone.
        seed: Random seed of the order of tied cells, and of the imputer's noise.
        numbers: Numbers of the images in their set, as in `Passes`.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.
        batch_size: Number of images in a pass.

    Returns:
        One value in [-1, 1] for each image, N.

    Raises:
        UserError: As for `Passes`; the maps are not finite, of other images, or finer than the images.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> srg(network, torch.rand(5, 3, 8, 8), torch.rand(5, 4, 4), target=1).shape
        torch.Size([5])
    """
    passes = Passes(model, images, target, output, seed, numbers, batch_size)
    return removal_curves(passes, maps_NHW, imputer, steps).srg


def insertion(
    model: nn.Module,
    images: Tensor,
    maps_NHW: Tensor,
    target: Target = None,
    imputer: str | Imputer = "blur",
    steps: int = RISE_STEPS,
    seed: int = 0,
    numbers: Tensor | None = None,
    output: Output | None = None,
    batch_size: int = 64,
) -> Tensor:
    """RISE's insertion: area under the class probability while the highest cells are put into an empty picture.

    For comparison with the literature; `srg` is the better evidence. The picture starts blurred, as in Petsiuk et al.
    2018. Arguments, shapes and errors as for `srg`.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> insertion(network, torch.rand(5, 3, 8, 8), torch.rand(5, 4, 4), target=1).shape
        torch.Size([5])
    """
    passes = Passes(model, images, target, output, seed, numbers, batch_size)
    return removal_curves(passes, maps_NHW, imputer, steps, ("lowest_first",)).insertion


def deletion(
    model: nn.Module,
    images: Tensor,
    maps_NHW: Tensor,
    target: Target = None,
    imputer: str | Imputer = "mean",
    steps: int = RISE_STEPS,
    seed: int = 0,
    numbers: Tensor | None = None,
    output: Output | None = None,
    batch_size: int = 64,
) -> Tensor:
    """RISE's deletion: area under the class probability while the highest cells are removed (Petsiuk et al. 2018).

    For comparison with the literature; `srg` is the better evidence. Arguments, shapes and errors as for `srg`.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> deletion(network, torch.rand(5, 3, 8, 8), torch.rand(5, 4, 4), target=1).shape
        torch.Size([5])
    """
    passes = Passes(model, images, target, output, seed, numbers, batch_size)
    return removal_curves(passes, maps_NHW, imputer, steps, ("highest_first",)).deletion


def road(
    model: nn.Module,
    images: Tensor,
    maps_NHW: Tensor,
    target: Target = None,
    shares: Sequence[float] = ROAD_SHARES,
    seed: int = 0,
    numbers: Tensor | None = None,
    output: Output | None = None,
    batch_size: int = 64,
) -> Tensor:
    """ROAD: half the gap between the mean probabilities with the lowest and with the highest cells removed.

    (LeRF - MoRF) / 2 with noisy linear imputation, over several shares of removed cells (Rong et al. 2022, 2202.00449).
    Chance is 0. Exactly the stated share of cells is removed, which a threshold at a percentile does not do where cells
    are tied. Arguments, shapes and errors as for `srg`.

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W.
        maps_NHW: Signed maps, N×h×w.
        target: The class.
        shares: Shares of the cells to remove, between 0 and 1.
        seed: Random seed of the order of tied cells, and of the noise.
        numbers: Numbers of the images in their set.
        output: Which part of an odd output is the logits.
        batch_size: Number of images in a pass.

    Returns:
        One value in [-½, ½] for each image, N.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> road(network, torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4), target=1).shape
        torch.Size([2])
    """
    return road_of(Passes(model, images, target, output, seed, numbers, batch_size), maps_NHW, shares)


def road_of(passes: Passes, maps_NHW: Tensor, shares: Sequence[float] = ROAD_SHARES) -> Tensor:
    """`road` for images whose unchanged probabilities are known: N."""
    signed = _maps_for(passes, maps_NHW)
    check_shares(shares, "shares")
    counts = [round(share * signed.shape[1] * signed.shape[2]) for share in shares]
    highest_gone, lowest_gone = _while_removing(passes, signed, counts, "road", (1, -1)).mean(dim=2).unbind(1)
    return (lowest_gone - highest_gone) / 2


def removal_curves(
    passes: Passes,
    maps_NHW: Tensor,
    imputer: str | Imputer = "mean",
    steps: int = STEPS,
    which: Sequence[str] = ("highest_first", "lowest_first"),
) -> RemovalCurves:
    """Class probabilities while the cells of maps are removed, highest first and lowest first.

    Several maps, steps and imputers may share one `Passes`: the unchanged images run once, the emptied ones once for
    each imputer, and each map costs 2·(K - 1) passes for each image.

    Args:
        passes: The network with the images.
        maps_NHW: Signed maps, N×h×w.
        imputer: As in `srg`.
        steps: Number K of steps.
        which: The curves to compute; the other is NaN between its ends.

    Raises:
        UserError: The maps are not finite, of other images, or finer than the images; the number of steps is not
            positive.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> passes = Passes(network, torch.rand(5, 3, 8, 8))
        >>> found = {imputer: removal_curves(passes, torch.rand(5, 4, 4), imputer).srg for imputer in ("mean", "blur")}
        >>> found["blur"].shape
        torch.Size([5])
    """
    check_whole(steps, "steps", least=1)
    signed = _maps_for(passes, maps_NHW)
    cells = signed.shape[1] * signed.shape[2]
    counts = sorted({round(step * cells / steps) for step in range(steps + 1)})
    if not which or not set(which) <= {"highest_first", "lowest_first"}:
        raise UserError(f"which={cut(str(which), 60)}: choose from highest_first and lowest_first, in a list.")
    signs = [sign for name, sign in (("highest_first", 1), ("lowest_first", -1)) if name in which]
    inner = _while_removing(passes, signed, counts[1:-1], imputer, signs)
    ends = passes.intact[:, None], passes.emptied(imputer)[:, None]
    unknown = torch.full_like(inner[:, 0], torch.nan)
    found = {
        sign: torch.cat([ends[0], curve, ends[1]], dim=1) for sign, curve in zip(signs, inner.unbind(1), strict=True)
    }
    missing = torch.cat([ends[0], unknown, ends[1]], dim=1)
    shares = torch.tensor(counts, device=signed.device) / cells
    return RemovalCurves(shares, found.get(1, missing), found.get(-1, missing))


def cell_order(maps_NHW: Tensor, seed: int = 0, numbers: Tensor | None = None) -> Tensor:
    """Cells of each map from the highest to the lowest, tied cells in random order: int64, N×Z.

    Args:
        maps_NHW: Signed maps, N×h×w.
        seed: Random seed of the order of tied cells.
        numbers: Numbers of the images in their set, as in `Passes`.

    Example:
        >>> cell_order(torch.tensor([[[1.0, 3.0], [-2.0, 2.0]]])).tolist()
        [[1, 3, 0, 2]]
    """
    flat = checked_maps(maps_NHW).flatten(1)
    shuffled = noise.bits(seed, noise.image_numbers(len(flat), numbers, flat.device), flat.shape[1]).argsort(dim=1)
    return shuffled.gather(1, flat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))


def _maps_for(passes: Passes, maps_NHW: Tensor) -> Tensor:
    signed = checked_maps(maps_NHW).to(passes.images.device)
    check_same_images(signed, passes.images, "maps and images")
    height, width = passes.size
    if signed.shape[1] > height or signed.shape[2] > width:
        grid = f"{signed.shape[1]}×{signed.shape[2]}"
        raise UserError(f"maps: {grid} cells for images of {height}×{width} pixels. Give maps that are not finer.")
    return signed


def _while_removing(
    passes: Passes, signed: Tensor, counts: Sequence[int], imputer: str | Imputer, signs: Sequence[int]
) -> Tensor:
    """Class probabilities with `counts` cells removed, the highest (sign 1) or the lowest (-1): N×signs×counts."""
    fill, (n, rows, columns) = passes.fill(imputer), signed.shape
    position = cell_order(signed, passes.seed, passes.numbers).argsort(dim=1)  # 0 for the highest cell
    last = rows * columns - 1
    turns = torch.stack([position if sign > 0 else last - position for sign in signs], dim=1)  # when a cell goes
    at_rows, at_columns = in_cells(passes.size, (rows, columns), signed.device)
    each_count = torch.tensor(counts, device=signed.device, dtype=torch.int64)
    shape = (n, len(signs), len(counts))
    image, sign, point = (
        part.flatten()
        for part in torch.meshgrid(*(torch.arange(count, device=signed.device) for count in shape), indexing="ij")
    )

    def changed(jobs: Tensor) -> Tensor:
        gone = turns[image[jobs], sign[jobs]] < each_count[point[jobs], None]
        return fill(image[jobs], gone.unflatten(1, (rows, columns))[:, at_rows[:, None], at_columns])

    return passes.probabilities(image, changed).reshape(shape)
