"""Networks of `experiments/architectures` with their preparation, as `camlab.score network=networks:vit` takes them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
import run as architectures

from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork

_PREPARED = Preprocess(architectures.SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))  # as architectures.prepared


def _with_preparation(name: str) -> TrainedNetwork:
    make, _, _ = architectures.NETWORKS[name]
    return TrainedNetwork(make().eval(), _PREPARED, tuple(architectures.CLASS_NAMES), name)


def vit() -> TrainedNetwork:
    return _with_preparation("vit")


def resnet18() -> TrainedNetwork:
    return _with_preparation("resnet18")
