"""A trained network with the preparation of its input and the names of its classes."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from camlab.models.preprocess import Preprocess


def output_names(class_names: tuple[str, ...], num_outputs: int) -> tuple[str, ...]:
    """Name all outputs of a network, which may have more outputs than the data have classes.

    Raises:
        ValueError: There are more classes than outputs.

    Example:
        >>> output_names(("cat", "dog"), 3)
        ('cat', 'dog', 'output 2')
    """
    if num_outputs < len(class_names):
        raise ValueError(f"{len(class_names)} classes, but {num_outputs} outputs")
    return (*class_names, *(f"output {k}" for k in range(len(class_names), num_outputs)))


@dataclass(frozen=True)
class TrainedNetwork:
    """A classifier in eval mode, with the preparation of its input and the names of its classes.

    Attributes:
        network: The classifier, N×3×S×S → N×M logits.
        preprocess: Preparation of pictures, from uint8 RGB to the network's input.
        class_names: Names of the M outputs; those beyond the classes of the data are named `output 10`, ….
        name: Name of the network in captions and reports.
        path: Checkpoint file that it was read from; None for a network of torchvision's or timm's.
        data_fingerprint: Hash of the data that it was trained with; None if it is unknown.
        multi_label: Whether a picture may have any number of classes, so that probabilities are sigmoids.
    """

    network: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...]
    name: str
    path: Path | None = None
    data_fingerprint: str | None = None
    multi_label: bool = False
