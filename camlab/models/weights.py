"""Read weights: torchvision's, or files that hold tensors and plain values only. Code in a file never runs."""

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from camlab.errors import UserError, cut, first_line, listed

_MOST_VALUES = 5_000_000  # in a file of torch.save; a checkpoint holds some thousands


def load_tensors(module: nn.Module, found: Mapping[str, Tensor], network: str, given: str, prefix: str = "") -> None:
    """Load tensors into a part of a network, in place; tensors of other parts are ignored.

    Args:
        module: The part.
        found: Tensors by name, as in the state dict of the whole network. All names may have a prefix, such as
            `model.` in a checkpoint of Lightning.
        network: Name of the network, for messages.
        given: The setting that asked for the weights, for messages.
        prefix: What precedes the part's names in the state dict of the whole network.

    Raises:
        UserError: A tensor is missing, has another shape, or cannot be loaded (the message names it).
    """
    expected = module.state_dict(prefix=prefix)
    state = matching_tensors(without_prefix(found, expected, given), expected, network, given)
    fill(module, {name.removeprefix(prefix): tensor for name, tensor in state.items()})


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load checked tensors into a module, which keeps the values of those that are missing.

    The versions of the module's parts are those of the installed library: MNASNet refuses tensors without a version.
    """
    versioned: Any = OrderedDict(state)
    versioned._metadata = getattr(module.state_dict(), "_metadata", {})
    module.load_state_dict(versioned, strict=False)


def matching_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], network: str, given: str
) -> dict[str, Tensor]:
    """Select the tensors that a network needs from those of a file.

    Args:
        found: Tensors of the file by name; there may be more than the network needs.
        expected: The network's state dict. Batch norm's `num_batches_tracked` may be missing from the file.
        network: Name of the network, for messages.
        given: The setting that asked for the weights, for messages.

    Raises:
        UserError: A tensor is missing, has another shape, or cannot be loaded, as `check_weights` says.

    Example:
        >>> found = {"conv.bias": torch.ones(2), "fc.bias": torch.ones(10)}
        >>> matching_tensors(found, {"conv.bias": torch.zeros(2)}, "alexnet", "weights=FILE")
        {'conv.bias': tensor([1., 1.])}
    """
    for name, tensor in expected.items():
        if name not in found and not name.endswith("num_batches_tracked"):  # absent before torch 0.4.1
            raise UserError(f"{given}: no tensor {name}, which {network} needs. Is it another network's file?")
        if name in found and found[name].shape != tensor.shape:
            raise UserError(
                f"{given}: {name} is {_size(found[name])}, but {_size(tensor)} in {network}."
                " Is it another network's file?"
            )
    check_weights(found, expected, given)
    return {name: found[name] for name in expected if name in found}


def without_prefix(found: Mapping[str, Tensor], names: Iterable[str], given: str) -> Mapping[str, Tensor]:
    """Remove the prefix under which a file has all of a network's tensors, if there is one.

    Raises:
        UserError: There are several such prefixes, such as those of a teacher and a student.

    Example:
        >>> found = {"model.fc.bias": torch.ones(2), "loss.scale": torch.ones(1)}
        >>> list(without_prefix(found, ["fc.bias"], "network.weights=FILE"))
        ['fc.bias']
    """
    needed = [name for name in names if not name.endswith("num_batches_tracked")]
    if not needed or needed[0] in found:
        return found
    prefixes = [name.removesuffix(needed[0]) for name in found if name.endswith("." + needed[0])]
    complete = [prefix for prefix in prefixes if all(prefix + name in found for name in needed)]
    if len(complete) > 1:
        raise UserError(
            f"{given}: the file has the network's tensors under {listed(complete)}. Choose one with network.prefix="
            " (camlab-explain), or save it in a file of its own."
        )
    return under(found, complete[0]) if complete else found


def under(found: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names begin with a prefix, and remove it."""
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def of_file(weights: str, prefix: str | None) -> Mapping[str, Tensor]:
    """Read the file of `network.weights`, and of its tensors only those with the prefix of `network.prefix`.

    Raises:
        UserError: The file cannot be read, or no tensor has this prefix.
    """
    found = read_tensors(Path(weights).expanduser(), "network.weights", named="DEFAULT")
    if prefix is None:
        return found
    chosen = under(found, prefix.removesuffix(".") + ".")
    if not chosen:
        firsts = dict.fromkeys(name.partition(".")[0] for name in found)
        raise UserError(
            f"network.prefix={prefix}: no tensor of the file has it. The names begin with {listed(list(firsts))}."
        )
    return chosen


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], given: str) -> None:
    """Refuse weights that are not ordinary dense tensors, are not floating-point numbers, or are not finite.

    Args:
        found: Tensors of a file by name.
        expected: State dict of the network; tensors with other names are not checked.
        given: The setting that named the file, for messages.

    Raises:
        UserError: The message names the tensor.
    """
    check_dense({name: found[name] for name in expected if name in found}, given)
    for name, tensor in expected.items():
        value = found.get(name)
        if value is None or not tensor.is_floating_point():
            continue
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(
                f"{given}: {name} holds {kind}, not floating-point numbers. Convert the file, or give another one."
            )
        if not value.to(tensor.dtype).isfinite().all():
            raise UserError(f"{given}: {name} holds NaN or infinite numbers. Give another file.")


def check_dense(tensors: Mapping[str, Tensor], given: str) -> None:
    """Refuse tensors that are sparse, quantised or without values, or have fewer places in memory than elements.

    A tensor of the last kind can have any size, though its file is small.

    Args:
        tensors: Tensors of a file by name.
        given: The setting that named the file, for messages.

    Raises:
        UserError: The message names the tensor.
    """
    for name, tensor in tensors.items():
        if kind := unusual_kind(tensor):
            raise UserError(f"{given}: {cut(name, 80)} is {kind}. Save it as an ordinary dense tensor.")


def read_tensors(path: Path, key: str = "arch.weights", named: str = "pretrained") -> Mapping[str, Tensor]:
    """Read the tensors of a weights file by name. Pickled code is refused and never runs.

    Args:
        path: A .safetensors, .pth or .pt file, or a checkpoint of Lightning (.ckpt).
        key: The setting that named the file, for messages.
        named: The value that the setting may have instead of a file or null, for messages.

    Raises:
        UserError: There is no such file, its ending is unknown, or it is damaged or holds anything but tensors.
    """
    given = f"{key}={path}"
    if not path.is_file():
        raise UserError(f"{given}: no such file. Give a .safetensors or .pth file, {named} or null.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (safetensors.SafetensorError, ValueError) as error:
            raise UserError(f"{given}: damaged or not a safetensors file ({first_line(error)}).") from error
    if path.suffix not in (".pth", ".pt", ".ckpt"):
        raise UserError(f"{given}: unknown ending {path.suffix!r}. Choose from .safetensors, .pth, .pt, .ckpt.")
    content = load_without_code(path, given)
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{given}: holds no state dict (a dict of names and tensors).")
    return content


def load_without_code(path: Path, given: str) -> Any:
    """Load a file of torch.save that holds tensors and plain values only. Pickled code is refused and never runs.

    Args:
        path: An existing file. If it has torch's current format, it is mapped into memory, so that tensors that are not
            used are not read.
        given: The setting that named the file, for messages.

    Raises:
        UserError: The file is damaged or holds code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about old pickle versions and about the checks of sparse tensors
            if is_zip := zipfile.is_zipfile(path):
                _check_uncompressed(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        _check_extent(content)
        return content
    except pickle.UnpicklingError as error:
        raise UserError(f"{given}: refused: it is damaged or holds code, and only tensors are read.") from error
    except Exception as error:  # a damaged file can raise any exception
        raise UserError(f"{given}: damaged or not a file of torch.save ({first_line(error)}).") from error


def _check_uncompressed(path: Path) -> None:
    """Refuse a file with compressed parts, which can be a thousand times larger in memory; torch.save makes none.

    Raises:
        ValueError: There is such a part.
    """
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("its parts are compressed")


def _check_extent(content: Any) -> None:
    """Refuse nested dictionaries and lists that hold too many values to visit, because some are in many places.

    Raises:
        ValueError: There are more than `_MOST_VALUES`.
    """
    left, count = [content], 0
    while left:
        node = left.pop()
        children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
        count += len(children)
        if count > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        left.extend(children)


def download(enum: WeightsEnum, given: str) -> Mapping[str, Tensor]:
    """Return weights of torchvision from torch's cache, or download them and check their hash.

    Args:
        enum: Weights of a network, as torchvision lists them.
        given: The setting that asked for them, for messages.

    Raises:
        UserError: The weights cannot be downloaded.
    """
    try:
        return enum.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no connection, or a download with the wrong hash
        folder, key = Path(torch.hub.get_dir()) / "checkpoints", given.partition("=")[0]
        raise UserError(
            f"{given}: {enum.url} could not be downloaded ({first_line(error)}).",
            f"Put the file into {folder}, or give {key}=FILE.safetensors, or {key}=null for random weights.",
        ) from error


def unusual_kind(tensor: Tensor) -> str | None:
    """The property that keeps a tensor from being copied into a network; None for an ordinary tensor."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_meta:
        return "on the meta device, without values"
    return None if _has_places(tensor) else "a view whose elements share their places in memory"


def _has_places(tensor: Tensor) -> bool:
    """Whether a tensor has a place in memory for each of its elements, in any order of its dimensions."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).is_contiguous()


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"
