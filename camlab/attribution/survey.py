"""Survey a network: which of its modules are called for images of one size, and how their outputs are arranged.

A 4-D output is not always N×K×H×W, and tokens do not say which of them form the grid. The arrangement is found by
probing, unless most layers with as many tokens contradict it. If probing finds none, or more than one, the arrangement
is taken from the convolutions, poolings and batch norms that give or take the tensor, provided that probing finds no
other arrangement than theirs in the network, and does not find that the network flips, crops, turns or shifts the
picture. Otherwise it is unknown, and no map is computed from the layer.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from camlab.attribution.calls import record_calls
from camlab.attribution.layouts import Layout, Reshape, nchw, stated
from camlab.attribution.probing import probe
from camlab.errors import UserError

_SMALL_KERNEL = 3  # cells: the ResNet of the study has these kernels on 4×4 cells, and its maps are right
_MOST_CELLS = 0.75  # share of the cells that a kernel covers
_MOST_STRETCHED = 4.0  # how much longer a cell of a map may be in one direction than in the other

MOVED = (
    "the network flips, crops, turns or shifts the picture (a change in one place changes features in another), so a"
    " map would be drawn in the wrong place. Do this before the network instead."
)


class Survey:
    """Calls of a network's modules for images of one size, and the layouts of their outputs.

    Args:
        model: A network in eval mode, in a context for passes (`camlab.attribution.hooks.passing`).
        image: 1×C×H×W.
        reshape: What the user states about the layouts of layers.

    Attributes:
        calls: The calls in order.
        once: Calls of modules that are called once.
        layouts: Layouts of their outputs, where they are known, by the name of the layer.
        moved: Names of layers whose output is N×K×H×W, but of a picture that the network has flipped, cropped or moved.

    Raises:
        UserError: The network cannot take the image, or a stated layout does not fit.
    """

    def __init__(self, model: nn.Module, image: Tensor, reshape: Mapping[str, Reshape] | None = None) -> None:
        self.calls = record_calls(model, image)
        first = {id(module): name for name, module in model.named_modules()}
        self._first_name = {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}
        self.image_size = (image.shape[-2], image.shape[-1])
        counts = Counter(call.name for call in self.calls)
        self.once = [call for call in self.calls if counts[call.name] == 1]
        self.moved: set[str] = set()
        found = self._find(model, image)
        shapes = {call.name: call.shape for call in self.once}
        for name, how in (reshape or {}).items():
            if self._first_name[name] in shapes:
                found[self._first_name[name]] = stated(how, shapes[self._first_name[name]], name)
        self.layouts = {call.name: found[call.name] for call in self.once if call.name in found}

    def _find(self, model: nn.Module, image: Tensor) -> dict[str, Layout]:
        """Probe the network, and add what its convolutions tell."""
        by_modules = {call.name: nchw(call.shape) for call in self.once if call.is_nchw and _is_map(call.shape)}
        by_modules = {name: at for name, at in by_modules.items() if _is_plausible(at, self.image_size)}
        names = {call.name for call in self.once if not call.is_vector}
        probed = probe(model, image, names, by_modules.keys())
        if any(layout.order not in ("NCHW", "NCWH") for layout in probed.layouts.values()):
            by_modules = {}  # here, a convolution may run over something else than the picture
        is_moved = False
        for call in self.once:  # where probing tells nothing, the picture is where it was before
            if call.name in probed.moved:
                is_moved = True
            elif call.name in probed.layouts and probed.layouts[call.name].order != "NCWH":
                is_moved = False
            if is_moved and call.name in by_modules:
                del by_modules[call.name]
                self.moved.add(call.name)
        found = by_modules | probed.layouts
        return _agreeing({name: at for name, at in found.items() if _is_plausible(at, self.image_size)})

    def layout(self, name: str) -> Layout:
        """Return the layout of a layer's output.

        Raises:
            UserError: The layer is not used or used twice, it has one cell only, or its layout is not known.
        """
        recorded_as = self._first_name[name]  # a module may have two names
        calls = [call for call in self.calls if call.name == recorded_as]
        if not calls:
            raise UserError(f"layer={name}: the network does not use it for these images.")
        if len(calls) > 1:
            raise UserError(f"layer={name}: used more than once in a pass; choose the block that contains it.")
        if recorded_as in self.layouts:
            return self.layouts[recorded_as]
        if recorded_as in self.moved:
            raise UserError(f"layer={name}: {MOVED} Or state in Python how the output is arranged (reshape=).")
        shape = "×".join(map(str, calls[0].shape[1:]))
        if calls[0].is_vector:
            raise UserError(
                f"layer={name}: its output for one image is {shape}; a map needs K×H×W or tokens, larger than 1×1."
                " Give larger images or, for methods other than cam, an earlier layer."
            )
        raise UserError(
            f"layer={name}: its output for one image is {shape}, and probing the network does not show which axes are"
            f" rows and columns of the picture. Choose another layer{self._near(recorded_as)}, or state the layout in"
            " Python (reshape=)."
        )

    def _near(self, name: str) -> str:
        """Layers near this one whose layouts are known, for messages."""
        at = [call.name for call in self.calls].index(name)
        known = [call.name for call in self.calls[:at] if call.name in self.layouts][-3:]
        known += [call.name for call in self.calls[at:] if call.name in self.layouts][:2]
        return f", such as {', '.join(known)}" if known else ""

    @property
    def has_unknown_end(self) -> bool:
        """Whether layers behind the last one with a known layout have space, or tokens, that was not made out."""
        names = [call.name for call in self.calls]
        end = max((i for i, name in enumerate(names) if name in self.layouts), default=-1)
        known = [call.is_vector or (call.is_nchw and call.shape[0] == 1) for call in self.calls[end + 1 :]]
        return self.is_moved_at_end or not all(known)

    @property
    def is_moved_at_end(self) -> bool:
        """Whether the network moves the picture behind the last layer with a known layout."""
        end = list(self.layouts)[-1:]
        behind = itertools.dropwhile(lambda name: name not in end, [call.name for call in self.calls])
        return not self.moved.isdisjoint(behind if end else self.moved)

    def mixing_kernel(self, layer: str) -> int | None:
        """Side, in cells, of a kernel that covers most of a layer's cells, so that its features belong to no place.

        Args:
            layer: Name of a layer; convolutions on its grid up to this layer count.

        Returns:
            None if there is no such kernel, or if the layout of the layer is not known.
        """
        if layer not in self.layouts:
            return None
        grid = self.layouts[layer].grid
        before = self.calls[: [call.name for call in self.calls].index(layer) + 1]
        widths = [
            _width(call.module) for call in before if isinstance(call.module, nn.Conv2d) and call.shape[-2:] == grid
        ]
        widest = max(widths, default=0)
        return widest if widest > _SMALL_KERNEL and widest**2 >= _MOST_CELLS * prod(grid) else None

    @property
    def last_linear(self) -> nn.Linear | None:
        """The linear layer that runs last; in a network that supports CAM, no other follows the pooling."""
        return next((call.module for call in reversed(self.calls) if isinstance(call.module, nn.Linear)), None)

    @property
    def is_nchw(self) -> bool:
        """Whether all outputs are known to be N×K×H×W, or have no space left."""
        return all(call.is_vector or call.is_nchw for call in self.calls)

    @property
    def is_convolutional(self) -> bool:
        """Whether all features are N×K×H×W, or the last ones are and convolutions have mixed neighbouring positions.

        A convolution whose stride is its kernel cuts the picture into patches and mixes nothing.
        """
        if not self.layouts or self.has_unknown_end or list(self.layouts.values())[-1].order != "NCHW":
            return False
        if self.is_nchw:
            return True
        convolutions = [call.module for call in self.calls if isinstance(call.module, nn.Conv2d)]
        return any(module.kernel_size != module.stride for module in convolutions)


def _width(convolution: nn.Conv2d) -> int:
    """Side of the square that a kernel covers, in cells."""
    sides = zip(convolution.kernel_size, convolution.dilation, strict=True)
    return min(dilation * (side - 1) + 1 for side, dilation in sides)


def _is_map(shape: torch.Size) -> bool:
    return len(shape) == 4 and shape[0] == 1 and prod(shape[2:]) > 1


def _is_plausible(layout: Layout, image_size: tuple[int, int]) -> bool:
    """Whether rows and columns are not exchanged, and the cells are not strips."""
    aspect = layout.grid[0] / layout.grid[1] * image_size[1] / image_size[0]
    return layout.order != "NCWH" and 1 / _MOST_STRETCHED <= aspect <= _MOST_STRETCHED


def _agreeing(found: dict[str, Layout]) -> dict[str, Layout]:
    """Leave out layouts of tokens that the majority of the layers with as many tokens contradicts.

    Where much is mixed, a place may seem to be one row higher, behind as many more other tokens.
    """
    of_tokens = {name: layout for name, layout in found.items() if layout.order == "NLC"}
    layouts = Counter(of_tokens.values())
    layers = Counter(layout.positions for layout in of_tokens.values())
    return {
        name: layout
        for name, layout in found.items()
        if name not in of_tokens or 2 * layouts[layout] > layers[layout.positions]
    }
