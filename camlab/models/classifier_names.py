"""The names of torchvision's classifiers, without an import of torch: a wrong name is reported at once."""

import functools
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from camlab.errors import UserError, did_you_mean

_FILES = (".pth", ".pt", ".pt2", ".ts", ".ckpt", ".safetensors", ".onnx", ".bin")


@functools.cache
def names_of_torchvision() -> tuple[str, ...]:
    """Read the names of all classifiers from torchvision's source, where a decorator registers each of them.

    Example:
        >>> [name for name in names_of_torchvision() if name.startswith("alex")]
        ['alexnet']
    """
    spec = find_spec("torchvision")
    folders = (spec and spec.submodule_search_locations) or []
    texts = [file.read_text() for folder in folders for file in sorted(Path(folder, "models").glob("*.py"))]
    registered = re.compile(r"^@register_model\(.*?^def (\w+)", re.MULTILINE | re.DOTALL)
    return tuple(name for text in texts for name in registered.findall(text))


def check_name(name: str) -> None:
    """Refuse a name that torchvision does not have. If timm is installed, only timm itself can tell.

    Raises:
        UserError: There is no such classifier, and the message suggests similar names; or the name is that of a file.

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
    known = names_of_torchvision()
    if name not in known and find_spec("timm") is None:
        raise unknown_name(name, known)


def unknown_name(name: str, known: Iterable[str]) -> UserError:
    """Make the error for a name that no library has; the message suggests similar known names."""
    hint = did_you_mean(name, known, most=3)
    return UserError(
        f"network={name}: no such classifier in torchvision, nor in timm if that is installed. {hint}".rstrip()
    )
