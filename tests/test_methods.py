"""Every method: first by hand, then against an independent oracle on unmodified networks."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import GuidedGradCam, LayerGradCam
from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import Tensor, nn

import camlab
from camlab import maps
from camlab.errors import UserError

TARGET = torch.tensor([3, 1])
ORACLES = {
    "grad_cam": pytorch_grad_cam.GradCAM,
    "grad_cam_plus_plus": pytorch_grad_cam.GradCAMPlusPlus,
    "xgrad_cam": pytorch_grad_cam.XGradCAM,
    "hires_cam": pytorch_grad_cam.HiResCAM,
    "layer_cam": pytorch_grad_cam.LayerCAM,
    "finer_cam": pytorch_grad_cam.GradCAM,  # of another target
    "score_cam": pytorch_grad_cam.ScoreCAM,
}
LAYERS = [
    ("alexnet", "features.11"),
    ("alexnet", "features.10"),  # an in-place ReLU follows
    pytest.param("vgg16", "features.29", marks=pytest.mark.slow),
    ("resnet18", "layer4"),
    ("resnet18", "layer3"),  # gradients differ from cell to cell
]

# By hand. Two channels of four cells, and a linear layer on all eight of them, so that its weights are the gradients:
#   A_1 = 2 0   A_2 = 0 4   g_1 = 1 -1   g_2 = 1 -2
#         1 1         2 2         0  2         0 -1
A = torch.tensor([[[[2.0, 0.0], [1.0, 1.0]], [[0.0, 4.0], [2.0, 2.0]]]])  # sums 4 and 8
G = torch.tensor([[[[1.0, -1.0], [0.0, 2.0]], [[1.0, -2.0], [0.0, -1.0]]]])  # means 1/2 and -1/2
HAND = {
    "grad_cam": [[1, -2], [-1 / 2, -1 / 2]],  # A_1/2 - A_2/2
    # α g = g / (2 + g Σ A) where g > 0: 1/(2 + 4) + 2/(2 + 8) = 11/30, and 1/(2 + 8) = 1/10
    "grad_cam_plus_plus": [[22 / 30, 12 / 30], [17 / 30, 17 / 30]],
    "xgrad_cam": [[2, -5], [-3 / 2, -3 / 2]],  # Σ A g / Σ A: (2 + 2)/4 = 1 and (-8 - 2)/8 = -5/4
    "hires_cam": [[2, -8], [0, 0]],  # 2·1 + 0, 0 - 4·2, 0, 1·2 - 2·1
    "layer_cam": [[2, 0], [0, 2]],  # only the gradients above zero: 2·1, 1·2
}
COUNTERFACTUAL = {  # the same with -g
    "grad_cam": [[-1, 2], [1 / 2, 1 / 2]],
    # 1/(2 + 4) = 1/6, and 2/(2 + 16) + 1/(2 + 8) = 19/90
    "grad_cam_plus_plus": [[30 / 90, 76 / 90], [53 / 90, 53 / 90]],
    "xgrad_cam": [[-2, 5], [3 / 2, 3 / 2]],
    "hires_cam": [[-2, 8], [0, 0]],
    "layer_cam": [[0, 8], [0, 2]],  # 4·2, 2·1
}


def linear_on_cells(weight: Tensor) -> nn.Module:
    """A network whose activations are the image; class 1 scores their sum weighted by K×H×W, and class 0 scores 0."""
    network = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(weight.numel(), 2, bias=False))
    with torch.no_grad():
        network[2].weight.copy_(torch.stack([torch.zeros_like(weight), weight]).flatten(1))
    return network


@pytest.mark.parametrize("method", HAND)
@pytest.mark.parametrize("counterfactual", [False, True])
def test_gradient_methods_by_hand(method, counterfactual):
    expected = torch.tensor([(COUNTERFACTUAL if counterfactual else HAND)[method]], dtype=torch.float32)
    network, classes = linear_on_cells(G[0]), torch.tensor([[1]])
    explainer = camlab.Explainer(network, "0")
    (signed,) = explainer.explain(A, [method], classes, counterfactual=counterfactual).maps[method]
    torch.testing.assert_close(signed[:, 0], expected)
    heat = camlab.heatmaps(network, A, method, "0", target=1, normalize="raw", counterfactual=counterfactual)
    torch.testing.assert_close(heat, expected.relu())


def test_score_cam_by_hand():
    # The masks are A_1/2 and A_2/4. With a score of image(0, 0)·ln(3)/2 of the first channel alone the masked images
    # score ln 3 and 0, whose softmax is 3/4 and 1/4.
    weight = torch.zeros(2, 2, 2)
    weight[0, 0, 0] = math.log(3) / 2
    heat = camlab.heatmaps(linear_on_cells(weight), A, "score_cam", "0", target=1, normalize="raw")
    torch.testing.assert_close(heat, torch.tensor([[[1.5, 1.0], [1.25, 1.25]]]))  # 3/4 A_1 + 1/4 A_2


def test_cam_by_hand():
    network = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        network[3].weight.copy_(torch.tensor([[1.0, -0.5], [-1.0, 1.0]]))
    explainer = camlab.Explainer(network, "0")
    signed = explainer.explain(A, ["cam", "grad_cam"], torch.tensor([[0, 1]])).maps
    expected = torch.tensor([[[[2.0, -2.0], [0.0, 0.0]], [[-2.0, 4.0], [1.0, 1.0]]]])  # A_1 - A_2/2, A_2 - A_1
    torch.testing.assert_close(signed["cam"][0], expected)
    torch.testing.assert_close(signed["grad_cam"][0], expected / 4, msg="four cells: Grad-CAM is CAM / 4")


def test_grad_cam_plus_plus_of_small_gradients_in_half_precision():
    small = G.half() * 2**-14  # its square is 0 in half precision
    expected = maps.grad_cam_plus_plus(A.double(), small.double())
    torch.testing.assert_close(maps.grad_cam_plus_plus(A.half(), small).double(), expected, rtol=5e-3, atol=0)


def plain(name: str) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=10).eval()


def small_head(name: str) -> nn.Module:
    """AlexNet or VGG-16 with 64 units in the hidden layers of its head, since 4096 would take seconds."""
    with torch.device("meta"):
        network = plain(name)
    first, hidden, last = [i for i, module in enumerate(network.classifier) if isinstance(module, nn.Linear)]
    for at, sizes in ((first, (network.classifier[first].in_features, 64)), (hidden, (64, 64)), (last, (64, 10))):
        network.classifier[at] = nn.Linear(*sizes)
    network.features.to_empty(device="cpu")
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network


@pytest.fixture(scope="module")
def networks() -> Callable[[str], nn.Module]:
    """Networks of torchvision by name, with random weights; each is made only once."""
    made: dict[str, nn.Module] = {}

    def make(name: str) -> nn.Module:
        if name not in made:
            torch.manual_seed(1)
            made[name] = small_head(name) if name in ("alexnet", "vgg16") else plain(name)
        return made[name]

    return make


def spread_scores(network: nn.Module, images: Tensor, std: float) -> None:
    """Scale the differences of the scores to `std`, because with random weights all classes score nearly the same."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(std / network(images).std())


@contextmanager
def out_of_place(network: nn.Module) -> Iterator[None]:
    """Make ReLUs not in-place: an in-place ReLU would change the activations that pytorch-grad-cam keeps."""
    relus = [module for module in network.modules() if getattr(module, "inplace", False)]
    for relu in relus:
        relu.inplace = False
    yield
    for relu in relus:
        relu.inplace = True


def oracle(
    network: nn.Module,
    layer: str,
    images: Tensor,
    methods: Iterable[str],
    sign: int = 1,
    targets: list[Callable[[Tensor], Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Maps of pytorch-grad-cam before it stretches them to [0, 1]: rectified, and resized by OpenCV."""
    targets = targets or [lambda scores, c=c: sign * scores[c] for c in TARGET[: len(images)].tolist()]
    layers, size = [network.get_submodule(layer)], (images.shape[-1], images.shape[-2])
    found = {}
    with out_of_place(network):
        with pytorch_grad_cam.GradCAM(network, layers) as cam:
            cam(images, targets)
            activations, gradients = (
                part[0].numpy() for part in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
            )
        for method in methods:
            with ORACLES[method](network, layers) as cam:
                signed = cam.get_cam_image(images, layers[0], targets, activations, gradients, False)
            found[method] = torch.from_numpy(np.stack([cv2.resize(part, size) for part in np.maximum(signed, 0)]))
    return found


def assert_maps_close(found: Tensor, expected: Tensor, method: str, atol: float = 1e-5) -> None:
    peak = expected.max()
    assert peak > 0
    torch.testing.assert_close(found / peak, expected / peak, rtol=0, atol=atol, msg=lambda text: f"{method}: {text}")


@pytest.mark.parametrize(
    ("name", "layer", "counterfactual"),
    [
        ("alexnet", "features.11", False),
        ("alexnet", "features.10", True),  # an in-place ReLU follows
        pytest.param("vgg16", "features.29", False, marks=pytest.mark.slow),
        ("resnet18", "layer4", False),
        ("resnet18", "layer3", True),  # gradients differ from cell to cell
    ],
)
def test_gradient_methods_equal_pytorch_grad_cam(networks, name, layer, counterfactual):
    network, images = networks(name), torch.randn(2, 3, 64, 64)
    # pytorch-grad-cam adds 1e-6 to the denominator in Grad-CAM++, and 1e-7 in XGrad-CAM. That is negligible for large
    # gradients, but not at a layer before a ReLU, where some sums of activations are near zero.
    spread_scores(network, images, 1e3)
    methods = (
        set(maps.GRADIENT_METHODS)
        - {"finer_cam"}
        - ({"grad_cam_plus_plus", "xgrad_cam"} if layer == "features.10" else set())
    )
    expected = oracle(network, layer, images, methods, sign=-1 if counterfactual else 1)
    for method in methods:
        found = camlab.heatmaps(network, images, method, layer, TARGET, "raw", counterfactual)
        assert_maps_close(found, expected[method], method)


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_grad_cam_equals_captum(networks, name, layer):
    network, images = networks(name), torch.randn(2, 3, 64, 64)
    expected = LayerGradCam(network, network.get_submodule(layer)).attribute(images, TARGET)[:, 0].detach()
    (signed,) = camlab.Explainer(network, layer).explain(images, ["grad_cam"], TARGET[:, None]).maps["grad_cam"]
    assert_maps_close(signed[:, 0], expected, "grad_cam")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "shape"),  # layers with few channels, because each channel takes a pass
    [
        ("alexnet", "features.2", (2, 3, 64, 64)),
        ("vgg16", "features.3", (1, 3, 32, 32)),
        ("resnet18", "layer1", (2, 3, 64, 64)),
    ],
)
def test_score_cam_equals_pytorch_grad_cam(networks, name, layer, shape, monkeypatch):
    network, images = networks(name), torch.randn(shape)
    spread_scores(network, images, 3.0)
    # pytorch-grad-cam aligns corners when it resizes masks, although not even its own maps are resized in that way.
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=size, mode="bilinear"))
    found = camlab.heatmaps(network, images, "score_cam", layer, TARGET[: len(images)], "raw")
    expected = oracle(network, layer, images, ["score_cam"])["score_cam"]
    assert_maps_close(found, expected, "score_cam")


def test_cam_of_resnet18_gives_the_logits(networks):
    network, images = networks("resnet18"), torch.randn(2, 3, 96, 96)
    look = camlab.Explainer(network).explain(images, ["cam", "grad_cam"], top_k=10)
    with torch.no_grad():
        logits = network(images)
    means = look.maps["cam"][0].mean(dim=(2, 3)) + network.fc.bias[look.class_idx]
    torch.testing.assert_close(means, logits.gather(1, look.class_idx), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(look.maps["grad_cam"][0] * 9, look.maps["cam"][0], rtol=1e-4, atol=1e-4)  # 3×3 cells


@pytest.mark.parametrize(("name", "layer"), [("alexnet", "features.11"), ("resnet18", "layer3")])
def test_finer_cam_equals_pytorch_grad_cam(networks, name, layer):
    network, images = networks(name), torch.randn(2, 3, 64, 64)
    spread_scores(network, images, 1.0)
    with torch.no_grad():
        scores = network(images)
    nearest = [row.sub(row[c]).abs().argsort()[1:4].tolist() for row, c in zip(scores, TARGET.tolist(), strict=True)]
    targets = [FinerWeightedTarget(c, others, 0.6) for c, others in zip(TARGET.tolist(), nearest, strict=True)]
    found = camlab.heatmaps(network, images, "finer_cam", layer, TARGET, "raw")
    assert_maps_close(found, oracle(network, layer, images, ["finer_cam"], targets=targets)["finer_cam"], "finer_cam")


def test_finer_scores_by_hand():
    logits = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    # Both others are references, with softmax weights e : 1 (after division by e): 3 - γ (2 e + 1) / (e + 1)
    expected = 3 - 0.6 * (2 * math.e + 1) / (math.e + 1)
    torch.testing.assert_close(maps.finer_scores(logits, torch.tensor([0])), torch.tensor([expected]).double())


@pytest.mark.parametrize(("name", "layer"), [("alexnet", "features.11"), ("resnet18", "layer2")])
def test_eigen_cam_equals_pytorch_grad_cam(networks, name, layer):
    network, images = networks(name), torch.randn(2, 3, 64, 64)
    (signed,) = camlab.Explainer(network, layer).explain(images, ["eigen_cam"]).maps["eigen_cam"]
    activations = []
    handle = network.get_submodule(layer).register_forward_hook(lambda m, i, o: activations.append(o.detach().clone()))
    network(images)
    handle.remove()
    expected = torch.from_numpy(get_2d_projection(activations[0].numpy()))
    for found, projection in zip(signed[:, 0], expected, strict=True):  # its sign is arbitrary
        signs = torch.stack([projection, -projection])
        nearest = signs[(signs - found).abs().amax(dim=(1, 2)).argmin()]
        torch.testing.assert_close(found, nearest, rtol=1e-3, atol=1e-4 * float(projection.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), [("alexnet", "features.2"), ("resnet18", "layer1")])
def test_ablation_cam_equals_its_plainest_form(networks, name, layer):
    network, images = networks(name), torch.randn(2, 3, 64, 64)
    module, classes = network.get_submodule(layer), TARGET[:2]
    found = camlab.Explainer(network, layer).explain(images, ["ablation_cam"], classes[:, None]).maps["ablation_cam"][0]
    kept, scores = [], []
    with torch.no_grad():
        handle = module.register_forward_hook(lambda m, i, o: kept.append(o.clone()))
        full = network(images).gather(1, classes[:, None])[:, 0]
        handle.remove()
        for k in range(kept[0].shape[1]):

            def without(m, i, output, k=k):
                output = output.clone()
                output[:, k] = 0
                return output

            handle = module.register_forward_hook(without)
            scores.append(network(images).gather(1, classes[:, None])[:, 0])
            handle.remove()
    weights = (full[:, None] - torch.stack(scores, dim=1)) / full.abs()[:, None]
    assert_maps_close(found[:, 0], (weights[:, :, None, None] * kept[0]).sum(dim=1), "ablation_cam", 1e-4)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18"])
def test_guided_grad_cam_equals_captum(networks, name):
    network, images = networks(name), torch.randn(2, 3, 64, 64)
    layer = {"alexnet": "features.11", "vgg16": "features.29", "resnet18": "layer3"}[name]
    found = camlab.Explainer(network, layer).explain(images, ["guided_grad_cam"], TARGET[:2, None])
    with out_of_place(network), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum tells that it sets hooks
        guided = GuidedGradCam(network, network.get_submodule(layer))
        expected = guided.attribute(images, TARGET[:2], interpolate_mode="bilinear").sum(dim=1).detach()
    (signed,) = found.maps["guided_grad_cam"]
    assert_maps_close(signed[:, 0], expected, "guided_grad_cam")


class Activated(nn.Module):
    """A network with a ReLU and then another activation, given as a function."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.activation(self.second(F.relu(self.first(images)))).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.GELU(), "gelu"),
        (F.silu, "silu"),
        (torch.ops.aten.silu, "silu"),
        (lambda x: x * torch.sigmoid(x), r"x · sigmoid\(x\)"),
        (lambda x: torch.sigmoid(1.7 * x) * x, r"x · sigmoid\(x\)"),
        (lambda x: torch.where(x > 0, x, 0.0), "where"),
        (lambda x: x * (x > 0), r"x · \(x > 0\)"),
        (lambda x: x.clamp_(0), "clamp"),
        (lambda x: torch.max(x, torch.zeros(())), "maximum"),
        (torch.relu_, "ReLUs that cannot be replaced"),
        (torch.ops.aten.relu, "ReLUs that cannot be replaced"),
        (torch.selu, "elu"),
    ],
)
def test_guided_grad_cam_refuses_other_activations_however_they_are_called(activation, name):
    with pytest.raises(UserError, match=rf"guided_grad_cam: .* defined for ReLUs, but the network uses {name}"):
        camlab.heatmaps(Activated(activation).eval(), torch.randn(1, 3, 16, 16), "guided_grad_cam")


def test_guided_grad_cam_takes_functional_relus_and_gates():
    """Squeeze-and-excitation multiplies by the sigmoid of something else, which is no activation."""
    images = torch.randn(1, 3, 16, 16)
    network = Activated(lambda x: F.relu(x) * torch.sigmoid(F.relu(x).mean(dim=(2, 3), keepdim=True))).eval()
    guided = camlab.Explainer(network, "second").explain(images, ["guided_grad_cam", "grad_cam"]).maps
    assert torch.isfinite(guided["guided_grad_cam"][0]).all()
    assert guided["guided_grad_cam"][0].abs().max() > 0


@pytest.mark.parametrize("last", ["negated", "permuted"])
def test_cam_of_a_network_that_changes_its_scores_behind_the_linear_layer_is_refused(last):
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            scores = self.fc(self.conv(images).relu().mean(dim=(2, 3)))
            return -scores if last == "negated" else scores[:, [2, 0, 1]]

    with pytest.raises(UserError, match="cam: the network's output is not that of its last linear layer"):
        camlab.heatmaps(Changed(), torch.rand(2, 3, 12, 12), "cam")


def test_layer_cam_of_all_layers_is_the_mean_of_the_layers():
    """By hand: the second layer doubles its input, so that its gradient is half as large and its map is the same."""

    class Double(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 2 * images

    network = nn.Sequential(nn.Conv2d(2, 2, 1), Double(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(2)[:, :, None, None])
        network[0].bias.zero_()
        network[4].weight.copy_(torch.stack([torch.zeros(8), G.flatten()]))
    images = A.repeat_interleave(2, 2).repeat_interleave(2, 3)
    explainer = camlab.Explainer(network.eval())
    found = explainer.explain(images, ["layer_cam_all"], torch.tensor([[1]]))
    of_layers = [camlab.heatmaps(network, images, "layer_cam", str(i), 1, "raw") for i in range(3)]
    torch.testing.assert_close(of_layers[0], of_layers[1])
    assert found.layers == {"layer_cam_all": ("0 to 2 (3)",)}
    torch.testing.assert_close(found.maps["layer_cam_all"][0][:, 0], torch.stack(of_layers).mean(dim=0))
    with pytest.raises(UserError, match="layer_cam_all: it uses all layers"):
        camlab.heatmaps(network, images, "layer_cam_all", "0")


def test_layer_cam_of_all_layers_follows_the_weights():
    """The layers are found anew in each call, so that a resumed training draws what the whole one would have drawn."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    explainer, images = camlab.Explainer(network.eval()), torch.rand(6, 3, 12, 12)
    before = explainer.explain(images, ["layer_cam_all"])
    with torch.no_grad():
        network[2].weight.zero_()  # nothing passes on from the first two layers
    after, fresh = (each.explain(images, ["layer_cam_all"]) for each in (explainer, camlab.Explainer(network)))
    assert (before.layers, after.layers) == ({"layer_cam_all": ("0 to 2 (3)",)}, {"layer_cam_all": ("2 to 2 (1)",)})
    assert after.layers == fresh.layers
    assert torch.equal(after.maps["layer_cam_all"][0], fresh.maps["layer_cam_all"][0])


def small(*more: nn.Module) -> nn.Sequential:
    """Without biases, so that nothing depends on the cells of a black picture."""
    torch.manual_seed(0)
    features = [nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 6, 3, bias=False), nn.ReLU(), *more]
    head = [nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head).eval()


def test_layers_that_change_nothing_change_no_mean():
    images = torch.rand(2, 3, 12, 12)
    plain, more = small(), small(nn.Dropout(), nn.Identity())
    nested = nn.Sequential(nn.Sequential(nn.Sequential(*plain[:2]), *plain[2:4]), *plain[4:])
    expected = camlab.heatmaps(plain, images, "layer_cam_all", target=1)
    for same in (more, nested):
        torch.testing.assert_close(camlab.heatmaps(same, images, "layer_cam_all", target=1), expected)


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "layer_cam_all", "auto"])
def test_a_picture_without_evidence_is_blank_wherever_it_stands(method):
    images = torch.rand(10, 3, 12, 12)
    images[:5] = 0  # more than `layer_cam_all` takes at once
    explainer = camlab.Explainer(small())
    target = explainer(images[5:], method, target=0).flatten(1).amax(dim=1)
    heat, mirrored = (explainer(some, method, target=0) for some in (images, images.flip(0)))
    assert not heat[:5].any()
    assert torch.equal(heat[5:].flatten(1).amax(dim=1) > 0, target > 0)
    torch.testing.assert_close(heat, mirrored.flip(0))
    assert not explainer(images[:1], method, target=0).any()
