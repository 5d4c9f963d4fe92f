"""Intervals, paired differences, noise, pseudo-methods, the check of the scoring itself, and the metrics."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from camlab import scores
from camlab.errors import UserError
from camlab.scores import noise
from camlab.scores.statistics import check_chance
from tests.scores.networks import images, maps, small_network, squares

stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle of the bootstrap and of noise")


def test_the_interval_is_scipys_percentile_bootstrap():
    values = maps(1, 1, 60).flatten().double()
    found = scores.mean_interval(values)
    generator = np.random.default_rng(0)
    expected = stats.bootstrap((values.numpy(),), np.mean, method="percentile", n_resamples=4000, rng=generator)
    assert found.mean == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.03)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.03)
    assert scores.mean_interval(values) == found, "the same seed gives the same numbers"
    assert scores.mean_interval(values, seed=1) != found


def test_the_interval_covers_the_mean_about_95_times_in_100():
    drawn = noise.normal(0, torch.arange(200), 50)
    covered = [(i := scores.mean_interval(row, resamples=400)).low <= 0 <= i.high for row in drawn]
    assert 0.88 < np.mean(covered) < 0.99


def test_intervals_of_nothing_and_of_one_image():
    nothing = scores.mean_interval(torch.tensor([torch.nan, torch.nan]))
    assert (nothing.n, nothing.unscored) == (0, 2)
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert not nothing.excludes_zero
    one = scores.mean_interval(torch.tensor([0.7]))
    assert (one.low, one.high, one.n) == (pytest.approx(0.7), pytest.approx(0.7), 1)


def test_two_methods_differ_only_where_their_paired_difference_excludes_zero():
    easy = noise.normal(0, torch.arange(1), 100)[0]  # how easy an image is: far wider than what sets methods apart
    better, same = easy + 0.1 + 0.05 * maps(1, 1, 100).flatten(), easy + 0.05 * maps(1, 1, 100, seed=8).flatten()
    assert scores.paired_difference(better, easy).excludes_zero
    assert not scores.paired_difference(same, easy).excludes_zero
    one, other = scores.mean_interval(better), scores.mean_interval(easy)
    assert one.low < other.high, "their own intervals overlap all the same"
    gaps = better.clone()
    gaps[:10] = torch.nan
    assert scores.paired_difference(gaps, easy).n == 90


def test_the_scoring_checks_itself():
    values = 0.5 + 0.1 * noise.normal(0, torch.arange(1), 50)[0]
    check_chance("auroc", values, 0.5)
    with pytest.raises(scores.ScoringError, match=r"random maps score 0\.08 above chance"):
        check_chance("auroc", values, 0.4)
    check_chance("auroc", values[:29], 0.4)
    check_chance("energy", values, values)
    masks = squares(200)
    inverted = 1 - scores.auroc(masks.float() + 2 * scores.pseudo_maps(images(200, 4), (16, 16))["random"], masks)
    with pytest.raises(scores.ScoringError, match="below chance"):
        check_chance("auroc", inverted, 0.5)


def test_the_check_raises_no_false_alarm_in_a_thousand_tables():
    drawn = noise.normal(7, torch.arange(1000), 40)
    for row in drawn:
        check_chance("srg", row, 0.0)


def test_noise_is_uniform_normal_and_independent():
    drawn = noise.uniform(0, torch.arange(300), 200)
    assert stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > 0.001
    assert stats.kstest(noise.normal(1, torch.arange(300), 200).flatten().numpy(), "norm").pvalue > 0.001
    beside = np.corrcoef(drawn[:, :-1].flatten(), drawn[:, 1:].flatten())[0, 1]
    below = np.corrcoef(drawn[:-1].flatten(), drawn[1:].flatten())[0, 1]
    seeds = np.corrcoef(drawn.flatten(), noise.uniform(1, torch.arange(300), 200).flatten())[0, 1]
    assert max(abs(beside), abs(below), abs(seeds)) < 0.02
    assert len(noise.bits(0, torch.arange(300), 200).unique()) == 60000


def test_noise_leaves_torchs_generators_alone():
    state = torch.get_rng_state()
    scores.pseudo_maps(images(2), (4, 4))
    scores.mean_interval(torch.rand(5, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)


def test_pseudo_maps():
    x, masks = images(3), squares(3)
    found = scores.pseudo_maps(x, (4, 5), masks)
    assert list(found) == ["random", "constant", "centre", "edges", "mask"]
    assert {tuple(signed.shape) for signed in found.values()} == {(3, 4, 5)}
    assert len(found["constant"].unique()) == 1
    rows = found["centre"][0].sum(dim=1)
    torch.testing.assert_close(rows, rows.flip(0))
    assert rows.argmax() in (1, 2)
    whole_pixels = scores.pseudo_maps(x, (4, 4), masks)["mask"]
    torch.testing.assert_close(whole_pixels.mean(dim=(1, 2)), scores.area(masks))
    assert "mask" not in scores.pseudo_maps(x, (4, 4))
    numbered = scores.pseudo_maps(x[1:], (4, 5), numbers=torch.tensor([1, 2]))["random"]
    assert torch.equal(numbered, found["random"][1:])


def test_edges_are_scipys_sobel():
    from scipy import ndimage

    x = images(2, 12)
    grey = x.mean(dim=1).numpy()
    expected = [np.hypot(ndimage.sobel(g, 0, mode="nearest"), ndimage.sobel(g, 1, mode="nearest")) for g in grey]
    found = scores.pseudo_maps(x, (12, 12))["edges"]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_every_score_is_in_the_catalogue_and_importable():
    place = {"auroc", "energy", "energy_gain", "pointing_game", "max_box_acc", "pxap"}
    need = {"srg", "feature_srg", "insertion", "deletion", "average_drop", "increase", "road"}
    sanity = {"mprt", "emprt", "max_sensitivity", "flip_consistency"}
    description = {"effective_area", "class_contrast", "drift", "agreement"}
    for question, names in {"place": place, "need": need, "sanity": sanity, "description": description}.items():
        assert {name for name, score in scores.SCORES.items() if score.question == question} == names
    for name, score in scores.SCORES.items():
        assert score.function is getattr(scores, name)
        assert score.title
    assert {name for name, score in scores.SCORES.items() if score.exact} == {"auroc", "energy_gain", "srg", "road"}
    with pytest.raises(UserError, match=r"score=energi: unknown. Did you mean energy\?"):
        scores.score_of("energi")


@pytest.mark.parametrize("name", ["auroc", "energy", "pointing_game", "effective_area"])
def test_metrics_of_batches_are_the_mean_of_all_images(name):
    signed, masks = maps(10), squares(10)
    masks[3] = False
    score = getattr(scores, name)
    metric, whole = scores.ImageScore(name), score(signed, masks) if name != "effective_area" else score(signed)
    for batch in DataLoader(list(range(10)), batch_size=4):
        metric.update(*((signed[batch],) if name == "effective_area" else (signed[batch], masks[batch])))
    torch.testing.assert_close(metric.compute(), whole.nanmean())
    torch.testing.assert_close(metric.per_image, whole, equal_nan=True)
    assert metric.interval() == scores.mean_interval(whole)
    metric.reset()
    assert len(metric.per_image) == 0


def test_metrics_count_images_so_that_ties_do_not_depend_on_batches():
    model, x, tied = small_network(), images(6), torch.zeros(6, 4, 4)
    metric = scores.ImageScore("srg", imputer="blur", steps=4)
    for part in (slice(0, 4), slice(4, 6)):
        metric.update(model, x[part], tied[part])
    whole = scores.srg(model, x, tied, imputer="blur", steps=4)
    torch.testing.assert_close(metric.per_image, whole, rtol=0, atol=1e-6)


def test_metrics_of_whole_sets():
    signed, masks = maps(12), squares(12)
    pxap, boxes = scores.PxAP(), scores.MaxBoxAcc()
    for part in (slice(0, 5), slice(5, 12)):
        pxap.update(signed[part], masks[part])
        boxes.update(signed[part], masks[part])
    assert float(pxap.compute()) == pytest.approx(float(scores.pxap(signed, masks)))
    torch.testing.assert_close(boxes.compute(), scores.max_box_acc(signed, masks).mean())
    interval = pxap.interval()
    assert interval.low < interval.mean < interval.high
    chosen = scores.MaxBoxAcc(torch.tensor([19, 19, 19]))
    chosen.update(signed, masks)
    assert chosen.compute() <= boxes.compute()
    with pytest.raises(UserError, match="score=pxap: it has no single value for each image"):
        scores.ImageScore("pxap")


def test_metrics_of_whole_sets_leave_images_without_a_mask_out():
    signed, masks = maps(12), squares(12)
    pxap = scores.PxAP()
    assert pxap.interval().n == 0
    pxap.update(signed, masks)
    alone = pxap.interval()
    pxap.update(signed, torch.zeros_like(masks))
    assert float(pxap.compute()) == pytest.approx(alone.mean)
    assert pxap.interval() == replace(alone, unscored=12)
    both = torch.cat([masks, torch.zeros_like(masks)])
    assert float(scores.pxap(signed.repeat(2, 1, 1), both)) == pytest.approx(alone.mean)
    boxes = scores.MaxBoxAcc()
    boxes.update(signed, torch.zeros_like(masks))
    with pytest.raises(UserError, match="no images with an object have been scored"):
        boxes.thresholds()


def test_metrics_are_saved_moved_and_joined_as_those_of_torchmetrics():
    from torchmetrics import MetricCollection

    collection = MetricCollection({"auroc": scores.ImageScore("auroc"), "energy": scores.ImageScore("energy")})
    collection.update(maps(), squares())
    assert set(collection.compute()) == {"auroc", "energy"}
    copied = collection.clone()
    copied.reset()
    assert len(collection["auroc"].per_image) == 4


@pytest.mark.slow
def test_importing_scores_does_not_import_torchmetrics():
    code = "import sys, camlab; assert 'torch' not in sys.modules; print(camlab.scores.srg.__name__, 'torchmetrics' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["srg", "False"], done.stderr


def test_one_image_excludes_nothing():
    assert not scores.paired_difference(torch.tensor([0.9, torch.nan]), torch.tensor([0.1, 0.2])).excludes_zero
    assert scores.paired_difference(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2])).excludes_zero
