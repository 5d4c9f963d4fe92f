"""What W&B and TensorBoard get from a run, read back from the files that the run wrote."""

import importlib
import json
import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from conftest import Coloured
from test_entries import TINY, command
from test_training import classifier, trainer
from viewer_runs import make_run

from camlab import train
from camlab.errors import UserError
from camlab.evaluation.run_result import _page_within
from camlab.runs import run_folder
from camlab.tracking.aim_logger import AimLogger
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.tracking.mlflow_logger import MLFlowLogger
from camlab.tracking.panels import CURVES
from camlab.tracking.pictures import log_pictures
from camlab.tracking.results import log_page
from camlab.tracking.tensorboard_logger import TensorBoardLogger
from camlab.tracking.wandb_logger import WandbLogger
from camlab.tracking.wandb_segments import how_to_sync, run_id, segments, unsynced_before
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.viewer.html import write_into


def records(run_dir: Path) -> list[dict[str, Any]]:
    """Records of an offline run, read by W&B's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run_dir)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def offline_runs(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_offline_run_read_back(tmp_path):
    logger = WandbLogger(save_dir=str(tmp_path), project="looking", name="a run", tags=["alexnet", "frozen"], group="g")
    run = trainer(tmp_path, max_epochs=2, logger=logger, callbacks=[HeatmapLogger()])
    logger.log_hyperparams({"optimizer": {"lr": 1e-3}, "git_commit": "abc"})
    run.fit(classifier(), datamodule=Coloured())
    logger.finish()
    (folder,) = offline_runs(tmp_path)
    found = records(folder)

    about = next(r["run"] for r in found if r["type"] == "run")
    assert (about["project"], about["display_name"], about["run_group"]) == ("looking", "a run", "g")
    assert about["tags"] == ["alexnet", "frozen"]
    config = {k: v for r in found if r["type"] == "config" for k, v in r["config"]["update"].items()}
    assert config["git_commit"] == "abc"
    assert config["optimizer"] == {"lr": 1e-3}

    metrics = [r["metric"] for r in found if r["type"] == "metric"]
    step_of = {m.get("glob_name") or m["name"]: m.get("step_metric") for m in metrics}
    assert step_of["heatmaps/*"] == "epoch"
    assert step_of["*"] == "trainer/global_step"

    history = [r["history"]["item"] for r in found if r["type"] == "history"]
    drawn = [item for item in history if any(key.startswith("heatmaps/probe") for key in item)]
    assert [item["epoch"] for item in drawn] == [0, 1, 2], "one record for each epoch, and one before training"
    captions = [item["heatmaps/probe.captions"] for item in drawn]
    assert all(len(c) == 8 for c in captions)
    subjects = [[caption.split(",")[0] for caption in c] for c in captions]
    assert subjects[0] == subjects[1] == subjects[2], "the pictures must be the same in every epoch"
    assert all("predicted class" in caption and caption.endswith("%)") for c in captions for caption in c)
    assert len(list(folder.glob("files/media/images/heatmaps/*.jpg"))) >= 8
    curves = [item for item in history if "val/acc" in item]
    assert [item["epoch"] for item in curves] == [1, 2]
    best = [max(item["val/acc"] for item in curves[: k + 1]) for k in range(2)]
    assert [item["val/best_acc"] for item in curves] == best


def test_without_a_key_it_is_offline_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    logger = WandbLogger(save_dir=str(tmp_path))
    logger.log_metrics({"x": 1.0}, step=0)
    logger.finish()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("W&B")]
    assert lines == [
        "W&B: offline (no API key).",
        f"W&B: offline (no API key). To sync: wandb sync {shlex.quote(str(offline_runs(tmp_path)[0]))}",
    ]


def test_a_failing_tracker_never_stops_a_run(tmp_path, caplog):
    (tmp_path / "wandb").write_text("a file where a folder should be")
    logger = WandbLogger(save_dir=str(tmp_path), dir=None)
    logger._wandb_init["entity"] = object()  # wandb.init raises on it
    run = trainer(tmp_path, logger=logger, callbacks=[HeatmapLogger()])
    run.fit(classifier(), datamodule=Coloured())
    logger.finish()
    assert run.state.finished
    assert "Going on without it" in caplog.text


def test_tensorboard_gets_the_pictures(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(str(tmp_path), name="tensorboard", version="")
    pictures = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    for epoch in (0, 1):
        log_pictures(logger, "heatmaps/probe", pictures, ["a", "b"], epoch)
    logger.finalize("success")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["heatmaps/probe/00", "heatmaps/probe/01"]
    assert [image.step for image in events.Images("heatmaps/probe/01")] == [0, 1]


QUICK = [*TINY, "callbacks.heatmaps=null", "data.train_size=40", "mode=frozen"]


@pytest.mark.parametrize("log_checkpoint", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_finished_run_in_wandb(tmp_path, monkeypatch, log_checkpoint):
    folder = tmp_path / "run"
    plan = [*QUICK, f"logger.wandb.log_checkpoint={str(log_checkpoint).lower()}", f"hydra.run.dir={folder}"]
    assert command(monkeypatch, train.main, *plan, f"paths.cache={tmp_path}") == 0
    result = json.loads((folder / run_folder.RESULT).read_text())
    (offline,) = offline_runs(folder)
    found = records(offline)
    summary: dict[str, Any] = {}
    for record in found:
        if record["type"] == "summary":
            summary.update(record["summary"].get("update", {}))
    per_class = {k.removeprefix("test/acc/"): v for k, v in summary.items() if k.startswith("test/acc/")}
    assert per_class == result["per_class"]
    assert len(per_class) == 10
    history = [r["history"]["item"] for r in found if r["type"] == "history"]
    assert [item["val/best_acc"] for item in history if "val/acc" in item][-1] == result["metrics"]["val/best_acc"]
    (table,) = offline.glob("files/media/table/test/confusion_matrix*.json")
    rows = json.loads(table.read_text())["data"]
    assert sum(count for _, _, count in rows) == 20
    right = sum(count for true, predicted, count in rows if true == predicted)
    assert right / 20 == pytest.approx(result["metrics"]["test/acc"])
    models = [r["artifact"] for r in found if r["type"] == "artifact" and r["artifact"]["type"] == "model"]
    assert len(models) == log_checkpoint
    if log_checkpoint:
        (entry,) = models[0]["manifest"]["contents"]
        assert Path(entry["local_path"]).samefile(folder / run_folder.BEST)
        assert set(models[0]["aliases"]) == {"best", "latest"}  # W&B adds the latter


def test_a_checkpoint_that_cannot_be_uploaded_does_not_stop_a_run(tmp_path, caplog):
    logger = WandbLogger(save_dir=str(tmp_path), log_checkpoint=True)
    logger.log_checkpoint(tmp_path / "nowhere.ckpt")
    assert "Going on without it" in caplog.text
    logger.finish()


@pytest.mark.parametrize("viewer", [True, False])
def test_the_page_of_heatmaps_in_wandb(tmp_path, viewer):
    logger = WandbLogger(save_dir=str(tmp_path), viewer=viewer)
    asked = []

    def make(megabytes: float) -> str:
        asked.append(megabytes)
        return "<!doctype html><title>heat</title>"

    log_page([MetricsCsv(tmp_path), logger], make, 7)
    logger.finish()
    assert asked == [16.0] * viewer
    pages = list(tmp_path.glob("wandb/offline-run-*/files/media/html/heatmaps/viewer*.html"))
    assert [page.read_text() for page in pages] == ["<!doctype html><title>heat</title>"] * viewer, "nothing is added"


def test_a_page_for_trackers_is_limited(tmp_path, caplog):
    caplog.set_level("INFO")
    make_run(tmp_path / "run", epochs=tuple(range(40)), pictures=2, grid=(16, 16), masks=False)
    page = write_into(tmp_path / "run")
    assert _page_within(page, 16) == page.read_text()
    size = page.stat().st_size / 1e6
    assert len(_page_within(page, size * 0.75)) < 0.75e6 * size
    assert f"MB with fewer epochs; here it has {size:.1f} MB." in caplog.text
    assert _page_within(page, 0.1) is None
    assert "The trackers get no page of heatmaps: The page would be too large." in caplog.text


def test_tensorboard_has_a_layout_of_the_curves(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.custom_scalar import layout_pb2

    logger = TensorBoardLogger(str(tmp_path), name="tensorboard", version="")
    for epoch in (1, 2):
        logger.log_metrics({"val/acc": 0.5, "epoch": epoch})
    logger.finalize("success")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (layout,) = events.Tensors("custom_scalars__config__")
    read = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0])
    assert [category.title for category in read.category] == ["Curves", "Scores"]
    assert [chart.title for chart in read.category[0].chart] == list(CURVES)
    (accuracy, *_) = read.category[0].chart
    assert [bool(re.search(tag, "val/acc")) for tag in accuracy.multiline.tag] == [True, False]


@pytest.mark.slow  # MLflow is imported and makes its tables
@pytest.mark.filterwarnings("ignore")  # of MLflow's own calls of SQLAlchemy
def test_mlflow_by_epochs_with_pictures(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install mlflow-skinny sqlalchemy)")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = MLFlowLogger(str(tmp_path / "run"), str(tmp_path / "all"), run_name="a run")
    logger.log_hyperparams({"optimizer": {"lr": 0.1}, "name": "a\nb"})
    for epoch in (1, 2):
        logger.log_metrics({"val/acc": epoch / 4, "epoch": epoch}, step=100 * epoch)
        log_pictures(logger, "heatmaps/probe", [np.zeros((8, 8, 3), np.uint8)], ["a"], epoch)
    logger.finalize("success")
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path}/all/mlflow.db")
    run = client.get_run(logger.run_id)
    assert run.data.params["optimizer/lr"] == "0.1"
    assert [(one.step, one.value) for one in client.get_metric_history(logger.run_id, "val/acc")] == [
        (1, 0.25),
        (2, 0.5),
    ]
    pictures = list((tmp_path / "all" / "mlartifacts").rglob("*.png"))
    assert len(pictures) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # Aim is imported and makes its store
@pytest.mark.filterwarnings("ignore")  # of Aim's own dependencies
def test_aim_by_epochs_with_pictures(tmp_path):
    aim = pytest.importorskip("aim", reason="aim is not installed (pip install aim)")
    logger = AimLogger(str(tmp_path / "run"), str(tmp_path / "all"), run_name="a run")
    assert not list(tmp_path.iterdir()), "building a logger writes nothing"
    logger.log_hyperparams({"optimizer": {"lr": 0.1}, "name": "a\nb"})
    for epoch in (1, 2):
        logger.log_metrics({"val/acc": epoch / 4, "epoch": epoch}, step=100 * epoch)
        log_pictures(logger, "heatmaps/probe", [np.zeros((8, 8, 3), np.uint8)], ["a"], epoch)
    found = logger.version
    logger.finalize("success")
    logger.finish()
    context = importlib.import_module("aim.storage.context").Context
    run = aim.Run(found, repo=str(tmp_path / "all"))  # a reader sees it only after Aim's server has indexed it
    assert run.name == "a run"
    assert run["hparams"] == {"optimizer": {"lr": 0.1}, "name": "a\\nb"}
    steps, (values, epochs, _) = run.get_metric("acc", context({"subset": "val"})).data.numpy()
    assert (steps.tolist(), values.tolist(), epochs.tolist()) == ([1, 2], [0.25, 0.5], [1, 2])
    steps, (images, _, _) = run.get_image_sequence("heatmaps/probe", context({})).data.numpy()
    assert steps.tolist() == [1, 2]
    assert [one.caption for one in images[0]] == ["a"]
    assert not (tmp_path / "run").exists()


def test_a_logger_that_is_not_installed_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "aim.pytorch_lightning", None)
    with pytest.raises(UserError, match=r"^logger=aim: not installed\. Run: pip install aim\.$"):
        AimLogger(str(tmp_path), str(tmp_path))


def test_tensorboard_by_epochs_and_the_result_beside_the_settings(tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "run"
    plan = [*QUICK, "logger=tensorboard", f"hydra.run.dir={folder}", f"paths.cache={tmp_path}"]
    assert command(monkeypatch, train.main, *plan) == 0
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert "hp_metric" not in tags
    for key in ("train/loss", "val/acc", "val/best_acc"):
        assert [scalar.step for scalar in events.Scalars(key)][:2] == [1, 2], key
        assert {scalar.step for scalar in events.Scalars(key)} == {1, 2}, "no point at another epoch"
    assert "epoch" not in tags
    assert any("hparams" in name for name in events.summary_metadata), "the HPARAMS tab must have something to show"
    result = json.loads((folder / run_folder.RESULT).read_text())["metrics"]
    assert events.Scalars("test/acc")[-1].value == pytest.approx(result["test/acc"])


def test_names_in_a_foreign_run_folder_reach_no_shell_and_no_id(tmp_path):
    """The command for syncing can be pasted into a shell."""
    for name in (
        "offline-run-20260131_120000-x$(touch ran)",
        "offline-run-1-x;reboot",
        "run-x",
        "offline-run-20260131_120000-ab120000",
    ):
        (tmp_path / "wandb" / name).mkdir(parents=True)
        (tmp_path / "wandb" / name / "run-ab120000.wandb").write_bytes(bytes(100))
    found = segments(tmp_path)
    assert [path.name for path in found] == ["offline-run-20260131_120000-ab120000"]
    assert run_id(found) == "ab120000"
    later = tmp_path / "wandb" / "offline-run-20260201_120000-ab120000"
    assert unsynced_before(later) == found
    command = how_to_sync([tmp_path / "$(touch ran) `it's`" / later.name])
    assert shlex.split(command)[2:] == [str(tmp_path / "$(touch ran) `it's`" / later.name)]


@pytest.mark.parametrize("planted", ["ab120001", "my-best-run", "AB120000", "1" * 60])
def test_a_renamed_or_planted_folder_gives_no_id(tmp_path, planted):
    names = {"20260130_120000": "ab120000", "20260131_120000": planted}
    own, theirs = (tmp_path / f"offline-run-{time}-{name}" for time, name in names.items())
    for folder in (own, theirs):
        folder.mkdir()
        (folder / "run-ab120000.wandb").touch()
    assert run_id([own, theirs]) == "ab120000"
    assert re.fullmatch("[0-9a-f]{8}", run_id([theirs]))
    assert run_id([theirs]) != planted
    if planted == "my-best-run":
        (theirs / f"run-{planted}.wandb").touch()
        assert run_id([own, theirs]) == "ab120000"
    (tmp_path / "link-1-ab120000").symlink_to(own)
    assert run_id([tmp_path / "link-1-ab120000"]) != "ab120000"


def test_metrics_are_not_appended_through_a_link(tmp_path):
    csv = MetricsCsv(tmp_path)
    csv.log_metrics({"a": 1.0}, 0)
    (tmp_path / "precious").write_text("precious")
    csv.path.unlink()
    csv.path.symlink_to(tmp_path / "precious")
    for step in (1, 2):
        csv.log_metrics({"a": 1.0}, step)
    assert (tmp_path / "precious").read_text() == "precious"
    assert len(csv.path.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_MODE", "bogus", "WANDB_MODE=bogus: unknown value. Choose from online, offline, disabled"),
        ("WANDB_MODE", "", "WANDB_MODE=: unknown value."),
        ("WANDB_BASE_URL", "nowhere", "WANDB_BASE_URL=nowhere: must be an address such as https://api.wandb.ai."),
        ("WANDB_BASE_URL", "http://[bad", "WANDB_BASE_URL=http://[bad: must be an address"),
        ("WANDB_BASE_URL", "https://host:99999", "WANDB_BASE_URL=https://host:99999: must be an address"),
    ],
)
def test_a_wrong_environment_is_refused_before_training(tmp_path, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        WandbLogger(save_dir=str(tmp_path))


@pytest.mark.parametrize("mode", ["dryrun", "run"])
def test_old_names_of_modes_lead_to_a_line_on_how_to_sync(tmp_path, monkeypatch, caplog, mode):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("WANDB_MODE", mode)
    logger = WandbLogger(save_dir=str(tmp_path))
    logger.log_metrics({"x": 1.0}, 1)
    logger.finish()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("camlab")]
    assert f"To sync: wandb sync {tmp_path}" in said[-1]
    assert len(said) == 2


def test_a_start_that_fails_is_reported_once(tmp_path, monkeypatch, caplog):
    wandb.teardown()  # its settings are read once in a process
    monkeypatch.setenv("WANDB_SILENT", "bogus")
    logger = WandbLogger(save_dir=str(tmp_path))
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"x": 1.0}, 1)
    logger.finish()
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("camlab")]
    assert "Going on without it; the metrics are in metrics.csv." in line


def test_settings_that_are_not_utf_8_reach_the_trackers(tmp_path, caplog):
    settings = {"data": {"root": "caf\udce9", "mean": [0.5, "\udce9"]}}
    boards = [WandbLogger(save_dir=str(tmp_path), mode="offline"), TensorBoardLogger(str(tmp_path))]
    for board in boards:
        board.log_hyperparams(settings)
    boards[0].finish()
    boards[1].log_result({"test/acc": 0.5})
    assert "Going on without it" not in caplog.text
    (run,) = offline_runs(tmp_path)
    config = {k: v for r in records(run) if r["type"] == "config" for k, v in r["config"]["update"].items()}
    assert config["data"]["root"] == r"caf\udce9"
