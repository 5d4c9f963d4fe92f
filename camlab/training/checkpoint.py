"""Load networks from checkpoints. Only tensors and plain values are read; code in a file never runs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from camlab.errors import UserError, cut, first_line, listed, plain
from camlab.models.backbones import LARGEST_IMAGE_SIZE
from camlab.models.cam_net import CamNet
from camlab.models.classifier_net import ClassifierNet
from camlab.models.named_networks import without_values
from camlab.models.network import Network
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork, output_names
from camlab.models.weights import fill, load_without_code, matching_tensors
from camlab.runs import checkpoint_files, run_folder
from camlab.training.classifier import CHECKPOINT_KEY

log = logging.getLogger(__name__)

RUN_KEY = "camlab_run"  # in a checkpoint: the id, settings and progress of the run that wrote it

_LARGE_IMAGES = 1024  # pixels
# The arguments, with their types, from which a network is built again.
_SPECS: dict[type[Network], dict[str, type]] = {
    CamNet: {
        "backbone": str,
        "num_classes": int,
        "cam_channels": int,
        "cam_relu": bool,
        "keep_last_pool": bool,
        "cam_conv": bool,
    },
    ClassifierNet: {"backbone": str, "num_classes": int, "image_size": int},
}
_OLDER = _SPECS[CamNet].keys() - {"cam_conv"}  # of a CamNet in checkpoints before cam_conv could be left out

_MOST = 300  # characters of a checkpoint's content in a message


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a path names: the file itself or, in a run's folder, the best, else the last one.

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
    check_place(content, file)
    try:
        trained = _rebuild(content, file)
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise unusable(file, error, "checkpoint") from error
    if (size := trained.preprocess.image_size) > _LARGE_IMAGES:
        where = plain(str(file))
        log.warning("%s: its images are %d×%d pixels, which takes much time and memory.", where, size, size)
    return trained


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


def unusable(file: Path, error: Exception, setting: str = "resume") -> UserError:
    """Return the one-line error for a checkpoint whose content cannot be used, in a readable length."""
    reason = cut(first_line(error), _MOST)
    return UserError(f"{setting}={file}: incomplete, or from another version of camlab ({reason}).")


def check_resumable(content: Mapping[str, Any], file: Path, network: Network, class_names: tuple[str, ...]) -> None:
    """Refuse to resume from a checkpoint of another network, or of a network that knows other classes.

    Raises:
        UserError: The checkpoint holds another network or other classes.
    """
    about = content[CHECKPOINT_KEY]
    spec = _completed(about.get("network")) if isinstance(about, dict) else None
    if spec != network.spec:
        there = spec if isinstance(spec, dict) else {}
        other = ", ".join(f"{k}={v}" for k, v in there.items() if network.spec.get(k) != v)
        other = cut(other, _MOST) or "or is from another version of camlab"
        raise UserError(f"resume={file}: it holds another network ({other}).")
    try:
        known = _class_names(about)
    except (KeyError, ValueError) as error:
        raise unusable(file, error) from error
    if known != class_names:
        raise UserError(f"resume={file}: its classes ({listed(known)}) are not those of the data.")


def check_place(content: Mapping[str, Any], file: Path, setting: str = "checkpoint") -> None:
    """Refuse a checkpoint in the folder of another run, because that run's settings or files would be used with it.

    If the configuration there has been changed, so that its run is unknown, this is reported in one line.

    Args:
        content: Content of the checkpoint.
        file: The checkpoint.
        setting: The setting that named it, for messages.

    Raises:
        UserError: The checkpoint belongs to another run than the folder.
    """
    folder, found = run_folder.folder_of(file), run_id(content)
    own = None if folder is None else run_folder.read_run_id(folder)
    if folder is not None and run_folder.is_config_changed(folder):
        changed = plain(str(folder / run_folder.CONFIG))
        log.warning("%s is damaged or has been changed since the run wrote it; it is not used.", changed)
    if folder is not None and own is not None and found not in (None, own):
        raise UserError(
            f"{setting}={file}: {file.name} belongs to another run than {folder / run_folder.CONFIG}."
            " Move the checkpoint out of that folder, or give another one."
        )


def run_id(content: Mapping[str, Any]) -> str | None:
    """Id of the run that wrote a checkpoint, from the checkpoint's content; None if it is unknown."""
    about = content.get(RUN_KEY)
    found = about.get("id") if isinstance(about, dict) else None
    return found if isinstance(found, str) else None


def _check_whole(file: Path) -> None:
    """Refuse a checkpoint that differs from its checksum, and name the intact ones beside it."""
    if not checkpoint_files.is_whole(file):
        whole = [str(other) for other in sorted(file.parent.glob("*.ckpt")) if checkpoint_files.is_whole(other)]
        way_out = f"Choose from {', '.join(whole)}." if whole else "Give another checkpoint."
        raise UserError(f"checkpoint={file}: damaged, because it differs from its checksum. {way_out}")


def _rebuild(content: dict[str, Any], file: Path) -> TrainedNetwork:
    """Rebuild the network that a checkpoint describes. The description is not trusted, so all of it is checked."""
    about, prefix = content[CHECKPOINT_KEY], "network."
    state = {key.removeprefix(prefix): v for key, v in content["state_dict"].items() if key.startswith(prefix)}
    network = _network(_completed(about["network"]), state, f"checkpoint={file}")
    fill(network, state)
    class_names, outputs = _class_names(about), network.spec["num_classes"]
    if len(class_names) > outputs:
        raise ValueError(f"{len(class_names)} classes, but only {outputs} outputs")
    preprocess = Preprocess.from_dict(about["preprocess"])
    network.check_image_size(preprocess.image_size)
    names = output_names(tuple(map(plain, class_names)), outputs)
    known = about.get("data_fingerprint")
    known = known if isinstance(known, str) else None
    several = about.get("multi_label") is True
    return TrainedNetwork(network.eval(), preprocess, names, network.spec["backbone"], file, known, several)


def _completed(spec: Any) -> Any:
    """The description of a network with the settings that older checkpoints lack."""
    return {**spec, "cam_conv": True} if isinstance(spec, dict) and spec.keys() == _OLDER else spec


def _network(spec: Any, state: dict[str, Any], given: str) -> Network:
    """Build the network that a checkpoint describes, with random weights; nothing is downloaded.

    Memory is allocated only after the tensors have turned out to be those of this network.

    Raises:
        UserError: The backbone is unknown, or the tensors are not those of the network.
        ValueError: The names are not the expected ones, or a value has the wrong type or does not fit the tensors.
    """
    kind = next(
        (kind for kind, known in _SPECS.items() if isinstance(spec, dict) and spec.keys() == known.keys()), None
    )
    if kind is None:
        raise ValueError(f"the network cannot be {spec!r}")
    for name, expected in _SPECS[kind].items():
        if type(spec[name]) is not expected:
            raise ValueError(f"{name} cannot be {spec[name]!r}")
    if not 1 <= spec.get("image_size", 1) <= LARGEST_IMAGE_SIZE:
        raise ValueError(f"image_size cannot be {spec['image_size']!r}")
    with without_values():
        needed = kind(**spec).state_dict()
    for name in (*needed, *state):
        if name not in needed or not isinstance(state.get(name), torch.Tensor):
            raise ValueError(f"{name} is missing or unknown")
    matching_tensors(state, needed, spec["backbone"], given)
    return kind(**spec)


def _class_names(about: dict[str, Any]) -> tuple[str, ...]:
    names = about["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the names of the classes cannot be {names!r}")
    return tuple(names)
