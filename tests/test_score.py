"""`camlab.score` as a user runs it: its files, its folder, mistakes, interruptions and a foreign folder."""

import importlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_cli import launch  # noqa: F401
from test_entries import command

from camlab import score
from camlab.data.shape_drawing import draw_shapes
from camlab.evaluation.scoring import score_pictures  # noqa: F401
from camlab.scores.statistics import ScoringError

MODULE = """
import os
import signal

import torch
from torch import nn
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork

class Net(nn.Sequential):
    passes, signal = int(os.environ.get("KILLED_AFTER", 10**9)), signal.SIGINT

    def forward(self, images):
        type(self).passes -= 1
        if type(self).passes < 0:
            if "KILLED_AFTER" in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getpid(), type(self).signal)
        return super().forward(images)

def make():
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    network = Net(nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.ReLU(), *head)
    return TrainedNetwork(network, Preprocess(16), tuple(map(str, range(10))), "tiny")
"""
QUICK = ["network=own_scored.nets:make", "images=pictures", "methods=[cam]", "scores=[auroc]", "n=6", "device=cpu"]
FILES = {"scores.json", "scores.csv", "scores.md", "ranking.png", "heatmaps.html"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, with a module of the user's and a folder of 12 pictures with masks."""
    (tmp_path / "own_scored").mkdir()
    (tmp_path / "own_scored" / "nets.py").write_text(MODULE)
    (tmp_path / "pictures" / "masks").mkdir(parents=True)
    images, _, masks = draw_shapes(12, 3)
    for k, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "pictures" / f"{k}.png")
        Image.fromarray(np.uint8(255) * mask).save(tmp_path / "pictures" / "masks" / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_scored")]:
        del sys.modules[name]


def results(folder) -> dict:
    return json.loads((folder / "scores.json").read_text())


@pytest.mark.slow
def test_the_same_command_finds_its_folder_goes_on_and_gives_the_same_numbers(place, monkeypatch, capsys):
    assert command(monkeypatch, score.main, *QUICK) == 0
    said = capsys.readouterr().out
    assert "CAM" in said
    assert "Written to" in said
    assert said.splitlines()[-1].startswith("Browse the heatmaps: open ")
    (folder,) = (place / "outputs" / "scores").iterdir()
    assert folder.name.startswith("own_scored.nets-make_pictures_")
    assert {path.name for path in folder.iterdir()} >= FILES
    first = results(folder)
    assert first["scores"].keys() == {"random", "constant", "centre", "edges", "mask", "cam"}
    assert first["scores"]["mask"]["scores"]["auroc"]["mean"] > 0.9
    assert first["pictures"] == {"place": "pictures", "number": 6, "asked": 6}
    assert command(monkeypatch, score.main, *QUICK, "batch_size=5") == 0
    assert results(folder)["scores"] == first["scores"]
    assert len(list((place / "outputs" / "scores").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_the_same_command_goes_on(place, monkeypatch, capsys, number):
    assert command(monkeypatch, score.main, *QUICK, "out=whole") == 0
    net = sys.modules["own_scored.nets"].Net
    monkeypatch.setattr(net, "passes", 9)
    monkeypatch.setattr(net, "signal", number)
    assert command(monkeypatch, score.main, *QUICK, "out=parts") == 128 + number
    assert "the same command goes on" in capsys.readouterr().err
    assert not (place / "parts" / "scores.json").exists()
    kept = list((place / "parts" / ".scores").glob("*.npy"))
    assert kept
    monkeypatch.setattr(net, "passes", 10**9)
    before = [path.stat().st_mtime_ns for path in kept]
    assert command(monkeypatch, score.main, *QUICK, "out=parts") == 0
    assert before == [path.stat().st_mtime_ns for path in kept]
    assert results(place / "parts")["scores"] == results(place / "whole")["scores"]


@pytest.mark.slow
def test_after_kill_9_the_same_command_goes_on_and_gives_the_same_numbers(place, monkeypatch):
    environment = {**os.environ, "KILLED_AFTER": "9", "PYTHONPATH": str(place)}
    killed = [sys.executable, "-m", "camlab.score", *QUICK, "out=parts"]
    assert subprocess.run(killed, env=environment, check=False).returncode == -signal.SIGKILL
    kept = list((place / "parts" / ".scores").glob("*.npy"))
    assert kept
    assert not (place / "parts" / "scores.json").exists()
    before = [path.stat().st_mtime_ns for path in kept]
    for folder in ("parts", "whole"):
        assert command(monkeypatch, score.main, *QUICK, f"out={folder}") == 0
    assert before == [path.stat().st_mtime_ns for path in kept]
    assert results(place / "parts")["scores"] == results(place / "whole")["scores"]


@pytest.mark.slow
def test_other_scores_are_replaced_only_by_force_and_foreign_files_never(place, monkeypatch, capsys):
    assert command(monkeypatch, score.main, *QUICK, "scores=[srg]", "steps=2", "out=mine") == 0
    assert (place / "mine" / "curves.png").exists()
    assert command(monkeypatch, score.main, *QUICK, "out=mine") == 2
    assert "mine holds scores with other settings; nothing was changed." in capsys.readouterr().err
    assert command(monkeypatch, score.main, *QUICK, "out=mine", "force=true") == 0
    assert (
        "mine: removed scores.json, scores.csv, scores.md, curves.png, ranking.png, 13 files in"
        in capsys.readouterr().out
    )
    assert not (place / "mine" / "curves.png").exists()
    assert command(monkeypatch, score.main, *QUICK, "out=mine", "maps=0") == 0
    assert not (place / "mine" / "heatmaps.html").exists()
    assert not (place / "mine" / "heatmaps").exists()
    (place / "theirs").mkdir()
    (place / "theirs" / "scores.json").write_text("mine")
    assert command(monkeypatch, score.main, *QUICK, "out=theirs", "force=true") == 2
    assert "theirs is not empty; nothing was changed." in capsys.readouterr().err
    assert [path.name for path in (place / "theirs").iterdir()] == ["scores.json"]


@pytest.mark.slow
def test_a_failed_self_check_is_told_in_two_lines_and_loses_nothing(place, monkeypatch, capsys):
    def fails(pictures, row, measured):
        if row.method == "edges":
            raise ScoringError("mprt: the scoring itself is wrong.")

    module = sys.modules["camlab.evaluation.scoring.score_pictures"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "check_scoring", fails)
        assert command(monkeypatch, score.main, *QUICK, "out=mine") == 2
    said = capsys.readouterr().err
    assert (
        "mprt: the scoring itself is wrong.\nNo table is written, and the methods that are finished are kept." in said
    )
    assert "Traceback" not in said
    assert not (place / "mine" / "scores.json").exists()
    assert list((place / "mine" / ".scores").glob("*.npy"))
    assert command(monkeypatch, score.main, *QUICK, "out=mine") == 0


def test_a_link_in_place_of_the_kept_values_is_refused(place, monkeypatch, capsys):
    (place / "elsewhere").mkdir()
    (place / "mine").mkdir()
    (place / "mine" / ".scores").symlink_to(place / "elsewhere")
    assert command(monkeypatch, score.main, *QUICK, "out=mine") == 2
    assert "symbolic link" in capsys.readouterr().err
    assert not list((place / "elsewhere").iterdir())


def test_a_picture_that_cannot_be_read_is_reported_when_the_others_are_done(place, monkeypatch, capsys):
    (place / "pictures" / "bad.png").write_bytes(b"no picture")
    assert command(monkeypatch, score.main, *QUICK, "out=mine", "n=13") == 2
    assert "1 picture was skipped; the first: pictures/bad.png is not a readable picture" in capsys.readouterr().err
    assert results(place / "mine")["pictures"]["number"] == 12


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Which network? Give either checkpoint=RUN or network=NAME"),
        (["network=vgg16"], "network=vgg16: it has no pictures of its own. Give images=FOLDER."),
        (["network=vgg16", "images=pictures", "data=shapes"], "images=pictures: data= chooses other pictures."),
        (["network=vgg16", "images=nowhere"], "images=nowhere: no such file"),
        (["network=vgg16", "images=pictures", "methods=[cam,all]"], "methods=[cam,all]: all chooses the methods."),
        (["network=vgg16", "images=pictures", "methods=[gradcam]"], "Did you mean grad_cam?"),
        (["network=vgg16", "images=pictures", "scores=[srq]"], "Did you mean srg?"),
        (["network=vgg16", "images=pictures", "imputers=[blurr]"], "Did you mean blur?"),
        (["network=vgg16", "images=pictures", "n=0"], "n=0: must be at least 1."),
        (["network=vgg16", "images=pictures", "nn=1"], "nn: unknown setting. Did you mean n?"),
        (["checkpoint=nowhere"], "checkpoint=nowhere: no such file or folder."),
        (["checkpoint=pictures"], "checkpoint=pictures: not the folder of a run."),
    ],
)
def test_mistakes_are_told_in_one_line(launch, tmp_path, arguments, told):  # noqa: F811
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "x.png")
    code, err, seen = launch(*arguments, entry="score")
    assert (code, seen) == (2, [])
    assert told in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_sweep_scores_each_network_and_skips_what_is_finished(place, monkeypatch, capsys):
    sweep = ["-m", *QUICK[:3], "scores=[auroc]", "n=4,6", "device=cpu", "out=many"]
    for _ in range(2):
        assert command(monkeypatch, score.main, *sweep) == 0
    assert {path.parent.name for path in (place / "many").glob("*/scores.json")} == {"n-4", "n-6"}
    assert "is finished; skipped." in capsys.readouterr().out + (place / "many" / "n-4" / "score.log").read_text()


def test_no_method_applies(place, monkeypatch, capsys):
    assert command(monkeypatch, score.main, *QUICK, "methods=legrad", "out=mine") == 2
    assert "No method can be scored." in capsys.readouterr().err
