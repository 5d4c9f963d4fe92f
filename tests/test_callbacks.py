"""Heatmaps in training: harmless to it, the same pictures each epoch, scored where the truth is known."""

import copy
import random

import numpy as np
import pytest
import torch
from conftest import Coloured
from PIL import Image
from test_training import classifier, trainer, weights

from camlab.drawing.panels import draw_panels, explain
from camlab.errors import UserError
from camlab.scores.pointing_game import dilate, hits
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.training.callbacks.pointing_game import PointingGame, warning_of_small_maps
from camlab.training.callbacks.progress import PlainProgress, TimeEstimate


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_run_with_heatmaps_ends_in_the_same_bits(tmp_path, mode):
    results = []
    for callbacks in ([], [HeatmapLogger()]):
        module = classifier("vgg11_bn", mode)
        trainer(tmp_path, max_epochs=2, callbacks=callbacks).fit(module, datamodule=Coloured())
        results.append((weights(module), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()))
    (bare, *rng), (drawn, *rng_drawn) = results
    assert all(torch.equal(bare[name], drawn[name]) for name in bare)
    assert all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(rng, rng_drawn, strict=True)
    )
    assert len(list(tmp_path.glob("heatmaps/epoch_*/sheet.png"))) == 3


def test_explain_leaves_the_network_as_it_found_it():
    network = classifier("vgg11_bn").network.train()
    network.backbone[1].eval()  # an odd flag, to be kept
    network(torch.randn(4, 3, 64, 64)).sum().backward()
    before, flags = copy.deepcopy(network), [module.training for module in network.modules()]
    gradients = [p.grad.clone() for p in network.parameters()]
    rng = torch.get_rng_state()
    with torch.inference_mode():
        explain(network, torch.randn(4, 3, 64, 64, generator=torch.Generator()), torch.tensor([0, 1, 2, 3]))
    assert [module.training for module in network.modules()] == flags
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert torch.equal(rng, torch.get_rng_state())
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())


def test_wrongly_classified_images_get_a_row_for_their_true_class():
    network, inputs = classifier().network.eval(), torch.randn(5, 3, 64, 64)
    predicted = network(inputs).argmax(1)
    labels = predicted.clone()
    labels[[1, 3]] = (labels[[1, 3]] + 1) % 4
    explanation = explain(network, inputs, labels)
    assert explanation.image_idx.tolist() == [0, 1, 2, 3, 4, 1, 3]
    assert explanation.class_idx.tolist() == [*predicted.tolist(), *labels[[1, 3]].tolist()]
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    panels = draw_panels(images, explanation, [f"class{k}" for k in range(4)], labels)
    assert len(panels) == 5
    assert panels[1].picture.shape[1] > panels[0].picture.shape[1]
    assert panels[1].caption.startswith(f"true class{labels[1]}, predicted class{predicted[1]} ")


def test_files_of_an_epoch(tmp_path):
    module, data = classifier(), Coloured()
    trainer(tmp_path, callbacks=[HeatmapLogger(per_class=1)]).fit(module, datamodule=data)
    folder = tmp_path / "heatmaps" / "epoch_0001"
    assert len(list(folder.glob("*.jpg"))) == 4, "one of each class"
    saved = np.load(folder / "maps.npz", allow_pickle=False)
    assert saved["cam"].dtype == np.float16
    assert saved["cam"].shape[:2] == (4, 4), "CAM of all classes"
    assert len(saved["grad_cam"]) == len(saved["grad_cam_class"]) >= 4
    probe = data.splits["val"].subset(
        torch.tensor([int((data.splits["val"].labels == k).nonzero()[0]) for k in range(4)])
    )
    again = explain(module.network, data.preprocess(probe.images), probe.labels)
    np.testing.assert_allclose(saved["cam"], again.cam, atol=1e-3)


def test_every_n_epochs_and_the_last(tmp_path):
    run = trainer(tmp_path, max_epochs=5, limit_train_batches=1, callbacks=[HeatmapLogger(every_n_epochs=2)])
    run.fit(classifier(), datamodule=Coloured())
    assert sorted(p.name for p in tmp_path.glob("heatmaps/*")) == [f"epoch_{k:04d}" for k in (0, 2, 4, 5)]


def test_ones_own_pictures(tmp_path):
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
    assert "training goes on" in caplog.text


def test_pointing_game_by_hand():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, 2, 2] = True
    allowed = dilate(masks, 2)
    assert allowed[0].sum() == 25
    assert allowed[0, 4, 4]
    assert not allowed[0, 5, 4]
    maps = torch.zeros(3, 4, 4)
    maps[0, 2, 2] = 1.0  # centre of that cell is pixel (5, 5): outside
    maps[1, 1, 1] = 1.0  # pixel (3, 3): inside
    maps[2, 1, 1] = maps[2, 1, 2] = 1.0  # a tie
    assert hits(maps, allowed).tolist() == [False, True, False]
    assert hits(torch.full((3, 4, 4), -1.0), allowed).tolist() == [False] * 3


def test_pointing_game_is_logged_with_its_baselines(tmp_path):
    run = trainer(tmp_path, callbacks=[PointingGame(tolerance=2)])
    run.test(classifier(keep_last_pool=False), datamodule=Coloured(masks=True), verbose=False)
    assert float(run.callback_metrics["test/pointing_game_random"]) == pytest.approx(144 / 1024)
    assert float(run.callback_metrics["test/pointing_game_center"]) == 1.0, "pixel (16, 16) is 1 px beside the mask"
    assert 0 <= run.callback_metrics["test/pointing_game"] <= 1
    bare = trainer(tmp_path, callbacks=[PointingGame()])
    bare.test(classifier(keep_last_pool=False), datamodule=Coloured(), verbose=False)
    assert "test/pointing_game" not in bare.callback_metrics


def test_maps_too_coarse_to_show_a_place_are_not_scored(tmp_path):
    run = trainer(tmp_path, callbacks=[PointingGame()])
    run.test(classifier(), datamodule=Coloured(masks=True), verbose=False)  # 64 pixels, 1×1 maps
    assert not [key for key in run.callback_metrics if "pointing_game" in key]


def test_the_way_out_of_small_maps_is_a_way_out():
    network = classifier().network
    line = warning_of_small_maps(network.map_size, 64, has_pool=True)
    assert line.startswith("Maps are 1×1, ")
    assert line.endswith("Give data.image_size=128 or arch.keep_last_pool=false.")
    assert network.forward_features(torch.zeros(1, 3, 128, 128)).shape[-2:] == (3, 3)
    finer = classifier(keep_last_pool=False).network
    assert warning_of_small_maps(finer.map_size, 64, has_pool=False) is None
    assert finer.forward_features(torch.zeros(1, 3, 64, 64)).shape[-2:] == (3, 3)


def test_time_is_told_and_a_cheaper_way(tmp_path, caplog):
    caplog.set_level("INFO")
    callbacks = [TimeEstimate(steps=4, advice="mode=frozen"), PlainProgress(every_seconds=0)]
    run = trainer(tmp_path, max_epochs=10_000, max_steps=6, callbacks=callbacks)
    run.fit(classifier(), datamodule=Coloured(n_train=112))
    assert "Expected training time" in caplog.text
    assert "epoch 1/10000, step 1/6" in caplog.text
