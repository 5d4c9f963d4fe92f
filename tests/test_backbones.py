"""Networks of torchvision and timm as backbones of a CamNet, and as classifiers that are trained as they are."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import Coloured
from safetensors.torch import save_file
from test_feature_cache import assert_same_training
from test_training import classifier, trainer, weights
from torch import nn

from camlab import maps
from camlab.attribution.explainer import Explainer
from camlab.errors import UserError
from camlab.models import catalog, classifier_names
from camlab.models.cam_net import CamNet
from camlab.models.classifier_names import names_of_timm
from camlab.models.classifier_net import ClassifierNet
from camlab.models.named_networks import build, without_values
from camlab.models.weights import fill
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.training.checkpoint import load_network
from camlab.training.run import Run

HAS_TIMM = importlib.util.find_spec("timm") is not None


def of_timm(*names: str) -> list:
    reason = "timm is not installed; camlab works without it"
    return [pytest.param(name, marks=pytest.mark.skipif(not HAS_TIMM, reason=reason)) for name in names]


SMALL = ["resnet18", *of_timm("timm/test_convnext", "timm/test_efficientnet", "timm/test_resnet")]
TRANSFORMERS = of_timm("timm/test_vit")
OTHERS = ["efficientnet_b0", "googlenet", "inception_v3", "mobilenet_v2", "swin_t", "regnet_y_400mf", "mnasnet0_5"]


# ---- the trunk and the head


@pytest.mark.parametrize(
    "name",
    ["resnet18", "densenet121", "shufflenet_v2_x0_5", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)
def test_without_cam_conv_the_network_is_torchvisions(name):
    network, whole = CamNet(name, cam_conv=False).eval(), build(name).eval()
    fill(whole, network.backbone.state_dict())
    network.fc = next(module for module in reversed(list(whole.modules())) if isinstance(module, nn.Linear))
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(images))


@pytest.mark.parametrize(("name", "end"), [("convnext_tiny", "avgpool"), ("squeezenet1_1", "classifier"), ("mobilenet_v3_small", "avgpool")])  # fmt: skip
def test_the_trunk_is_what_comes_before_the_head(name, end):
    network, whole, seen = CamNet(name).eval(), build(name).eval(), []
    whole.load_state_dict({**whole.state_dict(), **network.backbone.state_dict()})
    getattr(whole, end).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        whole(images)
        torch.testing.assert_close(network.forward_backbone(images), seen[0])


@pytest.mark.parametrize("name", of_timm("timm/test_resnet", "timm/test_efficientnet", "timm/swin_tiny_patch4_window7_224"))  # fmt: skip
def test_without_cam_conv_the_network_is_timms(name):
    import timm

    network, whole = CamNet(name, cam_conv=False).eval(), timm.create_model(name.removeprefix("timm/")).eval()
    whole.load_state_dict({**whole.state_dict(), **network.backbone.network.state_dict()})
    network.fc = whole.get_classifier()
    images = torch.randn(2, 3, *whole.default_cfg["input_size"][1:])
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(images))


@pytest.mark.parametrize("name", ["alexnet", "convnext_tiny", "mobilenet_v3_small", "squeezenet1_1", *of_timm("timm/test_convnext", "timm/mobilenetv3_small_100")])  # fmt: skip
def test_another_head_cannot_be_kept(name):
    with pytest.raises(UserError, match=f"cam_conv=false: {name} does not end in average pooling and one linear layer"):
        CamNet(name, cam_conv=False)


@pytest.mark.parametrize("name", ["vit_b_32", *of_timm("timm/test_vit", "timm/mixer_s32_224")])
def test_a_network_without_a_convolutional_trunk(name):
    with without_values(), pytest.raises(UserError, match=r"no convolutional trunk .*arch=classifier"):
        CamNet(name)


def test_a_network_that_does_not_end_in_a_linear_layer():
    with pytest.raises(UserError, match=r"squeezenet1_1: it does not end in one linear layer. Choose another"):
        ClassifierNet("squeezenet1_1")


@pytest.mark.parametrize("name", of_timm("timm/deit_tiny_distilled_patch16_224", "timm/levit_128s"))
def test_a_network_with_two_heads(name):
    with pytest.raises(UserError, match="does not end in one linear layer"):
        ClassifierNet(name)


@pytest.mark.parametrize(("kind", "name", "side"), [(CamNet, "resnet18", 0), (ClassifierNet, "vit_b_32", 40)])
def test_images_that_a_network_cannot_take(kind, name, side):
    with pytest.raises(UserError, match=f"data.image_size={side}: {name} cannot take such images"), without_values():
        (kind(name, image_size=side) if kind is ClassifierNet else kind(name)).check_image_size(side)


def test_the_classifier_is_torchvisions_with_another_last_layer():
    torch.manual_seed(0)
    network, whole = ClassifierNet("resnet18", num_classes=3, image_size=64).eval(), build("resnet18").eval()
    whole.fc = network.fc
    whole.load_state_dict({**whole.state_dict(), **network.backbone.state_dict()})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(images))


# ---- training: frozen, cached, with heatmaps, from a checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_cached_and_uncached_training_agree(tmp_path, name):
    assert_same_training(tmp_path, name, 12, atol=3e-5)  # Adam makes rounding visible where gradients are near 0


@pytest.mark.slow
def test_cached_and_uncached_training_agree_without_cam_conv(tmp_path):
    assert_same_training(tmp_path, "resnet18", 12, cam_conv=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", *of_timm("timm/test_vit")])
def test_cached_and_uncached_training_of_a_classifier_agree(tmp_path, name):
    assert_same_training(tmp_path, name, 12, kind=ClassifierNet, image_size=112)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        (CamNet, "resnet18", {}),
        (CamNet, "resnet18", {"cam_conv": False}),
        (ClassifierNet, "resnet18", {"image_size": 64}),
        *(pytest.param(ClassifierNet, *name.values, {"image_size": 64}, marks=name.marks) for name in TRANSFORMERS),
    ],
)
def test_a_frozen_run_draws_heatmaps_and_comes_back(tmp_path, caplog, kind, name, options):
    module, data = classifier(name, "frozen", kind=kind, **options), Coloured()
    before = weights(module.network.backbone)
    callbacks = [HeatmapLogger(per_class=1), *checkpoints(Run(tmp_path), has_validation=True)]
    trainer(tmp_path, callbacks=callbacks).fit(module, datamodule=data)
    assert not [line for line in caplog.messages if "No heatmaps" in line]
    assert (tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").is_file()
    assert all(torch.equal(tensor, before[key]) for key, tensor in weights(module.network.backbone).items())
    trained = load_network(tmp_path)
    assert type(trained.network) is kind
    assert trained.network.spec == module.network.spec
    assert all(torch.equal(tensor, weights(trained.network)[key]) for key, tensor in weights(module.network).items())


@pytest.mark.parametrize("kind", [CamNet, ClassifierNet])
def test_a_frozen_network_trains_its_head_only(kind):
    network = kind("resnet18", frozen=True).train()
    assert not any(module.training for module in network.backbone.modules())
    assert network.fc.training
    network(torch.randn(2, 3, 224, 224)).sum().backward()
    trained = {name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == ({"cam_conv", "fc"} if kind is CamNet else {"fc"})
    assert all(p.grad is None for p in network.backbone.parameters())


@pytest.mark.parametrize("cam_conv", [True, False])
def test_cam_of_a_resnet_is_exact(cam_conv):
    network, images = CamNet("resnet18", cam_conv=cam_conv).eval(), torch.randn(2, 3, 96, 96)
    found = Explainer(network).explain(images, ("cam", "grad_cam"))
    assert found.layers == {"cam": ("cam_conv" if cam_conv else "backbone",), "grad_cam": ("backbone",)}
    with torch.no_grad():
        expected = maps.cam(network.forward_features(images), network.fc.weight)
        logits = expected.mean(dim=(2, 3)) + network.fc.bias
    torch.testing.assert_close(found.cam_of_all_classes, expected)
    torch.testing.assert_close(logits, found.logits)


# ---- checkpoints choose no code and no download


def test_an_older_checkpoint_comes_back(tmp_path):
    module = classifier()
    trainer(tmp_path, callbacks=checkpoints(Run(tmp_path), True)).fit(module, datamodule=Coloured())
    file = tmp_path / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    del content["camlab"]["network"]["cam_conv"]
    torch.save(content, tmp_path / "older.ckpt")
    assert load_network(tmp_path / "older.ckpt").network.spec == module.network.spec


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The best checkpoint of a classifier that trained for a moment."""
    folder = tmp_path_factory.mktemp("run")
    module = classifier("resnet18", kind=ClassifierNet, image_size=64)
    trainer(folder, callbacks=checkpoints(Run(folder), True)).fit(module, datamodule=Coloured())
    return folder / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"backbone": "vit_h_14", "num_classes": 4, "image_size": 224}, "is missing or unknown"),
        ({"backbone": "resnet18", "num_classes": 4, "image_size": 10**9}, "image_size cannot be 1000000000"),
        ({"backbone": "resnet18", "num_classes": 5, "image_size": 64}, "fc.weight is "),
        ({"backbone": "timm/hf-hub:x/y", "num_classes": 4, "image_size": 64}, "unknown network"),
        ({"backbone": "fcn_resnet50", "num_classes": 4, "image_size": 64}, "unknown network"),
        (
            {"backbone": "resnet18", "num_classes": 4, "image_size": 64, "weights": "pretrained"},
            "the network cannot be",
        ),
    ],
)
def test_a_strange_description_of_a_classifier(checkpoint, tmp_path, spec, reason):
    content = torch.load(checkpoint, weights_only=True)
    content["camlab"]["network"] = spec
    torch.save(content, tmp_path / "strange.ckpt")
    with pytest.raises(UserError, match=reason):
        load_network(tmp_path / "strange.ckpt")


# ---- names and weights


@pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed")
def test_names_are_those_that_timm_lists():
    import timm

    assert sorted(names_of_timm()) == sorted(timm.list_models())


def test_timm_is_not_installed(monkeypatch):
    monkeypatch.setattr(classifier_names, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"arch.backbone=timm/resnet18: timm is not installed. Run: pip install timm, or"
    ):
        CamNet("timm/resnet18")
    with pytest.raises(UserError, match=r"network=timm/resnet18: timm is not installed. Run: pip install timm, or"):
        classifier_names.check_name("timm/resnet18")


@pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed")
@pytest.mark.parametrize("name", ["resnet10t", "timm/resnet10t", "resnet10t.c3_in1k", "jx_nest_tiny"])
def test_names_of_timms_with_a_tag_and_former_ones_are_accepted(name):
    classifier_names.check_name(name)


@pytest.mark.parametrize("word", ["bicubic", "timm/num_classes", "avg"])
def test_words_in_timms_sources_are_no_names(word):
    with pytest.raises(UserError, match=f"network={word}: no such classifier"):
        classifier_names.check_name(word)


@pytest.mark.parametrize("kind", [CamNet, ClassifierNet])
@pytest.mark.parametrize("name", ["resnet18", "mnasnet0_5"])
def test_weights_of_a_file(tmp_path, kind, name):
    donor = build(name).state_dict()
    save_file(donor, tmp_path / "w.safetensors")
    network = kind(name, weights=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(tensor, donor[key]) for key, tensor in network.backbone.state_dict().items())
    save_file({key: tensor for key, tensor in donor.items() if "running" not in key}, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=f"running_mean, which {name} needs"):
        kind(name, weights=str(tmp_path / "part.safetensors"))


def test_a_file_for_mnasnet_by_name(tmp_path):
    save_file(build("mnasnet0_5").state_dict(), tmp_path / "w.safetensors")
    assert catalog.from_name("mnasnet0_5", str(tmp_path / "w.safetensors")).name == "mnasnet0_5"


@pytest.mark.slow
def test_position_embeddings_are_interpolated_to_the_size_of_the_images(tmp_path):
    save_file(build("vit_b_32").state_dict(), tmp_path / "w.safetensors")
    network = ClassifierNet("vit_b_32", image_size=64, weights=str(tmp_path / "w.safetensors"))
    assert network.backbone.encoder.pos_embedding.shape == (1, 5, 768)


@pytest.mark.parametrize("word", ["pretrained", "imagenet"])
@pytest.mark.parametrize("kind", [CamNet, ClassifierNet])
def test_weights_of_torchvisions_without_a_connection(monkeypatch, kind, word):
    def refuse(*args, **options):
        raise OSError("no connection")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", refuse)
    with pytest.raises(UserError) as told:
        kind("resnet18", weights=word)
    assert str(told.value).startswith(f"arch.weights={word}: https://")
    assert "arch.weights=FILE.safetensors, or arch.weights=null for random weights" in str(told.value)


@pytest.mark.parametrize("kind", [CamNet, ClassifierNet])
def test_weights_of_timms_without_a_connection(monkeypatch, tmp_path: Path, kind):
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"arch.backbone=timm/resnet18: its weights could not .* arch.weights=null"):
        kind("timm/resnet18", weights="pretrained")
