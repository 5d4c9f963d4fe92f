"""Is it an explanation of this network at all? Maps before and after the network's weights are randomised.

A map that stays the same when the network forgets everything it has learned does not explain what it has learned
(Adebayo et al. 2018, arXiv:1810.03292).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.classifier import Output
from camlab.attribution.hooks import unwrapped
from camlab.errors import UserError, cut
from camlab.scores.checked import check_same_images, check_whole, checked_maps
from camlab.scores.explaining import Methods, explaining_of
from camlab.scores.passes import Passes, Target
from camlab.scores.ranks import spearman
from camlab.scores.statistics import Interval, mean_interval

_NORMALISATION = {"running_mean": 0.0, "running_var": 1.0, "weight": 1.0, "bias": 0.0}  # buffers at the beginning
GATE = 0.5  # Spearman's correlation above which a map does not depend on the weights


@dataclass(frozen=True)
class Randomised:
    """What randomising a network does to the maps of one method.

    Attributes:
        layers: For each stage, the name of the last layer that was randomised, from the top of the network down.
        similarity: Spearman's correlation with the map before, after each stage, N×stages.
        of_random_pair: The same between two networks of random weights, N. Maps of some methods are alike by their form
            alone, whatever the network.
        before: Signed maps before, N×h×w.
        after: Signed maps after all layers were randomised, N×h×w.
    """

    layers: tuple[str, ...]
    similarity: Tensor
    of_random_pair: Tensor
    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class Verdict:
    """Whether a method passes the sanity gate.

    Attributes:
        passes: False if the interval lies above `GATE`; None if no image has a correlation.
        similarity: Mean of Spearman's correlation after all layers were randomised, with its interval.
        of_random_pair: The same between two random networks, for comparison.
    """

    passes: bool | None
    similarity: Interval
    of_random_pair: Interval


def mprt(
    model: nn.Module,
    images: Tensor,
    methods: Methods,
    target: Target = None,
    layers: Sequence[str] | None = None,
    stages: int | None = None,
    seed: int = 0,
    output: Output | None = None,
    before: Mapping[str, Tensor] | None = None,
) -> dict[str, Randomised]:
    """Model parameter randomisation test: layers are randomised one after the other, from the top of the network down.

    Weights are drawn as He et al. 2015 do, and biases are 0, so that signals neither vanish nor explode. The same class
    is explained throughout. The network is as before afterwards, even after an error.

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W.
        methods: One or several of camlab's methods, methods of one's own by name (`Explain`), or `Explaining`.
        target: The class: None for the predicted one, an index for all images, or one index per image.
        layers: Names of the layers to randomise; None for all that have weights.
        stages: Number of stages into which the layers are grouped; None for one stage per layer.
        seed: Random seed of the weights.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.
        before: Signed maps of the unchanged network by method, if they are known.

    Returns:
        The result of each method.

    Raises:
        UserError: As for `camlab.heatmaps`; a layer does not exist; the network has no weights.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> found = mprt(network, torch.rand(4, 3, 8, 8), ["cam", "grad_cam"])
        >>> found["cam"].layers, found["cam"].similarity.shape
        (('3', '0'), torch.Size([4, 2]))
    """
    class_idx, explaining = Passes(model, images, target, output).class_idx, explaining_of(methods, output)
    known = before or {}
    first = known if set(explaining.names) <= set(known) else explaining(model, images, class_idx)
    stacks = _stages(unwrapped(model), layers, stages)
    with restoring(model):
        *each, last, other = [explaining(model, images, class_idx) for _ in _randomising(stacks, seed)]
    names = tuple(stack[-1][0] for stack in stacks)
    found = {}
    for name in explaining.names:
        similar = torch.stack([spearman(first[name], maps[name]) for maps in (*each, last)], dim=1)
        found[name] = Randomised(names, similar, spearman(last[name], other[name]), first[name], last[name])
    return found


def _randomising(stacks: Sequence[Sequence[tuple[str, nn.Module]]], seed: int) -> Iterator[None]:
    """Randomise one stage after the other and then, for a second random network, all of them again."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for pairs in (*stacks, [pair for stack in stacks for pair in stack]):
        for _, module in pairs:
            randomise(module, generator)
        yield


def gate(found: Randomised, seed: int = 0) -> Verdict:
    """Judge a method: it fails if the interval of its similarity after full randomisation lies above ½.

    Args:
        found: From `mprt`; `stages=1` suffices.
        seed: Random seed of the bootstrap.

    Raises:
        UserError: It is not the result of one method.

    Example:
        >>> like = torch.full((30, 1), 0.8)
        >>> gate(Randomised(("fc",), like, like[:, 0], like[:, :, None], like[:, :, None])).passes
        False
    """
    if not isinstance(found, Randomised):
        raise UserError("gate: give the result of one method, such as gate(mprt(…)['grad_cam']).")
    own, pair = (mean_interval(values, seed=seed) for values in (found.similarity[:, -1], found.of_random_pair))
    return Verdict(None if own.n == 0 else not own.low > GATE, own, pair)


def emprt(before_NHW: Tensor, after_NHW: Tensor, bins: int | None = None) -> Tensor:
    """Relative rise of the entropy of the map's histogram when all weights are randomised (Hedström et al. 2024).

    (ξ(after) - ξ(before)) / ξ(before), where ξ is the entropy of the histogram of a map's values, from its minimum to
    its maximum (arXiv:2405.02383). A map that depends on what was learned becomes more random.

    Args:
        before_NHW: Signed maps of the network, N×h×w (`Randomised.before`).
        after_NHW: Signed maps of the randomised network (`Randomised.after`).
        bins: Number of bins; None for the square root of the number of cells, rounded up.

    Returns:
        One value for each image, N; NaN where all cells of the map before are equal.

    Raises:
        UserError: The maps are not finite, or not of the same images.

    Example:
        >>> before, after = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]]), torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        >>> round(float(emprt(before, after)), 3)
        0.233
    """
    if bins is not None:
        check_whole(bins, "bins", least=1)
    before, after = checked_maps(before_NHW), checked_maps(after_NHW)
    check_same_images(before, after, "maps")
    first, second = (histogram_entropy(signed, bins) for signed in (before, after))
    return (second - first) / first.where(first > 0, torch.nan)


def histogram_entropy(maps_NHW: Tensor, bins: int | None = None) -> Tensor:
    """Entropy in nats of the histogram of each map's values, N.

    Example:
        >>> round(float(histogram_entropy(torch.tensor([[[0.0, 1.0]]]))), 3)  # ln 2
        0.693
    """
    flat = maps_NHW.flatten(1)
    bins = bins or math.ceil(flat.shape[1] ** 0.5)
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    width = (high - low).where(high > low, torch.ones_like(high))
    binned = ((flat - low) / width * bins).long().clamp(max=bins - 1)
    counts = torch.zeros(len(flat), bins, device=flat.device, dtype=flat.dtype)
    shares = counts.scatter_add(1, binned, torch.ones_like(flat)) / flat.shape[1]
    return torch.special.entr(shares).sum(dim=1)


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Restore all weights and buffers of a network after a block, bit by bit, even after an error.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> before = network.weight.item()
        >>> with restoring(network), torch.no_grad():
        ...     _ = network.weight.zero_()
        >>> network.weight.item() == before
        True
    """
    tensors = [*model.parameters(), *model.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    derived = [
        (module, name, value)  # such as the weight that weight_norm computes anew in each pass
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    ]
    try:
        yield
    finally:
        for module, name, value in derived:
            vars(module)[name] = value
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


@torch.no_grad()
def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw a module's own weights again; those of modules inside it are left alone.

    Weights with two or more axes get a standard deviation of √(2 / inputs) (He et al. 2015), biases 0, and
    normalisations their initial state. Other parameters, such as class tokens, keep their mean and spread.

    Args:
        module: A module with parameters.
        generator: A generator of the CPU; the same weights are drawn for every device.
    """
    for name, buffer in module.named_buffers(recurse=False):
        if _is_of_normalisation(name, buffer):
            buffer.fill_(_NORMALISATION[name])
    for name, parameter in module.named_parameters(recurse=False):
        if not parameter.is_floating_point():
            continue
        drawn = torch.randn(parameter.shape, generator=generator, device="cpu")
        if name.endswith("bias"):
            drawn.zero_()
        elif name.endswith("weight") and parameter.dim() > 1:
            drawn *= math.sqrt(2 / parameter[0].numel())
        elif name == "weight" and hasattr(module, "reset_parameters"):
            drawn.fill_(1)
        else:
            value = parameter.float()
            drawn = drawn * value.std(correction=0).cpu() + value.mean().cpu()
        parameter.copy_(drawn)


def _has_weights(module: nn.Module) -> bool:
    """Whether a module holds something of its own that was learned: parameters, or a normalisation's statistics."""
    buffers = module.named_buffers(recurse=False)
    return any(True for _ in module.parameters(False)) or any(_is_of_normalisation(*named) for named in buffers)


def _is_of_normalisation(name: str, buffer: Tensor) -> bool:
    return name in _NORMALISATION and buffer.is_floating_point() and buffer.dim() == 1


def _stages(model: nn.Module, layers: Sequence[str] | None, stages: int | None) -> list[list[tuple[str, nn.Module]]]:
    """Group the layers that have weights of their own into stages, from the one that is defined last to the first."""
    named = [(name, module) for name, module in model.named_modules() if _has_weights(module)]
    if stages is not None:
        check_whole(stages, "stages", least=1)
    if layers is not None:
        if not isinstance(layers, (list, tuple)):
            raise UserError(f"layers={cut(str(layers), 60)}: give a list of names of layers.")
        known = dict(named)
        for name in layers:
            if name not in known:
                raise UserError(
                    f"layers: {name} is no layer with weights. They are in {', '.join(list(known)[:10])}, …."
                )
        named = [(name, module) for name, module in named if name in layers]
    if not named:
        raise UserError("mprt: the network has no weights to randomise.")
    named.reverse()
    count = min(stages or len(named), len(named))
    ends = [round(len(named) * stage / count) for stage in range(count + 1)]
    return [named[start:end] for start, end in itertools.pairwise(ends)]
