"""Broken files and wrong folders: each gets a message of one or two lines that names the fix; no code in files runs."""

import json
import logging
import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from camlab import evaluate, train
from camlab.data import cifar10 as cifar10_module
from camlab.data.cifar10 import Cifar10
from camlab.data.folder import Folder
from camlab.errors import UserError
from camlab.models.cam_net import CamNet
from camlab.models.devices import check_accelerator
from camlab.models.weights import load_tensors, matching_tensors, read_tensors
from camlab.runs.run_folder import write_config
from camlab.training.checkpoint import load_network
from camlab.training.classifier import CHECKPOINT_KEY

QUICK = ["data=shapes", "data.image_size=64", "arch.weights=null", "logger=csv", "hydra.run.dir=run"]


class Trap:
    """An object that creates the folder `trace` when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trap(tmp_path) -> Iterator[Trap]:
    trap = Trap(tmp_path / "it ran")
    yield trap
    assert not trap.trace.exists(), "code in a file was run"


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Iterator[Callable[..., str]]:
    """A function that runs a command in an empty folder, requires exit code 2, and returns the message on stderr."""
    monkeypatch.chdir(tmp_path)
    handlers = list(logging.root.handlers)

    def run(main: Callable[[], None], *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["camlab", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr().err
        assert end.value.code == 2, told
        assert "Traceback" not in told
        assert 1 <= len(told.splitlines()) <= 2
        return told

    yield run
    for handler in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(handler)
        handler.close()


def told(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as refused:
        action()
    assert len(str(refused.value).splitlines()) <= 2
    return str(refused.value)


# ---- weights


def tensors(backbone: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        layers = CamNet(backbone).backbone
    return {f"features.{name}": torch.zeros(tensor.shape) for name, tensor in layers.state_dict().items()}


@pytest.fixture(scope="module")
def alexnet_files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("weights")
    save_file(tensors("alexnet"), folder / "w.safetensors")
    torch.save(tensors("alexnet"), folder / "w.pth")
    return {file.suffix: file.read_bytes() for file in folder.iterdir()}


def load(path: Path, backbone: str = "alexnet") -> None:
    with torch.device("meta"):
        layers = CamNet(backbone, keep_last_pool=False).backbone
    load_tensors(layers.to_empty(device="cpu"), read_tensors(path), backbone, f"arch.weights={path}", "features.")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_whole_weights_are_read(tmp_path, alexnet_files, ending):
    (tmp_path / f"w{ending}").write_bytes(alexnet_files[ending])
    load(tmp_path / f"w{ending}")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("size", [0, 5, 1000, 100_000, -1])
def test_truncated_weights(tmp_path, alexnet_files, ending, size):
    file = tmp_path / f"w{ending}"
    file.write_bytes(alexnet_files[ending][:size])
    said = told(lambda: load(file))
    assert said.startswith(f"arch.weights={file}: ")
    assert "damaged" in said


def test_text_for_weights(tmp_path):
    for ending in (".safetensors", ".pth"):
        (tmp_path / f"w{ending}").write_text("<html>404 not found</html>\n" * 20)
        assert "damaged" in told(lambda ending=ending: load(tmp_path / f"w{ending}"))


def test_weights_that_are_not_there(tmp_path):
    assert "no such file" in told(lambda: load(tmp_path / "w.pth"))


def test_weights_of_another_network(tmp_path, alexnet_files):
    file = tmp_path / "vgg.safetensors"
    save_file(tensors("vgg11"), file)
    said = told(lambda: load(file))
    assert said == (
        f"arch.weights={file}: features.0.weight is 64×3×3×3, but 64×3×11×11 in alexnet. Is it another network's file?"
    )
    del (few := tensors("alexnet"))["features.10.bias"]
    save_file(few, file)
    assert "no tensor features.10.bias, which alexnet needs" in told(lambda: load(file))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_in_weights_is_refused(tmp_path, trap, protocol):
    with open(tmp_path / "w.pth", "wb") as file:
        pickle.dump({"features.0.weight": trap}, file, protocol=protocol)
    assert "refused" in told(lambda: read_tensors(tmp_path / "w.pth"))
    torch.save({"features.0.weight": trap}, tmp_path / "w.pth", pickle_protocol=max(protocol, 2))
    assert "refused" in told(lambda: read_tensors(tmp_path / "w.pth"))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:.*quantize", "ignore:.*quantiz")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda tensor: tensor.to_sparse(), "sparse"),
        (lambda tensor: tensor.to_sparse_csr(), "sparse"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.quint8), "quantised"),
        (lambda tensor: tensor.to("meta"), "on the meta device, without values"),
        (lambda tensor: tensor[:1, :1].expand(4, 3), "a view whose elements share their places in memory"),
    ],
    ids=["sparse", "csr", "quantised", "meta", "expanded"],
)
def test_a_tensor_without_ordinary_values_is_named(tmp_path, make, kind):
    expected = {"conv.weight": torch.zeros(4, 3), "conv.bias": torch.zeros(4)}
    torch.save({"conv.weight": make(torch.ones(4, 3)), "conv.bias": torch.zeros(4)}, tmp_path / "w.pth")
    found = read_tensors(tmp_path / "w.pth")
    said = told(lambda: matching_tensors(found, expected, "alexnet", "arch.weights=w.pth"))
    assert said == f"arch.weights=w.pth: conv.weight is {kind}. Save it as an ordinary dense tensor."


@pytest.mark.parametrize("legacy", [True, False])
def test_damaged_pth_files_are_read_or_reported_in_one_line(tmp_path, legacy):
    def network() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))

    torch.save(network().state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    whole, chance, refused = (tmp_path / "w.pth").read_bytes(), random.Random(0), 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place, length = chance.randrange(len(content)), chance.randint(1, 8)
            content[place : place + chance.choice((0, 1, length))] = chance.randbytes(chance.choice((0, 1, length)))
        (tmp_path / "w.pth").write_bytes(content)
        said = ""
        try:
            found = read_tensors(tmp_path / "w.pth")
            copied = network()
            copied.load_state_dict(matching_tensors(found, copied.state_dict(), "net", "weights=w.pth"), strict=False)
        except UserError as error:
            said = str(error)
        refused += bool(said)
        assert len(said.splitlines()) <= 1
    assert 50 < refused <= 150


def test_no_state_dict(tmp_path):
    for content in ([1, 2], {"a": 3}, torch.zeros(2)):
        torch.save(content, tmp_path / "w.pth")
        assert "holds no state dict" in told(lambda: read_tensors(tmp_path / "w.pth"))


# ---- CIFAR-10


def write_cifar(root: Path, n: int = 10, protocol: int = 4, **changes: Any) -> Path:
    """Write a tiny data set in CIFAR-10's layout; `changes` replace entries of the second batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        batch = {
            "data": random.integers(0, 256, (n, 3072), dtype=np.uint8),
            "labels": [i % 10 for i in range(n)],
        }
        (folder / name).write_bytes(pickle.dumps({**batch, **(changes if name == "data_batch_2" else {})}, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{k}" for k in range(10)]}, protocol=2))
    return folder


def cifar(root: Path, **options: Any) -> Cifar10:
    return Cifar10(str(root), **{"verify": False, "val_size": 10, **options})


@pytest.mark.parametrize("protocol", range(6))
def test_a_tiny_set_in_the_layout_is_read(tmp_path, protocol):
    write_cifar(tmp_path, protocol=protocol)
    (data := cifar(tmp_path)).setup()
    assert {split: len(images) for split, images in data.splits.items()} == {
        "train": 40,
        "val": 10,
        "test": 10,
    }


def test_a_missing_set_gives_the_reason_and_three_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_module.Archive, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    said = told(cifar(tmp_path / "none").setup)
    for part in (
        "refused",
        f"Put cifar-10-python.tar.gz into {tmp_path / 'none'}",
        "data.root=FOLDER",
        "data=shapes",
    ):
        assert part in said


def test_a_broken_archive_gives_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_module.Archive, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half an archive")
    assert "data=shapes" in told(cifar(tmp_path).setup)


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert "data.root=FOLDER" in told(cifar(tmp_path / "file").setup)


def test_a_copy_that_is_not_the_original_must_be_allowed(tmp_path):
    folder = write_cifar(tmp_path)
    said = told(cifar(tmp_path, verify=True).setup)
    assert said.startswith(f"{folder / 'data_batch_1'} does not have the checksum of the original.")
    assert "data.verify=false" in said


@pytest.mark.parametrize("size", [0, 1, 100, 20_000])
def test_a_truncated_batch(tmp_path, size):
    file = write_cifar(tmp_path) / "data_batch_3"
    file.write_bytes(file.read_bytes()[:size])
    said = told(cifar(tmp_path).setup)
    assert said.startswith(f"{file} cannot be read: ")
    assert "truncated" in said
    assert said.endswith(f"Delete {file.parent} and download it again.")


def test_a_missing_batch(tmp_path):
    (file := write_cifar(tmp_path) / "data_batch_3").unlink()
    assert told(cifar(tmp_path).setup).startswith(f"{file} cannot be read (No such file")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": np.zeros((10, 1024), np.uint8)}, "the data is uint8 (10, 1024); in CIFAR-10 it is uint8 (N, 3072)."),
        ({"data": np.zeros((10, 3072))}, "the data is float64 (10, 3072); in CIFAR-10 it is uint8 (N, 3072)."),
        ({"data": [1, 2]}, "the data is list; in CIFAR-10 it is uint8 (N, 3072)."),
        ({"labels": [0] * 9}, "the labels are not a list of 10 integers, one for each image."),
        ({"labels": ["cat"] * 10}, "the labels are not a list of 10 integers, one for each image."),
        ({"labels": [*range(9), 10]}, "the label 10 is not in the range 0 to 9."),
        ({"labels": [*range(9), -1]}, "the label -1 is not in the range 0 to 9."),
    ],
)
def test_a_batch_of_another_kind(tmp_path, changes, said):
    folder = write_cifar(tmp_path, **changes)
    assert told(cifar(tmp_path).setup).startswith(f"{folder / 'data_batch_2'}: {said}")


def test_a_batch_that_is_no_dictionary(tmp_path):
    (write_cifar(tmp_path) / "data_batch_2").write_bytes(pickle.dumps([1]))
    assert "this file contains list, not a CIFAR-10 batch" in told(cifar(tmp_path).setup)


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_in_a_batch_is_refused(tmp_path, trap, name, protocol):
    file = write_cifar(tmp_path) / name
    file.write_bytes(pickle.dumps({"data": trap, "labels": [], "label_names": trap}, protocol=protocol))
    said = told(cifar(tmp_path).setup)
    assert said.startswith(f"{file} cannot be read: it would run ")
    assert "mkdir" in said


def test_code_in_an_array_of_objects_is_refused(tmp_path, trap):
    write_cifar(tmp_path, data=np.array([trap], dtype=object))
    assert "only arrays are allowed" in told(cifar(tmp_path).setup)


def test_too_large_a_validation_split(tmp_path):
    write_cifar(tmp_path)
    assert told(cifar(tmp_path, val_size=50).setup) == (
        "data.val_size=50: there are only 50 training images. Give a smaller number."
    )


# ---- pictures in folders


def write_pictures(
    root: Path, classes: tuple[str, ...] = ("cat", "dog"), splits: tuple[str, ...] = ("train", "test")
) -> Path:
    for split in splits:
        for shade, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 30), (shade * 99,) * 3).save(root / split / name / "1.png")
    return root


def folder(root: Path) -> Folder:
    return Folder(str(root), image_size=32, split=(1, 0, 0))


def test_pictures_are_read(tmp_path):
    (data := folder(write_pictures(tmp_path))).setup()
    assert data.class_names == ("cat", "dog")
    assert data.splits["train"].subset(torch.tensor([0, 1])).images.shape == (2, 3, 32, 32)


def test_no_folder_or_none_of_its_parts(tmp_path):
    assert "no such folder. The layouts are root/<class>/*.jpg and" in told(folder(tmp_path / "none").setup)
    assert f"data.root={tmp_path}: no classes; at least two are needed." in told(folder(tmp_path).setup)
    write_pictures(tmp_path, splits=("train",))
    assert f"{tmp_path}: no pictures to test on." in told(folder(tmp_path).setup)
    (tmp_path / "train").rename(tmp_path / "test")
    assert f"{tmp_path / 'train'}: no such folder." in told(folder(tmp_path).setup)


def test_an_empty_or_one_class_folder(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    assert "no classes in train/; at least two are needed." in told(folder(tmp_path).setup)
    (tmp_path / "train" / "cat").mkdir()
    assert "only one class in train/, cat; at least two are needed." in told(folder(tmp_path).setup)
    (tmp_path / "train" / "dog").mkdir()
    assert f"{tmp_path / 'train' / 'cat'}: no pictures." in told(folder(tmp_path).setup)


def test_a_class_without_training_pictures_or_a_test_without_any(tmp_path):
    write_pictures(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "test" / name / "1.png").unlink()
    assert f"{tmp_path}: no pictures to test on." in told(folder(tmp_path).setup)
    (tmp_path / "train" / "dog" / "1.png").unlink()
    assert f"{tmp_path / 'train' / 'dog'}: no pictures." in told(folder(tmp_path).setup)


def test_a_test_class_that_is_not_trained(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "test" / "emu").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "test" / "emu" / "1.png")
    assert "class emu is not in train/" in told(folder(tmp_path).setup)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_corrupt_picture_is_named(tmp_path, content):
    bad = write_pictures(tmp_path) / "train" / "dog" / "bad one.jpg"
    Image.effect_noise((200, 200), 90).save(bad)
    bad.write_bytes(bad.read_bytes()[:2000] if content is None else content)
    said = told(folder(tmp_path).setup)
    assert said.startswith(f"{bad} is not a readable picture")
    assert "remove it" in said


# ---- checkpoints


def write_checkpoint(path: Path, class_names: tuple[str, ...] = ("a", "b")) -> Path:
    network = CamNet("alexnet", num_classes=len(class_names))
    about = {
        "network": network.spec,
        "preprocess": {"image_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3},
        "class_names": list(class_names),
    }
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({CHECKPOINT_KEY: about, "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "last.ckpt")


def test_a_whole_checkpoint_is_read(checkpoint):
    assert load_network(checkpoint).class_names == ("a", "b")


def test_a_missing_checkpoint(tmp_path):
    for path in (tmp_path, tmp_path / "none.ckpt"):
        assert told(lambda path=path: load_network(path)).startswith(f"checkpoint={path}: no checkpoint there. Give")


@pytest.mark.parametrize("size", [0, 10, 10_000, -1])
def test_a_damaged_checkpoint(tmp_path, checkpoint, size):
    (file := tmp_path / "x.ckpt").write_bytes(checkpoint.read_bytes()[:size])
    assert "damaged" in told(lambda: load_network(file))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_is_refused(tmp_path, trap):
    torch.save({CHECKPOINT_KEY: trap}, tmp_path / "x.ckpt")
    assert "refused" in told(lambda: load_network(tmp_path / "x.ckpt"))
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(trap))
    assert "refused" in told(lambda: load_network(tmp_path / "x.ckpt"))


def test_a_foreign_checkpoint(tmp_path, checkpoint):
    file = tmp_path / "x.ckpt"
    for content in ({"state_dict": {}}, [1], torch.zeros(1)):
        torch.save(content, file)
        assert told(lambda: load_network(file)) == f"checkpoint={file}: not written by camlab."
    whole = torch.load(checkpoint, weights_only=True)
    for spoilt in ({**whole, "state_dict": {}}, {**whole, CHECKPOINT_KEY: {}}, {**whole, CHECKPOINT_KEY: 3}):
        torch.save(spoilt, file)
        assert f"checkpoint={file}: " in told(lambda: load_network(file))


# ---- whole commands


def test_data_with_other_classes(command, checkpoint, tmp_path):
    write_pictures(tmp_path / "data")
    said = command(evaluate.main, f"checkpoint={checkpoint}", "data=folder", "data.root=data", "hydra.run.dir=out")
    assert said == "The network knows a, b; the data has cat, dog. Choose data with the same classes.\n"
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_damaged_checkpoint_ends_an_evaluation(command, tmp_path):
    (tmp_path / "x.ckpt").write_text("nothing")
    assert "damaged" in command(evaluate.main, "checkpoint=x.ckpt", "data=shapes", "out=out")


def test_weights_that_do_not_fit_end_a_training(command, tmp_path):
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    write_pictures(tmp_path / "data")
    options = ["data=folder", "data.root=data", "logger=csv", "hydra.run.dir=run"]
    said = command(train.main, *options, "arch.weights=w.safetensors")
    assert "features.0.weight is 1, but 64×3×11×11 in alexnet" in said
    # The corrected command may use the same folder: nothing was trained there, so it holds no other run.
    said = command(train.main, *options, "arch.weights=null", "data.root=nowhere")
    assert "data.root=nowhere: no such folder." in said


def test_an_accelerator_that_is_not_there(command, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    said = command(train.main, *QUICK, "trainer.accelerator=gpu")
    assert said == "trainer.accelerator=gpu: no such device here. Leave it out, or give cpu.\n"
    check_accelerator("cpu")


def test_another_runs_folder_is_left_as_it_is(command, tmp_path):
    run = tmp_path / "run"
    for file in ("config.yaml", "result.json", "metrics.csv", "checkpoints/last.ckpt", ".hydra/config.yaml"):
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_text(json.dumps({}))
    write_config(run, "", "another")
    (run / "result.json").write_text("{}")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    said = command(train.main, *QUICK)
    assert said.startswith("run holds a run of another configuration")
    assert "another out=FOLDER" in said
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()} == before


def test_an_output_folder_below_a_file(command, tmp_path):
    (tmp_path / "run").write_text("kept")
    said = command(train.main, *QUICK, "hydra.run.dir=run/x")
    assert said == "run/x: Not a directory. Give another folder for the output: out=FOLDER.\n"
    assert (tmp_path / "run").read_text() == "kept"


def test_a_resume_that_is_not_there(command, tmp_path):
    assert "Give auto, last" in command(train.main, *QUICK, "resume=nowhere")
    assert not (tmp_path / "run").exists()
    assert "no unfinished run" in command(train.main, *QUICK, "resume=last")
    (tmp_path / "empty").mkdir()
    assert "no checkpoint there" in command(train.main, *QUICK, "resume=empty")
