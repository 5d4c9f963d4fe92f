"""Load networks from checkpoints. Only tensors and plain values are read; code in a file never runs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from camlab.errors import UserError, cut, first_line, listed, plain
from camlab.models.backbones import check_image_size
from camlab.models.cam_net import CamNet
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork, output_names
from camlab.models.weights import load_without_code, matching_tensors
from camlab.runs import checkpoint_files, run_folder
from camlab.training.classifier import CHECKPOINT_KEY

log = logging.getLogger(__name__)

RUN_KEY = "camlab_run"  # in a checkpoint: the id, settings and progress of the run that wrote it

_LARGE_IMAGES = 1024  # pixels
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


def check_resumable(content: Mapping[str, Any], file: Path, network: CamNet, class_names: tuple[str, ...]) -> None:
    """Refuse to resume from a checkpoint of another network, or of a network that knows other classes.

    Raises:
        UserError: The checkpoint holds another network or other classes.
    """
    about = content[CHECKPOINT_KEY]
    spec = about.get("network") if isinstance(about, dict) else None
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
    spec, given = _spec(about["network"], state), f"checkpoint={file}"
    with torch.device("meta"):  # the sizes are compared before memory is allocated for them
        expected = CamNet(**spec).state_dict()
    matching_tensors(state, expected, spec["backbone"], given)
    network = CamNet(**spec)
    network.load_state_dict(state)
    class_names, outputs = _class_names(about), network.spec["num_classes"]
    if len(class_names) > outputs:
        raise ValueError(f"{len(class_names)} classes, but only {outputs} outputs")
    preprocess = Preprocess.from_dict(about["preprocess"])
    check_image_size(network.spec["backbone"], network.spec["keep_last_pool"], preprocess.image_size)
    names = output_names(tuple(map(plain, class_names)), outputs)
    known = about.get("data_fingerprint")
    known = known if isinstance(known, str) else None
    return TrainedNetwork(network.eval(), preprocess, names, network.spec["backbone"], file, known)


def _spec(spec: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments of `CamNet` that a checkpoint gives, and return them.

    Raises:
        ValueError: The names are not the expected ones, or a value has the wrong type or does not fit the tensors.
    """
    known = {"backbone": str, "num_classes": int, "cam_channels": int, "cam_relu": bool, "keep_last_pool": bool}
    if not isinstance(spec, dict) or spec.keys() != known.keys():
        raise ValueError(f"the network cannot be {spec!r}")
    for name, kind in known.items():
        if type(spec[name]) is not kind:
            raise ValueError(f"{name} cannot be {spec[name]!r}")
    sizes = tuple(getattr(state.get("fc.weight"), "shape", ()))  # checked before memory is allocated for them
    if sizes != (spec["num_classes"], spec["cam_channels"]):
        raise ValueError(
            f"num_classes={spec['num_classes']}, cam_channels={spec['cam_channels']}: its weights have other sizes"
        )
    return spec


def _class_names(about: dict[str, Any]) -> tuple[str, ...]:
    names = about["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the names of the classes cannot be {names!r}")
    return tuple(names)
