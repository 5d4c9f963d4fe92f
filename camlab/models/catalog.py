"""Classifiers by name: torchvision's, and timm's where it is installed, as they were trained."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.models.weights import download, read_tensors


def from_name(name: str, weights: str | None = "DEFAULT") -> TrainedNetwork:
    """A network of torchvision's or timm's.

    Args:
        name: `vgg16`, `resnet50`, …
        weights: a name of torchvision's enum (`DEFAULT`, `IMAGENET1K_V1`), a file of all the network's tensors, or None
            for random ones. For timm: `DEFAULT`, a file or None.

    Raises:
        UserError: no such network or weights; weights that cannot be had or do not fit.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name in known:
        return _of_torchvision(name, weights)
    if found := _of_timm(name, weights):
        return found
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UserError(
        f"network={name}: torchvision has no such classifier, and timm neither (if installed). {hint}".strip()
    )


def _of_torchvision(name: str, weights: str | None) -> TrainedNetwork:
    enums = torchvision.models.get_model_weights(name)
    best: Any = enums.DEFAULT
    transforms = best.transforms()
    given = f"network.weights={weights}"
    if weights is not None and Path(weights).suffix:
        state = _of_file(weights)
    elif weights is None:
        state = None
    elif weights in enums.__members__:
        best = enums[weights]
        transforms, state = best.transforms(), download(best, given)
    else:
        raise UserError(f"{given}: choose one of {', '.join(enums.__members__)}, a .safetensors or .pth file, or null.")
    special: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # torchvision's weights for them expect inputs in [-1, 1]
        special = {"init_weights": state is None, "transform_input": state is not None}
    network, num_classes = torchvision.models.get_model(name, weights=None, **special), len(best.meta["categories"])
    if state is not None:
        head = list(network.state_dict())[-1]
        if head in state and state[head].dim() and len(state[head]) != num_classes:
            num_classes = len(state[head])
            network = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **special)
        _fill(network, state, name, given)
    preprocess = Preprocess(transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std))
    return TrainedNetwork(network.eval(), preprocess, _class_names(num_classes), name)


def _of_timm(name: str, weights: str | None) -> TrainedNetwork | None:
    try:
        import timm
    except ImportError:
        return None
    if not timm.is_model(name):
        return None
    network = timm.create_model(name, pretrained=weights == "DEFAULT")
    if weights not in (None, "DEFAULT"):
        _fill(network, _of_file(weights), name, f"network.weights={weights}")
    about = timm.data.resolve_model_data_config(network)
    preprocess = Preprocess(about["input_size"][-1], tuple(about["mean"]), tuple(about["std"]))
    return TrainedNetwork(network.eval(), preprocess, _class_names(network.num_classes), name)


def _of_file(weights: str) -> Mapping[str, Tensor]:
    return read_tensors(Path(weights).expanduser(), "network.weights", named="DEFAULT")


def _fill(network: nn.Module, state: Mapping[str, Tensor], name: str, given: str) -> None:
    expected = network.state_dict()
    for key, tensor in expected.items():
        if key not in state and not key.endswith("num_batches_tracked"):
            raise UserError(
                f"{given}: no tensor {key}, which {name} needs. A features-only file, or another network's?"
            )
        if key in state and state[key].shape != tensor.shape:
            sizes = ["×".join(map(str, each.shape)) for each in (state[key], tensor)]
            raise UserError(f"{given}: {key} is {sizes[0]}, but {sizes[1]} in {name}. Another network's file?")
    network.load_state_dict(dict(state), strict=False)


def _class_names(num_classes: int) -> tuple[str, ...]:
    """ImageNet's names where there are a thousand classes, else numbers."""
    imagenet = torchvision.models.AlexNet_Weights.DEFAULT.meta["categories"]
    return tuple(imagenet) if num_classes == len(imagenet) else tuple(f"class {i}" for i in range(num_classes))
