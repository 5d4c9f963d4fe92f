"""Layouts: how the output of a layer is arranged in space."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from camlab.errors import UserError, first_line

_MOST_PREFIX_TOKENS = 32
_ASPECT_TOLERANCE = 1.6  # a grid of tokens is about as wide, for its height, as the picture


@dataclass(frozen=True)
class Layout:
    """How the output of a layer is arranged in space.

    Attributes:
        order: `NCHW`, `NHWC`, or `NLC`: tokens, row by row; `NCWH`, with rows and columns exchanged, is never drawn.
        grid: Height and width in cells.
        prefix: Number of tokens before the grid: class, distillation and register tokens.

    Example:
        >>> tokens = torch.arange(10.0).reshape(1, 5, 2)  # a class token and 2×2 cells, two channels
        >>> Layout("NLC", (2, 2), prefix=1).to_map(tokens)[0, 0].tolist()
        [[2.0, 4.0], [6.0, 8.0]]
    """

    order: Literal["NCHW", "NCWH", "NHWC", "NLC"]
    grid: tuple[int, int]
    prefix: int = 0

    @property
    def channel_axis(self) -> int:
        """The axis of the channels in the layer's output."""
        return {"NCHW": 1, "NCWH": 1, "NHWC": 3, "NLC": 2}[self.order]

    @property
    def positions(self) -> int:
        """Number of cells and other tokens."""
        return self.prefix + math.prod(self.grid)

    def fits(self, shape: torch.Size) -> bool:
        """Whether a layer's output of this shape, with the images first, can be arranged so."""
        if self.order == "NLC":
            return len(shape) == 3 and shape[1] == self.positions
        return len(shape) == 4 and self.to_map(torch.empty(shape, device="meta")).shape[2:] == torch.Size(self.grid)

    def to_map(self, output: Tensor) -> Tensor:
        """Rearrange a layer's output, or a gradient with respect to it, as N×K×H×W."""
        if self.order == "NCHW":
            return output
        if self.order == "NCWH":
            return output.transpose(2, 3)
        if self.order == "NHWC":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)

    def without_channels(self, output: Tensor, channels: Tensor) -> Tensor:
        """Copy a layer's output with one channel of each image set to zero in all cells.

        Args:
            output: The layer's output for N images.
            channels: Index of the channel for each image, N.
        """
        changed = output.clone()
        cells = self.to_map(changed)  # a view: what is written here is written into `changed`
        cells[torch.arange(len(cells), device=cells.device), channels] = 0
        return changed

    def __str__(self) -> str:
        height, width = self.grid
        prefix = f" behind {self.prefix} other token{'s' if self.prefix > 1 else ''}" if self.prefix else ""
        return f"{self.order} {height}×{width}{prefix}"


@dataclass(frozen=True, eq=False)
class Rearrangement(Layout):
    """A layout that the user's function states.

    Attributes:
        cells: Index of each value of the map in the flattened output of one image, K×H×W.
    """

    cells: Tensor = field(default_factory=lambda: torch.zeros(0))

    def to_map(self, output: Tensor) -> Tensor:
        """Rearrange a layer's output, or a gradient with respect to it, as N×K×H×W."""
        return output.flatten(1)[:, self.cells]

    def without_channels(self, output: Tensor, channels: Tensor) -> Tensor:
        """Copy a layer's output with one channel of each image set to zero in all cells."""
        changed = output.flatten(1).clone()
        for values, channel in zip(changed, channels, strict=True):
            values[self.cells[channel]] = 0
        return changed.view_as(output)

    def __str__(self) -> str:
        return f"{self.grid[0]}×{self.grid[1]} by reshape"


Reshape = Layout | Callable[[Tensor], Tensor]


def check_reshape(reshape: object) -> None:
    """Refuse what states no layout.

    Raises:
        UserError: It is neither a layout nor a function.

    Example:
        >>> check_reshape("NCHW")
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: reshape: got str, but a Layout (camlab.attribution.layouts) or a function is needed.
    """
    if not isinstance(reshape, Layout) and not callable(reshape):
        kind = type(reshape).__name__
        raise UserError(f"reshape: got {kind}, but a Layout (camlab.attribution.layouts) or a function is needed.")


def stated(reshape: Reshape, shape: torch.Size, layer: str) -> Layout:
    """Return the layout that the user states for the output of a layer.

    Args:
        reshape: A layout, or a function that rearranges the layer's output as N×K×H×W.
        shape: Shape of the output, with the images first.
        layer: Name of the layer, for messages.

    Raises:
        UserError: The layout does not fit the output, or the function does more than to rearrange it.

    Example:
        >>> grid = lambda tokens: tokens[:, 1:].transpose(1, 2).reshape(-1, 8, 2, 2)
        >>> str(stated(grid, torch.Size([1, 5, 8]), "norm"))
        '2×2 by reshape'
    """
    size = "×".join(map(str, shape[1:]))
    check_reshape(reshape)
    if isinstance(reshape, Layout):
        if not reshape.fits(shape):
            raise UserError(f"reshape={reshape}: the output of {layer} for one image is {size}, which does not fit.")
        return reshape
    places = torch.arange(math.prod(shape[1:])).view(1, *shape[1:])
    try:
        found = reshape(places)
    except Exception as error:  # whatever the function raises
        raise UserError(
            f"reshape: the function cannot take the output of {layer}, 1×{size}: {first_line(error)}"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 4 or len(found) != 1 or len(found.unique()) != found.numel():
        raise UserError(f"reshape: the function must only rearrange the output of {layer}, 1×{size}, as N×K×H×W.")
    if found.is_floating_point() or not bool(torch.isin(found, places).all()):
        raise UserError("reshape: the function must not change values or number format; it may only rearrange them.")
    return Rearrangement("NCHW", (found.shape[2], found.shape[3]), cells=found[0])


def nchw(shape: torch.Size) -> Layout:
    """Return the layout of an output N×C×H×W."""
    return Layout("NCHW", (shape[2], shape[3]))


def possible_layouts(shape: torch.Size, image_size: tuple[int, int]) -> Iterator[Layout]:
    """Yield the layouts that an output of this shape may have, of more than one cell.

    Args:
        shape: Shape of the output, with the images first.
        image_size: (height, width) of the images.

    Example:
        >>> [str(layout) for layout in possible_layouts(torch.Size([1, 5, 8]), (32, 32))]
        ['NLC 2×2 behind 1 other token']
    """
    if len(shape) == 4:
        for layout in (nchw(shape), Layout("NCWH", (shape[3], shape[2])), Layout("NHWC", (shape[1], shape[2]))):
            if math.prod(layout.grid) > 1:
                yield layout
    elif len(shape) == 3:
        for prefix in range(min(_MOST_PREFIX_TOKENS, shape[1] - 2) + 1):
            yield from (Layout("NLC", grid, prefix) for grid in token_grids(shape[1] - prefix, image_size))


def token_grids(cells: int, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the grids of a number of cells whose aspect ratio is near that of the images.

    Example:
        >>> token_grids(24, (32, 48)), token_grids(23, (32, 48))
        ([(4, 6)], [])
    """
    wanted = image_size[0] / image_size[1]
    grids = [(h, cells // h) for h in range(1, cells + 1) if cells % h == 0]
    return [
        grid for grid in grids if 1 / _ASPECT_TOLERANCE < grid[0] / grid[1] / wanted < _ASPECT_TOLERANCE and cells > 1
    ]
