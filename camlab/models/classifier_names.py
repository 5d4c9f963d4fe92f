"""The names of torchvision's and timm's classifiers, without an import of torch: a wrong name is reported at once.

The names come from the sources of the two libraries, where a decorator registers each classifier. No other name is ever
looked up, so that a name in a checkpoint cannot make a library download something or run other code.
"""

import functools
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from camlab.errors import UserError, cut, did_you_mean

TIMM = "timm/"  # begins the names of timm's networks in `arch.backbone`

_WITHOUT_TIMM = f"timm is not installed. Run: pip install timm, or choose a network of torchvision, without {TIMM}."

_FILES = (".pth", ".pt", ".pt2", ".ts", ".ckpt", ".safetensors", ".onnx", ".bin")


@functools.cache
def names_of_torchvision() -> tuple[str, ...]:
    """Read the names of all classifiers from torchvision's source.

    Example:
        >>> [name for name in names_of_torchvision() if name.startswith("alex")]
        ['alexnet']
    """
    return _registered("torchvision")


@functools.cache
def names_of_timm() -> tuple[str, ...]:
    """Read the names of all classifiers from timm's source; there are none if timm is not installed."""
    return _registered("timm")


def check_name(name: str) -> None:
    """Refuse a name that neither torchvision nor timm has. A name with a tag, such as `resnet18.a1_in1k`, is timm's.

    Raises:
        UserError: There is no such classifier, and the message suggests similar names; or timm is not installed, or the
            name is that of a file.

    Example:
        >>> check_name("resnet50"), check_name("my_package.networks:make_network")
        (None, None)
    """
    if Path(name).suffix in _FILES:
        raise UserError(
            f"network={name}: a file of weights does not say which network it is for, and a TorchScript file does not"
            " show its layers. Give network=NAME or network=my_module:make_network, with network.weights=FILE."
        )
    if name.startswith("hf/") or ":" in name:
        return
    if name.startswith(TIMM) and find_spec("timm") is None:
        raise UserError(f"network={name}: {_WITHOUT_TIMM}")
    architecture = name.removeprefix(TIMM).partition(".")[0]
    known = (*names_of_torchvision(), *names_of_timm())
    if architecture not in known and architecture not in _former_names_of_timm():
        raise unknown_name(name, known)


def check_backbone(name: str) -> None:
    """Refuse the name of a backbone that neither torchvision nor timm has.

    Args:
        name: torchvision's name of the network, or timm's with `timm/` before it.

    Raises:
        UserError: There is no such network, or timm is not installed; the message says what to give instead.

    Example:
        >>> check_backbone("resnet18")
    """
    if complaint := complaint_about(name):
        raise UserError(f"arch.backbone={cut(name)}: {complaint}")


def complaint_about(backbone: str) -> str | None:
    """What is wrong with the name of a backbone, in one or two sentences; None if there is such a network.

    Example:
        >>> complaint_about("?")
        'unknown network. Choose a classifier of torchvision, or one of timm after timm/: resnet18, timm/resnet18.'
    """
    if backbone.startswith(TIMM) and find_spec("timm") is None:
        return _WITHOUT_TIMM
    known = (*names_of_torchvision(), *(TIMM + name for name in names_of_timm()))
    if backbone in known:
        return None
    alike = TIMM + backbone if TIMM + backbone in known else backbone
    ways_out = f"Choose a classifier of torchvision, or one of timm after {TIMM}: resnet18, {TIMM}resnet18."
    return f"unknown network. {did_you_mean(alike, known, 'arch.backbone=', most=3) or ways_out}".rstrip()


def unknown_name(name: str, known: Iterable[str]) -> UserError:
    """Make the error for a name that no library has; the message suggests similar known names."""
    hint = did_you_mean(name, known, most=3)
    return UserError(
        f"network={name}: no such classifier in torchvision, nor in timm if that is installed. {hint}".rstrip()
    )


def _registered(library: str) -> tuple[str, ...]:
    registered = re.compile(r"^@register_model\b.*?^def (\w+)", re.MULTILINE | re.DOTALL)
    return tuple(name for text in _sources(library) for name in registered.findall(text))


@functools.cache
def _former_names_of_timm() -> frozenset[str]:
    """The names that timm still takes for networks that have others now."""
    lists = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)\}\)", re.MULTILINE | re.DOTALL)
    found = (re.findall(r"['\"](\w+)['\"]\s*:", part) for text in _sources("timm") for part in lists.findall(text))
    return frozenset(name for names in found for name in names)


@functools.cache
def _sources(library: str) -> tuple[str, ...]:
    """The texts of a library's modules in which classifiers are defined; none if it is not installed."""
    spec = find_spec(library)
    folders = (spec and spec.submodule_search_locations) or []
    return tuple(file.read_text() for folder in folders for file in sorted(Path(folder, "models").glob("*.py")))
