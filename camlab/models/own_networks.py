"""Build classifiers that no catalogue lists: those of transformers, and those that a user's function makes."""

import importlib
import logging
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from camlab.errors import UserError, first_line
from camlab.models.preprocess import INTERPOLATIONS, Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.models.weights import load_tensors, of_file

log = logging.getLogger(__name__)

_MOST_DIFFERENT = 0.03  # of the input's standard deviation: two libraries interpolate a little differently
_UNCROPPED = 384  # pixels, from which ConvNeXt squeezes pictures to its size instead of cropping them
_IMAGENET = Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256)


def of_function(name: str, weights: str | None, prefix: str | None = None) -> TrainedNetwork:
    """Call a user's function, which returns a network, or a `TrainedNetwork` with its preparation of pictures.

    Args:
        name: `package.module:function`. The module is found as `python -m` would find it, in the working folder too.
        weights: A file of the network's tensors; `DEFAULT` or None if the function itself sets them.
        prefix: The prefix of the network's tensors in the file; None if it is to be found.

    Returns:
        The network, in eval mode. Unless the function says otherwise, a network of timm's gets its pictures as timm
        prepares them, and any other as torchvision's first ImageNet weights do, which is told. Classes have no names.

    Raises:
        UserError: There is no such function, it fails or returns no network, or the weights do not fit.
    """
    module, _, function = name.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:  # the user's code can raise any exception
        kind = type(error).__name__
        raise UserError(f"network={name}: it could not be made ({kind}: {first_line(error)}).") from error
    network = made.network if isinstance(made, TrainedNetwork) else made
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise UserError(f"network={name}: the function returns {kind}. It must return a torch module.")
    trained = made if network is not made else TrainedNetwork(network, _preparation_of(network, name), (), name)
    if weights not in (None, "DEFAULT"):
        load_tensors(trained.network, of_file(str(weights), prefix), name, f"network.weights={weights}")
    trained.network.eval()
    return trained


def _preparation_of(network: nn.Module, name: str) -> Preprocess:
    """The preparation of pictures that a network of timm's names; else ImageNet's, with a line that says so."""
    if isinstance(getattr(network, "pretrained_cfg", None), Mapping):
        from timm.data import resolve_model_data_config

        return of_data_config(resolve_model_data_config(network))
    log.info(
        "network=%s: pictures are prepared as for ImageNet (224 pixels; mean and std %s and %s). For another"
        " preparation, let the function return a camlab.models.trained_network.TrainedNetwork with a Preprocess.",
        name, _IMAGENET.mean, _IMAGENET.std,
    )  # fmt: skip
    return _IMAGENET


def of_data_config(config: Mapping[str, Any]) -> Preprocess:
    """Convert timm's data config of a network to the preparation of pictures that its weights expect.

    Example:
        >>> config = {"input_size": (3, 224, 224), "crop_pct": 0.9, "interpolation": "bicubic"}
        >>> of_data_config({**config, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}).resize_size
        248
    """
    side = config["input_size"][-1]
    interpolation = config["interpolation"]
    return Preprocess(
        side,
        tuple(config["mean"]),
        tuple(config["std"]),
        math.floor(side / config["crop_pct"]),
        interpolation if interpolation in INTERPOLATIONS else "bicubic",
    )


def of_transformers(name: str, weights: str | None, prefix: str | None = None) -> TrainedNetwork:
    """Build an image classifier of transformers from a folder of `save_pretrained`, or from the hub.

    Args:
        name: The folder, or the hub's name. No code of the folder or the hub runs.
        weights: `DEFAULT` for its own weights, a file, or None for random ones.
        prefix: The prefix of the network's tensors in the file; None if it is to be found.

    Raises:
        UserError: transformers is not installed; there is no such network, it is no image classifier, it needs code of
            its own, or its pictures are prepared in a way that camlab does not know.
    """
    given, place = f"network=hf/{name}", str(Path(name).expanduser())
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError:
        raise UserError(f"{given}: transformers is not installed. Install it: pip install transformers") from None
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        if weights == "DEFAULT":
            network = AutoModelForImageClassification.from_pretrained(place, trust_remote_code=False)
        else:
            network = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        preprocess = _preparation(place)
    except UserError as error:
        raise UserError(f"{given}: {error}") from error
    except Exception as error:  # transformers, huggingface_hub and httpx raise different errors
        if "trust_remote_code" in str(error):
            raise UserError(f"{given}: it needs code of its own, which camlab does not run.") from error
        problem, way_out = "not a readable image classifier", "or a name of the hub's"
        if isinstance(error, OSError) and not Path(place).is_dir():
            problem = "there is no such folder, and the hub did not give such a network"
            way_out = "or a name of the hub's that is in the cache of huggingface_hub (HF_HOME)"
        raise UserError(
            f"{given}: {problem} ({first_line(error)}). Give a folder of save_pretrained, {way_out}."
        ) from error
    if weights not in (None, "DEFAULT"):
        load_tensors(network, of_file(str(weights), prefix), name, f"network.weights={weights}")
    class_names = [str(config.id2label.get(i, f"class {i}")) for i in range(config.num_labels)]
    return TrainedNetwork(network.eval(), preprocess, tuple(class_names), name)


def _preparation(place: str) -> Preprocess:
    """The preparation of pictures; that of torchvision's first ImageNet weights if the folder has no image processor.

    Raises:
        UserError: The image processor does something that camlab's preparation cannot do.
    """
    from transformers import AutoImageProcessor

    if Path(place).is_dir() and not Path(place, "preprocessor_config.json").is_file():
        return of_processor({})
    processor = AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
    preprocess = of_processor(processor.to_dict())
    _check_alike(preprocess, processor)
    return preprocess


def _check_alike(preprocess: Preprocess, processor: Callable[..., Any]) -> None:
    """Refuse a preparation that gives another input than the image processor does, for a square picture."""
    rows, columns = np.mgrid[0:320, 0:320] / 320
    waves = [np.sin(9 * rows + 2 * columns), np.cos(5 * columns), np.sin(4 * rows * columns + 1)]  # smooth, no symmetry
    picture = Image.fromarray((127 + 120 * np.stack(waves, axis=2)).astype(np.uint8))
    own = preprocess(torch.from_numpy(np.array(preprocess.prepare(picture))).permute(2, 0, 1)[None])
    theirs = torch.as_tensor(processor(picture, return_tensors="pt")["pixel_values"])
    if own.shape != theirs.shape:
        sizes = " and ".join(f"{tensor.shape[-2]}×{tensor.shape[-1]}" for tensor in (theirs, own))
        raise UserError(f"its image processor makes pictures of another size than camlab does ({sizes} pixels).")
    if (difference := float((own - theirs).abs().mean() / theirs.std())) > _MOST_DIFFERENT:
        raise UserError(
            f"its image processor prepares pictures in a way that camlab does not know (its input differs by"
            f" {100 * difference:.0f} % of the spread). Give network=module:function with a Preprocess of your own."
        )


def of_processor(settings: Mapping[str, Any]) -> Preprocess:
    """Convert the settings of an image processor of transformers; pictures are cropped to a square, never squeezed.

    Example:
        >>> of_processor({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}).resize_size
        256
    """
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    shorter = size.get("shortest_edge") or size.get("height") or _IMAGENET.image_size
    side = (settings.get("do_center_crop", True) and crop.get("height")) or shorter
    if settings.get("do_normalize", True):
        mean, std = settings.get("image_mean") or _IMAGENET.mean, settings.get("image_std") or _IMAGENET.std
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.get("include_top"):  # EfficientNet divides by the standard deviation twice
        std = [value**2 for value in std]
    share = settings.get("crop_pct") if shorter < _UNCROPPED else None  # ConvNeXt's
    if str(settings.get("image_processor_type")).startswith("Levit"):
        share = 224 / 256
    resized = max(side, int(shorter / (share or 1)))
    return Preprocess(
        side, tuple(mean), tuple(std), resized, "bicubic" if settings.get("resample") == 3 else "bilinear"
    )
