"""Survey a network: which of its modules are called for images of one size, and how their outputs are arranged.

A 4-D output is not always N×K×H×W, and tokens do not say which of them form the grid. The arrangement is found by
probing: the network sees pictures of noise that differ from each other in one place only: at the top left, at the top
right, at the bottom left, and off the diagonal. The arrangement in which the output differs most in these places is the
right one, unless most layers with as many tokens contradict it. If there is none, or more than one, the arrangement is
taken from the convolutions, poolings and batch norms that give or take the tensor, provided that probing finds no other
arrangement than theirs in the network. Otherwise it is unknown, and no map is computed from the layer.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from camlab.attribution.hooks import first_tensor
from camlab.attribution.layouts import Layout, Reshape, nchw, possible_layouts, stated
from camlab.attribution.network_input import output_of
from camlab.errors import UserError

# Modules whose input and output are N×K×H×W.
_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.LPPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Upsample,
    nn.Dropout2d,
    nn.LocalResponseNorm,
)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish)
_ELEMENTWISE = (*ACTIVATIONS, nn.Identity, nn.Dropout, nn.Sigmoid, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus)

# Where the pictures differ: row and column of the centre, and the side, as shares of the picture. The place at the top
# left tells the first row from tokens before the grid; as it is on the diagonal, it cannot tell rows from columns. With
# up to 20 rows, one of the others is in a row of odd number, and tells whether these run backwards.
_PLACES = ((0.0, 0.0, 0.0625), *((*at, 0.125) for at in ((0.1, 0.9), (0.9, 0.1), (0.3, 0.75), (0.5, 0.2), (0.2, 0.75))))

_MOST_STRETCHED = 4.0  # how much longer a cell of a map may be in one direction than in the other


@dataclass(frozen=True)
class Call:
    """A call of a module.

    Attributes:
        name: Name of the module in the network.
        module: The module.
        shape: Shape of its output or, if the output is a tuple, of the first tensor in it.
        is_nchw: Whether the output is known to be N×K×H×W.
    """

    name: str
    module: nn.Module
    shape: torch.Size
    is_nchw: bool

    @property
    def is_vector(self) -> bool:
        """Whether the output of one image has no space left: K, K×1×1, or a single token."""
        if self.shape[0] != 1:  # pieces of the picture in the batch, or an axis of tokens before that of the batch
            return False
        return len(self.shape) <= 2 or prod(self.shape[2:]) == 1 or (len(self.shape) == 3 and self.shape[1] == 1)


class Survey:
    """Calls of a network's modules for images of one size, and the layouts of their outputs.

    Args:
        model: A network in eval mode, in a context for passes (`camlab.attribution.hooks.passing`).
        image: 1×C×H×W.
        reshape: What the user states about the layouts of layers.

    Raises:
        UserError: The network cannot take the image, or a stated layout does not fit.
    """

    def __init__(self, model: nn.Module, image: Tensor, reshape: Mapping[str, Reshape] | None = None) -> None:
        self.calls = _record_calls(model, image)
        first = {id(module): name for name, module in model.named_modules()}
        self._first_name = {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}
        self.image_size = (image.shape[-2], image.shape[-1])
        counts = Counter(call.name for call in self.calls)
        self.once = [call for call in self.calls if counts[call.name] == 1]
        probed = _probe(model, image, {call.name for call in self.once if not call.is_vector})
        if any(layout.order not in ("NCHW", "NCWH") for layout in probed.values()):
            found = probed  # here, a convolution may run over something else than the picture
        else:
            found = {call.name: nchw(call.shape) for call in self.once if call.is_nchw and _is_map(call.shape)} | probed
        found = _agreeing({name: at for name, at in found.items() if _is_plausible(at, self.image_size)})
        shapes = {call.name: call.shape for call in self.once}
        for name, how in (reshape or {}).items():
            if self._first_name[name] in shapes:
                found[self._first_name[name]] = stated(how, shapes[self._first_name[name]], name)
        self.layouts = {call.name: found[call.name] for call in self.once if call.name in found}

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
        return not all(known)

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


@contextmanager
def _hooked(model: nn.Module, record: Callable[[str, nn.Module, Sequence[object], Tensor], None]) -> Iterator[None]:
    """Call a function after each call of each module that gives a tensor."""

    def hook_of(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if (tensor := first_tensor(output)) is not None and tensor.dim() > 0:
                record(name, module, inputs, tensor)

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _record_calls(model: nn.Module, image: Tensor) -> list[Call]:
    """The calls in order. Tensors are followed by identity, to know which of them are N×K×H×W."""
    seen: list[tuple[str, nn.Module, Tensor]] = []
    nchw_ids: set[int] = set()
    same: list[tuple[int, int]] = []  # input and output of elementwise modules
    alive: list[object] = []  # so that no two tensors of the pass have the same id

    def record(name: str, module: nn.Module, inputs: Sequence[object], output: Tensor) -> None:
        alive.extend(inputs)
        seen.append((name, module, output))
        given = [tensor for tensor in inputs if isinstance(tensor, Tensor)]
        if isinstance(module, _CHANNELS_FIRST):
            nchw_ids.update(id(tensor) for tensor in (output, *given) if tensor.dim() == 4)
        elif isinstance(module, _ELEMENTWISE):
            same.extend((id(tensor), id(output)) for tensor in given if tensor.shape == output.shape)

    with _hooked(model, record):
        output_of(model, image)
    for one, other in (*same, *reversed(same)):
        if one in nchw_ids or other in nchw_ids:
            nchw_ids.update((one, other))
    return [Call(name, module, output.shape, id(output) in nchw_ids) for name, module, output in seen]


def _probe(model: nn.Module, image: Tensor, names: set[str]) -> dict[str, Layout]:
    """The layouts that probing finds, by the name of the layer."""
    found: dict[str, Layout] = {}
    if image.is_meta:  # there are no values to compare
        return found

    def record(name: str, module: nn.Module, inputs: Sequence[object], output: Tensor) -> None:
        if name in names and len(output) == 1 + len(_PLACES):
            right = _right_layouts(output.float(), (image.shape[-2], image.shape[-1]))
            if len(right) == 1:
                found[name] = right[0]

    with _hooked(model, record):
        output_of(model, _noise_that_differs_in_places(image))
    return found


def _noise_that_differs_in_places(image: Tensor) -> Tensor:
    """A picture of noise, and copies that differ from it in one of `_PLACES` each."""
    generator = torch.Generator("cpu").manual_seed(0)
    height, width = image.shape[-2:]
    noise = torch.randn(image.shape[1:], generator=generator, device="cpu")
    pictures = noise.repeat(1 + len(_PLACES), 1, 1, 1)
    for picture, (row, column, side) in zip(pictures[1:], _PLACES, strict=True):
        top, left = max(0, int((row - side / 2) * height)), max(0, int((column - side / 2) * width))
        bottom, right = max(top + 1, int((row + side / 2) * height)), max(left + 1, int((column + side / 2) * width))
        part = picture[:, top:bottom, left:right]
        part.copy_(2 * torch.randn(part.shape, generator=generator, device="cpu"))
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
