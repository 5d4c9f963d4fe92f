"""The best epoch can be chosen by a score of the heatmaps: by its value, also after a resume, and only if it is known."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Coloured
from test_belonging import camlab, metrics, read_result  # noqa: F401
from test_training import classifier, trainer

from camlab.errors import UserError
from camlab.evaluation.objective import check_choice
from camlab.evaluation.run_result import describe_result
from camlab.models.cam_net import CamNet
from camlab.runs.watchers import ACCURACY, CHOOSING, HEAT, HEAT_SCORES, LOSS, MAP, OF_CLASSES, SCORING
from camlab.scores import SCORES
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.training.callbacks.checkpoints import BestCheckpoint, checkpoints
from camlab.training.callbacks.pointing_game import tell_small_maps
from camlab.training.callbacks.score_logger import ScoreLogger
from camlab.training.run import Run

BY = "val/heat/auroc"


def rows_of(file: Path, name: str) -> dict[float, float]:
    with open(file, newline="") as table:
        return {float(row["epoch"]): float(row[name]) for row in csv.DictReader(table) if row.get(name)}


def test_metrics_that_may_choose_have_a_good_end():
    better = {f"{HEAT}{name}" for name in HEAT_SCORES if SCORES[name].higher_is_better}
    assert set(CHOOSING) == {ACCURACY, LOSS, MAP, *OF_CLASSES, *better}


@pytest.mark.parametrize("by", ["val/heat/effective_area", BY])
def test_the_best_epoch_is_the_one_with_the_best_score(tmp_path, by):
    rows, callback = MetricsCsv(tmp_path), ScoreLogger(num_images=12, srg_images=1, scores=[by.removeprefix(HEAT)])
    saving = checkpoints(Run(tmp_path), True, by=by)
    run = trainer(tmp_path, max_epochs=4, logger=rows, callbacks=[callback, *saving])
    module = classifier("alexnet", keep_last_pool=False, lr=3e-3)
    data = Coloured(n_train=32, n_test=8, masks=True)
    run.fit(module, datamodule=data)
    found = rows_of(tmp_path / "metrics.csv", by)
    del found[0.0]  # before training there is nothing to save
    best = max(found, key=lambda epoch: found[epoch])
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["epoch"] + 1 == best
    (own,) = (one for one in run.checkpoint_callbacks if isinstance(one, BestCheckpoint))
    assert own.best_value == pytest.approx(found[best], abs=1e-6)
    assert Run(tmp_path).own_best(by, own.best_value) is None, "another run's"
    assert Run(tmp_path, id=saved["camlab_run"]["id"]).own_best(by, own.best_value) is not None
    assert Run(tmp_path, id=saved["camlab_run"]["id"]).own_best(by, own.best_value + 1) is None
    result = describe_result(run, data, {}, None)
    assert (result["checkpoint_by"], result["heat_falls"]) == (by, [])


def test_a_score_that_is_not_measured_chooses_nothing(tmp_path, caplog):
    callback = ScoreLogger(num_images=4, srg_images=1, scores=["effective_area"])
    run = trainer(tmp_path, max_epochs=2, callbacks=[callback, *checkpoints(Run(tmp_path), True, by=BY)])
    run.fit(classifier(), datamodule=Coloured(n_train=32, n_test=8))
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert caplog.text.count("val/heat/auroc has not been measured") == 1


def settings(**changes):
    scoring = {"_target_": SCORING["scores"], "scores": None}
    arch = {"_target_": "camlab.models.cam_net.CamNet", "frozen": False}
    found = {"checkpoint_by": BY, "cache": True, "trainer": {"max_epochs": 3}, "callbacks": {"scores": scoring}}
    return {**found, "arch": arch, **changes}


def test_what_can_be_measured_may_choose():
    check_choice(settings(), True, True)
    check_choice(settings(checkpoint_by=ACCURACY, callbacks=None), False, False)
    check_choice(settings(checkpoint_by="val/heat/srg"), True, False)
    check_choice(settings(checkpoint_by="val/f1", callbacks=None), True, False)
    check_choice(settings(callbacks={"scores": {"_target_": "my.Scores"}}), True, False)
    stopping = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "train/loss"}
    check_choice(settings(checkpoint_by=ACCURACY, callbacks={"stop": stopping}), False, False)


FROZEN = {"_target_": "camlab.models.cam_net.CamNet", "frozen": True}


@pytest.mark.parametrize(
    ("changes", "has_val", "has_masks", "reason"),
    [
        ({}, False, True, "no images are validated"),
        ({"checkpoint_by": "val/map"}, True, True, "each picture has one label"),
        ({"checkpoint_by": "val/f1"}, False, True, "no images are validated"),
        ({"trainer": {"max_epochs": 3, "limit_val_batches": 0}}, True, True, "no images are validated"),
        ({}, True, False, "the data have no masks"),
        ({"callbacks": {"scores": None}}, True, True, "callbacks.scores=null measures no score"),
        ({"callbacks": None}, True, True, "callbacks.scores=null measures no score"),
        (
            {"callbacks": {"scores": {"_target_": SCORING["scores"], "scores": ["srg"]}}},
            True, True, "not among callbacks.scores.scores",
        ),
        ({"checkpoint_by": "val/heat/srg", "arch": FROZEN}, True, True, "only before and after training"),
        ({"arch": {**FROZEN, "_target_": "x.ClassifierNet"}}, True, True, "of this network are scored before and after"),
        (
            {"checkpoint_by": ACCURACY, "callbacks": {"stop": {"_target_": "x.EarlyStopping", "monitor": "val/loss"}}},
            False, True, r"callbacks\.stop: no images are validated, so there is no val/loss\. Give callbacks\.stop=null",
        ),
    ],
)  # fmt: skip
def test_what_would_not_be_measured_may_not_choose(changes, has_val, has_masks, reason):
    with pytest.raises(UserError, match=reason):
        check_choice(settings(**changes), has_val, has_masks)


def test_maps_that_are_too_coarse_to_be_scored_may_not_choose():
    network = CamNet("alexnet", weights=None)
    with pytest.raises(UserError, match="checkpoint_by=val/heat/auroc: Maps are 1×1, too coarse"):
        tell_small_maps(network, 64, BY)
    tell_small_maps(network, 128, BY)
    tell_small_maps(network, 64, ACCURACY)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_epoch_with_the_best_score(tmp_path, camlab):  # noqa: F811
    given = [f"checkpoint_by={BY}", "optimizer.lr=0.01", "data.image_size=80", "arch.keep_last_pool=false"]
    assert camlab("whole", *given, "trainer.max_epochs=4")[0] == 0
    found = rows_of(tmp_path / "whole" / "metrics.csv", BY)
    best = max((1.0, 2.0, 3.0, 4.0), key=lambda epoch: found[epoch])
    saved = torch.load(tmp_path / "whole" / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["epoch"] + 1 == best
    code, said = camlab("part", *given, "trainer.max_epochs=2")
    assert code == 0
    assert re.search(rf"best checkpoint: epoch \d of 2 by {BY}\)", said)
    shutil.copytree(tmp_path / "part", tmp_path / "rest")
    (tmp_path / "rest" / "result.json").unlink()
    code, said = camlab("rest", *given, "trainer.max_epochs=4", f"resume={tmp_path / 'part'}", "force=true")
    assert code == 0
    assert metrics(tmp_path / "rest") == metrics(tmp_path / "whole")
    assert read_result(tmp_path / "rest")["tested_checkpoint"] == "best"
    assert json.loads((tmp_path / "rest" / "result.json").read_text())["checkpoint_by"] == BY
    code, said = camlab("other", "checkpoint_by=val/heat/srg")  # frozen, without a cache
    assert code == 0
    code, said = camlab("wrong", "checkpoint_by=val/heat/drift")
    assert code == 2
    assert "so no epoch is the best. Choose from val/acc, " in said
