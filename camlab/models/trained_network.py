"""A network with what it takes to use it."""

from dataclasses import dataclass
from pathlib import Path

from camlab.models.cam_net import CamNet
from camlab.models.preprocess import Preprocess


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in eval mode with what it takes to use it: how pictures are prepared, what its classes are called."""

    network: CamNet
    preprocess: Preprocess
    class_names: tuple[str, ...]
    path: Path
