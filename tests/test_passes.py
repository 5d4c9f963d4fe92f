"""Passes through a network for maps: what they do not change, and what they do not depend on."""

import threading

import pytest
import torch
from torch import Tensor, nn

import camlab
from camlab import Explainer
from camlab.errors import UserError

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Gated(nn.Module):
    """Ends in average pooling and a linear layer, which may be defined before or after the gate's linear layer."""

    def __init__(self, first: str) -> None:
        super().__init__()
        if first == "head":
            self.fc = nn.Linear(4, 5)
        self.c, self.gate, self.bn = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.BatchNorm2d(4)
        if first == "gate":
            self.fc = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.c(images).relu()
        features = self.bn(features * self.gate(features.mean((2, 3))).sigmoid()[:, :, None, None])
        return self.fc(features.mean((2, 3)))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).eval()


@pytest.mark.parametrize("first", ["head", "gate"])
def test_the_head_is_the_linear_layer_that_runs_last(first):
    explainer = Explainer(Gated(first).eval())
    assert explainer.method_for(IMAGES) == "cam"
    assert explainer.default_layer(IMAGES) == "bn"


def test_a_picture_that_is_refused_does_not_decide_what_auto_stands_for():
    explainer = Explainer(convolutional())
    with pytest.raises(UserError, match="NaN"):
        explainer(IMAGES * float("nan"))
    assert explainer.method_for(IMAGES) == "cam"


class Random(nn.Module):
    """Draws random numbers even in eval mode."""

    def forward(self, features: Tensor) -> Tensor:
        return features + 1e-3 * torch.randn_like(features)


@pytest.mark.parametrize("method", ["auto", "grad_cam", "score_cam"])
def test_random_numbers_of_the_network_do_not_change_the_callers(method):
    network = nn.Sequential(Random(), convolutional())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    camlab.heatmaps(network, IMAGES, method)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", ["cam", "hires_cam"])
def test_one_network_in_several_threads(method):
    network = convolutional().train()
    expected = camlab.heatmaps(network, IMAGES, method, target=1)
    found: list[Tensor] = []

    def explain() -> None:
        for _ in range(10):
            found.append(camlab.heatmaps(network, IMAGES, method, target=1))

    threads = [threading.Thread(target=explain) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    assert all(torch.equal(each, expected) for each in found)
    assert all(module.training for module in network.modules())


def test_another_default_device():
    expected = camlab.heatmaps(convolutional(), IMAGES, target=1)
    network = convolutional()
    with torch.device("meta"):
        assert torch.equal(camlab.heatmaps(network, IMAGES, target=1), expected)


def test_classes_that_are_none():
    explainer = Explainer(convolutional())
    with pytest.raises(UserError, match="class_idx: got float32, but indices of classes are needed"):
        explainer.explain(IMAGES, ["cam"], torch.zeros(3, 1))
    with pytest.raises(UserError, match="top_k=0: must be a whole number of at least 1"):
        explainer.explain(IMAGES, ["cam"], top_k=0)


@pytest.mark.parametrize(
    "function", [torch.nn.functional.softsign, lambda x: x.clamp_min(0), lambda x: torch.clip(x, 0)]
)
def test_guided_backpropagation_refuses_what_is_no_relu(function):
    class Functional(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return function(features)

    network = convolutional()
    with pytest.raises(UserError, match="guided backpropagation is defined for ReLUs"):
        camlab.heatmaps(nn.Sequential(network[0], Functional(), *network[1:]), IMAGES, "guided_grad_cam")
