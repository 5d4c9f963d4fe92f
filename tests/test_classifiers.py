"""Classifiers as people have them: odd outputs, one logit, other numbers of channels, layouts that the user states."""

import copy
from collections import namedtuple

import pytest
import torch
import torchvision
from torch import Tensor, nn

import camlab
from camlab import Explainer
from camlab.attribution.layouts import Layout
from camlab.attribution.methods import METHODS
from camlab.attribution.results import Source, results_of
from camlab.errors import UserError

CLASSES = 4
IMAGES = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def convolutional(channels: int = 3, classes: int = CLASSES) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes)
    ).eval()


class Returning(nn.Module):
    """A network whose output is what a function makes of the logits."""

    def __init__(self, make, classes: int = CLASSES) -> None:
        super().__init__()
        self.trunk, self.make = convolutional(classes=classes), make

    def forward(self, images: Tensor) -> object:
        return self.make(self.trunk(images))


Pair = namedtuple("Pair", ["logits", "features"])
FOUND = {
    "tuple": lambda logits: (logits, 2 * logits),
    "list": lambda logits: [logits],
    "named tuple": lambda logits: Pair(logits, logits[:, :2]),
    "dict of one tensor": lambda logits: {"out": logits, "names": ["a"]},
    "dict with logits": lambda logits: {"features": logits[:, :2], "logits": logits},
}


def test_features_are_not_logits():
    network = nn.Sequential(*convolutional()[:2])
    with pytest.raises(UserError, match="gives float32 3×6×10×14 instead of N×M logits; it looks like a segmenter"):
        camlab.heatmaps(network, IMAGES, "score_cam")


@pytest.mark.parametrize("kind", FOUND)
@pytest.mark.parametrize("method", ["auto", "grad_cam", "guided_grad_cam", "score_cam", "ablation_cam"])
def test_logits_in_other_outputs(kind, method):
    expected = camlab.heatmaps(convolutional(), IMAGES, method)
    torch.testing.assert_close(camlab.heatmaps(Returning(FOUND[kind]), IMAGES, method), expected)


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda logits: {"a": logits[:, :2], "b": logits}, "b"),
        (lambda logits: (logits[:, :2], logits), 1),
        (lambda logits: Pair(logits[:, :2], logits), "features"),
        (lambda logits: {"scores": [logits]}, lambda output: output["scores"][0]),
        (lambda logits: logits[:, :, None, None].expand(-1, -1, 2, 2), lambda output: output.mean(dim=(2, 3))),
    ],
)
def test_the_part_that_is_the_logits(make, output):
    expected = camlab.heatmaps(convolutional(), IMAGES, "grad_cam")
    torch.testing.assert_close(camlab.heatmaps(Returning(make), IMAGES, "grad_cam", output=output), expected)


@pytest.mark.parametrize(
    ("make", "output", "message"),
    [
        (lambda logits: {"a": logits}, "b", "output=b: the network gives a dict with a, which has no such part. Give a key"),
        (lambda logits: (logits,), 2, "output=2: the network gives a tuple of 1, which has no such part"),
        (lambda logits: logits, "b", "output=b: the network gives float32 3×4, which has no such part"),
        (lambda logits: {"a": logits, "b": logits}, None, "gives a dict with a, b instead of N×M logits; .*: output=a or output=b"),
        (lambda logits: (logits[:, :2], logits), None, "gives a tuple of 2 instead of N×M logits; .*: output=0 or output=1"),
        (lambda logits: (logits[:, :, None, None].expand(-1, -1, 9, 9), logits), None, "say which part .*: output=1"),
        (lambda logits: None, None, "The network gives NoneType instead of N×M logits"),
        (lambda logits: logits.long(), None, "gives int64 3×4 instead of N×M logits"),
    ],
)  # fmt: skip
def test_outputs_without_logits(make, output, message):
    with pytest.raises(UserError, match=message):
        camlab.heatmaps(Returning(make), IMAGES, "grad_cam", output=output)


@pytest.mark.slow
def test_segmenters_and_detectors_are_refused():
    models = torchvision.models
    segmenter = models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    detector = models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(UserError, match="it looks like a segmenter, which scores each pixel"):
        camlab.heatmaps(segmenter, IMAGES)
    with pytest.raises(UserError, match="it is a detector"):
        camlab.heatmaps(detector, IMAGES)


# ---- one logit ----


def test_one_logit_that_is_squeezed():
    whole, squeezed = (Returning(make, classes=1) for make in (lambda logits: logits, torch.squeeze))
    for images in (IMAGES[:1], IMAGES[:2]):
        torch.testing.assert_close(camlab.heatmaps(squeezed, images), camlab.heatmaps(whole, images))
        assert camlab.Explainer(squeezed).method_for(images) == camlab.Explainer(whole).method_for(images) == "cam"


@pytest.mark.parametrize("shape", ["N×1", "N"])
def test_one_logit_is_the_evidence_for_yes(shape):
    network = Returning(lambda logits: logits if shape == "N×1" else logits[:, 0], classes=1)
    two = copy.deepcopy(network.trunk)  # the same network with the classes yes and no
    two[-1] = nn.Linear(6, 2)
    with torch.no_grad():
        two[-1].weight.copy_(torch.cat([network.trunk[-1].weight, -network.trunk[-1].weight]))
        two[-1].bias.copy_(torch.cat([network.trunk[-1].bias, -network.trunk[-1].bias]))
    for method in ("grad_cam", "layer_cam"):
        for target, counterfactual in ((0, False), (1, True)):
            found = camlab.heatmaps(network, IMAGES, method, counterfactual=counterfactual)
            expected = camlab.heatmaps(two, IMAGES, method, target=target)
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(camlab.heatmaps(network, IMAGES), camlab.heatmaps(two, IMAGES, "cam", target=0))


def test_the_probability_of_one_logit_is_its_sigmoid():
    network = convolutional(classes=1)
    sources = [Source("a.png", "a", i, (32, 24), (0, 0, 32, 24)) for i in range(3)]
    found = results_of(Explainer(network).explain(IMAGES, ["grad_cam"]), sources)
    expected = network(IMAGES).sigmoid()
    torch.testing.assert_close(torch.stack([result.probabilities for result in found]), expected.detach())


# ---- channels ----


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.kind != "attention"])
def test_other_numbers_of_channels(channels, method):
    images = torch.rand(2, channels, 24, 32)
    assert camlab.heatmaps(convolutional(channels), images, method).shape == (2, 24, 32)


# ---- layouts that the user states ----


class Shuffled(nn.Module):
    """Patches in an order of its own, so that probing finds no layout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.order = torch.arange(12) * 5 % 12

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(images).flatten(2).transpose(1, 2)[:, self.order]).mean(dim=1))


def test_a_stated_layout():
    torch.manual_seed(0)
    network = Shuffled().eval()
    back = torch.argsort(network.order)

    def reshape(tokens: Tensor) -> Tensor:
        return tokens[:, back].transpose(1, 2).reshape(-1, 6, 3, 4)

    with pytest.raises(UserError, match=r"layer=mix: .* does not show which axes .*reshape="):
        camlab.heatmaps(network, IMAGES, "grad_cam", "mix")
    plain = copy.deepcopy(network)
    plain.order = torch.arange(12)
    for method in ("grad_cam", "hires_cam", "ablation_cam", "cam", "eigen_cam", "auto"):
        expected = camlab.heatmaps(plain, IMAGES, method, "mix")
        torch.testing.assert_close(camlab.heatmaps(network, IMAGES, method, "mix", reshape=reshape), expected)
        stated = camlab.heatmaps(plain, IMAGES, method, "mix", reshape=Layout("NLC", (3, 4)))
        torch.testing.assert_close(stated, expected)


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        (Layout("NLC", (3, 3)), r"reshape=NLC 3×3: the output of mix for one image is 12×6, which does not fit"),
        (Layout("NCHW", (3, 4)), r"reshape=NCHW 3×4: .* does not fit"),
        (lambda tokens: tokens.reshape(-1, 6, 5, 5), "reshape: the function cannot take the output of mix, 1×12×6: shape"),
        (lambda tokens: tokens, "reshape: the function must only rearrange the output of mix, 1×12×6, as N×K×H×W"),
        (lambda tokens: tokens.reshape(-1, 6, 3, 4) * 0, "must only rearrange"),
        (lambda tokens: tokens.reshape(-1, 6, 3, 4) + 1, "must not change values"),
    ],
)  # fmt: skip
def test_stated_layouts_that_do_not_fit(reshape, message):
    with pytest.raises(UserError, match=message):
        camlab.heatmaps(Shuffled().eval(), IMAGES, "grad_cam", "mix", reshape=reshape)


def test_a_layout_is_that_of_a_layer():
    with pytest.raises(UserError, match=r"reshape: .* Give layer, too"):
        Explainer(Shuffled(), reshape=Layout("NLC", (3, 4)))


# ---- what is not a network ----


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused_as_a_whole_and_taken_as_a_part():
    network = convolutional()
    with pytest.raises(UserError, match="model: a TorchScript network does not show its layers"):
        camlab.heatmaps(torch.jit.trace(network, IMAGES), IMAGES)
    partly = copy.deepcopy(network)
    partly[0] = torch.jit.trace(network[0], IMAGES)
    torch.testing.assert_close(camlab.heatmaps(partly, IMAGES), camlab.heatmaps(network, IMAGES))


def test_a_function_is_not_a_network():
    with pytest.raises(UserError, match=r"model: got function, but a torch\.nn\.Module is needed"):
        camlab.heatmaps(lambda images: images, IMAGES)
