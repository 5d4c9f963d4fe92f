"""Scores of heatmaps during training: they are those of the library, change nothing, and are the same after a resume."""

import copy
import csv
import logging
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from conftest import Coloured
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger
from test_any_trainer import Module, convolutions
from test_training import classifier, trainer, weights
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import camlab
from camlab import scores
from camlab.data.shapes import Shapes
from camlab.errors import UserError
from camlab.models.classifier_net import ClassifierNet
from camlab.runs.watchers import HEAT, HEAT_SCORES
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.training.callbacks.feature_cache import FeatureCache
from camlab.training.callbacks.heatmap_scores import HeatmapScores
from camlab.training.callbacks.score_logger import ScoreLogger
from camlab.training.heat_falls import Measured, fall_of, falls_from
from camlab.training.heat_history import HeatHistory
from camlab.training.heat_images import with_classes
from camlab.training.heat_values import HeatValues, ScoredSet
from camlab.training.scoring_time import ScoringTime

FEW = {"num_images": 12, "srg_images": 2}
N, SIDE = 12, 16


def coloured(**options: Any) -> Coloured:
    return Coloured(**{"n_train": 32, "n_test": 8, "image_size": 64, "masks": True, **options})


def own_run(folder: Path, callback: L.Callback | None, mode: str = "finetune", **options: Any):
    """Train one of camlab's own networks; returns the module and the rows of `metrics.csv`."""
    folder.mkdir(exist_ok=True)
    rows = MetricsCsv(folder)
    data = options.pop("data", None) or coloured()
    module = options.pop("module", None) or classifier("alexnet", mode, keep_last_pool=False)
    callbacks = [*([] if callback is None else [callback]), *options.pop("more", [])]
    run = trainer(
        folder, **{"max_epochs": 2, "logger": rows, "callbacks": callbacks, "enable_checkpointing": False, **options}
    )
    run.fit(module, datamodule=data)
    return module, rows.rows, run


def heat(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The scores in rows that have any, with the epoch, without chance levels."""
    found = [{k: v for k, v in row.items() if k.startswith(HEAT) or k == "epoch"} for row in rows]
    return [
        {k.removeprefix(HEAT): v for k, v in row.items() if not k.endswith("_chance")} for row in found if len(row) > 1
    ]


def images_labels_masks(n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images, masks = torch.randn(n, 3, SIDE, SIDE, generator=generator), torch.zeros(n, SIDE, SIDE, dtype=torch.bool)
    masks[:, 2:9, 4:12] = True
    return images, torch.arange(n) % 4, masks


def others_run(folder: Path, *callbacks: L.Callback, loader: Any = None, net: Any = None, **options: Any):
    """Train a module that knows nothing of camlab; returns it and the rows of Lightning's CSVLogger."""
    torch.manual_seed(0)
    module = Module(convolutions() if net is None else net)
    images, labels, _ = images_labels_masks()
    loader = loader or DataLoader(TensorDataset(images, labels), batch_size=4)
    logger = CSVLogger(str(folder), name="", version="")
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    run = L.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "logger": logger, "default_root_dir": str(folder), **quiet, **options},
        callbacks=list(callbacks), log_every_n_steps=1,
    )  # fmt: skip
    run.fit(module, loader, loader)
    logger.log_metrics({}, 0)  # so that there is a file
    logger.save()
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return module, rows, run


# ---- camlab's own runs


def test_the_figures_are_those_of_the_library(tmp_path):
    data = coloured()
    module, rows, _ = own_run(tmp_path, ScoreLogger(**FEW), data=data)
    found = heat(rows)
    assert [row["epoch"] for row in found] == [0, 1, 2], "before training and after each epoch"
    assert set(found[0]) == {*HEAT_SCORES, "epoch"} - {"drift"}
    assert set(found[2]) == {*HEAT_SCORES, "epoch"}
    val = data.splits["val"]  # 16 images, 12 of which are scored: those of srg, then the others in their order
    spread = [i for i in ((2 * k + 1) * 16 // 24 for k in range(12)) if i not in (4, 12)]
    some = val.subset(torch.tensor([4, 12, *spread][:12]))
    network, inputs = module.network.eval(), data.preprocess(some.images)
    explanation = camlab.Explainer(network).explain(inputs, ("cam", "grad_cam"), some.labels[:, None])
    own = explanation.maps["cam"][0][:, 0]
    last = found[2]
    assert last["auroc"] == pytest.approx(float(scores.auroc(own, some.masks).mean()), abs=1e-6)
    assert last["energy_gain"] == pytest.approx(float(scores.energy_gain(own, some.masks).mean()), abs=1e-6)
    assert last["pointing_game"] == pytest.approx(float(scores.pointing_game(own, some.masks).mean()), abs=1e-6)
    best = explanation.logits.argmax(dim=1)
    predicted = camlab.Explainer(network).explain(inputs, ("cam", "grad_cam"), best[:, None])
    of_best = predicted.maps["cam"][0][:, 0]
    every, bias = explanation.cam_of_all_classes, network.fc.bias
    assert last["feature_srg"] == pytest.approx(
        float(scores.feature_srg(every, bias, of_best, best).mean()), abs=1e-5
    ), "the bias is found from the logits"
    assert last["agreement"] == pytest.approx(
        float(scores.agreement(of_best, predicted.maps["grad_cam"][0][:, 0]).mean()), abs=1e-5
    )
    assert last["srg"] == pytest.approx(float(scores.srg(network, inputs[:2], of_best[:2]).mean()), abs=1e-6)
    flips = scores.flip_consistency(network, inputs, "cam", some.labels)["cam"]
    assert last["flip_consistency"] == pytest.approx(float(flips.nanmean()), abs=1e-5)


def test_chance_levels_are_logged_once(tmp_path):
    _, rows, _ = own_run(tmp_path, ScoreLogger(**FEW))
    chances = {k: v for row in rows for k, v in row.items() if k.endswith("_chance")}
    told = [k for row in rows for k in row if k.endswith("_chance")]
    assert len(told) == len(set(told)) == len(HEAT_SCORES) - 1, "effective_area has none"
    assert chances["val/heat/auroc_chance"] == 0.5
    assert chances["val/heat/pointing_game_chance"] == pytest.approx(144 / 1024), "the mask grown by 2 pixels"


@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_a_run_with_scores_ends_in_the_same_bits(tmp_path, mode):
    results = []
    for name, callback in (("bare", None), ("scored", ScoreLogger(**FEW))):
        cache = [FeatureCache(str(tmp_path / "cache"))] if mode == "frozen" else []
        module, rows, _ = own_run(tmp_path / name, callback, mode, more=cache, max_epochs=2)
        results.append((weights(module), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()))
    (bare, *rng), (scored, *rng_scored) = results
    assert heat(rows)
    assert all(torch.equal(bare[name], scored[name]) for name in bare)
    assert torch.equal(rng[0], rng_scored[0])
    assert rng[1:] == rng_scored[1:]


@pytest.mark.slow
def test_cached_features_score_without_passes_of_the_backbone(tmp_path):
    module = classifier("alexnet", "frozen", keep_last_pool=False)
    passes: list[int] = []
    seen: list[tuple[int, int]] = []

    class Watch(L.Callback):
        def on_train_epoch_end(self, run: L.Trainer, pl_module: L.LightningModule) -> None:
            seen.append((run.current_epoch + 1, sum(passes)))

    module.network.backbone.register_forward_hook(lambda _, inputs, output: passes.append(len(output)))
    more = [FeatureCache(str(tmp_path / "cache")), Watch()]
    _, rows, _ = own_run(tmp_path / "kept", ScoreLogger(**FEW), module=module, more=more, max_epochs=4)
    found = heat(rows)
    counts = dict(seen)
    assert counts[1] == counts[2] == counts[3], "no pass after the first"
    assert counts[4] > counts[3], "srg, at the end"
    assert ["srg" in row for row in found] == [True, False, False, False, True]
    assert all({"auroc", "agreement", "flip_consistency"} <= set(row) for row in found)
    plain = classifier("alexnet", "frozen", keep_last_pool=False)
    _, passed, _ = own_run(tmp_path / "passed", ScoreLogger(**FEW), module=plain, max_epochs=4)
    for kept, bare in zip(found, heat(passed), strict=True):
        for name in kept:  # training itself differs by rounding
            assert kept[name] == pytest.approx(bare[name], abs=0.02), name


@pytest.mark.slow
def test_a_frozen_network_without_a_cam_is_scored_before_and_after(tmp_path):
    module = classifier("mobilenet_v2", "frozen", kind=ClassifierNet, image_size=96)
    cache = [FeatureCache(str(tmp_path / "cache"))]
    names = ["auroc", "effective_area"]
    options = {"module": module, "more": cache, "max_epochs": 3, "data": coloured(image_size=96)}
    _, rows, _ = own_run(tmp_path, ScoreLogger(**FEW, scores=names), **options)
    assert [row["epoch"] for row in heat(rows)] == [0, 3]


def test_the_last_epoch_is_scored_also_after_early_stopping(tmp_path):
    class Stop(L.Callback):
        def on_train_epoch_end(self, run: L.Trainer, pl_module: L.LightningModule) -> None:
            run.should_stop = run.current_epoch == 2

    _, rows, _ = own_run(tmp_path, ScoreLogger(**FEW, every_n_epochs=2), more=[Stop()], max_epochs=9)
    assert [row["epoch"] for row in heat(rows)] == [0, 2, 3]


@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_the_scores_after_early_stopping_are_in_the_checkpoint_and_each_is_logged_once(tmp_path, mode):
    class Stop(L.Callback):
        def on_validation_end(self, run: L.Trainer, pl_module: L.LightningModule) -> None:
            run.should_stop = run.current_epoch == 2

    saved = []

    class Save(Checkpoint):
        def on_train_epoch_end(self, run: L.Trainer, pl_module: L.LightningModule) -> None:
            saved.append(heat(run.logger.rows))

    cache = [FeatureCache(str(tmp_path / "cache"))] if mode == "frozen" else []
    more = [*cache, Stop(), Save()]
    every = 1 if mode == "frozen" else 2
    _, rows, _ = own_run(
        tmp_path, ScoreLogger(**FEW, every_n_epochs=every), mode, more=more, max_epochs=9, enable_checkpointing=True
    )
    last = [row for row in heat(rows) if row["epoch"] == 3]
    names = [name for row in last for name in row if name != "epoch"]
    assert "srg" in names
    assert "drift" in names
    assert len(names) == len(set(names)), "each score of the last step is logged once"
    assert saved[-1] == heat(rows), "a run that ends after its last checkpoint has lost nothing"


def test_without_masks_or_validation(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    _, rows, _ = own_run(tmp_path / "a", ScoreLogger(**FEW), data=coloured(masks=False), max_epochs=1)
    assert set(heat(rows)[-1]) == {*HEAT_SCORES, "epoch"} - {"auroc", "energy_gain", "pointing_game"}
    assert "auroc, energy_gain, pointing_game (there are no masks)" in caplog.text
    data = coloured(val_size=0)
    _, rows, _ = own_run(tmp_path / "b", ScoreLogger(**FEW), data=data, max_epochs=1, limit_val_batches=0)
    assert not heat(rows)
    assert "no images are validated" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["finetune", "frozen"])
def test_a_resumed_run_logs_the_same_numbers(tmp_path, mode):
    def run(folder: Path, epochs: int, **options: Any) -> tuple[list[dict[str, float]], L.Trainer]:
        cache = [FeatureCache(str(tmp_path / "cache"))] if mode == "frozen" else []
        _, rows, run = own_run(folder, ScoreLogger(**FEW), mode, more=cache, max_epochs=epochs, **options)
        return rows, run

    whole, _ = run(tmp_path / "whole", 4)
    _, first = run(tmp_path / "first", 2)
    first.save_checkpoint(tmp_path / "two.ckpt")
    module = classifier("alexnet", mode, keep_last_pool=False)
    rows = MetricsCsv(tmp_path / "first")
    cache = [FeatureCache(str(tmp_path / "cache"))] if mode == "frozen" else []
    rest = trainer(tmp_path / "first", max_epochs=4, logger=rows, callbacks=[ScoreLogger(**FEW), *cache])
    rest.fit(module, datamodule=coloured(), ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert heat(rows.rows) == heat(whole)[3:]
    assert not [k for row in rows.rows for k in row if k.endswith("_chance") and "srg" not in k], "told before"


# ---- others' training


def test_it_scores_in_the_trainer_of_others(tmp_path):
    images, labels, masks = images_labels_masks()
    callback = HeatmapScores(images, labels, masks, srg_images=2)
    module, rows, run = others_run(tmp_path, callback, camlab.HeatmapCallback(images, labels))
    found = heat(rows)
    assert len(found) == 3
    assert set(found[-1]) - {"epoch"} == set(HEAT_SCORES)
    own = camlab.Explainer(module.net).explain(images, ("cam",), labels[:, None]).maps["cam"][0][:, 0]
    assert found[-1]["auroc"] == pytest.approx(float(scores.auroc(own, masks).mean()), abs=1e-6)
    assert float(run.callback_metrics["val/heat/auroc"]) == pytest.approx(found[-1]["auroc"], abs=1e-6)
    assert camlab.HeatmapScores is HeatmapScores


@pytest.mark.parametrize(("labels", "count"), [([0, 1], 1), ([[1, 1, 0], [0, 0, 0]], 3)])
def test_masks_without_a_single_true_class_are_told_and_left_out(caplog, labels, count):
    caplog.set_level(logging.INFO)
    images, masks = torch.rand(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool)
    found = with_classes(ScoredSet(images, torch.tensor(labels), masks), count)
    assert (found.labels, found.masks) == (None, None)
    assert "The masks are not used for scores of heatmaps" in caplog.text


def test_scored_images_are_spread_over_the_whole_split():
    data = Shapes(600, 20, val_size=500, image_size=32)
    data.setup()
    val = data.splits["val"]

    def places(count: int) -> list[int]:
        return [(2 * i + 1) * 500 // (2 * count) for i in range(count)]

    for num_images, srg_images in ((100, 16), (10, 20)):
        chosen = ScoreLogger(num_images=num_images, srg_images=srg_images).choose(SimpleNamespace(datamodule=data))
        wanted = data.preprocess(val.subset(torch.tensor(places(max(num_images, srg_images)))).images)
        sums = [of.flatten(1).sum(dim=1).sort().values for of in (chosen.inputs, wanted)]
        torch.testing.assert_close(*sums)
        few = chosen.inputs[:srg_images].flatten(1)  # those that srg scores come first, and are spread as well
        order = [int((wanted.flatten(1) - one).abs().sum(dim=1).argmin()) for one in few]
        assert order == sorted(order)
        assert order[0] < len(wanted) / srg_images
        assert order[-1] >= len(wanted) - len(wanted) / srg_images


@pytest.mark.parametrize("several", [False, True])
def test_others_training_is_not_changed(tmp_path, several):
    images, labels, masks = images_labels_masks()
    callback = HeatmapScores(num_images=6, srg_images=2) if several else HeatmapScores(images, labels, masks)
    bare, _, _ = others_run(tmp_path / "bare")
    scored, rows, _ = others_run(tmp_path / "scored", callback)
    assert heat(rows)
    assert all(torch.equal(a, b) for a, b in zip(bare.state_dict().values(), scored.state_dict().values(), strict=True))
    assert scored.training == bare.training


def test_images_of_the_batches_are_the_same_whatever_the_sanity_check_sees(tmp_path):
    found = []
    for sanity in (0, 2):
        callback = HeatmapScores(num_images=10, srg_images=2)
        _, rows, _ = others_run(tmp_path / str(sanity), callback, num_sanity_val_steps=sanity)
        assert len(callback._session.scorer.images.inputs) == 10
        found.append(heat(rows)[-2:])
    assert [{**row, "drift": None} for row in found[0]][-1] == [{**row, "drift": None} for row in found[1]][-1]
    callback = HeatmapScores(num_images=99, srg_images=99)
    others_run(tmp_path / "all", callback)
    assert len(callback._session.scorer.images.inputs) == N, "more than there are: all of them"


def test_a_network_without_cam_is_scored_by_another_method(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(294, 4)
    )
    _, rows, _ = others_run(tmp_path, HeatmapScores(num_images=6, srg_images=2), net=net, max_epochs=1)
    assert "feature_srg, agreement (the network's maps are grad_cam, not CAM)" in caplog.text
    assert {"srg", "class_contrast", "effective_area", "flip_consistency"} <= set(heat(rows)[-1])


def test_half_precision(tmp_path):
    images, labels, masks = images_labels_masks()
    _, rows, _ = others_run(tmp_path, HeatmapScores(images, labels, masks, srg_images=2), precision="bf16-true")
    assert all(np.isfinite(value) for row in heat(rows) for value in row.values())
    assert {"auroc", "srg"} <= set(heat(rows)[-1])


def test_without_validation_given_images_are_scored(tmp_path, caplog):
    images, labels, masks = images_labels_masks()
    _, rows, _ = others_run(tmp_path / "a", HeatmapScores(images, labels, masks, srg_images=1), limit_val_batches=0)
    assert len(heat(rows)) == 3
    others_run(tmp_path / "b", HeatmapScores(), limit_val_batches=0)
    assert "No scores of heatmaps: there is no validation, whose images could be scored" in caplog.text


@pytest.mark.slow
def test_scoring_compiles_nothing(tmp_path):
    compiled: list[str] = []
    images, labels, masks = images_labels_masks()
    net = convolutions()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        compiled.append("scoring" if scoring else "training")
        return graph.forward

    scoring: list[bool] = []

    class Watched(HeatmapScores):
        def _score(self, *arguments: Any, **options: Any) -> dict[str, float]:
            scoring.append(True)
            try:
                return super()._score(*arguments, **options)
            finally:
                scoring.pop()

    net.compile(backend=backend)
    _, rows, _ = others_run(tmp_path, Watched(images, labels, masks, srg_images=3), net=net)
    assert set(compiled) == {"training"}
    assert "srg" in heat(rows)[-1]


# ---- bad input


def test_two_callbacks_that_log_the_same_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="Leave one out"):
        own_run(tmp_path, ScoreLogger(**FEW), more=[HeatmapScores()])


def test_masks_that_are_missing_or_cover_all_are_left_out(tmp_path, caplog):
    images, labels, masks = images_labels_masks()
    masks[0], masks[1] = False, True
    callback = HeatmapScores(images, labels, masks, scores=["auroc", "pointing_game"])
    _, rows, _ = others_run(tmp_path / "a", callback, max_epochs=1)
    assert callback._session.history.previous.values["auroc"].isnan().tolist()[:3] == [True, True, False]
    nothing = HeatmapScores(images, labels, torch.zeros_like(masks), scores=["auroc", "effective_area"])
    _, rows, _ = others_run(tmp_path / "b", nothing, max_epochs=1)
    assert "auroc" not in heat(rows)[-1]
    assert "effective_area" in heat(rows)[-1]
    assert "No val/heat/auroc: no image has one" in caplog.text


def test_one_image(tmp_path):
    images, labels, masks = images_labels_masks(1)
    _, rows, _ = others_run(tmp_path, HeatmapScores(images, labels, masks))
    assert set(heat(rows)[-1]) - {"epoch"} == set(HEAT_SCORES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": torch.zeros(N, 8, 4)}, "8×4 pixels for images of 16×16"),
        ({"masks": torch.zeros(3, SIDE, SIDE)}, "one mask for each of 12 maps"),
        ({"masks": torch.full((N, SIDE, SIDE), 7)}, "values other than 0 and 1"),
        ({"labels": [0, 1]}, "2 labels for 12 images"),
        ({"images": None}, "given without images"),
        ({"images": torch.zeros(0, 3, 8, 8)}, "none to score"),
        ({"scores": ["aurok"]}, "Did you mean auroc"),
        ({"scores": []}, "there is none"),
        ({"num_images": 0}, "at least 1"),
        ({"tolerance": -1}, "at least 0"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    images, labels, _ = images_labels_masks()
    with pytest.raises(UserError, match=message):
        HeatmapScores(**{"images": images, "labels": labels, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [9] * N}, "9 is no class of the network"),
        ({"images": torch.full((N, 3, SIDE, SIDE), torch.nan)}, "finite"),
        ({"images": torch.zeros(N, 5, SIDE, SIDE)}, "No scores of heatmaps"),
        ({"model": "nett"}, "no such part"),
        ({"masks": torch.zeros(N, 4, 4, dtype=torch.bool)}, "no image has one"),
    ],
)
def test_a_failure_is_told_and_training_continues(tmp_path, caplog, arguments, message):
    images, labels, _ = images_labels_masks()
    callback = HeatmapScores(**{"images": images, "labels": labels, "srg_images": 1, **arguments})
    _, _, run = others_run(tmp_path, callback)
    told = [record.getMessage() for record in caplog.records if message in record.getMessage()]
    assert 1 <= len(told) <= 3
    assert all(line.endswith("training continues.") and "\n" not in line for line in told)
    assert run.current_epoch == 2


def test_a_network_that_becomes_nan_is_told_once(tmp_path, caplog):
    class Break(L.Callback):
        def on_train_epoch_end(self, run: L.Trainer, pl_module: L.LightningModule) -> None:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)

    images, labels, masks = images_labels_masks()
    others_run(tmp_path, HeatmapScores(images, labels, masks), Break(), max_epochs=3)
    assert sum("No scores of heatmaps" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("damage", [{"falls": [{"x": 1}]}, {"maps": 3}, {"measured": {"auroc": None}}, {"named": None}])
def test_a_damaged_state_is_not_used(tmp_path, caplog, damage):
    images, labels, masks = images_labels_masks()
    callback = HeatmapScores(images, labels, masks, scores=["auroc", "drift"])
    others_run(tmp_path / "a", callback)
    callback.load_state_dict({**copy.deepcopy(callback.state_dict()), **damage})
    others_run(tmp_path / "b", callback)
    assert "Scores of heatmaps in the checkpoint are not used: they are damaged" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


# ---- told, not hidden


def test_a_fall_beyond_the_noise_is_told_only_while_the_accuracy_rises(caplog):
    caplog.set_level(logging.INFO)
    generator = torch.Generator().manual_seed(0)
    before = 0.8 + 0.1 * torch.rand(40, generator=generator)
    noise = 0.2 * torch.rand(40, generator=generator) - 0.1
    first = Measured(1, 0.5, before)
    assert fall_of("srg", first, Measured(2, 0.6, before - 0.05 + noise)) is not None
    assert fall_of("srg", first, Measured(2, 0.5, before - 0.05 + noise)) is None, "the accuracy does not rise"
    assert fall_of("srg", first, Measured(2, 0.6, before + 0.05 + noise)) is None, "the score does not fall"
    assert fall_of("srg", first, Measured(2, 0.6, before - 0.001 + (noise - noise.mean()))) is None, "noise"
    assert fall_of("srg", Measured(1, 0.5, before[:5]), Measured(2, 0.6, before[:5] - 1)) is None, "too few"
    history = HeatHistory()
    assert history.compare(HeatValues({"auroc": before}), 3, 0.7) == []
    (fall,) = history.compare(HeatValues({"auroc": before - 0.05 + noise}), 5, 0.75)
    assert (fall.score, fall.since, fall.epoch, fall.n) == ("val/heat/auroc", 3, 5, 40)
    assert fall.low < fall.after - fall.before < fall.high < 0
    assert "Epoch 5: accuracy rises (70.0 % → 75.0 %), but localisation falls (auroc 0.8" in str(fall)
    assert falls_from([fall.as_dict()]) == [fall]
    again = HeatHistory.restored(history.state("x"), "x")
    assert again.falls == [fall]
    (next_fall,) = again.compare(HeatValues({"auroc": before - 0.5}), 6, 0.8)
    assert next_fall.since == 5


def test_falls_in_a_training_are_named_in_the_log(tmp_path, caplog):
    """The network first reads the class inside of the mask, where it is wrong three times, and then outside of it."""
    caplog.set_level(logging.INFO)
    images, _, masks = images_labels_masks()
    labels = torch.arange(N) % 2
    sign = (2.0 * labels - 1)[:, None, None]
    wrong = torch.where(torch.arange(N) < 3, -1.0, 1.0)[:, None, None]
    images[:, 0], images[:, 1] = 0.1 * images[:, 0] + sign * wrong * masks, 0.1 * images[:, 1] + sign * ~masks
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2, 2)
    )

    class Look(L.Callback):
        def on_validation_start(self, run: L.Trainer, pl_module: L.LightningModule) -> None:
            with torch.no_grad():
                weight = torch.zeros(2, 3)
                weight[:, run.current_epoch] = torch.tensor([-1.0, 1.0])
                net[0].weight.copy_(weight[..., None, None])
                net[3].weight.copy_(torch.eye(2))
                net[3].bias.zero_()

    callback = HeatmapScores(images, labels, masks, scores=["auroc"])
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    others_run(tmp_path, Look(), callback, loader=loader, net=net, num_sanity_val_steps=0)
    (fall,) = callback.falls
    assert (fall.epoch, fall.since, fall.accuracy_before, fall.accuracy) == (2, 1, 0.75, 1.0)
    assert fall.before > 0.7
    assert fall.after < 0.3
    assert str(fall) in caplog.text


def test_too_much_time_is_told_once(caplog):
    caplog.set_level(logging.INFO)
    time, cpu = ScoringTime(), torch.device("cpu")
    for seconds in (0.4, 3.0, 3.0):  # the first is 4 % of its epoch
        time.begin_epoch(cpu)
        time._began -= seconds + 10
        time._seconds = seconds
        time.end_epoch(cpu, "every_n_epochs=2")
    assert [record.getMessage() for record in caplog.records] == [
        "Scoring heatmaps adds 30 % (3.0 s) to an epoch. To score less: every_n_epochs=2."
    ]
