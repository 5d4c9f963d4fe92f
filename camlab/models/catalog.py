"""Build classifiers by name, with their trained weights: torchvision's, and timm's if it is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor

from camlab.errors import UserError
from camlab.models.classifier_names import unknown_name
from camlab.models.named_networks import pretrained_of_timm
from camlab.models.own_networks import of_data_config, of_function, of_transformers
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.models.weights import check_dense, download, load_tensors, of_file, without_prefix


def from_name(name: str, weights: str | None = "DEFAULT", prefix: str | None = None) -> TrainedNetwork:
    """Build a classifier of torchvision, timm or transformers, or one that a user's function makes.

    Args:
        name: `vgg16`, `resnet50`, `timm/NAME`, `hf/FOLDER`, or `package.module:function`, whose code runs.
        weights: A name of torchvision's enum (`DEFAULT`, `IMAGENET1K_V1`), a file of all the network's tensors, or None
            for random weights. For timm: `DEFAULT`, a file or None.
        prefix: What precedes the names of the network's tensors in the file; None if it is to be found.

    Raises:
        UserError: The network or the weights are unknown; the weights cannot be downloaded or read, or do not fit.

    Example:
        >>> trained = from_name("squeezenet1_1", weights=None)
        >>> trained.preprocess.image_size, trained.preprocess.resize_size, trained.class_names[281]
        (224, 256, 'tabby')
    """
    if prefix is not None and weights in (None, "DEFAULT"):
        raise UserError(f"network.prefix={prefix}: it is for a file. Give network.weights=FILE, too.")
    if name.startswith("hf/"):
        return of_transformers(name.removeprefix("hf/"), weights, prefix)
    if ":" in name:
        return of_function(name, weights, prefix)
    known = torchvision.models.list_models(module=torchvision.models)
    if name in known:
        return _of_torchvision(name, weights, prefix)
    if found := _of_timm(name.removeprefix("timm/"), weights, prefix):
        return found
    raise unknown_name(name, known)


def _of_torchvision(name: str, weights: str | None, prefix: str | None) -> TrainedNetwork:
    enums = torchvision.models.get_model_weights(name)
    best: Any = enums.DEFAULT
    given = f"network.weights={weights}"
    state: Mapping[str, Tensor] | None = None
    if weights is not None and Path(weights).suffix:
        state = of_file(weights, prefix)
    elif weights in enums.__members__:
        best = enums[weights]
        state = download(best, given)
    elif weights is not None:
        raise UserError(f"{given}: unknown weights. Choose from {', '.join(enums.__members__)}, FILE.pth, null.")
    special: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # torchvision's weights for them expect inputs in [-1, 1]
        special = {"init_weights": state is None, "transform_input": state is not None}
    network, num_classes = torchvision.models.get_model(name, weights=None, **special), len(best.meta["categories"])
    if state is not None:
        state = without_prefix(state, network.state_dict(), given)
        found = _classes_of_last_layer(state, network.state_dict(), given)
        if found not in (None, num_classes):
            num_classes = found
            network = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **special)
        load_tensors(network, state, name, given)
    return TrainedNetwork(network.eval(), of_transforms(best.transforms()), _class_names(num_classes), name)


def _classes_of_last_layer(state: Mapping[str, Tensor], own: Mapping[str, Tensor], given: str) -> int | None:
    """Number of classes in the weights of a file; None unless their last layer differs in that number only.

    All of the layer is compared, because a small file could ask for a layer that exhausts the memory.
    """
    last = list(own)[-2:]  # weight and bias
    if not all(key in state and state[key].dim() and state[key].shape[1:] == own[key].shape[1:] for key in last):
        return None
    check_dense({key: state[key] for key in last}, given)
    counts = {len(state[key]) for key in last}
    return counts.pop() if len(counts) == 1 else None


def of_transforms(transforms: Any) -> Preprocess:
    """Convert the `transforms()` of torchvision's weights to the preparation of pictures that the weights expect.

    Example:
        >>> of_transforms(torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()).resize_size
        232
    """
    return Preprocess(
        transforms.crop_size[0],
        tuple(transforms.mean),
        tuple(transforms.std),
        transforms.resize_size[0],
        transforms.interpolation.value,
    )


def _of_timm(name: str, weights: str | None, prefix: str | None) -> TrainedNetwork | None:
    try:
        import timm
        from timm.data import resolve_model_data_config
    except ImportError:
        return None
    if not timm.is_model(name):
        return None
    if weights == "DEFAULT":
        network = pretrained_of_timm(name, f"network={name}", "network.weights")
    else:
        network = timm.create_model(name)
        if weights is not None:
            load_tensors(network, of_file(weights, prefix), name, f"network.weights={weights}")
    if not network.num_classes:
        raise UserError(f"network={name}: this network gives features and has no classes. Choose a classifier.")
    preprocess = of_data_config(resolve_model_data_config(network))
    return TrainedNetwork(network.eval(), preprocess, _class_names(network.num_classes), name)


def _class_names(num_classes: int) -> tuple[str, ...]:
    """ImageNet's names if there are a thousand classes, else names such as `class 0`."""
    imagenet = torchvision.models.AlexNet_Weights.DEFAULT.meta["categories"]
    return tuple(imagenet) if num_classes == len(imagenet) else tuple(f"class {i}" for i in range(num_classes))
