"""Networks from checkpoints: files of tensors and plain values, whose code, if there is any, never runs."""

from pathlib import Path
from typing import Any

from camlab.errors import UserError, first_line, listed, plain
from camlab.models.cam_net import CamNet
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork, output_names
from camlab.models.weights import load_without_code
from camlab.runs import run_folder
from camlab.training.classifier import CHECKPOINT_KEY


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path names: the file itself, or of a run's folder the best checkpoint, else the last.

    Raises:
        UserError: There is no checkpoint.
    """
    for candidate in (path, path / run_folder.BEST, path / run_folder.LAST):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"checkpoint={path}: no checkpoint there. Give a .ckpt file or a run's folder with checkpoints/ in it."
    )


def load_network(path: Path) -> TrainedNetwork:
    """Build the network of a checkpoint file or a run's folder.

    Raises:
        UserError: There is no checkpoint, or it is damaged, holds code, or was not written by camlab.
    """
    file = find_checkpoint(path)
    _check_whole(file)
    content = read_checkpoint(file)
    try:
        return _rebuild(content, file)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"checkpoint={file}: incomplete, or of another version of camlab ({first_line(error)})."
        ) from error


def read_checkpoint(file: Path, setting: str = "checkpoint") -> dict[str, Any]:
    """Read the tensors and plain values of a checkpoint.

    Args:
        file: An existing file.
        setting: The setting that named it, for messages.

    Raises:
        UserError: The file is damaged, holds code, or was not written by camlab.
    """
    content = load_without_code(file, f"{setting}={file}")
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
    if (known := tuple(map(str, about["class_names"]))) != class_names:
        raise UserError(f"resume={file}: it knows other classes ({listed(known)}) than the data have.")
    return str(about.get("data_fingerprint"))


def _check_whole(file: Path) -> None:
    """Refuse a checkpoint that differs from its checksum, and name the whole ones beside it."""
    if not run_folder.is_whole(file):
        whole = [str(other) for other in sorted(file.parent.glob("*.ckpt")) if run_folder.is_whole(other)]
        way_out = f"Choose from {', '.join(whole)}." if whole else "Give another checkpoint."
        raise UserError(f"checkpoint={file}: damaged, because it differs from its checksum. {way_out}")


def _rebuild(content: dict[str, Any], file: Path) -> TrainedNetwork:
    about, prefix = content[CHECKPOINT_KEY], "network."
    class_names = about["class_names"]
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"the names of the classes cannot be {class_names!r}")
    network = CamNet(**about["network"])
    state = {key.removeprefix(prefix): v for key, v in content["state_dict"].items() if key.startswith(prefix)}
    network.load_state_dict(state)
    preprocess = Preprocess.from_dict(about["preprocess"])
    names = output_names(tuple(map(plain, class_names)), network.spec["num_classes"])
    return TrainedNetwork(network.eval(), preprocess, names, network.spec["backbone"], file)
