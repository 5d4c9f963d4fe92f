"""Networks of torchvision and timm that are trained: built by name, cut before their heads, filled with weights."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torchvision.models.vision_transformer import interpolate_embeddings

from camlab.errors import UserError, first_line
from camlab.models.backbones import PRETRAINED
from camlab.models.classifier_names import TIMM, check_backbone
from camlab.models.evaluating import evaluating
from camlab.models.weights import download, read_tensors

# Children of torchvision's networks that come after the convolutional trunk; the other children run in order.
_HEADS = frozenset(["avgpool", "aux1", "aux2", "AuxLogits", "classifier", "dropout", "fc", "flatten", "head", "heads"])

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

# Exceptions that libraries raise where a network and its input do not fit together.
_UNFIT = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class _TimmTrunk(nn.Module):
    """The part of a network of timm's before its pooling, with the output N×C×H×W."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(images)
        return features.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "") == "NHWC" else features


def build(name: str, image_size: int | None = None) -> nn.Module:
    """Build a classifier with random weights. Nothing is downloaded.

    Args:
        name: torchvision's name of the network, or timm's with `timm/` before it.
        image_size: Side of its input in pixels. It matters for networks that take one size only, such as most
            transformers; None stands for the size that they are known for.

    Raises:
        UserError: There is no such network, or it cannot take images of this size.

    Example:
        >>> build("resnet18").fc
        Linear(in_features=512, out_features=1000, bias=True)
    """
    check_backbone(name)
    try:
        if name.startswith(TIMM):
            return _of_timm(name.removeprefix(TIMM), image_size, num_classes=1000)  # some have no head by default
        return _of_torchvision(name, image_size)
    except _UNFIT as error:
        raise UserError(
            f"data.image_size={image_size}: {name} cannot take such images ({first_line(error)})."
        ) from error


def _of_torchvision(name: str, image_size: int | None) -> nn.Module:
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    elif image_size is not None and name.startswith("vit_"):
        options = {"image_size": image_size}
    elif image_size is not None and name.startswith("maxvit"):
        options = {"input_size": (image_size, image_size)}
    return torchvision.models.get_model(name, weights=None, **options)


def _of_timm(name: str, image_size: int | None, **options: Any) -> nn.Module:
    import timm

    known_for: Any = timm.get_pretrained_cfg(name)
    if image_size is not None and known_for.fixed_input_size:
        options["img_size"] = image_size
    return timm.create_model(name, **options)


class without_values(TorchFunctionMode):
    """A context in which networks are built without memory for their weights, on the meta device.

    Unlike `torch.device("meta")`, it leaves `arange` and the like alone, whose values decide the structure of RegNet.

    Example:
        >>> with without_values():
        ...     layer = nn.Linear(10**6, 10**6)
        >>> layer.weight.device
        device(type='meta')
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **({**(kwargs or {}), "device": "meta"} if function in _MAKERS else kwargs or {}))


def cut_trunk(name: str, network: nn.Module) -> nn.Module:
    """Return the part of a network before its pooling. The tensors' names stay those of the network.

    Example:
        >>> cut_trunk("resnet18", build("resnet18"))(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 512, 2, 2])
    """
    if name.startswith(TIMM):
        return _TimmTrunk(network)
    children = {key: child for key, child in network.named_children() if key not in _HEADS}
    trunk = nn.Sequential()
    for key, child in children.items():
        trunk.add_module(key, nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child)
    if name.startswith("densenet"):
        trunk.add_module("relu", nn.ReLU(inplace=True))  # a function in torchvision's network
    return trunk


def trunk_and_channels(name: str, keeps_head: bool) -> tuple[nn.Module, int]:
    """Build the part of a network before its pooling, with random weights.

    Args:
        name: Name of the network, as for `build`.
        keeps_head: Whether the network must end in average pooling and one linear layer.

    Returns:
        The trunk, N×3×S×S → N×C×H×W, and C.

    Raises:
        UserError: There is no such network, or it has no such trunk or no such head.
    """
    network: Any = build(name)
    trunk = cut_trunk(name, network)
    side = network.default_cfg["input_size"][-1] if name.startswith(TIMM) else 224
    try:
        shape = output_shape(trunk, name, side)
    except UserError:  # what is left does not fit together
        shape = ()
    if len(shape) != 4 or shape[2] != shape[3] or shape[2] == 1:
        raise UserError(
            f"arch.backbone={name}: it has no convolutional trunk with the output N×C×H×W."
            " Choose another, or train it as it is: arch=classifier."
        )
    if keeps_head and not _ends_in_one_linear(name, network, trunk, shape[1]):
        raise UserError(
            f"arch.cam_conv=false: {name} does not end in average pooling and one linear layer, so CAM would not be"
            " exact. Leave the setting out, or choose another backbone, such as resnet18."
        )
    if name.startswith(TIMM):
        network.reset_classifier(0)
    return trunk, shape[1]


def _ends_in_one_linear(name: str, network: Any, trunk: nn.Module, channels: int) -> bool:
    """Whether a network is its trunk, average pooling (and perhaps dropout), and one linear layer."""
    if not name.startswith(TIMM):  # all networks of torchvision's pool by averaging
        after = network.state_dict().keys() - trunk.state_dict().keys()
        linear = next((m for m in reversed(list(network.modules())) if isinstance(m, nn.Linear)), None)
        return linear is not None and len(after) == len(linear.state_dict()) and linear.in_features == channels
    linear = network.get_classifier()
    if not isinstance(linear, nn.Linear) or linear.in_features != channels:
        return False
    if linear.weight.is_meta:
        return True  # the rebuilt network of a checkpoint was checked before it was trained
    features = torch.randn(1, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    nhwc = features.permute(0, 2, 3, 1) if getattr(network, "output_fmt", "") == "NHWC" else features
    with torch.no_grad(), evaluating(network):
        return torch.allclose(network.forward_head(nhwc), linear(features.mean(dim=(2, 3))), rtol=1e-3, atol=1e-4)


def output_shape(module: nn.Module, name: str, side: int) -> tuple[int, ...]:
    """Shape of a module's output for one RGB image of `side`² pixels, found without computing a value.

    Raises:
        UserError: The module cannot take images of this size; the message calls it `name`.

    Example:
        >>> output_shape(nn.Conv2d(3, 8, kernel_size=3), "a convolution", 32)
        (1, 8, 30, 30)
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    on_meta = {key: tensor.detach().to("meta") for key, tensor in tensors}
    dtype = next((tensor.dtype for _, tensor in tensors if tensor.is_floating_point()), torch.float32)
    image = torch.zeros(1, 3, side, side, dtype=dtype, device="meta")
    try:
        with torch.no_grad(), evaluating(module):
            return tuple(functional_call(module, on_meta, (image,)).shape)
    except _UNFIT as error:
        raise UserError(
            f"data.image_size={side}: {name} cannot take such images ({first_line(error)})."
            " Give larger ones, or the size that the network is made for."
        ) from error


def weight_tensors(name: str, weights: str, image_size: int | None = None) -> Mapping[str, Tensor]:
    """Read or download the tensors that `arch.weights` names.

    Args:
        name: Name of the network, as for `build`.
        weights: `pretrained` or `imagenet` for the weights that the network's library offers, or a file.
        image_size: As for `build`; the position embeddings of transformers are interpolated to it.

    Raises:
        UserError: There are no such weights, or they cannot be downloaded or read.
    """
    if weights in PRETRAINED and name.startswith(TIMM):
        given = f"arch.backbone={name}"
        return pretrained_of_timm(name.removeprefix(TIMM), given, "arch.weights", image_size).state_dict()
    if weights in PRETRAINED:
        found = download(torchvision.models.get_model_weights(name).DEFAULT, f"arch.weights={weights}")
    else:
        found = read_tensors(Path(os.path.expanduser(weights)))
    if image_size is not None and (embedding := found.get("encoder.pos_embedding")) is not None:
        patch = found["conv_proj.weight"].shape[-1]
        if embedding.shape[1] != (image_size // patch) ** 2 + 1:
            return interpolate_embeddings(image_size, patch, dict(found))
    return found


def pretrained_of_timm(name: str, given: str, key: str, image_size: int | None = None) -> Any:
    """Build a network of timm with its weights, which are downloaded or read from the cache of huggingface_hub.

    Args:
        name: timm's name.
        given: The setting that named the network, for messages.
        key: The setting of the weights, for messages.
        image_size: As for `build`.

    Raises:
        UserError: There are no such weights, or they cannot be downloaded.
    """
    import timm

    ways_out = f"Give {key}=FILE.safetensors, or {key}=null for random weights."
    if not timm.is_model_pretrained(name):
        raise UserError(f"{given}: timm has no pretrained weights for it. {ways_out}")
    try:
        return _of_timm(name, image_size, pretrained=True)
    except Exception as error:  # httpx, huggingface_hub and timm raise different errors if there is no connection
        raise UserError(
            f"{given}: its weights could not be downloaded ({first_line(error)}). {ways_out} Weights that were"
            " downloaded before are read from the cache of huggingface_hub (HF_HOME)."
        ) from error
