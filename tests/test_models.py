"""Networks: shapes and weights of CamNet, classifiers by name, the preparation of input, the choice of devices."""

import functools

import matplotlib.cbook
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from camlab.errors import UserError
from camlab.models import catalog
from camlab.models.backbones import BACKBONES, least_image_size
from camlab.models.cam_net import CamNet
from camlab.models.classifier_names import names_of_torchvision
from camlab.models.devices import choose_device
from camlab.models.preprocess import Preprocess


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
    assert (features < 0).any(), "there must be no ReLU after cam_conv unless asked for"


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


@pytest.mark.slow
@pytest.mark.parametrize("keep_last_pool", [True, False])
@pytest.mark.parametrize(("backbone", "least"), [("alexnet", (63, 31)), ("vgg11", (32, 16)), ("vgg16_bn", (32, 16))])
def test_sizes_of_maps_and_the_least_size_of_images(backbone, least, keep_last_pool):
    net, smallest = CamNet(backbone, keep_last_pool=keep_last_pool).eval(), least[not keep_last_pool]
    with torch.device("meta"):  # only shapes are computed there
        twin = CamNet(backbone, keep_last_pool=keep_last_pool).eval()
    for side in (*range(smallest, smallest + 40), 224):
        assert net.map_size(side) == twin.forward_features(torch.zeros(1, 3, side, side, device="meta")).shape[2:]
    for side in (1, 2, smallest - 1):
        with pytest.raises(RuntimeError):
            twin(torch.zeros(1, 3, side, side, device="meta"))
        message = f"data.image_size={side}: too small for {backbone}, which needs at least {smallest} pixels"
        with pytest.raises(UserError, match=message):
            net.map_size(side)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_least_size_is_the_layers(backbone):
    """The least size that the command line knows without building the network is right."""
    for keep_last_pool in (True, False):
        with torch.device("meta"):
            net, least = CamNet(backbone, keep_last_pool=keep_last_pool), least_image_size(backbone, keep_last_pool)
            assert net.eval()(torch.zeros(1, 3, least, least)).shape == (1, 10)
            with pytest.raises(RuntimeError):
                net(torch.zeros(1, 3, least - 1, least - 1))


def test_unknown_backbone_is_named():
    with pytest.raises(UserError, match=r"resnet19: unknown network. Did you mean arch.backbone=resnet18"):
        CamNet("resnet19")


def test_backbones_are_torchvisions():
    assert set(BACKBONES) <= set(torchvision.models.list_models())


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("half", [False, True])
def test_weights_come_back(tmp_path, ending, half):
    donor = CamNet("alexnet", keep_last_pool=True)
    dtype = torch.float16 if half else torch.float32
    tensors = {f"features.{name}": t.to(dtype).contiguous() for name, t in donor.backbone.state_dict().items()}
    tensors["classifier.6.bias"] = torch.zeros(1000)  # the file of a whole classifier has more tensors than needed
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
    assert first.std() > 0.05, "the first filters must be ImageNet's, not random ones"
    vgg = CamNet("vgg16", weights=str(shared_data / "vgg16-imagenet1k-features-fp16.safetensors"))
    assert vgg.backbone[0].weight.dtype == torch.float32


# ---- the input that a network expects


@functools.cache
def photograph() -> Image.Image:
    return Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")


SIZES = [(512, 600), (600, 341), (301, 600), (257, 255), (97, 143), (30, 400)]  # width, height in pixels


def assert_prepared_alike(preprocess: Preprocess, transforms, size: tuple[int, int]) -> None:
    """Assert that the input equals that of another library's transforms within rounding, in units of [0, 1].

    Pillow resizes along one axis, rounds, and resizes along the other. It chooses the cheaper order, which may be the
    other one if only the visible part is resized. A few pixels at sharp edges are therefore rounded differently.
    """
    picture = photograph().resize(size)
    ours = preprocess(torch.from_numpy(preprocess.prepare(picture).copy()).permute(2, 0, 1)[None])[0]
    theirs = transforms(picture)
    assert ours.shape == theirs.shape
    difference = ((ours - theirs) * torch.tensor(preprocess.std)[:, None, None]).abs()
    assert (difference <= 1.5 / 255).float().mean() > 0.999
    assert difference.max() <= 5 / 255


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", (224, 256, "bilinear")),
        ("resnet50", (224, 232, "bilinear")),
        ("efficientnet_b1", (240, 255, "bilinear")),
        ("inception_v3", (299, 342, "bilinear")),
        ("swin_t", (224, 232, "bicubic")),
        ("vit_b_16", (224, 256, "bilinear")),
    ],
)
def test_pictures_are_prepared_as_torchvision_prepares_them(name, expected, size):
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    preprocess = catalog.of_transforms(transforms)
    assert (preprocess.image_size, preprocess.resize_size, preprocess.interpolation) == expected
    assert_prepared_alike(preprocess, transforms, size)


@pytest.mark.parametrize("size", SIZES)
def test_without_a_resize_size_the_square_spans_the_shorter_side(size):
    preprocess = Preprocess(64)
    transforms = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(64),
            torchvision.transforms.CenterCrop(64),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    assert_prepared_alike(preprocess, transforms, size)


def test_a_network_by_name_expects_what_its_weights_expect():
    assert catalog.from_name("resnet18", None).preprocess == Preprocess(
        224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, "bilinear"
    )


def test_the_visible_box_lies_within_the_picture():
    random = np.random.default_rng(0)
    for width, height, side, more in random.integers(1, 400, (500, 4)).tolist():
        left, top, right, bottom = Preprocess(side, resize_size=side + more).visible_box(width, height)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size must be a whole number of pixels, 1 to 4096, not 0"),
        ({"image_size": "224"}, "image_size must be a whole number of pixels"),
        ({"image_size": 10.5}, "image_size must be a whole number of pixels"),
        ({"image_size": True}, "image_size must be a whole number of pixels"),
        ({"image_size": None}, "image_size must be a whole number of pixels"),
        ({"resize_size": -3}, "resize_size must be a whole number of pixels"),
        ({"resize_size": 63}, "resize_size must be a whole number of pixels, image_size or more, not 63"),
        ({"mean": []}, "mean must hold one number per channel"),
        ({"mean": "abc"}, "mean must hold one number per channel"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean must hold one number per channel"),
        ({"std": [0.5, 0.5]}, "std must hold as many numbers as mean, all above 0"),
        ({"std": [0.5, 0.5, 0]}, "std must hold as many numbers as mean, all above 0"),
        ({"std": 3}, "std must hold one number per channel"),
        ({"interpolation": "nearest"}, "interpolation must be one of bilinear, bicubic, not 'nearest'"),
        ({"interpolation": None}, "interpolation must be one of"),
        ({"colour": "red"}, "the preparation of pictures cannot be"),
    ],
)
def test_what_cannot_be_an_input(changes, message):
    whole = Preprocess(64).as_dict()
    assert Preprocess.from_dict(whole) == Preprocess(64)
    with pytest.raises(ValueError, match=message):
        Preprocess.from_dict({**whole, **changes})


def test_names_are_those_that_torchvision_lists():
    assert sorted(names_of_torchvision()) == torchvision.models.list_models(module=torchvision.models)


# ---- timm, which is not a dependency


@pytest.fixture
def timm(monkeypatch, tmp_path):
    """timm without a connection and with an empty cache."""
    found = pytest.importorskip("timm", reason="timm is not installed; camlab works without it")
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return found


def test_a_network_of_timms_without_a_connection(timm):
    with pytest.raises(UserError) as told:
        catalog.from_name("resnet10t")
    said = str(told.value)
    assert said.startswith("network=resnet10t: its weights could not be downloaded (")
    assert len(said.splitlines()) == 1
    for way_out in ("network.weights=FILE.safetensors", "network.weights=null", "the cache of huggingface_hub"):
        assert way_out in said


def test_a_network_of_timms_that_has_no_weights(timm):
    name = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(UserError, match=f"network={name}: timm has no pretrained weights for it. Give network.weights"):
        catalog.from_name(name)


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_lite0", "test_vit"])
@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_prepared_as_timm_prepares_them(timm, name, size):
    trained = catalog.from_name(name, None)
    config = timm.data.resolve_model_data_config(trained.network)
    assert_prepared_alike(trained.preprocess, timm.data.create_transform(**config), size)


# ---- the device


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (True, True, "auto", "cuda"),
        (False, True, "auto", "mps"),
        (False, False, "auto", "cpu"),
        (True, True, "gpu", "cuda"),
        (False, True, "gpu", "mps"),
        (True, True, "cpu", "cpu"),
        (True, True, "mps", "mps"),
        (True, False, "cuda", "cuda"),
    ],
)
def test_the_device(monkeypatch, cuda, mps, name, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(("cuda", "mps", "name"), [(False, False, "gpu"), (False, True, "cuda"), (True, False, "mps")])
def test_a_device_that_is_not_there(monkeypatch, cuda, mps, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    with pytest.raises(UserError, match=f"^where={name}: no such device here. Leave it out, or give cpu.$"):
        choose_device(name, "where")
