"""Reading backbone weights: torchvision's, or a file that holds tensors and nothing else."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from camlab.errors import UserError


def load_backbone_weights(layers: nn.Sequential, backbone: str, weights: str) -> None:
    """Fill `layers` (torchvision's `features`) in place.

    Args:
        layers: the backbone's `features`.
        backbone: torchvision's name of the network.
        weights: `imagenet`, or a `.safetensors`, `.pth` or `.pt` file with `features.*` tensors (others are ignored).

    Raises:
        UserError: weights that cannot be downloaded or read, hold code, or lack or misshape a tensor (it is named).
    """
    enum = torchvision.models.get_model_weights(backbone).IMAGENET1K_V1
    found = (
        download(enum, "arch.weights=imagenet") if weights == "imagenet" else read_tensors(Path(weights).expanduser())
    )
    expected = layers.state_dict(prefix="features.")
    chosen = {}
    for name, tensor in expected.items():
        if name not in found and name.endswith("num_batches_tracked"):
            continue  # absent from files of before torch 0.4.1
        if name not in found:
            raise UserError(
                f"arch.weights={weights}: no tensor {name}, which {backbone} needs. Another network's file?"
            )
        if found[name].shape != tensor.shape:
            raise UserError(
                f"arch.weights={weights}: {name} is {_size(found[name])}, but {_size(tensor)} in {backbone}."
                " Another network's file?"
            )
        chosen[name.removeprefix("features.")] = found[name].to(tensor.dtype)
    layers.load_state_dict(chosen, strict=False)


def read_tensors(path: Path, key: str = "arch.weights", named: str = "imagenet") -> Mapping[str, Tensor]:
    """The tensors of a weights file by name; pickled code is refused, never run.

    Args:
        path: a .safetensors, .pth or .pt file.
        key: the setting that named it, for messages.
        named: what else, beside null, the setting may be.

    Raises:
        UserError: no such file, unknown ending, damaged file, or anything but tensors in it.
    """
    if not path.is_file():
        raise UserError(f"{key}={path}: no such file. Give a .safetensors or .pth file, {named} or null.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (safetensors.SafetensorError, ValueError) as error:
            raise UserError(f"{key}={path}: damaged or no safetensors file ({error}).") from error
    if path.suffix not in (".pth", ".pt"):
        raise UserError(f"{key}={path}: {path.suffix or 'no ending'}; .safetensors, .pth and .pt are read.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{key}={path}: refused: it is damaged or holds code, and only tensors are read.") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{key}={path}: damaged or no torch file ({_first_line(error)}).") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{key}={path}: holds no state dict (a dict of names and tensors).")
    return content


def download(enum: WeightsEnum, given: str) -> Mapping[str, Tensor]:
    """Weights of torchvision's, downloaded and checked by hash, or from torch's cache.

    Raises:
        UserError: they cannot be had; `given` is the setting that asked for them.
    """
    try:
        return enum.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a download with the wrong hash
        folder, key = Path(torch.hub.get_dir()) / "checkpoints", given.partition("=")[0]
        raise UserError(
            f"{given}: {enum.url} cannot be had ({_first_line(error)}).\n"
            f"Put the file into {folder}, or give {key}=FILE.safetensors, or {key}=null for none."
        ) from error


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
