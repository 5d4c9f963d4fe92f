"""`docs/architectures.md` is what the code does: some of its rows are computed again."""

import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from captum.attr import LayerGradCam

from camlab import Explainer

SCRIPTS = Path(__file__).parent.parent / "scripts"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="only a checkout has scripts/")
SAMPLE = ["resnet18", "densenet121", "squeezenet1_1", "convnext_tiny", "swin_t", "timm/vit_tiny_patch16_224"]
SAMPLE += ["timm/convnext_atto", "timm/pvt_v2_b0", "timm/mixer_s32_224", "timm/efficientnet_lite0"]


@pytest.fixture
def architectures(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import architectures

    return architectures


def needed(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is not installed; camlab works without it")


def test_the_table_is_complete(architectures):
    rows = architectures.read_rows()
    classifiers = torchvision.models.list_models(module=torchvision.models)
    assert set(rows) == {*classifiers, *(f"timm/{name}" for name in architectures.TIMM.split())}
    assert list(rows) == architectures.names(), "rows are in the order of the names"
    assert all(line.count("|") == 7 for line in rows.values())
    assert f"of {len(rows) - len(classifiers)} networks of timm" in architectures.DOCUMENT.read_text()


def test_names_of_timm_in_the_table_exist(architectures):
    timm = pytest.importorskip("timm", reason="timm is not installed; camlab works without it")
    assert set(architectures.TIMM.split()) <= set(timm.list_models())


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_rows_of_the_table(architectures, name):
    needed(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's networks warn of deprecated functions of torch
        assert architectures.row(name) == architectures.read_rows()[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "convnext_tiny", "timm/efficientnet_lite0", "timm/pvt_v2_b0"]
)
def test_grad_cam_equals_captum(architectures, name):
    needed(name)
    network, _ = architectures.build(name)
    images, classes = architectures.pictures(96), torch.tensor([3, 5])
    explainer = Explainer(network)
    layer = explainer.default_layer(images)
    found = explainer.explain(images, ["grad_cam"], classes[:, None]).maps["grad_cam"][0]
    expected = LayerGradCam(network, network.get_submodule(layer)).attribute(images, classes)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4 * float(found.abs().max()))
