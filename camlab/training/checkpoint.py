"""Networks from checkpoints: a file of tensors and plain values, read without running anything in it."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from camlab.errors import UserError
from camlab.models.cam_net import CamNet
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.training.classifier import CHECKPOINT_KEY


def find_checkpoint(path: Path) -> Path:
    """The checkpoint meant by a file or by a run's folder (its best one, else its last).

    Raises:
        UserError: there is none.
    """
    candidates = [path, *(path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"checkpoint={path}: no checkpoint there. Give a .ckpt file or a run's folder with checkpoints/ in it."
    )


def load_network(path: Path) -> TrainedNetwork:
    """Build the network of a checkpoint file or a run's folder.

    Raises:
        UserError: none there, damaged, holding code, or not camlab's.
    """
    file = find_checkpoint(path)
    content = read_checkpoint(file)
    try:
        return _rebuild(content, file)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"checkpoint={file}: incomplete, or of another version of camlab ({reason}).") from error


def read_checkpoint(file: Path, setting: str = "checkpoint") -> dict[str, Any]:
    """What a checkpoint holds: tensors and plain values.

    Args:
        file: there.
        setting: that named it, for messages.

    Raises:
        UserError: damaged, holding code, or not camlab's.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{setting}={file}: refused: it is damaged or holds code, and only tensors are read."
        ) from error
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(f"{setting}={file}: damaged or no checkpoint ({type(error).__name__}).") from error
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content:
        raise UserError(f"{setting}={file}: not written by camlab.")
    return content


def check_resumable(file: Path, network: CamNet, class_names: tuple[str, ...]) -> str:
    """Refuse to go on from a checkpoint of another network, or of one that knows other classes.

    Returns:
        The fingerprint of the data that it was trained on.

    Raises:
        UserError: The checkpoint is another network's, or damaged.
    """
    about = read_checkpoint(file, "resume")[CHECKPOINT_KEY]
    spec = about.get("network") if isinstance(about, dict) else None
    if spec != network.spec:
        other = ", ".join(f"{k}={v}" for k, v in (spec or {}).items() if network.spec.get(k) != v)
        raise UserError(f"resume={file}: it is of another network ({other or 'or of another version of camlab'}).")
    if (known := tuple(about["class_names"])) != class_names:
        raise UserError(f"resume={file}: it knows other classes ({', '.join(known)}) than the data have.")
    return str(about.get("data_fingerprint"))


def _is_zip(file: Path) -> bool:
    """What torch writes today is mapped, not read: a look into it costs nothing."""
    return zipfile.is_zipfile(file)


def _rebuild(content: dict[str, Any], file: Path) -> TrainedNetwork:
    about, prefix = content[CHECKPOINT_KEY], "network."
    network = CamNet(**about["network"])
    state = {key.removeprefix(prefix): v for key, v in content["state_dict"].items() if key.startswith(prefix)}
    network.load_state_dict(state)
    preprocess = Preprocess.from_dict(about["preprocess"])
    return TrainedNetwork(network.eval(), preprocess, tuple(about["class_names"]), network.spec["backbone"], file)
