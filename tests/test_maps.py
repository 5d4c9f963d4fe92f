"""CAM and Grad-CAM: identities first, then hand-derived values, then an independent oracle."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from camlab import maps
from camlab.models.cam_net import CamNet

N, K, M, H, W = 3, 5, 4, 6, 7


@pytest.fixture
def features() -> Tensor:
    return torch.randn(N, K, H, W, dtype=torch.float64)


@pytest.fixture
def fc() -> nn.Linear:
    return nn.Linear(K, M, dtype=torch.float64)


def gap_head(fc: nn.Module):
    return lambda features: fc(features.mean(dim=(2, 3)))


def test_mean_of_cam_plus_bias_is_the_logit(features, fc):
    cam = maps.cam(features, fc.weight)
    torch.testing.assert_close(cam.mean(dim=(2, 3)) + fc.bias, gap_head(fc)(features), rtol=0, atol=1e-12)


def test_grad_cam_times_area_is_cam_on_a_gap_head(features, fc):
    class_idx = torch.tensor([0, 3, 1])
    gradients = maps.class_gradients(gap_head(fc), features, class_idx)
    cam = maps.cam(features, fc.weight)[torch.arange(N), class_idx]
    torch.testing.assert_close(H * W * maps.grad_cam(features, gradients), cam, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keep_last_pool", [True, False])
def test_identities_hold_on_alexnet(keep_last_pool):
    net = CamNet("alexnet", cam_channels=16, keep_last_pool=keep_last_pool).double().eval()
    images = torch.randn(2, 3, 112, 112, dtype=torch.float64)
    with torch.no_grad():
        features = net.forward_features(images)
        logits = net.forward_head(features)
    predicted = logits.argmax(1)
    cam = maps.cam(features, net.fc.weight)
    torch.testing.assert_close(cam.mean((2, 3)) + net.fc.bias, logits, rtol=0, atol=1e-12)
    gradients = maps.class_gradients(net.forward_head, features, predicted)
    grad_cam = maps.grad_cam(features, gradients) * features.shape[-2] * features.shape[-1]
    torch.testing.assert_close(grad_cam, cam[torch.arange(2), predicted], rtol=0, atol=1e-12)


def test_cam_of_half_precision_features_is_not_rounded_again():
    features, weight = torch.randn(N, K, H, W).bfloat16(), torch.randn(M, K)
    torch.testing.assert_close(maps.cam(features, weight), maps.cam(features.float(), weight), rtol=0, atol=0)


def test_cam_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 0.0], [0.0, 10.0]]]])  # (1, 2, 2, 2)
    weight = torch.tensor([[1.0, 0.5], [-1.0, 0.0]])  # (2 classes, 2 channels)
    expected = torch.tensor([[[[6.0, 2.0], [3.0, 9.0]], [[-1.0, -2.0], [-3.0, -4.0]]]])
    torch.testing.assert_close(maps.cam(features, weight), expected)


def test_grad_cam_by_hand():
    # y_0 = A_1(0,0)² + 2·A_2(1,1): gradients 2·A_1(0,0) = 6 at one of four cells, 2 at one of four.
    activations = torch.tensor([[[[3.0, 1.0], [0.0, 2.0]], [[1.0, 1.0], [1.0, 4.0]]]])

    def head(a: Tensor) -> Tensor:
        return (a[:, 0, 0, 0] ** 2 + 2 * a[:, 1, 1, 1])[:, None]

    gradients = maps.class_gradients(head, activations, torch.tensor([0]))
    expected = torch.tensor([[[1.5 * 3 + 0.5, 1.5 + 0.5], [0.5, 1.5 * 2 + 0.5 * 4]]])  # α = (6/4, 2/4)
    torch.testing.assert_close(maps.grad_cam(activations, gradients), expected)


def test_maps_of_mirrored_features_are_mirrored(features, fc):
    class_idx = torch.tensor([2, 2, 0])
    for dims in ([-1], [-2], [-1, -2]):
        turned = features.flip(dims)
        cam = maps.cam(features, fc.weight).flip(dims)
        torch.testing.assert_close(maps.cam(turned, fc.weight), cam, rtol=0, atol=1e-14)
        there = maps.grad_cam(turned, maps.class_gradients(gap_head(fc), turned, class_idx))
        here = maps.grad_cam(features, maps.class_gradients(gap_head(fc), features, class_idx))
        torch.testing.assert_close(there, here.flip(dims), rtol=0, atol=1e-14)


def test_order_of_channels_does_not_matter(features, fc):
    order = torch.randperm(K)
    shuffled = maps.cam(features[:, order], fc.weight[:, order])
    torch.testing.assert_close(shuffled, maps.cam(features, fc.weight), rtol=0, atol=1e-14)


@pytest.mark.parametrize("backbone", ["alexnet", "vgg11"])
def test_grad_cam_equals_captum(backbone):
    net = CamNet(backbone, cam_relu=True).eval()
    images = torch.randn(2, 3, 96, 96)
    target = torch.tensor([1, 7])
    activations = net.forward_last_relu(images)
    gradients = maps.class_gradients(net.forward_from_last_relu, activations, target)
    oracle = LayerGradCam(net, net.backbone[-1]).attribute(images, target)[:, 0]
    torch.testing.assert_close(maps.grad_cam(activations.detach(), gradients), oracle, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_where_autograd_is_off(mode, bf16):
    net = CamNet("alexnet", frozen=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        activations = net.forward_last_relu(images)
        predicted = net.forward_from_last_relu(activations).argmax(1)
        gradients = maps.class_gradients(net.forward_from_last_relu, activations, predicted)
        assert torch.is_autocast_enabled("cpu") == bf16
    plain = maps.class_gradients(net.forward_from_last_relu, net.forward_last_relu(images), predicted)
    tolerance = 0.15 if bf16 else 1e-6  # in bf16 some max-pooling windows have another maximum
    assert (gradients.float() - plain).norm() <= tolerance * plain.norm()
    assert plain.abs().max() > 0
    assert all(p.grad is None for p in net.parameters())


def test_one_class_per_image(features, fc):
    with pytest.raises(ValueError, match="give one class per image"):
        maps.class_gradients(gap_head(fc), features, torch.tensor([0, 1]))


def test_normalize():
    signed = torch.tensor([[[-1.0, 2.0], [4.0, 0.0]], [[1.0, -8.0], [0.5, 0.0]], [[-1.0, -2.0], [-3.0, -4.0]]])
    per_image = maps.normalize(signed)
    assert per_image[0].tolist() == [[0.0, 0.5], [1.0, 0.0]]
    assert per_image[1].tolist() == [[1.0, 0.0], [0.5, 0.0]]
    assert per_image[2].tolist() == [[0.0, 0.0], [0.0, 0.0]], "a map without evidence must stay zero"
    assert maps.normalize(signed, "shared")[1].tolist() == [[0.25, 0.0], [0.125, 0.0]]
    assert maps.normalize(signed, "raw")[0].tolist() == [[0.0, 2.0], [4.0, 0.0]]
    with pytest.raises(ValueError, match=r"Choose from per_image, shared, raw\."):
        maps.normalize(signed, "stretch")  # type: ignore[arg-type]


def test_normalize_has_no_nan():
    broken = torch.tensor([[float("nan"), float("inf")], [1.0, float("-inf")]])
    assert torch.isfinite(maps.normalize(broken)).all()
    assert not torch.isnan(maps.normalize(torch.zeros(2, 3, 3), "shared")).any()


def test_tiny_evidence_is_scaled_without_overflow():
    tiny = torch.full((1, 2, 2), 1e-42)
    assert maps.normalize(tiny).max() == 1


def test_upsample_keeps_means_and_shape():
    heat = torch.rand(2, 3, 4, 4)
    assert maps.upsample(heat, (8, 12)).shape == (2, 3, 8, 12)
    torch.testing.assert_close(maps.upsample(torch.ones(1, 2, 2), (5, 5)), torch.ones(1, 5, 5))


def test_fuse_leaves_a_single_layer_as_it_is(features):
    for mode in ("per_image", "shared", "raw"):
        assert torch.equal(maps.fuse([features[0]], mode), features[0]), "a single layer keeps its signs and units"


def test_fuse_by_hand():
    fine = torch.tensor([[[1.0, -1.0], [0.0, 4.0]], [[2.0, 0.0], [0.0, 0.0]]])  # two maps
    coarse = torch.tensor([[[2.0]], [[8.0]]])  # the same everywhere
    expected = {
        # the mean of 1 and, for the first map, [1/4 0; 0 1], for the second, [1 0; 0 0]
        "per_image": [[[5 / 8, 1 / 2], [1 / 2, 1]], [[1, 1 / 2], [1 / 2, 1 / 2]]],
        "shared": [[[1 / 4, 1 / 8], [1 / 8, 5 / 8]], [[3 / 4, 1 / 2], [1 / 2, 1 / 2]]],  # divided by 4 and by 8
        "raw": [[[3 / 2, 1], [1, 3]], [[5, 4], [4, 4]]],
    }
    for mode, values in expected.items():
        for layers in ([fine, coarse], [coarse, fine]):
            torch.testing.assert_close(maps.fuse(layers, mode), torch.tensor(values, dtype=torch.float32), msg=mode)


@pytest.mark.parametrize("mode", ["per_image", "shared"])
def test_fuse_gives_every_layer_the_same_weight(mode):
    layers = [torch.randn(N, H, W), torch.randn(N, 2 * H, 2 * W)]
    fused = maps.fuse(layers, mode)
    assert fused.shape == (N, 2 * H, 2 * W)
    torch.testing.assert_close(maps.fuse([layers[0], 1000 * layers[1]], mode), fused)
    assert 0 <= fused.min() <= fused.max() <= 1


def test_fuse_of_several_ranks_is_that_of_each():
    layers = [torch.randn(N, 2, H, W), torch.randn(N, 2, 2 * H, 2 * W)]
    fused = maps.fuse(layers, "per_image")
    for rank in range(2):
        torch.testing.assert_close(fused[:, rank], maps.fuse([part[:, rank] for part in layers], "per_image"))
