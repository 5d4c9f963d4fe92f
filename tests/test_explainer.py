"""Heatmaps of any network: they are right, and leave the state of the network and of the caller unchanged."""

import copy
import gc
import weakref
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import camlab
from camlab import Explainer, heatmaps, maps
from camlab.attribution import methods
from camlab.errors import UserError
from camlab.models.cam_net import CamNet

N, M, SIDE = 2, 5, 48
METHODS = [name for name, method in methods.METHODS.items() if method.kind != "attention"]  # of convolutional networks
AT_LAYERS = [method for method in METHODS if methods.METHODS[method].takes_layers]
ALL_BUT_CAM = [method for method in METHODS if method != "cam"]


class TinyNet(nn.Module):
    """A small network like AlexNet: in-place ReLUs, poolings, batch norm, dropout, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(144, 16), nn.ReLU(True), nn.Linear(16, M)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


class Gap(nn.Module):
    """A network that supports CAM: it ends in global average pooling and one linear layer."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(channels, M)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(images)).mean(dim=(2, 3)))


@pytest.fixture
def network() -> TinyNet:
    return TinyNet()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(N, 3, SIDE, SIDE)


def plain_grad_cam(network: nn.Module, layer: str, images: Tensor, target: Tensor) -> Tensor:
    """Grad-CAM in its plainest form, rectified, N×H×W: with the whole graph, and without in-place ReLUs."""
    network = copy.deepcopy(network).eval().requires_grad_(True)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    kept: list[Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.inference_mode(False), torch.enable_grad():
        score = network(images.clone()).gather(1, target[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, kept)
    signed = (gradients.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1).detach()
    return F.interpolate(signed.relu()[:, None], images.shape[-2:], mode="bilinear")[:, 0]


# ---- the result ----


@pytest.mark.parametrize("layer", ["features.0", "features.1", "features.4", "features.5", "features.6", "features"])
def test_grad_cam_equals_its_plainest_form(network, images, layer):
    target = torch.tensor([3, 0])
    expected = plain_grad_cam(network, layer, images, target)
    assert expected.amax(dim=(1, 2)).min() > 0
    torch.testing.assert_close(
        heatmaps(network, images, "grad_cam", layer=layer, target=target, normalize="raw"), expected
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_float32_of_the_images_size(method, dtype):
    images = torch.randn(N, 3, 20, 31, dtype=dtype)
    heat = heatmaps(Gap().to(dtype), images, method)
    assert (heat.shape, heat.dtype, heat.device) == ((N, 20, 31), torch.float32, images.device)
    assert not heat.requires_grad
    assert 0 <= heat.min() <= heat.max() <= 1


def test_normalizations(network, images):
    raw, per_image, shared = (
        heatmaps(network, images, "grad_cam", normalize=mode) for mode in ("raw", "per_image", "shared")
    )
    (signed,) = Explainer(network).explain(images, ["grad_cam"]).maps["grad_cam"]
    peak = signed.relu().amax(dim=(1, 2, 3))[:, None, None]
    assert peak.min() > 0
    assert peak[0] != peak[1]
    torch.testing.assert_close(per_image, raw / peak)
    torch.testing.assert_close(shared, raw / peak.max())
    with pytest.raises(ValueError, match=r"normalize=stretch: unknown mode\. Choose from per_image, shared, raw\."):
        heatmaps(network, images, normalize="stretch")


@pytest.mark.parametrize("normalize", ["raw", "per_image", "shared"])
def test_only_evidence_against_the_class_is_a_map_of_zeros(images, normalize):
    network = Gap()
    with torch.no_grad():
        network.fc.weight[1] = -network.fc.weight[1].abs()
    for method in ("cam", "grad_cam", "hires_cam", "layer_cam"):
        assert not heatmaps(network, images, method, target=1, normalize=normalize).any(), method
    assert heatmaps(network, images, "grad_cam", target=1, normalize=normalize, counterfactual=True).any()


def test_counterfactual_needs_a_method_with_gradients(images):
    for method in ("cam", "score_cam"):
        with pytest.raises(UserError, match=rf"counterfactual: {method} does not use gradients\. Choose from grad_cam"):
            heatmaps(Gap(), images, method, counterfactual=True)


def test_maps_of_an_image_of_zeros_are_finite(network):
    for method in ALL_BUT_CAM:
        layer = "features.5" if method in AT_LAYERS else None
        assert torch.isfinite(heatmaps(network, torch.zeros(1, 3, SIDE, SIDE), method, layer)).all()


def test_several_layers_are_averaged(network, images):
    layers = ["features.5", "features.0"]  # 24×24 and 48×48 cells; the order does not matter

    def signed(layer: str) -> Tensor:
        return Explainer(network, layer).explain(images, ["grad_cam"], torch.tensor([[1], [1]])).maps["grad_cam"][0]

    coarse, fine = (signed(layer)[:, 0].relu() for layer in layers)
    peaks = {"per_image": lambda maps: maps.amax(dim=(1, 2), keepdim=True), "shared": Tensor.max, "raw": lambda _: 1.0}
    for mode, peak in peaks.items():
        scaled = F.interpolate((coarse / peak(coarse))[:, None], fine.shape[1:], mode="bilinear")[:, 0]
        mean = (scaled + fine / peak(fine)) / 2
        expected = mean / peak(mean)  # the finer grid is that of the images
        torch.testing.assert_close(
            heatmaps(network, images, "grad_cam", layer=layers, target=1, normalize=mode), expected
        )


@pytest.mark.parametrize("frozen", [False, True])
def test_layers_beside_each_other(images, frozen):
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5, padding=1), nn.Linear(8, M)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(torch.cat([self.left(images), self.right(images)], dim=1).mean(dim=(2, 3)))

    network = Branches().requires_grad_(not frozen)
    found = (
        Explainer(network, ["left", "right"]).explain(images, ["grad_cam"], torch.tensor([[1], [2]])).maps["grad_cam"]
    )
    for layer, signed in zip(["left", "right"], found, strict=True):
        alone = Explainer(network, layer).explain(images, ["grad_cam"], torch.tensor([[1], [2]])).maps["grad_cam"]
        torch.testing.assert_close(signed, alone[0])


def test_explain_the_highest_scores(network, images):
    look = Explainer(network).explain(images, ["grad_cam", "score_cam"], top_k=3)
    logits = copy.deepcopy(network).eval()(images).detach()
    torch.testing.assert_close(look.logits, logits)
    assert torch.equal(look.class_idx, logits.topk(3).indices)
    for method, (stack,) in look.maps.items():
        for rank in range(3):
            raw = heatmaps(network, images, method, target=look.class_idx[:, rank], normalize="raw")
            torch.testing.assert_close(maps.upsample(stack[:, rank].relu(), (SIDE, SIDE)), raw)
    assert Explainer(network).explain(images, ["grad_cam"], top_k=99).class_idx.shape == (N, M)


def test_methods_in_one_pass_are_those_alone(images):
    network = Gap()
    together = Explainer(network).explain(images, METHODS).maps
    for method, (signed,) in together.items():
        (alone,) = Explainer(network).explain(images, [method]).maps[method]
        torch.testing.assert_close(signed, alone, msg=method)


# ---- targets ----


def test_targets(network, images):
    predicted = copy.deepcopy(network).eval()(images).argmax(dim=1)
    assert torch.equal(heatmaps(network, images), heatmaps(network, images, "grad_cam", target=predicted))
    one_for_all = heatmaps(network, images, "grad_cam", target=3)
    for same in (torch.tensor(3), [3, 3], torch.tensor([3, 3], dtype=torch.int32)):
        assert torch.equal(heatmaps(network, images, "grad_cam", target=same), one_for_all)
    each = heatmaps(network, images, "grad_cam", target=[3, 0], normalize="raw")
    for i, target in enumerate([3, 0]):
        alone = heatmaps(network, images[i : i + 1], target=target, normalize="raw")
        torch.testing.assert_close(each[i : i + 1], alone)
    assert not torch.allclose(each[1], heatmaps(network, images, "grad_cam", target=3, normalize="raw")[1])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([1], "2 images need one class each .* not 1"),
        ([1, 2, 3], "2 images need one class each .* not 3"),
        (M, "the classes 0 to 4"),
        ([0, -1], "the classes 0 to 4"),
        (1.0, "a class index, or one for each image"),
        (torch.tensor([0.0, 1.0]), "a class index, or one for each image"),
        ([True, False], "a class index, or one for each image"),
        (torch.zeros(N, 2, dtype=torch.long), "a class index, or one for each image"),
    ],
)
def test_targets_that_do_not_fit(network, images, target, message):
    with pytest.raises(UserError, match=message):
        heatmaps(network, images, "grad_cam", target=target)


@pytest.mark.parametrize("method", ["grad_cam", "score_cam"])
def test_no_images(network, method):
    heat = heatmaps(network, torch.zeros(0, 3, 24, 32, dtype=torch.float64), method, normalize="shared")
    assert (heat.shape, heat.dtype) == ((0, 24, 32), torch.float32)


# ---- layers ----


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("alexnet", "features.11"),
        ("vgg16", "features.29"),
        ("resnet18", "layer4"),  # the last ReLU is used twice
        ("mobilenet_v3_small", "features.12.2"),
        ("efficientnet_b0", "features.8.2"),
        ("densenet121", "features"),  # the last ReLU is not a module
        ("squeezenet1_1", "classifier.2"),
        ("googlenet", "inception5b"),  # branches
    ],
)
def test_default_layer_of_torchvision_networks(name, layer):
    with torch.device("meta"):  # a pass takes no time there, and only shapes matter
        options = {"init_weights": False} if name == "googlenet" else {}
        network = torchvision.models.get_model(name, weights=None, **options)
        assert Explainer(network).default_layer(torch.zeros(1, 3, 64, 64)) == layer


def test_default_layer_of_a_camnet():
    network, images = CamNet("alexnet", num_classes=3), torch.randn(1, 3, 96, 96)
    assert Explainer(network).default_layer(images) == "backbone"
    assert torch.equal(
        heatmaps(network, images, "grad_cam"), heatmaps(network, images, "grad_cam", layer="backbone.11")
    )
    torch.testing.assert_close(
        heatmaps(network, images, "cam", normalize="raw"), heatmaps(network, images, "cam", "cam_conv", normalize="raw")
    )


def test_where_the_last_layers_are_too_small():
    network = torchvision.models.resnet18(weights=None, num_classes=M)
    assert Explainer(network).default_layer(torch.randn(1, 3, 32, 32)) == "layer3"  # layer4 gives 1×1


class Bottleneck(nn.Module):
    """A network whose second convolution reduces small images to one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 16, 16), nn.Linear(4, M)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.second(self.first(images)).mean(dim=(2, 3)))


def test_the_default_layer_depends_on_the_size_of_the_images():
    network = Bottleneck()
    explainer, small, large = Explainer(network), torch.randn(N, 3, 32, 32), torch.randn(N, 3, 64, 64)
    for images, layer in ((small, "first"), (large, "second"), (small, "first")):
        assert explainer.default_layer(images) == layer
        assert explainer.explain(images, ["grad_cam"]).layers == {"grad_cam": (layer,)}
        assert torch.equal(explainer(images), heatmaps(network, images))


def test_layers_as_modules(network, images):
    by_name = heatmaps(network, images, "grad_cam", layer="features.5", target=1)
    assert torch.equal(heatmaps(network, images, "grad_cam", layer=network.features[5], target=1), by_name)
    assert torch.equal(heatmaps(nn.DataParallel(network), images, layer=[network.features[5]], target=1), by_name)
    whole = heatmaps(
        network, images, "grad_cam", layer=network.features, target=1
    )  # a Sequential is one layer, not seven
    assert torch.equal(whole, heatmaps(network, images, "grad_cam", layer="features", target=1))
    both = heatmaps(network, images, "grad_cam", layer=[network.features[0], "features.5"], target=1)
    assert torch.equal(both, heatmaps(network, images, "grad_cam", layer=["features.0", "features.5"], target=1))
    (signed,) = Explainer(network, network.features[5]).explain(images, ["grad_cam"]).layers.values()
    assert signed == ("features.5",)


def test_a_module_of_another_network(network):
    for stranger in (nn.ReLU(), TinyNet().features[5], network):
        kind = type(stranger).__name__
        with pytest.raises(UserError, match=rf"layer: this {kind} is not one of .* a name: features, classifier, or"):
            Explainer(network, stranger)


def test_unknown_layers_name_near_ones(network):
    with pytest.raises(
        UserError, match=r"layer=feature\.5: no such layer\. Did you mean features\.5, features\.\d or "
    ):
        Explainer(network, "feature.5")
    with pytest.raises(UserError, match=r"layer=feature\.5"):
        Explainer(network, ["features.0", "feature.5"])
    with pytest.raises(UserError, match="no such layer"):
        Explainer(network, "")
    with pytest.raises(UserError, match=r"qqq: no such layer\. Choose from features, classifier, or a layer inside"):
        Explainer(network, "qqq")


@pytest.mark.parametrize(("layer", "shape"), [("classifier.3", 16), ("classifier.1", 144), ("classifier", M)])
def test_layers_without_spatial_output(network, images, layer, shape):
    with pytest.raises(UserError, match=rf"layer={layer}: its output for one image is {shape}; a map needs"):
        heatmaps(network, images, "grad_cam", layer=layer)


def test_a_layer_of_one_cell(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, M))
    with pytest.raises(UserError, match=r"layer=1: its output for one image is 4×1×1; .* larger than 1×1"):
        heatmaps(network, images, "grad_cam", layer="1")


def test_a_network_without_spatial_output():
    with pytest.raises(UserError, match="no layer with a spatial output"):
        heatmaps(nn.Sequential(nn.Flatten(), nn.Linear(12, M)), torch.randn(1, 3, 2, 2))


def test_a_layer_that_is_not_used(images):
    network = Gap()
    network.spare = nn.Conv2d(3, 4, 3)
    with pytest.raises(UserError, match="layer=spare: the network does not use it"):
        heatmaps(network, images, "grad_cam", layer="spare")


class Shared(nn.Module):
    """A network that uses one ReLU in two places, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, M)
        self.act = self.again = nn.ReLU(inplace=True)
        self.block = nn.Sequential(self.second, self.act)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.block(self.act(self.first(images))).mean(dim=(2, 3)))


@pytest.mark.parametrize("layer", ["act", "again"])
def test_a_module_used_twice_is_ambiguous(images, layer):
    with pytest.raises(UserError, match=f"layer={layer}: used more than once in a pass; choose the block"):
        heatmaps(Shared(), images, layer=layer)


def test_the_block_around_a_module_used_twice(images):
    network, target = Shared(), torch.tensor([1, 1])
    assert Explainer(network).default_layer(images) == "block"
    expected = plain_grad_cam(network, "block", images, target)
    torch.testing.assert_close(heatmaps(network, images, "grad_cam", target=target, normalize="raw"), expected)
    assert torch.equal(
        heatmaps(network, images, "grad_cam", layer="block.0"), heatmaps(network, images, "grad_cam", layer="second")
    )


def test_unknown_methods_name_a_near_one(network, images):
    with pytest.raises(UserError, match=r"method=gradcam: unknown method\. Did you mean grad_cam\? Choose from cam, "):
        heatmaps(network, images, "gradcam")


# ---- CAM ----


class Swish(Gap):
    """Like Gap, but with a smooth activation."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.SiLU()


def test_cam_is_the_weighted_sum_of_the_last_features():
    network, images = torchvision.models.resnet18(weights=None, num_classes=M).eval(), torch.randn(N, 3, 96, 96)
    kept: list[Tensor] = []
    handle = network.layer4.register_forward_hook(lambda module, inputs, output: kept.append(output.detach()))
    with torch.no_grad():
        network(images)
    handle.remove()
    expected = sum(network.fc.weight[2, k].detach() * kept[0][:, k] for k in range(512))
    (signed,) = Explainer(network).explain(images, ["cam"], torch.tensor([[2], [2]])).maps["cam"]
    torch.testing.assert_close(signed[:, 0], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


class FunctionalReLU(Gap):
    """Like Gap, but with an in-place ReLU that is not a module, as in DenseNet."""

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(images), inplace=True).mean(dim=(2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (FunctionalReLU().double(), "conv"),
        (Gap().double(), "relu"),
        (torchvision.models.densenet121(weights=None, num_classes=M).double(), "features"),
    ],
)
def test_cam_where_the_relu_before_the_pooling_is_a_function(network, layer):
    images = torch.randn(N, 3, 96, 80, dtype=torch.float64)
    found = Explainer(network).explain(images, ["cam"], top_k=M)
    assert found.layers == {"cam": (layer,)}
    (cam,) = found.maps["cam"]
    bias = [module for module in network.modules() if isinstance(module, nn.Linear)][-1].bias.detach()
    with torch.no_grad():
        logits = copy.deepcopy(network).eval()(images).gather(1, found.class_idx)
    torch.testing.assert_close(cam.mean(dim=(2, 3)) + bias[found.class_idx], logits, rtol=0, atol=1e-12)
    again = Explainer(network, layer).explain(images, ["cam"], top_k=M).maps["cam"][0]
    assert torch.equal(again, cam), "the same layer, given by name, must give the same maps"


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (TinyNet(), None),  # two linear layers after another kind of pooling
        (Swish(), "conv"),  # an activation other than ReLU comes before the pooling
        (nn.Sequential(nn.Conv2d(3, M, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), None),  # no linear layer
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, M)), None),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.Linear(8, M)), None),
    ],
)
def test_cam_refuses_other_networks(network, layer, images):
    with pytest.raises(UserError, match=rf"cam: .* Choose from {', '.join(maps.GRADIENT_METHODS)}\."):
        heatmaps(network, images, "cam", layer)


def test_cam_refuses_alexnet():
    network = torchvision.models.alexnet(weights=None, num_classes=M)
    with pytest.raises(UserError, match=r"cam: .* Choose from grad_cam, "):
        heatmaps(network, torch.randn(1, 3, 64, 64), "cam")


def test_cam_refuses_a_single_cell():
    """AlexNet's last pooling reduces images of 64×64 to 1×1: such a map shows no place."""
    network = CamNet("alexnet", num_classes=M).eval()
    with pytest.raises(
        UserError,
        match=r"layer=cam_conv: its output for one image is 10×1×1; .* Give larger images or",
    ):
        heatmaps(network, torch.randn(1, 3, 64, 64), "cam")


# ---- what is not a classifier ----


def test_logits_by_name(images):
    class Named(Gap):
        def forward(self, images: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=super().forward(images))

    network = Gap()
    named = Named()
    named.load_state_dict(network.state_dict())
    for method in METHODS:
        assert torch.equal(heatmaps(named, images, method), heatmaps(network, images, method)), method


# ---- nothing is touched ----


def state(network: nn.Module) -> dict[str, object]:
    """Everything that a call must not change; tensors by value and version."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": {name: tensor.detach().clone().numpy().tobytes() for name, tensor in tensors.items()},
        "versions": {name: tensor._version for name, tensor in tensors.items()},
        "same tensors": {name: id(tensor) for name, tensor in tensors.items()},
        "grads": {n: None if t.grad is None else (id(t.grad), t.grad.numpy().tobytes()) for n, t in tensors.items()},
        "requires_grad": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "training": {name: module.training for name, module in network.named_modules()},
        "hooks": {name: [list(getattr(module, kind)) for kind in hooks] for name, module in network.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in network.named_modules()},
        "rng": torch.get_rng_state().numpy().tobytes(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
    }


@pytest.fixture
def used(network, images) -> TinyNet:
    """A network in the middle of training: mixed flags, some gradients, a frozen parameter, the user's own hooks."""
    network.train()
    network.features[1].eval()
    network.classifier[2].eval()
    network(images).sum().backward()
    network.features[0].weight.grad = None
    network.features[4].requires_grad_(False)
    network.classifier.register_forward_hook(lambda module, inputs, output: None)
    network.classifier[5].register_full_backward_hook(lambda module, inputs, outputs: None)
    return network


@pytest.mark.parametrize("method", ALL_BUT_CAM)
def test_nothing_changes(used, images, method):
    before, pixels = state(used), images.clone()
    images.requires_grad_()
    heatmaps(used, images, method)
    heatmaps(used, images, method, ["features.0", "features.5"] if method in AT_LAYERS else None, target=1)
    assert state(used) == before
    assert images.grad is None
    assert images.requires_grad
    assert torch.equal(images, pixels)


@pytest.mark.parametrize(
    "mistake",
    [
        {"target": 99},
        {"layer": "classifier.3"},
        {"layer": ["features.5", "classifier"]},
        {"method": "cam"},
        {"normalize": "stretch"},
    ],
)
def test_nothing_changes_after_a_mistake(used, images, mistake):
    before = state(used)
    with pytest.raises(ValueError):  # noqa: PT011
        heatmaps(used, images, **mistake)
    assert state(used) == before


def test_nothing_changes_when_the_network_fails(used):
    images = torch.randn(N, 4, SIDE, SIDE)
    before = state(used)
    with pytest.raises(UserError, match="to have 3 channels"):
        heatmaps(used, images, layer="features.5")
    assert state(used) == before


def test_in_the_middle_of_a_training_step(network, images):
    """A call between forward and backward must not change the gradients of the step."""
    network.classifier[2].p = 0.0
    twin = copy.deepcopy(network)
    twin(images).square().sum().backward()
    loss = network(images).square().sum()
    for method in ALL_BUT_CAM:
        heatmaps(network, images, method)
    loss.backward()
    for (name, found), expected in zip(network.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)


def test_training_goes_on_under_the_same_autocast(network, images):
    """If autocast cached weights without a graph during a call, the training step would get no gradients."""
    with torch.autocast("cpu", torch.bfloat16):
        for method in ("grad_cam", "score_cam"):
            heatmaps(network, images, method)
        loss = network(images).square().sum()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL_BUT_CAM)
def test_nothing_stays_alive(network, images, method):
    """20 calls take as much memory as one, even without garbage collection."""
    alive: list[weakref.ref[Tensor]] = []
    for module in network.modules():
        module.register_forward_hook(lambda module, inputs, output: alive.append(weakref.ref(output)))
    explainer = Explainer(network)

    def tensors() -> int:
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    heatmaps(network, images, method)  # torch itself keeps some tensors from the first call on
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in range(20):
            explainer(images, method)
        assert tensors() == before
        assert len(alive) > 20
        assert not [output for output in alive if output() is not None]
    finally:
        gc.enable()


def test_another_batch_size_and_another_picture_size(network):
    explainer = Explainer(network)
    for shape in [(1, 3, 48, 48), (5, 3, 48, 48), (2, 3, 32, 64), (1, 3, 48, 48)]:
        images = torch.randn(shape)
        assert torch.equal(explainer(images), heatmaps(network, images))


def test_weights_may_change_between_calls(network, images):
    explainer = Explainer(network)
    first = explainer(images, target=1, normalize="raw")
    with torch.no_grad():
        network.features[4].weight.mul_(-1)
    assert torch.equal(
        explainer(images, target=1, normalize="raw"), heatmaps(network, images, "grad_cam", target=1, normalize="raw")
    )
    assert not torch.equal(explainer(images, target=1, normalize="raw"), first)


# ---- at any moment, in any wrapper ----


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("target", [None, 1, [1, 2], "tensor"])
@pytest.mark.parametrize("method", ["grad_cam", "score_cam"])
def test_in_any_grad_mode(network, images, mode, target, method):
    outside = torch.tensor([1, 2]) if target == "tensor" else target
    expected = heatmaps(network, images, method, target=outside)
    with mode():
        inside = torch.tensor([1, 2]) if target == "tensor" else target
        assert torch.equal(heatmaps(network, images.clone(), method, target=inside), expected)
        predictions = network.eval()(images)  # the network's own pass is as before
    assert predictions.requires_grad == (mode is torch.enable_grad)


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_autocast(images, mode, dtype, method):
    network = Gap(32) if method == "cam" else TinyNet()
    layer = "relu" if method == "cam" else "features.5" if method in AT_LAYERS else None
    expected = heatmaps(network, images, method, layer, target=1)
    with ExitStack() as stack:
        stack.enter_context(mode())
        stack.enter_context(torch.autocast("cpu", dtype))
        network.eval()(images)  # fills autocast's cache
        found = heatmaps(network, images, method, layer, target=1)
        assert torch.is_autocast_enabled("cpu")
    assert found.dtype == torch.float32
    assert (found - expected).norm() <= 0.1 * expected.norm()  # some windows of the max-pooling have another maximum


@pytest.mark.parametrize("method", ALL_BUT_CAM)
def test_frozen_parameters(network, images, method):
    expected = heatmaps(network, images, method, target=1)
    assert torch.equal(heatmaps(network.requires_grad_(False), images, method, target=1), expected)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_backbone_that_runs_in_no_grad(images, frozen):
    """Lightning's example of transfer learning runs its backbone in this way."""

    class Transfer(Gap):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                pooled = self.relu(self.conv(images)).mean(dim=(2, 3))
            return self.fc(pooled)

    network, plain = Transfer().requires_grad_(not frozen), Gap()
    plain.load_state_dict(network.state_dict())
    before = state(network)
    for layer in ("conv", "relu"):
        expected = heatmaps(plain, images, "grad_cam", layer, target=1)
        assert expected.any()
        assert torch.equal(heatmaps(network, images, "grad_cam", layer=layer, target=1), expected)
    assert state(network) == before


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_that_cuts_its_gradient_off(images, frozen):
    class Cut(Gap):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.relu(self.conv(images)).detach().mean(dim=(2, 3)))

    network = Cut().requires_grad_(not frozen)
    with pytest.raises(UserError, match="layer=relu: no gradient reaches it; the network cuts the graph"):
        heatmaps(network, images, "grad_cam")
    assert heatmaps(network, images, "cam").any()  # CAM needs no gradient


def test_a_classifier_that_is_given_its_input_by_name(images):
    class Named(Gap):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(input=self.relu(self.conv(images)).mean(dim=(2, 3)))

    assert heatmaps(Named(), images, target=1).any()


@pytest.mark.parametrize("method", ALL_BUT_CAM)
def test_channels_last(network, images, method):
    layer = "features.5" if method in AT_LAYERS else None
    expected = heatmaps(network, images, method, layer, target=1)
    last = {"memory_format": torch.channels_last}
    found = heatmaps(copy.deepcopy(network).to(**last), images.to(**last), method, layer, target=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def same_in_a_wrapper(wrapped: nn.Module, network: nn.Module, images: Tensor) -> None:
    for method in ("grad_cam", "score_cam"):
        assert torch.equal(heatmaps(wrapped, images, method), heatmaps(network, images, method)), method
    layer = heatmaps(wrapped, images, layer="features.0")
    assert torch.equal(layer, heatmaps(network, images, "grad_cam", layer="features.0"))


def test_ddp(network, images, tmp_path: Path):
    expected = copy.deepcopy(network)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network)
        same_in_a_wrapper(wrapped, expected, images)
        wrapped(images).sum().backward()  # a training step works afterwards
        assert all(parameter.grad is not None for parameter in network.parameters())
        same_in_a_wrapper(wrapped, network, images)
    finally:
        dist.destroy_process_group()


def test_data_parallel(network, images):
    same_in_a_wrapper(nn.DataParallel(network), network, images)


def compiled_in_place(network: nn.Module) -> nn.Module:
    network.compile()
    return network


def compiled_part(network: nn.Module) -> nn.Module:
    network.classifier = torch.compile(network.classifier)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [torch.compile, compiled_in_place, compiled_part])
def test_compiled(network, images, compiled: Callable[[nn.Module], nn.Module]):
    plain = copy.deepcopy(network)
    wrapped = compiled(network).eval()
    with torch.no_grad():
        expected = wrapped(images)
        same_in_a_wrapper(wrapped, plain, images)
        torch.testing.assert_close(wrapped(images), expected)  # the compiled network runs as before


def test_in_a_validation_step(tmp_path: Path):
    class Classifier(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.found = TinyNet(), []

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            assert torch.is_inference_mode_enabled()
            images, labels = batch
            self.found.append(camlab.heatmaps(self.network, images, target=labels))

    images, labels = torch.randn(4, 3, SIDE, SIDE), torch.tensor([1, 0, 3, 2])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=2)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    classifier = Classifier()
    trainer.validate(classifier, loader, verbose=False)
    expected = heatmaps(classifier.network, images, target=labels)
    torch.testing.assert_close(torch.cat(classifier.found), expected, rtol=1e-4, atol=1e-5)


# ---- input and output that make no sense

FLOAT = torch.zeros(2, 3, 32, 32)
NOT_FINITE = FLOAT.index_fill(0, torch.tensor([1]), float("nan"))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([[1.0]], "images: got list, but a tensor N×C×H×W is needed."),
        (FLOAT[0], "images: got float32 3×32×32, but N×C×H×W is needed. For one image, give images[None]."),
        (FLOAT[0, 0], "images: got float32 32×32, but N×C×H×W is needed."),
        (FLOAT[:, :0], "images: got float32 2×0×32×32, but N×C×H×W is needed."),
        (FLOAT[:, :1], "images: the network cannot take float32 images of 1×32×32: .*3 channels, but got 1 channels"),
        (FLOAT.double(), "images: the network cannot take float64 images of 3×32×32: .*(double|Double)"),
        (FLOAT.byte(), "images: the network cannot take uint8 images of 3×32×32: "),
        (FLOAT.bool(), "images: the network cannot take bool images of 3×32×32: "),
        (NOT_FINITE, "images: 1 of 2 has NaN or infinite values, but all must be finite."),
        (FLOAT + float("inf"), "images: 2 of 2 have NaN or infinite values"),
    ],
)
@pytest.mark.parametrize("layer", [None, "features.0"])
def test_images_that_a_network_cannot_take_are_refused_in_a_line(images, said, layer):
    for call in (
        lambda: heatmaps(TinyNet(), images, layer=layer),
        lambda: Explainer(TinyNet()).explain(images, ["cam"]),
    ):
        with pytest.raises(UserError, match=f"^{said.replace('[', chr(92) + '[')}") as refused:
            call()
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_refused(method, value):
    network = Gap()
    network.fc.bias.data[1] = value
    with pytest.raises(UserError, match=r"^The network's output: 2 of 2 have NaN or infinite logits"):
        heatmaps(network, FLOAT, method)
    network.fc.bias.data.zero_()
    assert heatmaps(network, FLOAT, method).isfinite().all()


def test_a_map_that_is_not_finite_is_refused():
    class Rooted(Gap):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.relu(self.conv(images)).sqrt().mean(dim=(2, 3)))  # its gradient at 0 is infinite

    network = Rooted()
    torch.nn.init.constant_(network.conv.bias, -1e3)
    with pytest.raises(UserError, match=r"^grad_cam at relu: 2 of 2 images have NaN or infinite values in the map"):
        heatmaps(network, FLOAT, "grad_cam", layer="relu")


def test_layers_that_are_called_cam_layer_are_ordinary_layers():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cam_layer, self.grad_cam_layer = nn.Conv2d(3, 4, 3), nn.ReLU()
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.grad_cam_layer(self.cam_layer(images)))

    for method in ("cam", "grad_cam"):
        assert heatmaps(Network().eval(), torch.rand(2, 3, 16, 16), method).shape == (2, 16, 16)
