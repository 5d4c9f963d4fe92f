"""CamNet: the report's shapes, frozen means frozen, weights that fit."""

import pytest
import torch
from safetensors.torch import save_file

from camlab.errors import UserError
from camlab.models.backbones import BACKBONES
from camlab.models.cam_net import CamNet


@pytest.mark.parametrize(
    ("backbone", "keep_last_pool", "shape"),
    [
        ("alexnet", True, (256, 6, 6)),
        ("alexnet", False, (256, 13, 13)),
        ("vgg13", True, (512, 7, 7)),
        ("vgg13", False, (512, 14, 14)),
    ],
)
def test_shapes_of_the_report(backbone, keep_last_pool, shape):
    net = CamNet(backbone, keep_last_pool=keep_last_pool, cam_channels=10, num_classes=7).eval()
    with torch.no_grad():
        backbone_features = net.forward_backbone(torch.randn(1, 3, 224, 224))
        features = net.forward_cam_conv(backbone_features)
    assert backbone_features.shape[1:] == shape
    assert features.shape[1:] == (10, *shape[1:])
    assert net.forward_head(features).shape == (1, 7)
    assert (features < 0).any(), "no ReLU after cam_conv unless asked for"


def test_all_stages_agree():
    net = CamNet("vgg11_bn", cam_relu=True, keep_last_pool=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = net(images)
        torch.testing.assert_close(net.forward_from_last_relu(net.forward_last_relu(images)), logits)
        torch.testing.assert_close(net.forward_head(net.forward_features(images)), logits)
        assert (net.forward_features(images) >= 0).all()


def test_frozen_backbone_keeps_eval_mode_and_takes_no_gradient():
    net = CamNet("vgg11_bn", frozen=True).train()
    assert not any(module.training for module in net.backbone.modules())
    assert net.cam_conv.training
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is None for p in net.backbone.parameters())
    assert net.cam_conv.weight.grad is not None


@pytest.mark.parametrize("keep_last_pool", [True, False])
@pytest.mark.parametrize(("backbone", "least"), [("alexnet", (63, 31)), ("vgg11", (32, 16)), ("vgg16_bn", (32, 16))])
def test_sizes_of_maps_and_the_least_size_of_images(backbone, least, keep_last_pool):
    net, smallest = CamNet(backbone, keep_last_pool=keep_last_pool).eval(), least[not keep_last_pool]
    with torch.device("meta"):  # shapes cost nothing there
        twin = CamNet(backbone, keep_last_pool=keep_last_pool).eval()
    for side in (*range(smallest, smallest + 40), 224):
        net.check_image_size(side)
        assert net.map_size(side) == twin.forward_features(torch.zeros(1, 3, side, side, device="meta")).shape[2:]
    for side in (1, 2, smallest - 1):
        with pytest.raises(RuntimeError):
            twin(torch.zeros(1, 3, side, side, device="meta"))
        message = f"data.image_size={side}: too small for {backbone}, which needs {smallest} pixels at least"
        for refuse in (net.check_image_size, net.map_size):
            with pytest.raises(UserError, match=message):
                refuse(side)


def test_unknown_backbone_is_named():
    with pytest.raises(UserError, match=r"resnet50: unknown network. Choose from alexnet, vgg11"):
        CamNet("resnet50")


def test_backbones_are_torchvisions():
    import torchvision

    assert set(BACKBONES) <= set(torchvision.models.list_models())


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("half", [False, True])
def test_weights_come_back(tmp_path, ending, half):
    donor = CamNet("alexnet", keep_last_pool=True)
    dtype = torch.float16 if half else torch.float32
    tensors = {f"features.{name}": t.to(dtype).contiguous() for name, t in donor.backbone.state_dict().items()}
    tensors["classifier.6.bias"] = torch.zeros(1000)  # a whole classifier's file has more than is needed
    path = tmp_path / f"my weights=1.{ending}"
    if ending == "pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    net = CamNet("alexnet", weights=str(path))
    for name, tensor in net.backbone.state_dict().items():
        assert torch.equal(tensor, donor.backbone.state_dict()[name].to(dtype).float())


def test_real_imagenet_weights(shared_data):
    net = CamNet("alexnet", weights=str(shared_data / "alexnet-imagenet1k-features.safetensors"))
    first = net.backbone[0].weight
    assert first.shape == (64, 3, 11, 11)
    assert first.std() > 0.05, "ImageNet's first filters are no initialisation"
    vgg = CamNet("vgg16", weights=str(shared_data / "vgg16-imagenet1k-features-fp16.safetensors"))
    assert vgg.backbone[0].weight.dtype == torch.float32
