"""Callbacks: heatmaps do not affect training and show the same pictures in each epoch; pointing game; progress."""

import copy
import random
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import Coloured
from lightning.pytorch.callbacks import EarlyStopping
from PIL import Image
from test_training import classifier, trainer, weights

from camlab import maps
from camlab.attribution.batch_explainer import BatchExplainer, Request
from camlab.drawing.maps_file import read_maps
from camlab.drawing.probe import Probe
from camlab.drawing.tiles import TILE_HEIGHT, Style
from camlab.errors import UserError
from camlab.scores import dilate, pointing_game
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.training.callbacks.pointing_game import PointingGame, warning_of_small_maps
from camlab.training.callbacks.progress import EarlyStopTold, PlainProgress, TimeEstimate


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_run_with_heatmaps_ends_in_the_same_bits(tmp_path, mode):
    results = []
    for callbacks in ([], [HeatmapLogger()]):
        module = classifier("vgg11_bn", mode, keep_last_pool=False)
        trainer(tmp_path, max_epochs=2, callbacks=callbacks).fit(module, datamodule=Coloured(image_size=32))
        results.append((weights(module), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()))
    (bare, *rng), (drawn, *rng_drawn) = results
    assert all(torch.equal(bare[name], drawn[name]) for name in bare)
    assert all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(rng, rng_drawn, strict=True)
    )
    assert len(list(tmp_path.glob("heatmaps/epoch_*/sheet.png"))) == 3


@pytest.mark.slow
def test_the_last_epoch_is_drawn_and_told_if_training_stops_early(tmp_path, caplog):
    stopping = EarlyStopping("val/loss", patience=1, min_delta=10.0)  # stops after the second epoch
    callbacks = [HeatmapLogger(every_n_epochs=50), stopping, EarlyStopTold()]
    with caplog.at_level("INFO"):
        run = trainer(tmp_path, max_epochs=9, callbacks=callbacks)
        run.fit(classifier("vgg11_bn", "frozen", keep_last_pool=False), datamodule=Coloured(image_size=32))
    assert sorted(folder.name for folder in tmp_path.glob("heatmaps/epoch_*")) == ["epoch_0000", "epoch_0002"]
    assert "Early stopping by val/loss ended training after epoch 2 of 9." in caplog.text


def draw(
    network: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    folder: Path,
    inputs: torch.Tensor,
    epochs_done: int,
) -> tuple[list[np.ndarray], list[str]]:
    explainer = BatchExplainer(network, Request(all_classes=True))
    probe = Probe(images, [""] * len(images), [f"class{k}" for k in range(4)], Style(boxes=False), folder)
    results = explainer.explain(inputs, probe.sources, labels)
    return probe.draw(results, explainer.layers, epochs_done)


def test_drawing_leaves_the_network_as_it_found_it(tmp_path):
    network = classifier("vgg11_bn").network.train()
    network.backbone[1].eval()  # a flag that differs from the others, and must be kept
    network(torch.randn(4, 3, 64, 64)).sum().backward()
    before, flags = copy.deepcopy(network), [module.training for module in network.modules()]
    gradients = [p.grad.clone() for p in network.parameters()]
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator())
    rng = torch.get_rng_state()
    with torch.inference_mode():
        draw(network, images, torch.tensor([0, 1, 2, 3]), tmp_path, inputs, 1)
    assert [module.training for module in network.modules()] == flags
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert torch.equal(rng, torch.get_rng_state())
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())


def test_wrongly_classified_images_get_tiles_for_their_true_class(tmp_path):
    network, inputs = classifier().network.eval(), torch.randn(5, 3, 96, 96)
    predicted = network(inputs).argmax(1)
    labels = predicted.clone()
    labels[[1, 3]] = (labels[[1, 3]] + 1) % 4
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    panels, captions = draw(network, images, labels, tmp_path, inputs, 3)
    assert len(panels) == 5
    assert (
        read_maps(tmp_path / "epoch_0003" / "maps.npz").class_idx.tolist()
        == torch.stack([predicted, labels], 1).tolist()
    )
    tile, gap = TILE_HEIGHT, 6
    assert [panel.shape[1] for panel in panels] == [
        3 * tile + 2 * gap if k % 2 == 0 else 5 * tile + 4 * gap for k in range(5)
    ]
    best, second = network(inputs)[1].softmax(0).topk(2).values.tolist()
    assert captions[1].startswith(
        f"true class{labels[1]}, predicted class{predicted[1]} ({100 * best:.0f}\u00a0%), then class"
    )
    assert captions[1].endswith(f" ({100 * second:.0f}\u00a0%)")
    sheet = cv2.imread(str(tmp_path / "epoch_0003" / "sheet.png"))
    used = sum(panel.shape[0] * panel.shape[1] for panel in panels)
    assert sheet.shape[0] * sheet.shape[1] < 2 * used, "right predictions must not leave empty tiles"


def test_files_of_an_epoch(tmp_path):
    module, data = classifier(), Coloured(image_size=96)
    few = {"limit_train_batches": 1, "limit_val_batches": 1}
    trainer(tmp_path, callbacks=[HeatmapLogger(per_class=1)], **few).fit(module, datamodule=data)
    folder = tmp_path / "heatmaps" / "epoch_0001"
    assert len(list(folder.glob("*.jpg"))) == 4, "one of each class"
    saved = read_maps(folder / "maps.npz")
    assert saved.cam_of_all_classes.dtype == saved.maps["grad_cam"][0].dtype == np.float16
    assert saved.cam_of_all_classes.shape[:2] == (4, 4), "CAM of all classes"
    assert saved.labels.tolist() == [0, 1, 2, 3]
    assert saved.class_names == [f"class{k}" for k in range(4)]
    assert saved.epoch == 1
    assert saved.class_idx[:, 0].tolist() == saved.probabilities.argmax(1).tolist()
    assert saved.class_idx[:, 1].tolist() == [0, 1, 2, 3]
    assert saved.visible.tolist() == [[0, 0, 32, 32]] * 4
    chosen = data.splits["val"].subset(
        torch.tensor([int((data.splits["val"].labels == k).nonzero()[0]) for k in range(4)])
    )
    for name, picture in zip(saved.files, chosen.images, strict=True):
        assert np.array_equal(np.array(Image.open(saved.folder / name)), picture.permute(1, 2, 0).numpy())
    inputs = data.preprocess(chosen.images)
    network = module.network.eval()
    with torch.no_grad():
        cam = maps.cam(network.forward_features(inputs), network.fc.weight)
        last_relu = network.forward_last_relu(inputs)
    np.testing.assert_allclose(saved.cam_of_all_classes, cam, rtol=1e-3, atol=1e-3)
    for rank in (0, 1):
        classes = torch.from_numpy(saved.class_idx[:, rank])
        gradients = maps.class_gradients(network.forward_from_last_relu, last_relu, classes)
        np.testing.assert_allclose(
            saved.maps["grad_cam"][0][:, rank], maps.grad_cam(last_relu, gradients), rtol=1e-3, atol=1e-3
        )
        np.testing.assert_allclose(saved.maps["cam"][0][:, rank], cam[torch.arange(4), classes], rtol=1e-3, atol=1e-3)


def test_a_map_of_one_cell_is_left_out(tmp_path):
    """AlexNet's features of 64×64 pictures are 1×1 after the last pooling, so that a CAM would have one colour only."""
    trainer(tmp_path, callbacks=[HeatmapLogger(per_class=1)]).fit(classifier(), datamodule=Coloured(image_size=64))
    assert list(read_maps(tmp_path / "heatmaps" / "epoch_0001" / "maps.npz").maps) == ["grad_cam"]


def test_half_precision(tmp_path):
    """Maps of a network in bfloat16, whose numbers have three digits, are those of the same network in float32."""
    network = classifier("alexnet", keep_last_pool=False).network.eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = maps.cam(network.forward_features(inputs), network.fc.weight).numpy()
    panels, _ = draw(network.to(torch.bfloat16), images, torch.tensor([0, 1]), tmp_path, inputs.bfloat16(), 1)
    assert len(panels) == 2
    found = read_maps(tmp_path / "epoch_0001" / "maps.npz").cam_of_all_classes
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_callback_draws_in_every_precision(tmp_path, caplog, precision):
    run = trainer(
        tmp_path, precision=precision, limit_train_batches=1, limit_val_batches=1,
        callbacks=[HeatmapLogger(per_class=1, colormap="viridis")],
    )  # fmt: skip
    run.fit(classifier("vgg11_bn", keep_last_pool=False), datamodule=Coloured(image_size=32, batch_size=4))
    assert "No heatmaps" not in caplog.text
    assert len(list(tmp_path.glob("heatmaps/epoch_*/maps.npz"))) == 2


def test_every_n_epochs_and_the_last(tmp_path):
    run = trainer(tmp_path, max_epochs=5, limit_train_batches=1, callbacks=[HeatmapLogger(every_n_epochs=2)])
    run.fit(classifier(), datamodule=Coloured())
    assert sorted(p.name for p in tmp_path.glob("heatmaps/epoch_*")) == [f"epoch_{k:04d}" for k in (0, 2, 4, 5)]


def test_a_folder_of_pictures_as_the_probe_set(tmp_path):
    folder = tmp_path / "my photos"
    folder.mkdir()
    Image.new("RGB", (90, 60), (9, 99, 9)).save(folder / "a.jpg")
    callback = HeatmapLogger(images=str(folder))
    trainer(tmp_path, callbacks=[callback]).fit(classifier(), datamodule=Coloured())
    assert (tmp_path / "heatmaps" / "epoch_0001" / "00.jpg").is_file()
    with pytest.raises(UserError, match="no pictures"):
        trainer(tmp_path, callbacks=[HeatmapLogger(images=str(tmp_path))]).fit(classifier(), datamodule=Coloured())


def test_drawing_that_fails_does_not_stop_training(tmp_path, caplog):
    (tmp_path / "heatmaps").write_text("a file where a folder should be")
    run = trainer(tmp_path, callbacks=[HeatmapLogger()])
    run.fit(classifier(), datamodule=Coloured())
    assert run.state.finished
    assert "training continues" in caplog.text


def test_pointing_game_by_hand():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, 2, 2] = True
    allowed = dilate(masks, 2)
    assert allowed[0].sum() == 25
    assert allowed[0, 4, 4]
    assert not allowed[0, 5, 4]
    heat = torch.zeros(3, 4, 4)
    heat[0, 2, 2] = 1.0  # centre of that cell is pixel (5, 5): outside
    heat[1, 1, 1] = 1.0  # pixel (3, 3): inside
    heat[2, 1, 1] = heat[2, 2, 2] = 1.0  # a tie of a hit and a miss
    assert pointing_game(heat, masks, 2).tolist() == [0, 1, 0.5]
    assert pointing_game(torch.full((3, 4, 4), -1.0), masks, 2).tolist() == [0] * 3


def test_pointing_game_is_logged_with_its_baselines(tmp_path):
    run = trainer(tmp_path, callbacks=[PointingGame(tolerance=2)])
    run.test(classifier(keep_last_pool=False), datamodule=Coloured(masks=True), verbose=False)
    assert float(run.callback_metrics["test/pointing_game_random"]) == pytest.approx(144 / 1024)
    assert float(run.callback_metrics["test/pointing_game_center"]) == 1.0, "pixel (16, 16) is 1 px outside the mask"
    assert 0 <= run.callback_metrics["test/pointing_game"] <= 1
    bare = trainer(tmp_path, callbacks=[PointingGame()])
    bare.test(classifier(keep_last_pool=False), datamodule=Coloured(), verbose=False)
    assert "test/pointing_game" not in bare.callback_metrics


def test_maps_too_coarse_to_show_a_place_are_not_scored(tmp_path):
    run = trainer(tmp_path, callbacks=[PointingGame()])
    run.test(classifier(), datamodule=Coloured(masks=True), verbose=False)  # 64 pixels, 1×1 maps
    assert not [key for key in run.callback_metrics if "pointing_game" in key]


def test_the_settings_that_are_named_for_small_maps_enlarge_them():
    network = classifier().network
    line = warning_of_small_maps(network.map_size, 64, has_pool=True)
    assert line.startswith("Maps are 1×1, ")
    assert line.endswith("Give data.image_size=128 or arch.keep_last_pool=false.")
    assert network.forward_features(torch.zeros(1, 3, 128, 128)).shape[-2:] == (3, 3)
    finer = classifier(keep_last_pool=False).network
    assert warning_of_small_maps(finer.map_size, 64, has_pool=False) is None
    assert finer.forward_features(torch.zeros(1, 3, 64, 64)).shape[-2:] == (3, 3)


def test_expected_time_and_progress_are_logged(tmp_path, caplog):
    caplog.set_level("INFO")
    callbacks = [TimeEstimate(steps=4, advice="mode=frozen"), PlainProgress(every_seconds=0)]
    run = trainer(tmp_path, max_epochs=10_000, max_steps=6, callbacks=callbacks)
    run.fit(classifier(), datamodule=Coloured(n_train=112))
    assert "Expected training time" in caplog.text
    assert "epoch 1/10000, step 1/6" in caplog.text


def test_the_first_and_the_last_epoch_have_a_line_however_short_they_are(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("camlab.training.callbacks.progress.time", SimpleNamespace(monotonic=lambda: 0.0))
    caplog.set_level("INFO")
    run = trainer(tmp_path, max_epochs=3, limit_train_batches=1, callbacks=[PlainProgress()])
    run.fit(classifier(), datamodule=Coloured(n_train=32))
    assert re.findall(r"epoch \d/3 done", caplog.text) == ["epoch 1/3 done", "epoch 3/3 done"]
