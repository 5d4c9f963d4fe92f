"""A trained network with the preparation of its input and the names of its classes."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from camlab.models.preprocess import Preprocess


@dataclass(frozen=True)
class TrainedNetwork:
    """A classifier in eval mode, with the preparation of its input and the names of its classes.

    Attributes:
        network: The classifier, N×3×S×S → N×M logits.
        preprocess: Preparation of pictures, from uint8 RGB to the network's input.
        class_names: Names of the M classes.
        name: Name of the network in captions and reports.
        path: Checkpoint file that it was read from; None for a network of torchvision's or timm's.
    """

    network: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...]
    name: str
    path: Path | None = None
