"""Files that would run code, or that were changed after writing, are refused in one line wherever camlab reads them."""

import hashlib
import json
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from test_bad_input import Trap, command, told, trap, write_checkpoint  # noqa: F401  (fixtures)
from test_entries import TINY

from camlab import evaluate, explain, train
from camlab.models import catalog
from camlab.runs import checkpoint_files, ownership, run_folder
from camlab.storage.array_store import ArrayStore
from camlab.training.checkpoint import load_network
from camlab.training.classifier import CHECKPOINT_KEY

KEY = "0123456789abcdef" * 2
QUICK = [*TINY, "logger=csv", "hydra.run.dir=run"]


def test_code_in_a_checkpoint_to_resume_is_refused(command, tmp_path, trap):  # noqa: F811
    torch.save({"state_dict": trap}, tmp_path / "x.ckpt")
    assert "only tensors are read" in command(train.main, *QUICK, f"resume={tmp_path / 'x.ckpt'}")
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(trap))
    assert "resume=" in command(train.main, *QUICK, f"resume={tmp_path / 'x.ckpt'}")


def test_code_in_a_runs_own_last_checkpoint_is_refused(command, tmp_path, trap, monkeypatch):  # noqa: F811
    monkeypatch.setattr(ownership, "check_same_run", lambda *_: None)  # the folder is this run's
    last = tmp_path / "run" / run_folder.LAST
    last.parent.mkdir(parents=True)
    run_folder.write_config(tmp_path / "run", "", "0123456789abcdef")
    torch.save({"state_dict": trap}, last)
    assert "all checkpoints there are damaged" in command(train.main, *QUICK)


def test_code_in_a_checkpoint_to_explain_is_refused(command, tmp_path, trap):  # noqa: F811
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    torch.save({"camlab": trap}, tmp_path / "x.ckpt")
    told = command(explain.main, f"images={tmp_path / 'p.png'}", f"checkpoint={tmp_path / 'x.ckpt'}", "out=out")
    assert "only tensors are read" in told


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(command, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, "argv", ["camlab", *QUICK, "debug=fast", "hydra.run.dir=other", "arch.cam_channels=6"])
    train.main()
    told = command(train.main, *QUICK, "resume=other")
    assert "it holds another network (cam_channels=6)" in told


def put(checkpoint: Path) -> Path:
    """Write a checkpoint as a run does, with its checksum."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    written = write_checkpoint(checkpoint.with_suffix(".partial"))
    with checkpoint_files.open_checkpoint(checkpoint) as file:
        file.write(written.read_bytes())
    written.unlink()
    return checkpoint


def change_a_weight(checkpoint: Path) -> None:
    """Change one weight in a checkpoint, so that torch still reads the file without complaint."""
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["network.fc.weight"][0, 0] += 1
    torch.save(content, checkpoint)


def test_a_checkpoint_that_differs_from_its_checksum_is_refused(tmp_path):
    best, last = put(tmp_path / run_folder.BEST), put(tmp_path / run_folder.LAST)
    assert load_network(tmp_path).path == best
    change_a_weight(best)
    for given in (tmp_path, best):
        assert told(lambda given=given: load_network(given)) == (
            f"checkpoint={best}: damaged, because it differs from its checksum. Choose from {last}."
        )
    assert load_network(last).path == last
    change_a_weight(last)
    assert told(lambda: load_network(last)).endswith("differs from its checksum. Give another checkpoint.")
    for sums in last.parent.glob("*.sha256"):
        sums.unlink()
    assert load_network(last).path == last, "a file without a checksum is trusted"


def test_commands_refuse_a_checkpoint_that_differs_from_its_checksum(command, tmp_path):  # noqa: F811
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    change_a_weight(put(tmp_path / run_folder.BEST))
    given = f"checkpoint={tmp_path / run_folder.BEST}"
    assert f"{given}: damaged" in command(explain.main, f"images={tmp_path / 'p.png'}", given, "out=out")
    assert f"{given}: damaged" in command(evaluate.main, given, "data=shapes", "hydra.run.dir=evaluated")


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("preprocess", {"image_size": -1}, "image_size must be a whole number of pixels, 1 to 4096, not -1"),
        ("preprocess", {"std": [0.0, 0.5, 0.5]}, "std must hold as many numbers as mean, all above 0"),
        ("preprocess", {"interpolation": "nearest"}, "interpolation must be one of bilinear, bicubic"),
        ("preprocess", {"shear": 3}, "the preparation of pictures cannot be {"),
        ("preprocess", 7, "the preparation of pictures cannot be 7"),
        ("class_names", "ab", "the names of the classes cannot be 'ab'"),
        ("class_names", [1, 2], "the names of the classes cannot be [1, 2]"),
        ("network", {"backbone": "resnet19"}, "arch.backbone=resnet19: unknown network"),
        ("network", {"backbone": "timm/hf-hub:x/y"}, "unknown network"),
        ("network", {"backbone": "timm/local-dir:x"}, "unknown network"),
        ("network", {"backbone": "resnet50"}, "is missing or unknown"),
        ("network", {"cam_conv": False}, "arch.cam_conv=false: alexnet does not end in average pooling"),
        ("preprocess", {"image_size": 1_000_000}, "image_size must be a whole number of pixels, 1 to 4096"),
        ("preprocess", {"image_size": 40}, "data.image_size=40: too small for alexnet"),
        ("class_names", ["a", "b", "c"], "3 classes, but only 2 outputs"),
        ("network", {"weights": "imagenet"}, "the network cannot be {"),
        ("network", {"weights": "/etc/passwd"}, "the network cannot be {"),
        ("network", {"frozen": True}, "the network cannot be {"),
        ("network", {"cam_channels": 10**10}, "cam_conv.weight is 10×"),
        ("network", {"keep_last_pool": 1}, "keep_last_pool cannot be 1"),
        ("network", {"backbone": ["alexnet"]}, "backbone cannot be ['alexnet']"),
        ("network", {"num_classes": -1}, "negative dimension -1"),
        ("network", {"colour": 1}, "colour"),
        ("network", 7, ""),
        ("network", "x" * 10**6, "the network cannot be"),
        ("network", {"backbone": "x" * 10**6}, "unknown network"),
        ("class_names", "x" * 10**6, "the names of the classes cannot be"),
        ("preprocess", {"interpolation": "x" * 10**6}, "interpolation must be"),
    ],
)
def test_a_checkpoint_whose_metadata_are_strange(tmp_path, part, value, reason):
    content = torch.load(write_checkpoint(tmp_path / "x.ckpt"), weights_only=True)
    about = content[CHECKPOINT_KEY]
    about[part] = {**about[part], **value} if isinstance(value, dict) else value
    torch.save(content, tmp_path / "x.ckpt")
    said = told(lambda: load_network(tmp_path / "x.ckpt"))
    assert said.startswith(f"checkpoint={tmp_path / 'x.ckpt'}: incomplete, or from another version of camlab (")
    assert reason in said
    assert len(said.splitlines()) == 1
    assert len(said) < 700


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fc.weight": (2, 10**9)}, "is a view whose elements share their places in memory"),
        ({"fc.weight": (10**9, 10), "fc.bias": (10**9,)}, "is a view whose elements share their places in memory"),
        ({"fc.weight": (2, 10**6)}, "cam_conv.weight is 10×256×3×3, but 1000000×256×3×3 in alexnet"),
    ],
)
def test_a_small_checkpoint_of_a_huge_network_is_refused_before_it_is_built(tmp_path, changes, reason):
    content = torch.load(write_checkpoint(tmp_path / "x.ckpt"), weights_only=True)
    for name, shape in changes.items():
        dense = torch.zeros(shape) if torch.Size(shape).numel() < 10**7 else torch.zeros(1).expand(shape)
        content["state_dict"][f"network.{name}"] = dense
    outputs, channels = changes["fc.weight"]
    content[CHECKPOINT_KEY]["network"] |= {"num_classes": outputs, "cam_channels": channels}
    if "view" in reason:
        content["state_dict"]["network.cam_conv.weight"] = torch.zeros(1).expand(channels, 256, 3, 3)
        content["state_dict"]["network.cam_conv.bias"] = torch.zeros(1).expand(channels)
    torch.save(content, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").stat().st_size < 20_000_000
    assert reason in told(lambda: load_network(tmp_path / "x.ckpt"))


def test_a_checkpoint_of_very_large_images_is_told(tmp_path, caplog):
    content = torch.load(write_checkpoint(tmp_path / "x.ckpt"), weights_only=True)
    for size, told_of in ((224, False), (4096, True)):
        content[CHECKPOINT_KEY]["preprocess"]["image_size"] = size
        torch.save(content, tmp_path / "x.ckpt")
        load_network(tmp_path / "x.ckpt")
        assert ("its images are 4096×4096 pixels, which takes much time and memory" in caplog.text) == told_of


@pytest.mark.slow
def test_a_file_that_grows_when_it_is_read_is_refused(tmp_path):
    bomb: list = []
    for _ in range(60):
        bomb = [bomb, bomb]  # a kilobyte in the file, and 2^60 lists to visit
    torch.save({CHECKPOINT_KEY: {"network": bomb}, "state_dict": {}}, tmp_path / "x.ckpt")
    assert "damaged or not a file of torch.save (it holds more than" in told(lambda: load_network(tmp_path / "x.ckpt"))
    with (
        zipfile.ZipFile(write_checkpoint(tmp_path / "y.ckpt")) as whole,
        zipfile.ZipFile(tmp_path / "z.ckpt", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for name in whole.namelist():
            compressed.writestr(name, whole.read(name))
    assert "its parts are compressed" in told(lambda: load_network(tmp_path / "z.ckpt"))


def test_a_small_weights_file_of_a_huge_network_is_refused_before_it_is_built(tmp_path):
    state = catalog.from_name("squeezenet1_1", None).network.state_dict()
    for weight in (torch.zeros(1).expand(10**9, 512, 1, 1), state["classifier.1.weight"]):
        changed = {"classifier.1.weight": weight, "classifier.1.bias": torch.zeros(1).expand(10**9)}
        torch.save({**state, **changed}, tmp_path / "w.pth")
        said = told(lambda: catalog.from_name("squeezenet1_1", str(tmp_path / "w.pth")))
        assert "share their places in memory" in said or "but 1000 in squeezenet1_1" in said


def test_code_in_a_cached_array_is_not_run(tmp_path, trap, caplog):  # noqa: F811
    store, shape = ArrayStore(tmp_path / "cache"), (2, 3)
    rows = np.arange(6, dtype=np.float32).reshape(shape)
    store.get(KEY, shape, lambda: [rows], "six numbers")
    np.save(tmp_path / "cache" / f"{KEY}.npy", np.array([trap], dtype=object), allow_pickle=True)
    content = (tmp_path / "cache" / f"{KEY}.npy").read_bytes()
    entry = json.loads((tmp_path / "cache" / f"{KEY}.json").read_text())
    entry |= {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "cache" / f"{KEY}.json").write_text(json.dumps(entry))
    assert np.array_equal(store.get(KEY, shape, lambda: [rows], "six numbers"), rows)
    assert "is damaged: computing it again" in caplog.text
