"""`python -m camlab.explain` as a user gives it, and what comes of it: on drawn pictures, by real networks."""

import csv
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
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
from camlab.attribution.explainer import Explainer, fuse
from camlab.attribution.methods import METHODS
from camlab.drawing import album, render
from camlab.drawing.album import Style, make_album
from camlab.errors import UserError
from camlab.models import catalog
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.storage.pictures import find_pictures
from camlab.training.checkpoint import load_network
from camlab.training.classifier import CHECKPOINT_KEY

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
    """Arguments for a torchvision network with weights from a file; the network; what prepares its input."""
    torch.manual_seed(4)
    network = torchvision.models.get_model(SMALL, weights=None).eval()
    file = tmp_path_factory.mktemp("weights") / "a=b c.pth"
    torch.save(network.state_dict(), file)
    imagenet = Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return [f"network={SMALL}", f"network.weights={file}"], network, imagenet


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Iterator[Run]:
    """Runs the command in a folder with the two pictures of `photos/`; gives exit code, stdout and stderr."""
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
    """Noise in large grains, which differ with the size and the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grains = np.random.default_rng([seed, height, width]).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(grains).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def shows(file: Path, image: np.ndarray) -> bool:
    """Whether a JPEG of camlab's is this picture."""
    render.write_image(expected := file.parents[1] / "expected.jpg", image)
    return bool(np.abs(pixels(file) - pixels(expected)).mean() < 1)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def overlays(out: Path) -> list[str]:
    return sorted(file.name for file in (out / "overlays").iterdir())


def seen_by(preprocess: Preprocess, file: Path) -> Tensor:
    """A picture as the network gets it."""
    square = Image.open(file).convert("RGB").resize((preprocess.image_size,) * 2, Image.Resampling.BILINEAR)
    return preprocess(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None])


# ---- what is written


@pytest.mark.parametrize("given", ["run", "run/checkpoints/last.ckpt"])
def test_everything_about_pictures(run, trained, tmp_path, given):
    arguments = ["methods=[cam,grad_cam]", "top_k=2", "batch_size=1", "boxes=false", "alpha=1", "out=out"]
    place = given.replace("run", str(trained), 1)
    code, said, err = run("images=photos", f"checkpoint={place}", *arguments)
    assert (code, err) == (0, "")
    assert f"2 pictures explained. Open {tmp_path}/out/sheet.png" in said
    files, network = [Path("photos/a/one.png"), Path("photos/b/one.png")], load_network(trained)

    rows, written = table(tmp_path / "out" / "predictions.csv"), arrays(tmp_path / "out" / "maps.npz")
    assert set(written) == {"files", "class_idx", "cam", "grad_cam"}
    assert written["files"].tolist() == [str(file) for file in files]
    assert overlays(tmp_path / "out") == sorted(
        f"{n:05d}_one_{method}_{rank}_{CLASSES[written['class_idx'][n, rank]]}.jpg"
        for n in (0, 1)
        for method in ("cam", "grad_cam")
        for rank in (0, 1)
    )
    for n, file in enumerate(files):
        inputs = seen_by(network.preprocess, file)
        explainer = Explainer(network.network)
        look = explainer.explain(inputs, ("cam", "grad_cam"), top_k=2)
        best, classes = look.logits.softmax(dim=1)[0].topk(2)
        assert written["class_idx"][n].tolist() == classes.tolist()
        for rank in (0, 1):
            row = rows[2 * n + rank]
            assert (row["file"], row["rank"], row["class_idx"]) == (str(file), str(rank), str(int(classes[rank])))
            assert row["class"] == CLASSES[classes[rank]]
            assert float(row["probability"]) == pytest.approx(float(best[rank]), abs=2e-6)
            logit = written["cam"][n, rank].mean() + float(network.network.fc.bias.detach()[classes[rank]])
            assert logit == pytest.approx(float(look.logits[0, classes[rank]]), rel=1e-4), "CAM's identity"
            for method in ("cam", "grad_cam"):
                np.testing.assert_allclose(
                    written[method][n, rank], look.maps[method][0][0, rank], rtol=1e-4, atol=1e-8
                )
                drawn = next((tmp_path / "out" / "overlays").glob(f"{n:05d}_one_{method}_{rank}_*"))
                shape = (37, 91) if n == 0 else (80, 48)
                heat = fuse([look.maps[method][0][:, rank]], shape)[0].numpy()
                assert pixels(drawn).shape == (*shape, 3)
                assert shows(drawn, render.colorize(heat))


def test_the_defaults_give_a_sheet_worth_showing(run, trained, tmp_path):
    assert run("images=photos", f"checkpoint={trained}")[0] == 0
    [out] = tmp_path.glob("outputs/*/*_explain")
    assert {"overlays", "maps.npz", "predictions.csv", "boxes.json", "sheet.png", "explain.log", ".hydra"} == {
        path.name for path in out.iterdir()
    }
    assert [name.split("_", 2)[2].rpartition("_0_")[0] for name in overlays(out)] == ["cam", "grad_cam"] * 2
    height, width, _ = pixels(out / "sheet.png").shape
    assert height > 2 * 224, "two rows"
    assert width > 3 * 224 * 91 / 37, "picture, CAM and Grad-CAM"
    boxes = json.loads((out / "boxes.json").read_text(encoding="utf-8"))
    assert list(boxes) == ["photos/a/one.png", "photos/b/one.png"]
    for (width, height), found in zip([(91, 37), (48, 80)], boxes.values(), strict=True):
        assert found
        for each in found:
            left, top, right, bottom = each["box"]
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height


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


@pytest.mark.parametrize(("name", "methods"), [(SMALL, {"cam", "grad_cam"}), ("squeezenet1_1", {"grad_cam"})])
def test_a_network_by_name(run, tmp_path, name, methods):
    code, said, _ = run("images=photos/a", f"network={name}", "network.weights=null", "out=out")
    assert code == 0
    assert "its heatmaps mean nothing" in said
    assert methods == set(arrays(Path("out/maps.npz"))) - {"files", "class_idx"}
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
    assert arrays(Path("out/maps.npz"))["class_idx"].tolist() == classes


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
        written = arrays(tmp_path / out / "maps.npz")
        names = ["layer_cam"] if out == "one" else ["layer_cam_0", "layer_cam_1"]
        assert set(written) == {"files", "class_idx", *names}
        for name, part in zip(names, parts, strict=True):
            np.testing.assert_allclose(written[name][0], part[0], rtol=1e-3, atol=1e-4 * float(part.max()))
        heat = fuse([part[:, 0] for part in parts], (37, 91))[0].numpy()
        [drawn] = (tmp_path / out / "overlays").iterdir()
        assert shows(drawn, render.colorize(heat))


# ---- an album whose maps are known: class 0 sees red, class 1 what is not


class Redness(nn.Module):
    """The CAM of class 0 is the red channel, on the pictures' own grid; that of class 1 its negative."""

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
    """A picture with these values in its red channel, and noise in the others."""
    values = np.asarray(values, np.uint8)
    others = np.random.default_rng(0).integers(0, 256, (*values.shape, 2), np.uint8)
    Image.fromarray(np.dstack([values, others])).save(path)
    return path


def test_boxes_by_hand(redness, tmp_path):
    values = np.zeros((8, 8))
    values[1, 6] = 255
    values[3:6, 1:4] = 46  # 18 % of the maximum: above Grad-CAM's threshold, below CAM's
    make_album(redness, [red(tmp_path / "x.png", values)], tmp_path, Style(("cam", "grad_cam"), top_k=2))
    assert json.loads((tmp_path / "boxes.json").read_text()) == {
        str(tmp_path / "x.png"): [
            {"method": "cam", "rank": 0, "class": "red", "box": [6, 1, 7, 2]},
            {"method": "grad_cam", "rank": 0, "class": "red", "box": [1, 3, 4, 6]},
        ]
    }, "none for a class without evidence"


def test_boxes_are_in_pixels_of_the_whole_picture_and_drawn(redness, tmp_path):
    values = np.zeros((80, 160))
    values[20:40, 40:100] = 255
    file = red(tmp_path / "x.png", values)
    for boxes in (True, False):
        make_album(redness, [file], tmp_path / str(boxes), Style(("grad_cam",), boxes=boxes, alpha=0))
    [found] = json.loads((tmp_path / "True" / "boxes.json").read_text())[str(file)]
    cell = 80 / 8, 160 / 8
    for edge, expected, size in zip(found["box"], (40, 20, 100, 40), cell[::-1] * 2, strict=True):
        assert abs(edge - expected) < size
    assert not (tmp_path / "False" / "boxes.json").exists()
    [with_box], [without] = ([*(tmp_path / str(boxes) / "overlays").iterdir()] for boxes in (True, False))
    left, top, right, _ = found["box"]
    assert pixels(with_box)[top, left:right].mean() > 200, "white"
    assert pixels(without)[top, left:right].mean() < 200


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("mode", ["per_image", "shared", "raw"])
def test_normalization(redness, tmp_path, mode, batch_size):
    levels = [51, 255, 102]
    files = [red(tmp_path / f"{level}.png", np.full((16, 24), level)) for level in levels]
    style = Style(("cam", "grad_cam"), normalize=mode, alpha=1, boxes=False)
    make_album(redness, files, tmp_path / "out", style, batch_size)
    written = arrays(tmp_path / "out" / "maps.npz")
    np.testing.assert_allclose(written["cam"].max(axis=(1, 2, 3)), [0.2, 1.0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(written["grad_cam"] * 64, written["cam"], rtol=1e-5), "Z · Grad-CAM = CAM"
    for number, level in enumerate(levels):
        colour = render.colorize(np.array([[1.0 if mode == "per_image" else level / 255]]))[0, 0]
        drawn = [pixels(tmp_path / "out" / "overlays" / f"{number:05d}_{level}_{m}_0_red.jpg") for m in style.methods]
        assert all(np.abs(each - colour).max() <= 4 for each in drawn)


def test_large_pictures_make_small_batches(redness, tmp_path, monkeypatch):
    monkeypatch.setattr(album, "_BATCH_PIXELS", 1000)
    sizes = [(10, 10)] * 3 + [(30, 30), (40, 40)] + [(30, 30)] + [(10, 10)] * 5
    files = [draw(tmp_path / f"{k:02d}.png", *size, seed=k) for k, size in enumerate(sizes)]
    batches: list[int] = []
    redness.network.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    threads = cv2.getNumThreads()
    assert make_album(redness, files, tmp_path / "out", Style(("grad_cam",)), batch_size=4).done == len(files)
    assert batches[-5:] == [3, 1, 1, 2, 4], "one that is too large for any goes alone"
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize("normalize", ["per_image", "shared"])
def test_drawn_heat_is_that_of_the_python_call(tmp_path, normalize):
    """Several layers too; `fuse` is what `camlab.heatmaps` ends with."""
    generator = torch.Generator().manual_seed(0)
    artist = album._Artist(TrainedNetwork(nn.Identity(), Preprocess(8, (0.0,), (1.0,)), (), ""), Style(), tmp_path)
    for layers in ([(13, 13)], [(13, 13), (7, 5)]):
        signed = [torch.randn(shape, generator=generator) for shape in layers]
        expected = fuse([part[None] for part in signed], (60, 80), "per_image" if normalize == "per_image" else "raw")[
            0
        ]
        if normalize == "shared":
            artist.peaks = {"grad_cam": 3.0}
            expected = expected / 3
        np.testing.assert_allclose(artist._heat(signed, "grad_cam", (60, 80)), expected, atol=2e-6)


@pytest.mark.parametrize("mode", ["per_image", "shared"])
def test_batches_are_small_decoded_as_needed_and_change_nothing(redness, tmp_path, monkeypatch, mode):
    files = [draw(tmp_path / f"{k}.png", 20 + k, 30, seed=k) for k in range(10)]
    opened, batches, opened_by_then = [], [], []
    read = album.read_picture
    monkeypatch.setattr(album, "read_picture", lambda path: (opened.append(path), read(path))[1])

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        batches.append(len(inputs[0]))
        opened_by_then.append(len(opened))

    redness.network.register_forward_pre_hook(count)
    for batch_size in (3, 10):
        style = Style(("cam", "grad_cam"), top_k=2, normalize=mode)
        assert make_album(redness, files, tmp_path / str(batch_size), style, batch_size).done == 10
        if batch_size == 3:
            assert max(batches) == 3
            assert opened_by_then[0] <= 6, "two batches at once"
    few, many = (arrays(tmp_path / folder / "maps.npz") for folder in ("3", "10"))
    for name in few:
        np.testing.assert_array_equal(few[name], many[name])
    for name in ["predictions.csv", "boxes.json", "sheet.png", *(f"overlays/{x}" for x in overlays(tmp_path / "3"))]:
        assert (tmp_path / "3" / name).read_bytes() == (tmp_path / "10" / name).read_bytes()


@pytest.mark.parametrize("counterfactual", [False, True])
def test_every_method(redness, tmp_path, counterfactual):
    file = red(tmp_path / "x.png", (np.arange(64).reshape(8, 8) * 4).repeat(8, axis=0).repeat(8, axis=1))
    style = Style(METHODS, target=0, counterfactual=counterfactual, boxes=False, alpha=1)
    make_album(redness, [file], tmp_path, style)
    written = arrays(tmp_path / "maps.npz")
    assert set(written) == {"files", "class_idx", *METHODS}
    warmest = {name.split("_x_")[1]: pixels(tmp_path / "overlays" / name)[-1, -1] for name in overlays(tmp_path)}
    for method in METHODS:
        colour = warmest[f"{method}_0_red.jpg"]
        against = counterfactual and method in maps.GRADIENT_METHODS
        assert np.abs(colour - render.colorize(np.array([[0.0 if against else 1.0]]))[0, 0]).max() < 20, method


def test_small_maps_keep_their_digits(redness, tmp_path):
    with torch.no_grad():
        redness.network.fc.weight.mul_(1e-9)  # as Grad-CAM far from the output
    make_album(redness, [red(tmp_path / "x.png", np.full((8, 8), 255))], tmp_path, Style(("cam",), target=0))
    np.testing.assert_allclose(arrays(tmp_path / "maps.npz")["cam"], np.full((1, 1, 8, 8), 1e-9), rtol=1e-6)


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
    for name, size in {"wide": (2, 1500), "tall": (1500, 2), "x" * 250: (5, 5)}.items():
        whole.resize(size[::-1]).save(tmp_path / f"{name}.png")
        sizes[name[:60]] = size
    done = make_album(redness, find_pictures(str(tmp_path)), tmp_path / "out", Style(("cam",)))
    assert (done.done, done.broken) == (len(sizes), [])
    drawn = {name.split("_")[1]: pixels(tmp_path / "out" / "overlays" / name) for name in overlays(tmp_path / "out")}
    assert {name: picture.shape[:2] for name, picture in drawn.items()} == sizes
    width = pixels(done.sheet).shape[1]
    assert width < 2 * 2 * 4 * 224 + 50, "a strip does not make the sheet endless"


@pytest.mark.parametrize("mode", ["per_image", "shared"])
def test_a_turned_picture_has_its_heat_where_one_sees_it(redness, tmp_path, mode):
    values = np.zeros((8, 16))
    values[:4, :4] = 255  # stored at the top left; orientation 6 turns that to the top right
    (exif := Image.Exif())[0x0112] = 6
    Image.open(red(tmp_path / "x.png", values)).save(tmp_path / "turned.png", exif=exif)
    make_album(
        redness, [tmp_path / "turned.png"], tmp_path / "out", Style(("cam",), alpha=0, boxes=False, normalize=mode)
    )
    heat = arrays(tmp_path / "out" / "maps.npz")["cam"][0, 0]
    assert np.unravel_index(heat.argmax(), heat.shape) in {(y, x) for y in (0, 1) for x in range(4, 8)}
    assert heat[:2, 4:].min() > 0.8
    assert heat[2:, :4].max() < 0.2
    [drawn] = (tmp_path / "out" / "overlays").iterdir()
    assert pixels(drawn).shape == (16, 8, 3)
    assert pixels(drawn)[:3, 5:, 0].min() > 150 > 100 > pixels(drawn)[6:, :, 0].max()


@pytest.mark.skipif(sys.platform != "linux", reason="names must be text there")
def test_a_name_that_is_no_text(redness, tmp_path):
    name = os.fsencode(red(tmp_path / "x.png", np.full((8, 8), 99))).replace(b"x.png", b"\xff.png")
    os.rename(tmp_path / "x.png", name)
    make_album(redness, find_pictures(str(tmp_path)), tmp_path / "out")
    for file in ("predictions.csv", "boxes.json"):
        assert name in (tmp_path / "out" / file).read_bytes(), "as it stands on the disk"


# ---- broken pictures


def test_a_broken_picture_is_named_and_the_rest_is_done(run, tmp_path):
    (tmp_path / "photos" / "a b.jpg").write_text("no picture")
    code, said, err = run(*NAMED, "methods=cam", "batch_size=2", "out=out")
    assert code == 2
    assert err.startswith("1 of 3 pictures were skipped; the first: photos/a b.jpg is no readable picture")
    assert len(err.splitlines()) == 1
    assert "Skipped: photos/a b.jpg is no readable picture" in said
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
    done = make_album(redness, find_pictures(str(tmp_path)), tmp_path / "out", Style(("cam",), normalize=mode), 4)
    assert (done.done, len(done.broken)) == (1, 41)
    assert done.sheet.is_file()
    assert overlays(tmp_path / "out") == ["00041_good_cam_0_red.jpg"]


def test_none_but_broken_pictures(redness, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"None of the 2 pictures could be read\. .*a\.png is no readable picture"):
        make_album(redness, find_pictures(str(tmp_path)), tmp_path / "out")


# ---- mistakes: exit code 2 and a line

MISTAKES: list[tuple[list[str], str]] = [
    (["checkpoint=RUN"], "images is needed: give images="),
    (["checkpoint=RUN", "images=nowhere.jpg"], "images=nowhere.jpg: no such file, and no pattern that matches any"),
    (["checkpoint=RUN", "images=empty"], "images=empty: no pictures in that folder."),
    (["checkpoint=RUN", "images=text.jpg"], "None of the 1 pictures could be read. text.jpg is no readable picture"),
    (["images=photos"], "Which network? Give checkpoint=RUN, or network=NAME"),
    ([*NAMED, "checkpoint=RUN"], "Which network?"),
    (["images=photos", "checkpoint=nowhere"], "checkpoint=nowhere: no such file or folder."),
    (["images=photos", "checkpoint=empty"], "checkpoint=empty: no checkpoint there."),
    (["images=photos", "checkpoint=other.ckpt"], "checkpoint=other.ckpt: not written by camlab."),
    (["images=photos", "checkpoint=text.jpg"], "checkpoint=text.jpg: refused: it is damaged"),
    (
        ["images=photos", "network=resnet-18"],
        "no such classifier in torchvision, nor in timm if that is installed. Did you mean resnet18 ",
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
    ([*NAMED, "layer=fc"], "layer=fc: its output is (2, 1000); a map needs"),
    ([*NAMED, "layer=[stage3,fc]"], "layer=fc: its output is"),
    ([*NAMED, "layer=stage9"], "layer=stage9: no such layer. Near: stage"),
    ([*NAMED, "layer=3"], "layer=3: no such layer."),
    ([*NAMED, "methods=[cam,gradcam]"], "methods=gradcam: unknown method. Did you mean grad_cam? Choose from cam,"),
    ([*NAMED, "methods=3"], "methods=3: unknown method."),
    ([*NAMED, "methods=[cam]", "layer=stage3"], "cam: the network does not end in global average pooling of stage3"),
    (["images=photos", "network=alexnet", "network.weights=null", "methods=[cam]"], "These methods apply: grad_cam, "),
    ([*NAMED, "normalize=share"], "normalize=share: no such choice. Did you mean shared?"),
    ([*NAMED, "top_k=0"], "top_k=0: must be at least 1."),
    ([*NAMED, "method=cam"], "method: no such setting. Did you mean methods?"),
    ([*NAMED, "out=text.jpg/x"], "text.jpg/x: Not a directory. Give another place for the output"),
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
    assert "python -m camlab.explain images=photos/ network=resnet50" in said
