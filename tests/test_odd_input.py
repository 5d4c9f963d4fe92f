"""Arguments of `camlab.heatmaps` that are of another kind than it takes are refused in one line."""

from typing import Any

import pytest
import torch
from torch import nn

from camlab import heatmaps
from camlab.attribution.methods import check_methods
from camlab.attribution.network_input import check_layers, check_model
from camlab.errors import UserError

IMAGES = torch.zeros(2, 3, 32, 32)


def network() -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head)


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*quantize")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"target": "a"}, "target='a': give a class index, or one for each image."),
        ({"target": 10**20}, "target=100000000000000000000: give a class index"),
        ({"target": {}}, "target={}: give a class index"),
        ({"target": [[1], [2, 3]]}, "target=[[1], [2, 3]]: give a class index"),
        ({"target": 1j}, "target=1j: give a class index"),
        ({"target": torch.zeros(2, dtype=torch.long).to_sparse()}, "target=tensor("),
        ({"target": torch.zeros(2, dtype=torch.long, device="meta")}, "target=tensor("),
        ({"images": IMAGES.to("meta")}, "images: got a tensor on the meta device, but an ordinary dense tensor"),
        ({"images": IMAGES.to_sparse()}, "images: got a sparse, nested or quantised tensor, but an ordinary dense"),
        ({"images": nn.Module}, "images: got the class Module, but a tensor N×C×H×W is needed."),
        ({"method": None}, "method=None: unknown method. Choose from cam, "),
        ({"method": ["cam"]}, "method=['cam']: unknown method. Did you mean cam? Choose from cam, "),
        ({"method": "x" * 9999}, "method=xxx"),
    ],
)
def test_odd_arguments_are_refused_in_a_line(arguments: dict[str, Any], said: str):
    with pytest.raises(UserError) as refused:
        heatmaps(network(), **{"images": IMAGES, **arguments})
    assert str(refused.value).startswith(said)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 300


def test_ordinary_targets_are_taken():
    for target in (1, [1, 1], (1, 1), torch.tensor(1), torch.tensor([1, 1], dtype=torch.uint8)):
        assert heatmaps(network(), IMAGES, target=target).shape == (2, 32, 32)


@pytest.mark.parametrize("odd", [None, "resnet50", 5, nn.ReLU])
def test_what_is_no_network_is_refused(odd):
    check_model(network())
    with pytest.raises(UserError, match=r"^model: got (\w|the class )+, but a torch.nn.Module is needed\.$"):
        check_model(odd)


@pytest.mark.parametrize("odd", [5, ["features", 5], 1.5, nn.ReLU, {}, []])
def test_what_is_no_layer_is_refused(odd):
    for layer in (None, "features", nn.ReLU(), ["a", nn.ReLU()]):
        check_layers(layer)
    with pytest.raises(
        UserError, match=r"^layer: got (\w|the class )+, but a name or a module of the network is needed"
    ):
        check_layers(odd)


def test_names_of_methods_are_texts():
    with pytest.raises(UserError, match="method=7: unknown method"):
        check_methods([7])
