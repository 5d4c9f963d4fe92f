"""`camlab.explain` as a user runs it, and the files that it writes: generated pictures and real networks."""

import csv
import dataclasses
import json
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from test_bad_input import write_checkpoint
from test_entries import command
from torch import Tensor, nn

from camlab import explain, maps
from camlab.attribution import decoding
from camlab.attribution.batch_explainer import Request
from camlab.attribution.explainer import Explainer
from camlab.attribution.methods import METHODS
from camlab.data.table import Table
from camlab.drawing import render, tiles
from camlab.drawing.explain_pictures import explain_pictures as explain_files
from camlab.drawing.maps_file import StoredMaps, read_maps
from camlab.drawing.tiles import Style
from camlab.errors import UserError
from camlab.models import catalog
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.storage.pictures import find_pictures
from camlab.training.checkpoint import load_network
from camlab.training.classifier import CHECKPOINT_KEY
from camlab.viewer.explain_content import read_explained

CLASSES = ("cat", "dog", "zebra")
SMALL = "shufflenet_v2_x0_5"  # 0.3 M weights; ends in global average pooling and a linear layer
NAMED = ["images=photos", f"network={SMALL}", "network.weights=null"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run's folder with the checkpoint of a CamNet for 128×128 pictures."""
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("runs") / "it's (one) é=1" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    content = torch.load(write_checkpoint(file, CLASSES), weights_only=True)
    content[CHECKPOINT_KEY]["preprocess"]["image_size"] = 128
    torch.save(content, file)
    return file.parents[1]


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> tuple[list[str], nn.Module, Preprocess]:
    """Arguments that name a torchvision network with weights from a file; the network; its `Preprocess`."""
    torch.manual_seed(4)
    network = torchvision.models.get_model(SMALL, weights=None).eval()
    file = tmp_path_factory.mktemp("weights") / "a=b c.pth"
    torch.save(network.state_dict(), file)
    imagenet = Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize_size=256)
    return [f"network={SMALL}", f"network.weights={file}"], network, imagenet


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Iterator[Run]:
    """A function that runs the command in a folder with two pictures in `photos/`; returns code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos" / "a" / "one.png", 37, 91)
    draw(tmp_path / "photos" / "b" / "one.png", 80, 48)
    handlers = list(logging.root.handlers)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = command(monkeypatch, explain.main, *arguments)
        return code, *capsys.readouterr()

    yield run
    for handler in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(handler)
        handler.close()


def draw(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """Write a picture of coarse noise, which depends on the size and the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grains = np.random.default_rng([seed, height, width]).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(grains).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def shows(file: Path, image: np.ndarray) -> bool:
    """Whether a JPEG file shows this image."""
    render.write_image(expected := file.parents[1] / "expected.jpg", image)
    return bool(np.abs(pixels(file) - pixels(expected)).mean() < 1)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stored(out: Path) -> StoredMaps:
    return read_maps(out / "maps.npz")


def overlays(out: Path) -> list[str]:
    return sorted(file.name for file in (out / "overlays").glob("*"))


def seen_by(preprocess: Preprocess, file: Path) -> Tensor:
    """The network's input for a picture."""
    square = preprocess.prepare(Image.open(file).convert("RGB"))
    return preprocess(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None])


def heatmap(
    signed: Sequence[Tensor], file: Path, mode: maps.Normalization = "per_image", preprocess: Preprocess | None = None
) -> np.ndarray:
    """The result of `camlab.heatmaps` for a picture, as an overlay of the square that the network sees."""
    picture = np.array(Image.open(file).convert("RGB"))
    left, top, right, bottom = map(round, (preprocess or Preprocess(8)).visible_box(picture.shape[1], picture.shape[0]))
    (heat,) = maps.upsample(maps.normalize(maps.fuse(signed, mode), mode), (bottom - top, right - left)).numpy()
    drawn = render.fade(picture)
    drawn[top:bottom, left:right] = render.colorize(heat)
    return drawn


# ---- what is written


@pytest.mark.parametrize("given", ["run", "run/checkpoints/last.ckpt"])
def test_everything_about_pictures(run, trained, tmp_path, given):
    arguments = ["methods=[cam,grad_cam]", "top_k=2", "batch_size=1", "boxes=false", "alpha=1", "out=out"]
    place = given.replace("run", str(trained), 1)
    code, said, err = run("images=photos", f"checkpoint={place}", *arguments)
    assert (code, err) == (0, "")
    assert f"2 pictures explained. Open {tmp_path}/out/sheet.png" in said
    assert f"Browse the heatmaps: open {tmp_path}/out/heatmaps.html in a browser." in said
    assert (tmp_path / "out" / "heatmaps.html").is_file()
    files, network = [Path("photos/a/one.png"), Path("photos/b/one.png")], load_network(trained)

    rows, written = table(tmp_path / "out" / "predictions.csv"), stored(tmp_path / "out")
    assert written.files == [str(file) for file in files]
    assert written.folder == tmp_path
    assert written.names == ["a/one.png", "b/one.png"]
    assert written.sizes.tolist() == [[91, 37], [48, 80]]
    boxes = [network.preprocess.visible_box(91, 37), network.preprocess.visible_box(48, 80)]
    np.testing.assert_allclose(written.visible, boxes)
    np.testing.assert_allclose(written.visible, [[27, 0, 64, 37], [0, 16, 48, 64]], atol=0.3)
    assert written.class_names == list(CLASSES)
    assert written.layers == {"cam": ("cam_conv",), "grad_cam": ("backbone",)}
    assert {(row["method"], row["layer"]) for row in rows} == {("cam; grad_cam", "cam_conv; backbone")}
    assert (written.labels, written.epoch, written.cam_of_all_classes) == (None, None, None)
    assert overlays(tmp_path / "out") == sorted(
        f"{n:05d}_one_{method}_{rank}_{CLASSES[written.class_idx[n, rank]]}.jpg"
        for n in (0, 1)
        for method in ("cam", "grad_cam")
        for rank in (0, 1)
    )
    for n, file in enumerate(files):
        inputs = seen_by(network.preprocess, file)
        explainer = Explainer(network.network)
        look = explainer.explain(inputs, ("cam", "grad_cam"), top_k=2)
        best, classes = look.logits.softmax(dim=1)[0].topk(2)
        assert written.class_idx[n].tolist() == classes.tolist()
        np.testing.assert_allclose(written.probabilities[n], look.logits.softmax(dim=1)[0], rtol=1e-4)
        for rank in (0, 1):
            row = rows[2 * n + rank]
            assert (row["file"], row["rank"], row["class_idx"]) == (str(file), str(rank), str(int(classes[rank])))
            assert row["class"] == CLASSES[classes[rank]]
            assert float(row["probability"]) == pytest.approx(float(best[rank]), abs=2e-6)
            logit = written.maps["cam"][0][n, rank].mean() + float(network.network.fc.bias.detach()[classes[rank]])
            assert logit == pytest.approx(float(look.logits[0, classes[rank]]), rel=1e-4), "CAM's identity"
            for method in ("cam", "grad_cam"):
                np.testing.assert_allclose(
                    written.maps[method][0][n, rank], look.maps[method][0][0, rank], rtol=1e-4, atol=1e-8
                )
                drawn = next((tmp_path / "out" / "overlays").glob(f"{n:05d}_one_{method}_{rank}_*"))
                assert pixels(drawn).shape == ((37, 91, 3) if n == 0 else (80, 48, 3))
                assert shows(drawn, heatmap([look.maps[method][0][:, rank]], file, preprocess=network.preprocess))


def test_the_defaults_give_a_sheet_worth_showing(run, trained, tmp_path):
    assert run("images=photos", f"checkpoint={trained}")[0] == 0
    [out] = tmp_path.glob("outputs/*/*_explain")
    names = {path.name for path in out.iterdir()}
    assert names - {"maps.npz", "explain.json", "heatmaps.html"} == {
        "overlays",
        "predictions.csv",
        "boxes.json",
        "sheet.png",
        "explain.log",
        ".hydra",
    }
    assert [name.split("_", 2)[2].rpartition("_0_")[0] for name in overlays(out)] == ["cam"] * 2
    height, width, _ = pixels(out / "sheet.png").shape
    assert height > 2 * tiles.TILE_HEIGHT, "two rows of panels"
    assert width > 2 * tiles.TILE_HEIGHT * 91 / 37, "tiles of picture and CAM"
    boxes = json.loads((out / "boxes.json").read_text(encoding="utf-8"))
    assert list(boxes) == ["photos/a/one.png", "photos/b/one.png"]
    for seen, found in zip([(27, 0, 64, 37), (0, 16, 48, 64)], boxes.values(), strict=True):
        assert found
        for each in found:
            left, top, right, bottom = each["box"]
            assert seen[0] <= left < right <= seen[2], "boxes must lie within what the network sees"
            assert seen[1] <= top < bottom <= seen[3]


@pytest.mark.parametrize("form", ["{}", "{}/a b.png", "{}/*.png"])
def test_paths_of_any_name(run, tmp_path, form):
    name = "x=1 it's [a] {b} (c), ´é´ $1; #%" + '"'
    file = draw(tmp_path / name / "a b.png", 8, 9)
    place = form.format(file.parent)
    code, _, err = run(*NAMED[1:], f"images={place}", "methods=cam", f"out=out/{name}", "batch_size=1")
    assert (code, err) == (0, "")
    [row] = table(tmp_path / "out" / name / "predictions.csv")
    assert row["file"] == str(file)
    assert json.loads((tmp_path / "out" / name / "boxes.json").read_text(encoding="utf-8")).keys() == {str(file)}


# ---- networks


@pytest.mark.parametrize(("name", "methods"), [(SMALL, {"cam"}), ("squeezenet1_1", {"grad_cam"})])
def test_a_network_by_name(run, tmp_path, name, methods):
    code, said, _ = run("images=photos/a", f"network={name}", "network.weights=null", "out=out")
    assert code == 0
    assert "so the heatmaps mean nothing" in said
    assert methods == set(stored(Path("out")).maps)
    [row] = table(tmp_path / "out" / "predictions.csv")
    assert row["class"] == catalog.from_name(name, None).class_names[int(row["class_idx"])]


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_network_with_weights_of_ones_own(run, named, tmp_path, ending):
    network = torchvision.models.get_model(SMALL, weights=None, num_classes=5).eval()
    write = torch.save if ending == "pth" else save_file
    write(network.state_dict(), tmp_path / f"a b=c.{ending}")
    arguments = [f"network={SMALL}", f"network.weights=a b=c.{ending}", "top_k=9", "methods=cam", "out=out"]
    assert run("images=photos/a", *arguments)[0] == 0
    rows = table(tmp_path / "out" / "predictions.csv")
    assert {row["class"] for row in rows} == {f"class {k}" for k in range(5)}
    with torch.no_grad():
        expected = network(seen_by(named[2], tmp_path / "photos" / "a" / "one.png")).softmax(dim=1)[0]
    for row in rows:
        assert float(row["probability"]) == pytest.approx(float(expected[int(row["class_idx"])]), abs=1e-4)


def test_torchvisions_own_preprocessing_and_class_names():
    subject = catalog.from_name("efficientnet_b1", None)
    assert subject.preprocess.image_size == 240
    assert subject.preprocess.mean == (0.485, 0.456, 0.406)
    assert subject.class_names[281] == "tabby"
    assert not subject.network.training


def test_googlenet_with_weights_gets_the_input_they_were_trained_on(tmp_path):
    network = torchvision.models.googlenet(num_classes=2, init_weights=False, transform_input=True).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(catalog.from_name("googlenet", str(tmp_path / "w.pth")).network(inputs), network(inputs))


# ---- targets and layers


@pytest.mark.parametrize(("target", "expected"), [("tiger cat", 282), ("282", 282), ("0", 0), ("auto", None)])
def test_targets(run, named, target, expected):
    arguments, network, preprocess = named
    assert run("images=photos", *arguments, f"target={target}", "methods=cam", "out=out")[0] == 0
    if expected is None:
        inputs = torch.cat([seen_by(preprocess, Path(f"photos/{x}/one.png")) for x in "ab"])
        with torch.no_grad():
            classes = network(inputs).argmax(dim=1, keepdim=True).tolist()
    else:
        classes = [[expected], [expected]]
    assert stored(Path("out")).class_idx.tolist() == classes


@pytest.mark.slow
def test_a_layer_by_name_and_several_fused(run, named, tmp_path):
    arguments, network, preprocess = named
    common = ["images=photos/a", *arguments, "methods=layer_cam", "target=3", "boxes=false", "alpha=1"]
    layers = ("stage3", "conv5.2")
    assert run(*common, f"layer={layers[0]}", "out=one")[0] == 0
    assert run(*common, f"layer=[{','.join(layers)}]", "out=two")[0] == 0
    inputs = seen_by(preprocess, tmp_path / "photos" / "a" / "one.png")
    signed = Explainer(network, layers).explain(inputs, ("layer_cam",), torch.tensor([[3]])).maps["layer_cam"]
    assert [part.shape[2:] for part in signed] == [(14, 14), (7, 7)]
    for out, parts in {"one": signed[:1], "two": signed}.items():
        written = stored(tmp_path / out)
        assert written.layers == {"layer_cam": layers[: len(parts)]}
        for own, part in zip(written.maps["layer_cam"], parts, strict=True):
            np.testing.assert_allclose(own[0], part[0], rtol=1e-3, atol=1e-4 * float(part.max()))
        [drawn] = (tmp_path / out / "overlays").iterdir()
        assert shows(drawn, heatmap([part[:, 0] for part in parts], Path("photos/a/one.png"), preprocess=preprocess))


# ---- pictures whose maps are known: red is evidence for class 0 and against class 1


class Redness(nn.Module):
    """A network whose CAM of class 0 is the red channel, in the pictures' own size, and of class 1 its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            self.fc.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(images)).mean(dim=(2, 3)))


@pytest.fixture
def redness() -> TrainedNetwork:
    return TrainedNetwork(Redness().eval(), Preprocess(8, (0.0,) * 3, (1.0,) * 3), ("red", "not red"), "redness")


def red(path: Path, values: Any) -> Path:
    """Write a picture with given values in its red channel, and noise in the other channels."""
    values = np.asarray(values, np.uint8)
    others = np.random.default_rng(0).integers(0, 256, (*values.shape, 2), np.uint8)
    Image.fromarray(np.dstack([values, others])).save(path)
    return path


def test_true_classes_that_are_known_are_in_every_file(redness, tmp_path, caplog):
    files = [red(tmp_path / f"{i}.png", np.full((8, 8), 200)) for i in range(2)]
    labels = explain._labels([("not red",), ("red",)], redness.class_names, False)
    explain_files(redness, files, tmp_path / "out", Request(("cam",)), labels=labels)
    assert read_maps(tmp_path / "out" / "maps.npz").labels.tolist() == [1, 0]
    assert [row["true_class"] for row in table(tmp_path / "out" / "predictions.csv")] == ["not red", "red"]
    assert [picture.label for picture in read_explained(tmp_path / "out").pictures] == [1, 0]
    assert explain._labels([("red",), ("blue",)], redness.class_names, False) is None
    assert explain._labels([], redness.class_names, False) is None
    assert caplog.messages == ["True classes are not shown: the network has no class blue."]


def test_all_true_classes_of_a_table_with_several_labels_are_told(redness, tmp_path):
    for i in range(4):
        red(tmp_path / f"{i}.png", np.full((8, 8), 200))
    (tmp_path / "t.csv").write_text(
        "path,label,split\n0.png,not red;red,test\n1.png,red,test\n2.png,,test\n3.png,red,train\n"
    )
    data = Table(str(tmp_path / "t.csv"), multi_label=True)
    files, names = data.files("test", tmp_path)
    labels, request = explain._labels(names, redness.class_names, data.multi_label), Request(("cam",), multi_label=True)
    assert labels == [(0, 1), (0,), ()]
    explain_files(redness, files, tmp_path / "out", request, labels=labels)
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [row["true_class"] for row in rows] == ["red; not red", "red", ""]
    stored = read_maps(tmp_path / "out" / "maps.npz")
    assert stored.names == ["0.png: true red, not red", "1.png: true red", "2.png: true none"]
    assert stored.labels is None
    assert len(read_explained(tmp_path / "out").pictures) == 3


@pytest.mark.parametrize(("batch_size", "mode"), [(1, "per_image"), (2, "shared")])
def test_every_label_that_a_network_says_yes_to_has_a_map(redness, tmp_path, batch_size, mode):
    with torch.no_grad():  # a red picture has both labels, and one without red has none
        redness.network.fc.weight.copy_(torch.tensor([[2.0], [1.0]]))
        redness.network.fc.bias.copy_(torch.tensor([0.0, -0.1]))
    files = [red(tmp_path / f"{i}.png", np.full((8, 8), value)) for i, value in enumerate((0, 255))]
    for top_k, expected in ((None, [[0, 0], [0, 1]]), (1, [[0], [0]])):
        out, request = tmp_path / f"out-{top_k}", Request(("cam", "grad_cam"), top_k=top_k, multi_label=True)
        explain_files(redness, files, out, request, Style(normalize=mode), batch_size)
        found = stored(out)
        assert found.class_idx.tolist() == expected
        assert np.array_equal(found.maps["cam"][0][0, 0], found.maps["cam"][0][0, -1]), "the first one is repeated"
        shown = [(row["file"], int(row["class_idx"])) for row in table(out / "predictions.csv")]
        assert shown == [(str(file), k) for file, own in zip(files, expected, strict=True) for k in dict.fromkeys(own)]
        assert len(overlays(out)) == 2 * len(shown)
        assert len(read_explained(out).pictures) == 2


def test_boxes_by_hand(redness, tmp_path):
    values = np.zeros((8, 8))
    values[1, 6] = 255
    values[3:6, 1:4] = 46  # 18 % of the maximum: above Grad-CAM's threshold, below CAM's
    explain_files(redness, [red(tmp_path / "x.png", values)], tmp_path, Request(("cam", "grad_cam"), top_k=2))
    assert json.loads((tmp_path / "boxes.json").read_text()) == {
        str(tmp_path / "x.png"): [
            {"method": "cam", "rank": 0, "class": "red", "box": [6, 1, 7, 2]},
            {"method": "grad_cam", "rank": 0, "class": "red", "box": [1, 3, 4, 6]},
        ]
    }, "there must be no box for a class without evidence"


def test_boxes_are_in_pixels_of_the_whole_picture_and_drawn(redness, tmp_path):
    values = np.zeros((80, 160))
    values[20:40, 60:100] = 255
    file = red(tmp_path / "x.png", values)
    for boxes in (True, False):
        style = Style(boxes=boxes, alpha=0)
        explain_files(redness, [file], tmp_path / str(boxes), Request(("grad_cam",)), style)
    [found] = json.loads((tmp_path / "True" / "boxes.json").read_text())[str(file)]
    for edge, expected in zip(found["box"], (60, 20, 100, 40), strict=True):
        assert abs(edge - expected) < 80 / 8, "within one cell of the map"
    assert not (tmp_path / "False" / "boxes.json").exists()
    [with_box], [without] = ([*(tmp_path / str(boxes) / "overlays").iterdir()] for boxes in (True, False))
    left, top, right, _ = found["box"]
    assert pixels(with_box)[top, left:right].mean() > 200, "the box must be white"
    assert pixels(without)[top, left:right].mean() < 200


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("mode", ["per_image", "shared", "raw"])
def test_normalization(redness, tmp_path, mode, batch_size):
    levels = [51, 255, 102]
    files = [red(tmp_path / f"{level}.png", np.full((16, 24), level)) for level in levels]
    style = Style(normalize=mode, alpha=1, boxes=False)
    explain_files(redness, files, tmp_path / "out", Request(("cam", "grad_cam")), style, batch_size)
    written = stored(tmp_path / "out").maps
    np.testing.assert_allclose(written["cam"][0].max(axis=(1, 2, 3)), [0.2, 1.0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(written["grad_cam"][0] * 64, written["cam"][0], rtol=1e-5), "Z · Grad-CAM = CAM"
    for number, level in enumerate(levels):
        colour = render.colorize(np.array([[1.0 if mode == "per_image" else level / 255]]))[0, 0]
        for method in ("cam", "grad_cam"):
            drawn = pixels(tmp_path / "out" / "overlays" / f"{number:05d}_{level}_{method}_0_red.jpg")
            assert np.abs(drawn[:, 8:16] - colour).max() <= 4, "compared away from edges, where JPEG blends colours"


def test_large_pictures_make_small_batches(redness, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_BATCH_PIXELS", 1000)
    sizes = [(10, 10)] * 3 + [(30, 30), (40, 40)] + [(30, 30)] + [(10, 10)] * 5
    files = [draw(tmp_path / f"{k:02d}.png", *size, seed=k) for k, size in enumerate(sizes)]
    batches: list[int] = []
    redness.network.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    threads = cv2.getNumThreads()
    assert explain_files(redness, files, tmp_path / "out", Request(("grad_cam",)), batch_size=4).done == len(files)
    assert batches[-6] == 3, "a picture that is too large for a batch must go alone"
    assert batches[-4:] == [1, 1, 2, 4], "two pictures of noise, for reasons to doubt, come after the first batch"
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize("layers", [("relu",), ("relu", "fine")])
@pytest.mark.parametrize("mode", ["per_image", "shared", "raw"])
def test_overlays_are_what_the_python_call_gives(tmp_path, mode, layers):
    """Layers may differ in grid and units. Maps in `raw` are drawn on the scale of the set, and none is clipped."""
    torch.manual_seed(0)
    body = nn.Sequential(OrderedDict(fine=nn.Conv2d(3, 4, 3), pool=nn.AvgPool2d(2), relu=nn.ReLU()))
    network = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        network[-1].weight.mul_(1e4)  # maps far above 1
    layers = tuple(f"0.{name}" for name in layers)
    trained = TrainedNetwork(network, Preprocess(16, (0.5,) * 3, (0.5,) * 3), ("a", "b"), "small")
    files = [draw(tmp_path / f"{k}.png", 16, 16, seed=k) for k in range(3)]
    request, style = Request(("grad_cam",), layers, target=1), Style(normalize=mode, alpha=1, boxes=False)
    explain_files(trained, files, tmp_path / "out", request, style)

    inputs = torch.cat([seen_by(trained.preprocess, file) for file in files])
    expected = Explainer(network, layers)(inputs, "grad_cam", 1, mode)
    if mode == "raw":
        assert expected.max() > 10
        expected = expected / max(float(part.max()) for part in fused_maps(stored(tmp_path / "out")))
    for heat, name in zip(expected.numpy(), overlays(tmp_path / "out"), strict=True):
        assert shows(tmp_path / "out" / "overlays" / name, render.colorize(heat))


def fused_maps(written: StoredMaps) -> Tensor:
    layers = [torch.from_numpy(part[:, 0]) for part in written.maps["grad_cam"]]
    return maps.normalize(maps.fuse(layers, "raw"), "raw")


@pytest.mark.parametrize("mode", ["per_image", "shared"])
def test_batches_are_small_decoded_as_needed_and_change_nothing(redness, tmp_path, monkeypatch, mode):
    files = [draw(tmp_path / f"{k}.png", 20 + k, 30, seed=k) for k in range(10)]
    opened, batches, opened_by_then = [], [], []
    read = decoding.read_picture
    monkeypatch.setattr(decoding, "read_picture", lambda path: (opened.append(path), read(path))[1])

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        batches.append(len(inputs[0]))
        opened_by_then.append(len(opened))

    redness.network.register_forward_pre_hook(count)
    for batch_size in (3, 10):
        request, style = Request(("cam", "grad_cam"), top_k=2), Style(normalize=mode)
        assert explain_files(redness, files, tmp_path / str(batch_size), request, style, batch_size).done == 10
        if batch_size == 3:
            assert set(batches[2:]) == {3, 2, 1}, "the survey's passes come first; two pictures of noise find doubts"
            assert opened_by_then[0] <= 6, "at most two batches may be open at once"
    few, many = (np.load(tmp_path / folder / "maps.npz") for folder in ("3", "10"))
    for name in few:
        np.testing.assert_array_equal(few[name], many[name])
    for name in ["predictions.csv", "boxes.json", "sheet.png", *(f"overlays/{x}" for x in overlays(tmp_path / "3"))]:
        assert (tmp_path / "3" / name).read_bytes() == (tmp_path / "10" / name).read_bytes()


@pytest.mark.parametrize("counterfactual", [False, True])
def test_every_method(redness, tmp_path, counterfactual):
    file = red(tmp_path / "x.png", (np.arange(64).reshape(8, 8) * 4).repeat(8, axis=0).repeat(8, axis=1))
    kinds = ("gradients",) if counterfactual else ("weights", "gradients", "passes")
    methods = tuple(method.name for method in METHODS.values() if method.kind in kinds)
    request = Request(methods, target=0, counterfactual=counterfactual)
    explain_files(redness, [file], tmp_path, request, Style(boxes=False, alpha=1))
    assert (tuple(stored(tmp_path).maps), stored(tmp_path).counterfactual) == (methods, counterfactual)
    warmest = {name.split("_x_")[1]: pixels(tmp_path / "overlays" / name)[-1, -1] for name in overlays(tmp_path)}
    for method in methods:
        colour = warmest[f"{method}_0_red.jpg"]
        assert np.abs(colour - render.colorize(np.array([[0.0 if counterfactual else 1.0]]))[0, 0]).max() < 20, method


def test_small_maps_keep_their_digits(redness, tmp_path):
    with torch.no_grad():
        redness.network.fc.weight.mul_(1e-9)  # as small as those of Grad-CAM far from the output
    explain_files(redness, [red(tmp_path / "x.png", np.full((8, 8), 255))], tmp_path, Request(("cam",), target=0))
    np.testing.assert_allclose(stored(tmp_path).maps["cam"][0], np.full((1, 1, 8, 8), 1e-9), rtol=1e-6)


def test_pictures_of_every_kind_and_size(redness, tmp_path):
    sizes = {}
    (exif := Image.Exif())[0x0112] = 6  # the camera was held upright
    whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 91, 3), np.uint8))
    whole.save(tmp_path / "turned.jpg", exif=exif)
    sizes["turned"] = (91, 37)
    for ending, mode in {"bmp": "RGB", "tif": "L", "webp": "RGBA", "png": "P"}.items():
        whole.convert(mode).save(tmp_path / f"{ending}.{ending}")
        sizes[ending] = (37, 91)
    Image.fromarray(np.full((1, 1), 40_000, np.uint16)).save(tmp_path / "deep.png")
    sizes["deep"] = (1, 1)
    for name, size in {"wide": (2, 1500), "tall": (1500, 2), "x" * 250: (5, 5), "widest": (1, 65_500)}.items():
        whole.resize(size[::-1]).save(tmp_path / f"{name}.png")
        sizes[name[:60]] = size
    done = explain_files(redness, find_pictures(str(tmp_path)), tmp_path / "out", Request(("cam",)))
    assert (done.done, done.broken) == (len(sizes), [])
    drawn = {name.split("_")[1]: pixels(tmp_path / "out" / "overlays" / name) for name in overlays(tmp_path / "out")}
    assert {name: picture.shape[:2] for name, picture in drawn.items()} == sizes
    width = pixels(done.sheet).shape[1]
    assert width < 2 * 2 * 4 * tiles.TILE_HEIGHT, "a very wide picture must not make the sheet as wide"


@pytest.mark.parametrize("mode", ["per_image", "shared"])
def test_heat_of_a_rotated_picture_is_drawn_on_the_upright_picture(redness, tmp_path, mode):
    values = np.zeros((8, 16))
    values[:4, 4:8] = 255  # stored at the top left of the square; orientation 6 turns that to the top right
    (exif := Image.Exif())[0x0112] = 6
    Image.open(red(tmp_path / "x.png", values)).save(tmp_path / "turned.png", exif=exif)
    style = Style(alpha=1, boxes=False, normalize=mode)
    explain_files(redness, [tmp_path / "turned.png"], tmp_path / "out", Request(("cam",)), style)
    written = stored(tmp_path / "out")
    assert (written.sizes.tolist(), written.visible.tolist()) == ([[8, 16]], [[0, 4, 8, 12]])
    heat = written.maps["cam"][0][0, 0]
    assert heat[:4, 4:].min() == 1
    assert heat[4:].max() == heat[:, :4].max() == 0
    [drawn] = (tmp_path / "out" / "overlays").iterdir()
    hot = pixels(drawn) - [128, 0, 0], pixels(drawn) - [0, 0, 128]
    assert pixels(drawn).shape == (16, 8, 3)
    assert np.abs(hot[0][5:7, 5:]).max() < 60 > np.abs(hot[1][9:11]).max(), "heat is at the top right of the square"


@pytest.mark.skipif(sys.platform != "linux", reason="names must be text there")
def test_a_file_name_that_is_not_valid_text(redness, tmp_path):
    name = os.fsencode(red(tmp_path / "x.png", np.full((8, 8), 99))).replace(b"x.png", b"\xff.png")
    os.rename(tmp_path / "x.png", name)
    explain_files(redness, find_pictures(str(tmp_path)), tmp_path / "out")
    assert os.fsencode(stored(tmp_path / "out").files[0]) == name
    for file in ("predictions.csv", "boxes.json"):
        assert name in (tmp_path / "out" / file).read_bytes(), "the name must be written as on the disk"


@pytest.mark.parametrize("name", ["a" * 240, "𝒳" * 240, "$_$", "[/b]", "\x1b[2J\n\0", "caf\udce9", "../x"])
def test_class_names_of_any_kind(redness, tmp_path, name):
    named = dataclasses.replace(redness, class_names=(name, "not red"))
    done = explain_files(named, [red(tmp_path / "x.png", np.full((8, 8), 99))], tmp_path / "out", Request(target=0))
    assert len(overlays(tmp_path / "out")) == 2
    assert done.sheet.is_file()
    assert stored(tmp_path / "out").class_names == [name.rstrip("\0"), "not red"]


@pytest.mark.parametrize("stem", ["𝒳" * 60, "é" * 120, "x" * 250])
def test_long_names_are_cut_in_bytes(redness, tmp_path, stem):
    long = TrainedNetwork(redness.network, redness.preprocess, ("Großer Fisch " * 40, "魚" * 300), "redness")
    files = [red(tmp_path / f"{stem[:-1]}{k}.png", np.full((8, 8), 99)) for k in range(2)]
    assert explain_files(long, files, tmp_path / "out", Request(("cam",), top_k=2)).done == 2
    assert len(overlays(tmp_path / "out")) == 4, "names must be unique"
    assert all(len(os.fsencode(name)) <= 143 for name in overlays(tmp_path / "out"))


def test_what_the_network_does_not_see_has_no_colours(redness, tmp_path):
    cut = TrainedNetwork(redness.network, Preprocess(8, (0.0,) * 3, (1.0,) * 3, resize_size=16), ("a", "b"), "redness")
    values = np.full((40, 80), 200)
    for mode in ("per_image", "shared"):
        out = tmp_path / mode
        explain_files(cut, [red(tmp_path / "x.png", values)], out, Request(("cam",)), Style(mode, alpha=1))
        assert stored(out).visible.tolist() == [[30, 10, 50, 30]]
        [drawn] = (pixels(out / "overlays" / name) for name in overlays(out))
        inside = np.zeros((40, 80), bool)
        inside[2:38, 22:58] = True  # with a block of JPEG's around it
        assert np.ptp(drawn[~inside], axis=1).max() <= 20, "what is not seen must be grey"
        assert drawn[~inside].min() > 255 * 0.6, "what is not seen must be light"
        [found] = json.loads((out / "boxes.json").read_text())[str(tmp_path / "x.png")]
        assert found["box"] == [30, 10, 50, 30]


@pytest.mark.parametrize("there", ["album", "run"])
def test_another_commands_folder_is_left_as_it_is(run, trained, tmp_path, there):
    import shutil

    given = ["images=photos/a", f"checkpoint={trained}", "methods=cam", "out=out"]
    if there == "album":
        assert run(*given)[0] == 0
    else:
        shutil.copytree(trained, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    code, _, err = run(*given, "target=dog")
    assert (code, err) == (
        2,
        "out is not empty; nothing was changed. Give another out=FOLDER.\n",
    )
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_the_folder_says_how_it_was_made(run, trained, tmp_path):
    given = ["methods=[grad_cam]", "normalize=shared", "colormap=cividis", "target=dog", "out=out"]
    (tmp_path / "photos" / "broken.png").touch()
    assert run("images=photos", f"checkpoint={trained}", *given)[0] == 2
    told = json.loads((tmp_path / "out" / "explain.json").read_text(encoding="utf-8"))
    assert told["images"] == "photos"
    assert told["checkpoint"] == str(trained)
    assert told["network"]["checkpoint"] == str(trained / "checkpoints" / "last.ckpt")
    assert told["network"]["preprocess"]["image_size"] == 128
    assert told["layers"] == {"grad_cam": ["backbone"]}
    assert told["settings"]["normalize"] == "shared"
    assert told["settings"]["colormap"] == "cividis"
    assert told["settings"]["target"] == 1
    assert told["pictures"]["explained"] == 2
    assert "broken.png" in told["pictures"]["skipped"][0]
    assert {"camlab", "torch", "python"} <= set(told["versions"])


@pytest.mark.parametrize("colormap", ["viridis", "cividis"])
def test_colours_can_be_chosen(redness, tmp_path, colormap):
    style = Style(alpha=1, boxes=False, colormap=colormap)
    explain_files(redness, [red(tmp_path / "x.png", np.full((8, 8), 99))], tmp_path, Request(("cam",)), style)
    [drawn] = (pixels(tmp_path / "overlays" / name) for name in overlays(tmp_path))
    assert np.abs(drawn - render.colorize(np.ones((8, 8)), colormap)).max() <= 4


# ---- broken pictures


def test_a_broken_picture_is_named_and_the_rest_is_done(run, tmp_path):
    (tmp_path / "photos" / "a b.jpg").write_text("no picture")
    code, said, err = run(*NAMED, "methods=cam", "batch_size=2", "out=out")
    assert code == 2
    assert err.startswith("1 of 3 pictures was skipped; the first: photos/a b.jpg is not a readable picture")
    assert len(err.splitlines()) == 1
    assert "Skipped: photos/a b.jpg is not a readable picture" in said
    assert [row["file"] for row in table(tmp_path / "out" / "predictions.csv")] == [
        "photos/a/one.png",
        "photos/b/one.png",
    ]
    assert len(overlays(tmp_path / "out")) == 2
    assert (tmp_path / "out" / "sheet.png").is_file()


@pytest.mark.parametrize("mode", ["per_image", "shared"])
def test_whole_batches_of_broken_pictures_before_the_good_ones(redness, tmp_path, mode):
    for k in range(41):
        (tmp_path / f"{k:02d}.png").touch()
    red(tmp_path / "good.png", np.full((8, 8), 99))
    files, style = find_pictures(str(tmp_path)), Style(normalize=mode)
    done = explain_files(redness, files, tmp_path / "out", Request(("cam",)), style, 4)
    assert (done.done, len(done.broken)) == (1, 41)
    assert done.sheet.is_file()
    assert overlays(tmp_path / "out") == ["00041_good_cam_0_red.jpg"]


@pytest.mark.parametrize("mode", ["shared", "raw"])
@pytest.mark.parametrize("gone", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("change", ["removed", "another size"])
def test_pictures_that_vanish_before_they_are_drawn_cost_the_others_nothing(redness, tmp_path, mode, gone, change):
    files = [red(tmp_path / f"{k}.png", np.full((8, 8), 80 * (k + 1))) for k in range(3)]

    def vanish(module: nn.Module, inputs: Any, output: Any) -> None:
        for k in gone:
            red(files[k], np.full((5, 7), 1)) if change == "another size" else files[k].unlink(missing_ok=True)

    redness.network.register_forward_hook(vanish)
    done = explain_files(redness, files, tmp_path / "out", Request(("cam",), target=0), Style(normalize=mode))
    assert (done.done, len(done.broken)) == (3, len(gone))
    assert f"{gone[0]}.png" in done.broken[0]
    left = [k for k in range(3) if k not in gone]
    assert overlays(tmp_path / "out") == [f"0000{k}_{k}_cam_0_red.jpg" for k in left]
    assert list(json.loads((tmp_path / "out" / "boxes.json").read_text())) == [str(files[k]) for k in left]
    assert len(stored(tmp_path / "out").files) == 3
    assert (done.sheet is not None) == bool(left)


def test_only_broken_pictures(redness, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"None of the 2 pictures could be read\. .*a\.png is not a readable picture"):
        explain_files(redness, find_pictures(str(tmp_path)), tmp_path / "out")


# ---- mistakes: exit code 2 and a line

MISTAKES: list[tuple[list[str], str]] = [
    (
        ["checkpoint=RUN"],
        "Which pictures? Give images=PLACE; data=folder data.root=FOLDER, table or huggingface; or,",
    ),
    (["checkpoint=RUN", "images=nowhere.jpg"], "images=nowhere.jpg: no such file, and no pattern that matches any"),
    (["checkpoint=RUN", "images=empty"], "images=empty: no pictures in that folder."),
    (["checkpoint=RUN", "images=text.jpg"], "The picture could not be read. text.jpg is not a readable picture"),
    (["images=photos"], "Which network? Give either checkpoint=RUN or network=NAME"),
    ([*NAMED, "checkpoint=RUN"], "Which network?"),
    (["images=photos", "checkpoint=nowhere"], "checkpoint=nowhere: no such file or folder."),
    (["images=photos", "checkpoint=empty"], "checkpoint=empty: no checkpoint there."),
    (["images=photos", "checkpoint=other.ckpt"], "checkpoint=other.ckpt: not written by camlab."),
    (["images=photos", "checkpoint=text.jpg"], "checkpoint=text.jpg: refused: it is damaged"),
    (
        ["images=photos", "network=resnet-18"],
        "no such classifier in torchvision, nor in timm if that is installed. Did you mean resnet18, ",
    ),
    (
        ["images=photos", f"network={SMALL}", "network.weights=V9"],
        "network.weights=V9: unknown weights. Choose from IMAGENET1K_V1,",
    ),
    (
        ["images=photos", f"network={SMALL}", "network.weights=no.pth"],
        "network.weights=no.pth: no such file. Give a .safetensors or .pth file, DEFAULT or null.",
    ),
    (["images=photos", f"network={SMALL}", "network.weights=text.pth"], "network.weights=text.pth: "),
    (["images=photos", f"network={SMALL}", "network.weights=part.pth"], "part.pth: no tensor conv1.0.weight"),
    (["images=photos", f"network={SMALL}", "network.weights=none.pth"], "none.pth: no tensor conv1.0.weight"),
    (["images=photos", f"network={SMALL}", "network.weights=odd.pth"], "odd.pth: conv1.0.weight is 3, but 24×3×3×3"),
    (
        ["images=photos", "checkpoint=RUN", "target=dgo"],
        "target=dgo: no such class. Did you mean dog? Give auto, a name or an index below 3.",
    ),
    ([*NAMED, "target=tigre cat"], "target=tigre cat: no such class. Did you mean tiger cat? Give auto, a name or an"),
    ([*NAMED, "target=1000"], "target=1000: no such class."),
    ([*NAMED, "target=²"], "target=²: no such class."),
    ([*NAMED, "layer=fc"], "layer=fc: its output for one image is 1000; a map needs"),
    ([*NAMED, "layer=[stage3,fc]"], "layer=fc: its output for one image is"),
    ([*NAMED, "layer=stage9"], "layer=stage9: no such layer. Did you mean stage4, stage3 or stage2?"),
    ([*NAMED, "layer=3"], "layer=3: no such layer."),
    (
        [*NAMED, "methods=[cam,gradcam]"],
        "methods=gradcam: unknown value. Did you mean grad_cam? Choose from auto, cam,",
    ),
    ([*NAMED, "methods=3"], "methods=3: unknown value."),
    ([*NAMED, "methods=[cam]", "layer=stage3"], "cam: the network does not end in global average pooling of stage3"),
    (["images=photos", "network=alexnet", "network.weights=null", "methods=[cam]"], "Choose from grad_cam, "),
    ([*NAMED, "normalize=share"], "normalize=share: unknown value. Did you mean shared?"),
    ([*NAMED, "top_k=2", "target=3"], "top_k=2: target=3 names one class. Give one of the two."),
    ([*NAMED, "methods=[auto,cam]"], "methods=[auto,cam]: auto chooses the methods. Give auto alone."),
    (
        [*NAMED, "counterfactual=true", "methods=[cam]"],
        "counterfactual: cam does not use gradients. Choose from grad_cam, ",
    ),
    ([*NAMED, "top_k=0"], "top_k=0: must be at least 1."),
    ([*NAMED, "colormap=viridi"], "colormap=viridi: unknown value. Did you mean viridis?"),
    ([*NAMED, "method=cam"], "method: unknown setting. Did you mean methods?"),
    ([*NAMED, "out=text.jpg/x"], "text.jpg/x: Not a directory. Give another folder for the output: out=FOLDER."),
]


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_told_in_a_line(run, trained, tmp_path, arguments, told):
    (tmp_path / "empty").mkdir()
    for name in ("text.jpg", "text.pth"):
        (tmp_path / name).write_text("neither picture nor weights")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    torch.save({"fc.weight": torch.zeros(2, 1024), "fc.bias": torch.zeros(2)}, tmp_path / "part.pth")
    torch.save({}, tmp_path / "none.pth")
    torch.save({"conv1.0.weight": torch.zeros(3), "fc.bias": torch.tensor(1.0)}, tmp_path / "odd.pth")
    defaults = [] if any(argument.startswith("out=") for argument in arguments) else ["out=out"]
    code, _, err = run(*(argument.replace("RUN", str(trained)) for argument in arguments), *defaults)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1, err
    assert not (tmp_path / "out" / "sheet.png").exists()


def test_a_device_that_is_not_there(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    code, _, err = run(*NAMED, "device=gpu", "out=out")
    assert (code, err) == (2, "device=gpu: no such device here. Leave it out, or give cpu.\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = run(*NAMED, "out=locked/x")
    assert (code, len(err.splitlines())) == (2, 1), err
    assert err.startswith("locked/x: Permission denied.")


def test_help(run):
    code, said, err = run("--help")
    assert (code, err) == (0, "")
    assert "camlab-explain images=photos/ network=resnet50" in said
