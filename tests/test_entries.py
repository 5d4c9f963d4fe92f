"""The commands as a user runs them, from end to end, on tiny generated data sets."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from camlab import evaluate, explain, score, train
from camlab.drawing.maps_file import read_maps
from camlab.runs.run_folder import write_config

TINY = [
    "data=shapes",
    "data.train_size=80",
    "data.val_size=20",
    "data.test_size=20",
    "data.image_size=64",
    "data.batch_size=20",
    "arch.weights=null",
    "arch.keep_last_pool=false",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "callbacks.heatmaps.per_class=1",
    "callbacks.scores.srg_images=2",
]


def command(monkeypatch: pytest.MonkeyPatch, main, *arguments: str) -> int:
    """Run a command in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["camlab", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: alexnet, fine-tuned, W&B offline."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs") / "it's (one) é=1"
        patch.setenv("HOME", str(folder.parent))
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("NETRC", str(folder / "no-netrc"))
        assert command(patch, train.main, *TINY, "mode=finetune", f"hydra.run.dir={folder}") == 0
    return folder


def test_a_runs_folder(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.yaml", "checkpoints", "heatmaps", "heatmaps.html", "metrics.csv", "result.json", "wandb"} <= names
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 1e-4
    assert config["mode"] == "finetune"
    for name in ("last", "best"):
        checkpoint = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["camlab"]["class_names"][0] == "disc"
    epochs = {f"epoch_000{k}" for k in range(3)}
    assert {p.name for p in (run_dir / "heatmaps").iterdir()} == {"pictures", "masks", *epochs}
    assert list(run_dir.glob("wandb/offline-run-*/*.wandb"))


def test_result(run_dir):
    result = json.loads((run_dir / "result.json").read_text())
    names = [
        "val/acc",
        "val/loss",
        "train/acc",
        "train/loss",
        "test/acc",
        "test/loss",
        "train/lr",
        "train/images_per_second",
    ]
    names += ["test/pointing_game", "test/pointing_game_random", "test/pointing_game_center", "val/best_acc"]
    assert set(names) <= set(result["metrics"])
    assert 0 <= result["metrics"]["test/acc"] <= 1
    assert result["objective"] == result["metrics"]["val/best_acc"]
    assert torch.__version__.startswith(result["versions"]["torch"])
    assert result["seed"] == 0
    assert result["epochs"] == 2
    assert result["wall_time_s"] > 0
    assert all(result[key] for key in ("device", "finished", "config_hash", "data_fingerprint"))
    assert "git_commit" in result


def test_metrics_csv_counts_epochs_done(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows if row["val/acc"]] == [1, 2]
    assert [float(row["epoch"]) for row in rows if row["train/loss"]] == [1, 2]
    assert len([row for row in rows if row["test/acc"]]) == 1, "the test set must be used only once"


def test_the_same_command_again_changes_nothing(run_dir, monkeypatch, caplog):
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.suffix in (".ckpt", ".json", ".csv")}
    assert command(monkeypatch, train.main, *TINY, "mode=finetune", f"hydra.run.dir={run_dir}") == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_going_on_from_a_run_with_more_epochs(run_dir, tmp_path, monkeypatch):
    arguments = [*TINY, "mode=finetune", "logger=csv", "trainer.max_epochs=3", f"resume={run_dir}"]
    assert command(monkeypatch, train.main, *arguments, f"hydra.run.dir={tmp_path / 'more'}") == 0
    assert json.loads((tmp_path / "more" / "result.json").read_text())["epochs"] == 3


def test_evaluate_agrees_with_the_runs_own_test(run_dir, tmp_path, monkeypatch):
    out = tmp_path / "evaluation"
    assert command(monkeypatch, evaluate.main, f"checkpoint={run_dir}", f"hydra.run.dir={out}") == 0
    report = json.loads((out / "evaluation.json").read_text())
    result = json.loads((run_dir / "result.json").read_text())
    assert report["images"] == 20
    for name in ("acc", "loss", "pointing_game"):
        assert report["metrics"][name] == pytest.approx(result["metrics"][f"test/{name}"], abs=1e-6)
    confusion = torch.tensor(report["confusion_matrix"])
    assert confusion.sum() == 20
    assert confusion.trace() / 20 == pytest.approx(report["metrics"]["acc"])
    with open(out / "confusion_matrix.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1][0] == rows[0][1] == "disc"
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == report["confusion_matrix"]
    assert (out / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


def test_scores_of_the_runs_own_test_pictures(run_dir, tmp_path, monkeypatch):
    out = tmp_path / "scores"
    quick = ["methods=[cam]", "scores=[auroc,effective_area]", "n=12", "device=cpu"]
    assert command(monkeypatch, score.main, f"checkpoint={run_dir}", *quick, f"out={out}") == 0
    found = json.loads((out / "scores.json").read_text())
    assert found["pictures"] == {"place": "shapes (test)", "number": 12, "asked": 12}
    assert found["scores"]["mask"]["scores"]["auroc"]["mean"] > 0.9, "the masks are not those of the pictures"
    assert found["scores"]["cam"]["scores"]["auroc"]["n"] == 12


def test_evaluate_on_another_split(run_dir, tmp_path, monkeypatch):
    arguments = [f"checkpoint={run_dir}/checkpoints/last.ckpt", "split=train", f"hydra.run.dir={tmp_path / 'out'}"]
    assert command(monkeypatch, evaluate.main, *arguments) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["images"] == 60


@pytest.mark.slow
def test_a_sweep_over_arch_and_mode(tmp_path, monkeypatch):
    arguments = [*TINY, "trainer.max_epochs=1", "logger=csv", "callbacks.heatmaps=null", "data.train_size=40"]
    sweep = ["-m", "arch=alexnet,vgg13", "mode=frozen,finetune", f"hydra.sweep.dir={tmp_path}"]
    assert command(monkeypatch, train.main, *arguments, *sweep) == 0
    results = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")}
    assert sorted(results) == [f"arch-{a}_mode-{m}" for a in ("alexnet", "vgg13") for m in ("finetune", "frozen")]
    assert len({result["config_hash"] for result in results.values()}) == 4


@pytest.mark.slow
def test_the_test_curve_and_nothing_held_out(tmp_path, monkeypatch):
    arguments = [*TINY, "logger=csv", "data.val_size=0", "test_each_epoch=true", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command(monkeypatch, train.main, *arguments) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    assert result["tested_checkpoint"] == "last"
    assert result["objective"] == result["metrics"]["test/acc"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names must be text elsewhere")
def test_more_outputs_than_classes_and_names_of_any_kind(tmp_path, monkeypatch, capsys):
    names = [b"$_$ caf\xe9", b"[b]\n\x1b[2J", b"x" * 240]
    for split, count in (("train", 8), ("test", 3)):
        for k, name in enumerate(names):
            folder = os.fsencode(tmp_path / "photos" / split) + b"/" + name
            os.makedirs(folder)
            for i in range(count):
                Image.new("RGB", (8, 8), (80 * k, 10 * i, 99)).save(os.fsdecode(folder) + f"/{i}.png")
    monkeypatch.chdir(tmp_path)
    run = [a for a in TINY if not a.startswith(("data=", "data.train", "data.test"))]
    run += [
        "data=folder",
        "data.root=photos",
        "data.name='[b]'",
        "data.val_size=3",
        "arch.num_classes=7",
        "mode=frozen",
    ]
    assert (
        command(monkeypatch, train.main, *run, "logger=[wandb,tensorboard,csv]", "trainer.max_epochs=1", "out=run") == 0
    )
    said = capsys.readouterr()
    assert "No heatmaps" not in said.out + said.err
    assert "Going on without it" not in said.out + said.err
    assert (tmp_path / "run" / "heatmaps" / "epoch_0001" / "sheet.png").is_file()

    assert command(monkeypatch, evaluate.main, "checkpoint=run", "out=evaluated") == 0
    told = capsys.readouterr().out
    report = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    assert report["class_names"] == [
        "$_$ caf\\udce9",
        "[b]\\n\\x1b[2J",
        "x" * 240,
        *(f"output {k}" for k in range(3, 7)),
    ]
    table = told[told.index(": accuracy ") :]
    assert max(map(len, table.splitlines()[1:4])) < 60
    assert "\x1b" not in told

    given = ["images=photos/test", "checkpoint=run", "top_k=40"]
    assert command(monkeypatch, explain.main, *given, "out=explained") == 0
    with open(
        tmp_path / "explained" / "predictions.csv", encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(report["class_names"])
    assert command(monkeypatch, explain.main, *given[:2], "target=output 5", "out=fifth") == 0


@pytest.mark.slow
def test_an_evaluation_scores_with_the_runs_own_tolerance(run_dir, tmp_path, monkeypatch):
    shutil.copytree(run_dir, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    found = []
    for k, tolerance in enumerate((2, 64, -1, "64", None)):
        config["callbacks"]["scores"]["tolerance"] = tolerance
        write_config(tmp_path / "run", yaml.safe_dump(config), "0")
        assert command(monkeypatch, evaluate.main, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / str(k)}") == 0
        report = json.loads((tmp_path / str(k) / "evaluation.json").read_text())
        found.append(report["metrics"]["pointing_game_random"])
    assert found[0] < 1
    assert found == [found[0], 1.0, *found[:1] * 3], "a value that no run has counts as the default"


@pytest.mark.slow
def test_a_swin_is_trained_and_its_heatmaps_are_those_of_auto(tmp_path, monkeypatch):
    sizes = ["data.train_size=20", "data.val_size=10", "data.test_size=10", "data.batch_size=10", "data.image_size=64"]
    settings = ["data=shapes", *sizes, "arch=classifier", "arch.backbone=swin_t", "arch.weights=null", "logger=csv"]
    settings += ["trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks.heatmaps.per_class=1", "mode=finetune"]
    folder = tmp_path / "run"
    assert command(monkeypatch, train.main, *settings, f"hydra.run.dir={folder}") == 0
    kept = read_maps(folder / "heatmaps" / "epoch_0001" / "maps.npz")
    assert list(kept.maps) == ["layer_cam_all"]
    assert all(maps.shape[-2:] == (16, 16) and maps.any() for maps in kept.maps["layer_cam_all"]), "not the finest grid"
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photos" / "red.png")
    explained = [f"images={tmp_path / 'photos'}", f"checkpoint={folder}", "device=cpu", f"out={tmp_path / 'out'}"]
    assert command(monkeypatch, explain.main, *explained) == 0
    made = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert made["layers"]["layer_cam_all"][0].startswith("backbone.features.0.0 to backbone.")
