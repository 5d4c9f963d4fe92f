"""Networks that no catalogue lists: a user's function, transformers, weights with a prefix, names of classes."""

import importlib
import sys

import pytest
import torch
from safetensors.torch import save_file
from test_explain import Run, run, table  # noqa: F401
from torch import nn

from camlab import Explainer
from camlab.attribution.classifier import Classifier
from camlab.errors import UserError
from camlab.models import catalog
from camlab.models.classifier_names import check_name
from camlab.models.preprocess import Preprocess
from camlab.storage.documents import read_names

MODULE = """
import torch
from torch import nn
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork

def make_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

def prepared():
    return TrainedNetwork(make_network(), Preprocess(64), ("a", "b", "c"), "mine")

def broken():
    raise KeyError("no such thing")

def text():
    return "network"

def of_timm():
    import timm
    return timm.create_model("test_vit")
"""
PREFIXES = ["", "model.", "model.net."]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The working folder, with a module of the user's."""
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]


def module() -> nn.Sequential:
    namespace: dict = {}
    exec(MODULE, namespace)
    return namespace["make_network"]().eval()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".safetensors"])
def test_a_function_of_ones_own_with_weights(own, prefix, ending):
    torch.manual_seed(7)
    network = module()
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    state["loss.weight"] = torch.ones(2)
    file = own / f"w{ending}"
    if ending == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if ending == ".ckpt" else state, file)
    trained = catalog.from_name("own_package.nets:make_network", str(file))
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(trained.network(images), network(images))
    assert not trained.network.training


def test_the_prefix_of_one_of_several_networks_in_a_file(own):
    teacher, student = module(), module()
    state = {f"teacher.{name}": tensor for name, tensor in teacher.state_dict().items()}
    torch.save({**state, **{f"student.{name}": value for name, value in student.state_dict().items()}}, own / "w.pth")
    make, file, images = "own_package.nets:make_network", str(own / "w.pth"), torch.rand(2, 3, 64, 64)
    with pytest.raises(
        UserError, match=r"the network's tensors under teacher\., student\.\. Choose one with network\.prefix="
    ):
        catalog.from_name(make, file)
    for prefix in ("student", "student."):
        torch.testing.assert_close(catalog.from_name(make, file, prefix).network(images), student.eval()(images))
    with pytest.raises(
        UserError, match=r"network\.prefix=x: no tensor of the file has it\. The names begin with teacher, student"
    ):
        catalog.from_name(make, file, "x")
    with pytest.raises(UserError, match=r"network\.prefix=x: it is for a file\. Give network\.weights=FILE"):
        catalog.from_name(make, "DEFAULT", "x")


def test_a_function_may_state_the_preparation(own):
    trained = catalog.from_name("own_package.nets:prepared", "DEFAULT")
    assert trained.preprocess == Preprocess(64)
    assert trained.class_names == ("a", "b", "c")


def test_a_network_of_timm_names_its_preparation_and_of_others_it_is_told(own, caplog):
    pytest.importorskip("timm")
    with caplog.at_level("INFO"):
        assert catalog.from_name("own_package.nets:of_timm").preprocess == Preprocess(
            160, resize_size=168, interpolation="bicubic"
        )
        assert not caplog.records
        catalog.from_name("own_package.nets:make_network")
    assert "pictures are prepared as for ImageNet" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_package.nets:make", "network=own_package.nets:make: it could not be made (AttributeError: "),
        ("own_package.nothing:make", "it could not be made (ModuleNotFoundError: No module named 'own_package.nothing')"),
        ("own_package.nets:broken", "it could not be made (KeyError: 'no such thing')"),
        ("own_package.nets:text", "the function returns str. It must return a torch module."),
    ],
)  # fmt: skip
def test_functions_that_give_no_network(own, name, message):
    with pytest.raises(UserError) as refused:
        catalog.from_name(name)
    assert message in str(refused.value)


def test_weights_of_another_network(own):
    torch.save({"model.0.weight": torch.ones(1)}, own / "w.pth")
    with pytest.raises(UserError, match=r"network\.weights=.*w\.pth: no tensor 0\.weight, which own_package"):
        catalog.from_name("own_package.nets:make_network", str(own / "w.pth"))


@pytest.mark.parametrize("name", ["model.pt", "scripted.ts", "last.ckpt", "model.onnx"])
def test_a_file_is_not_a_network(name):
    with pytest.raises(
        UserError, match=r"does not show its layers\. Give network=NAME or network=my_module:make_network"
    ):
        check_name(name)


# ---- on the command line ----


def test_names_of_classes(run: Run, own):  # noqa: F811
    (own / "names.txt").write_text("cat\ndog\nzebra\n")
    network = ["images=photos", "network=own_package.nets:make_network", "device=cpu"]
    code, _, err = run(*network, "class_names=names.txt", "target=zebra", "out=out")
    assert (code, err) == (0, "")
    assert {row["class"] for row in table(own / "out" / "predictions.csv")} == {"zebra"}
    code, _, err = run(*network, "target=2", "out=numbered")
    assert code == 0, err
    assert {row["class"] for row in table(own / "numbered" / "predictions.csv")} == {"class 2"}
    (own / "names.txt").write_text("cat\ndog\n")
    code, _, err = run(*network, "class_names=names.txt", "out=other")
    assert (code, err) == (2, "class_names=names.txt: 2 names, but the network has 3 classes.\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\n\ndog\n", "a line is empty"),
        (b"", "a line is empty"),
        (b"cat\ncat\n", "cat is given twice"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_files_that_hold_no_names(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_names(tmp_path / "names.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_names(tmp_path / "none.txt")


# ---- transformers, which is not a dependency ----


@pytest.fixture
def folder(tmp_path):
    """A folder of a small ViT of transformers."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; camlab works without it")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "zebra"},
    )  # fmt: skip
    network = transformers.ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path / "vit")
    processor = '{"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 3,'
    processor += '"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    (tmp_path / "vit" / "preprocessor_config.json").write_text(processor)
    return tmp_path / "vit", network


def test_a_folder_of_transformers(folder):
    place, network = folder
    trained = catalog.from_name(f"hf/{place}")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(Classifier(trained.network).logits(images), network(images).logits)
    assert Explainer(trained.network).method_for(images) == "attention_relevance"
    assert trained.class_names == ("cat", "dog", "zebra")
    assert trained.preprocess == Preprocess(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32, "bicubic")
    assert not torch.equal(catalog.from_name(f"hf/{place}", None).network(images).logits, network(images).logits)


@pytest.mark.parametrize("name", ["nobody/vit-base-patch16-224", "my_vit"])
def test_names_of_the_hub_without_a_connection(name, monkeypatch, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed; camlab works without it")
    hub, constants = pytest.importorskip("transformers.utils.hub"), pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # what the variables of the same names set
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    with pytest.raises(UserError) as told:
        catalog.from_name(f"hf/{name}")
    said = str(told.value)
    assert said.startswith(f"network=hf/{name}: there is no such folder, and the hub did not give such a network (")
    assert said.endswith("or a name of the hub's that is in the cache of huggingface_hub (HF_HOME).")
    assert len(said.splitlines()) == 1


def test_folders_that_hold_no_classifier(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed; camlab works without it")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    for name in ("empty", "other"):
        with pytest.raises(UserError, match=f"network=hf/.*{name}: not a readable image classifier"):
            catalog.from_name(f"hf/{tmp_path / name}")


def test_code_in_a_folder_of_transformers_does_not_run(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    parts = '{"AutoConfig": "evil.C", "AutoModelForImageClassification": "evil.M"}'
    (tmp_path / "config.json").write_text(f'{{"model_type": "unheard_of", "auto_map": {parts}}}')
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks on a terminal
    with pytest.raises(UserError, match="needs code of its own, which camlab does not run"):
        catalog.from_name(f"hf/{tmp_path}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("EfficientNetImageProcessor", {"size": {"height": 224, "width": 224}, "resample": 2}),
        ("LevitImageProcessor", {}),
        ("MobileViTImageProcessor", {}),
    ],
)
def test_pictures_are_prepared_as_the_image_processor_does_or_refused(folder, name, options):
    transformers = pytest.importorskip("transformers")
    getattr(transformers, name)(**options).save_pretrained(folder[0])
    if name == "MobileViTImageProcessor":  # blue, green, red
        with pytest.raises(UserError, match="prepares pictures in a way that camlab does not know"):
            catalog.from_name(f"hf/{folder[0]}")
    else:
        assert catalog.from_name(f"hf/{folder[0]}").preprocess.image_size in (224, 384)
