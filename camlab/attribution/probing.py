"""Probe a network to find how the outputs of its layers are arranged.

The network sees pictures of noise that differ from each other in one place only: at the top left, at the top
right, at the bottom left, and off the diagonal. The arrangement in which the output differs most in these places is the
right one. A network that flips, crops, turns or shifts the picture is noticed where the output differs in few cells,
and these are elsewhere.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from camlab.attribution.calls import hooked
from camlab.attribution.layouts import Layout, possible_layouts
from camlab.attribution.network_input import output_of

# Where the pictures differ: row and column of the centre, and the side, as shares of the picture. The place at the top
# left tells the first row from tokens before the grid; as it is on the diagonal, it cannot tell rows from columns. With
# up to 20 rows, one of the others is in a row of odd number, and tells whether these run backwards.
_PLACES = ((0.0, 0.0, 0.0625), *((*at, 0.125) for at in ((0.1, 0.9), (0.9, 0.1), (0.3, 0.75), (0.5, 0.2), (0.2, 0.75))))

_NOISE = 1e-5  # of the greatest value: an output that differs less is the same
_DIFFERENT = 1e-3  # change of a cell that counts, as a share of the greatest
_FEW = 0.3  # share of the cells, if the change is to show a place
_BESIDE = (1.0, 0.05)  # how far a change may be from its place: cells, and a share of the side
_FEWEST = 3  # rows and columns of an output that must see most places; fewer show no place anyway
_CLEAR = 1e-2  # of the greatest value: a change that rounding does not explain
_BLIND = 3  # places without any effect on a layer that sees only a part of the picture
_GLARING = 100.0  # times the noise of the picture
_CELL = 1.41  # cells; of a place as large, at least one whole cell is in the picture
_FAR = (1.0, 0.12)  # beyond this, one change is enough to show that the picture is moved, as padding moves its end


@dataclass(frozen=True)
class Probed:
    """What probing finds about the outputs of layers.

    Attributes:
        layouts: The only layout that is right, by the name of the layer.
        moved: Names of layers with an output N×K×H×W that changes in a few cells, and elsewhere than the picture; or
            all of them, if the network sees only a part of the picture.
    """

    layouts: dict[str, Layout] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)


def probe(model: nn.Module, image: Tensor, names: Set[str], names_nchw: Set[str]) -> Probed:
    """Probe a network.

    Args:
        model: A network in eval mode, in a context for passes (`camlab.attribution.hooks.passing`).
        image: 1×C×H×W.
        names: Names of the layers whose layout is asked for.
        names_nchw: Names of those whose output is known to be N×K×H×W.
    """
    found = Probed()
    if image.is_meta:  # there are no values to compare
        return found
    blind: dict[str, int] = {}
    is_seen = torch.zeros(len(_PLACES), dtype=torch.bool, device="cpu")

    def record(name: str, module: nn.Module, inputs: Sequence[object], output: Tensor) -> None:
        if name not in names or len(output) != 2 + len(_PLACES):
            return
        *of_places, of_another = output.detach().float()
        output = torch.stack(of_places)
        right = _right_layouts(output, (image.shape[-2], image.shape[-1]))
        if len(right) == 1:
            found.layouts[name] = right[0]
        change = (output[1:] - output[:1]).flatten(1).abs().amax(dim=1)
        is_seen.logical_or_((change > _NOISE * output.abs().max()).cpu())
        if name in names_nchw and not any(layout.order == "NCHW" for layout in right):
            of_all = max(float(change.max()), float((of_another - output[0]).abs().max()))
            if _is_moved(output):
                found.moved.add(name)
            elif _is_blind(output, change, of_all):
                blind[name] = min(output.shape[2:])

    with hooked(model, record):
        output_of(model, _noise_that_differs_in_places(image))
    if int((~is_seen).sum()) > 1 and bool(is_seen.any()):  # the network crops the picture
        found.moved.update(names_nchw - found.layouts.keys())
    found.moved.update(_still_blind(model, image, blind))
    return found


def _still_blind(model: nn.Module, image: Tensor, sides: Mapping[str, int]) -> set[str]:
    """The layers of these that do not even see glaring changes of a whole cell.

    Units that are off for ordinary pictures may be on for these, and a network that reads one pixel in many, as a
    ResNet whose blocks still add nothing does, reads one of them.

    Args:
        model: The network.
        image: 1×C×H×W.
        sides: By the name of the layer, the rows or columns of its output, whichever are fewer.
    """
    blind = dict.fromkeys(sides, True)

    def record(name: str, module: nn.Module, inputs: Sequence[object], output: Tensor) -> None:
        if sides.get(name) == side and len(output) == 2 + len(_PLACES):
            same = (output[1:-1] == output[:1]).flatten(1).all(dim=1)
            blind[name] = blind[name] and int(same.sum()) >= _BLIND

    for side in set(sides.values()):
        with hooked(model, record):
            output_of(model, _noise_that_differs_in_places(image, _GLARING, _CELL / side))
    return {name for name, is_blind in blind.items() if is_blind}


def _is_blind(output: Tensor, change: Tensor, of_all: float) -> bool:
    """Whether most places have no effect at all on an output N×K×H×W, and others a clear one.

    Args:
        output: The output for the pictures.
        change: The greatest change that each place causes.
        of_all: The greatest that any of them, or a picture that differs everywhere, causes.
    """
    is_fine = min(output.shape[2:]) >= _FEWEST and of_all > _CLEAR * float(output.abs().max())
    return is_fine and int((change == 0).sum()) >= _BLIND


def noise_like(images: Tensor, n: int = 1) -> Tensor:
    """Pictures of noise, the same in every call; what is found with them depends on the network alone: n×C×H×W.

    Args:
        images: The network's input, for size, number format and device.
        n: Number of pictures.

    Example:
        >>> noise_like(torch.zeros(5, 3, 8, 8), 2).shape
        torch.Size([2, 3, 8, 8])
    """
    shape = (n, *images.shape[1:])
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu").to(images)


def _noise_that_differs_in_places(image: Tensor, contrast: float = 2.0, at_least: float = 0.0) -> Tensor:
    """A picture of noise, copies that differ from it in one of `_PLACES` each, and another picture of noise.

    Args:
        image: 1×C×H×W, for size, number format and device.
        contrast: The standard deviation in the places; elsewhere it is 1.
        at_least: The least side of a place, as a share of the picture.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    height, width = image.shape[-2:]
    noise = torch.randn(image.shape[1:], generator=generator, device="cpu")
    pictures = noise.repeat(2 + len(_PLACES), 1, 1, 1)
    pictures[-1] = torch.randn(noise.shape, generator=torch.Generator("cpu").manual_seed(1), device="cpu")
    for picture, (row, column, side) in zip(pictures[1:-1], _PLACES, strict=True):
        side = max(side, at_least)
        top, left = max(0, int((row - side / 2) * height)), max(0, int((column - side / 2) * width))
        bottom, right = max(top + 1, int((row + side / 2) * height)), max(left + 1, int((column + side / 2) * width))
        part = picture[:, top:bottom, left:right]
        part.copy_(contrast * torch.randn(part.shape, generator=generator, device="cpu"))
    return pictures.to(image)


def _right_layouts(output: Tensor, image_size: tuple[int, int]) -> list[Layout]:
    """The layouts in which the output differs most in `_PLACES`."""
    changes: dict[int, Tensor] = {}  # by the axis of the channels, since layouts with the same axis are many
    right = []
    for layout in possible_layouts(output.shape, image_size):
        if layout.channel_axis not in changes:
            changes[layout.channel_axis] = _relative_change(output, layout.channel_axis)
        if _is_right(layout, changes[layout.channel_axis]):
            right.append(layout)
    return right


def _relative_change(output: Tensor, channel_axis: int) -> Tensor:
    """How much each cell differs from that of the first picture; the axis of the channels is kept, with length 1."""
    norms = output[:1].norm(dim=channel_axis, keepdim=True)
    return (output[1:] - output[:1]).norm(dim=channel_axis, keepdim=True) / (norms + norms.mean() + 1e-12)


def _is_right(layout: Layout, change: Tensor) -> bool:
    """Whether the change, arranged in this layout, is greatest in `_PLACES`."""
    cells = layout.to_map(change)[:, 0]
    if layout.prefix and bool((change[:, : layout.prefix].amax(dim=(1, 2)) > cells.amax(dim=(1, 2))).any()):
        return False
    return all(_is_near(cells_HW, place) for cells_HW, place in zip(cells, _PLACES, strict=True))


def _is_near(change_HW: Tensor, place: tuple[float, float, float]) -> bool:
    highest = divmod(int(change_HW.argmax()), change_HW.shape[1])
    offsets = [abs(at + 0.5 - share * side) for at, share, side in zip(highest, place, change_HW.shape, strict=False)]
    near = all(offset <= 0.75 + 0.1 * side for offset, side in zip(offsets, change_HW.shape, strict=True))
    return near and bool(change_HW.max() > 0)


def _is_moved(output: Tensor) -> bool:
    """Whether an output N×K×H×W differs in few cells, and mostly elsewhere than the picture.

    A convolution cannot do that, whatever its stride, padding or dilation: the cell at a share of the map's height and
    width reads the pixel at the same share of the picture's. Where a change has no effect, or one on many cells,
    nothing is known.
    """
    changes = zip(
        (cells > _DIFFERENT * cells.max() for cells in _relative_change(output, 1)[:, 0]), _PLACES, strict=True
    )
    sharp = [(differs, place) for differs, place in changes if 0 < differs.float().mean() <= _FEW]
    beside = [_is_beside(differs, place, _BESIDE) for differs, place in sharp]
    return beside.count(True) >= max(2, beside.count(False)) or any(_is_beside(*change, _FAR) for change in sharp)


def _is_beside(differs_HW: Tensor, place: tuple[float, float, float], allowed: tuple[float, float]) -> bool:
    """Whether the box around the cells that differ leaves the place out, by more cells, and share of the side."""
    for side, share, used in zip(differs_HW.shape, place, (differs_HW.any(dim=1), differs_HW.any(dim=0)), strict=False):
        cells = used.nonzero()
        if max(int(cells.min()) - share * side, share * side - int(cells.max()) - 1) > allowed[0] + allowed[1] * side:
            return True
    return False
