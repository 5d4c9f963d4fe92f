"""Where is the heat? Limits and chance levels first, then independent oracles, then bad input."""

import numpy as np
import pytest
import torch

from camlab import maps as map_maths
from camlab import scores
from camlab.errors import UserError
from camlab.scores.heat import enlarged
from camlab.scores.statistics import check_chance
from tests.scores.networks import maps, squares

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle of auroc and pxap")
ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the oracle of connected regions")


def mask_maps(masks):
    return masks.float()


def test_enlarged_is_bilinear_and_keeps_ties():
    signed = maps(3, 4, 6)
    torch.testing.assert_close(enlarged(signed, (17, 30)), map_maths.upsample(signed, (17, 30)), rtol=0, atol=1e-6)
    assert torch.equal(enlarged(signed, (4, 6)), signed)
    for value in (0.1, 0.3, 0.7):
        assert len(enlarged(torch.full((1, 7, 7), value), (31, 45)).unique()) == 1


@pytest.mark.parametrize("name", ["auroc", "energy", "energy_gain", "pointing_game", "max_box_acc"])
def test_the_mask_itself_is_perfect(name):
    masks = squares()
    assert getattr(scores, name)(mask_maps(masks), masks).tolist() == [1.0] * 4


def test_pxap_of_the_mask_itself_is_one():
    assert float(scores.pxap(mask_maps(squares()), squares())) == 1.0


@pytest.mark.parametrize("name", ["auroc", "energy", "pointing_game", "max_box_acc"])
def test_the_inverse_mask_finds_nothing(name):
    masks = squares()
    options = {"tolerance": 0} if name == "pointing_game" else {}
    found = getattr(scores, name)(1 - mask_maps(masks), masks, **options)
    assert found.tolist() == [0.0] * 4


@pytest.mark.parametrize("value", [0.1, 0.3, 1.0, 7.0])
def test_a_constant_map_scores_at_chance(value):
    masks, constant = squares(6, 30), torch.full((6, 7, 7), value)
    assert scores.auroc(constant, masks).tolist() == [0.5] * 6
    torch.testing.assert_close(scores.energy(constant, masks), scores.area(masks))
    torch.testing.assert_close(scores.energy_gain(constant, masks), torch.zeros(6), rtol=0, atol=1e-6)
    torch.testing.assert_close(scores.pxap(constant, masks).float(), scores.area(masks).mean())
    on_pixels = torch.full(
        (6, 30, 30), value
    )  # every pixel ties, so that the share of them that hits is the chance level
    torch.testing.assert_close(scores.pointing_game(on_pixels, masks), scores.pointing_game_chance(masks))


@pytest.mark.parametrize("name", ["auroc", "energy_gain", "energy", "pointing_game"])
def test_random_maps_score_at_chance_in_expectation(name):
    n, masks = 400, squares(400)
    score = scores.score_of(name)
    chance = score.chance(masks) if callable(score.chance) else score.chance
    grid = (16, 16) if name == "pointing_game" else (4, 4)  # cells as fine as pixels hit as often as a random pixel
    noise = scores.pseudo_maps(torch.zeros(n, 3, 16, 16), grid)["random"]
    values = score.function(noise, masks)
    assert values.std() > 0
    check_chance(name, values, chance)


def test_a_map_without_evidence_stays_in_the_means():
    nothing, masks = -torch.rand(4, 4, 4), squares()
    assert scores.without_evidence(nothing).all()
    assert scores.auroc(nothing, masks).tolist() == [0.5] * 4
    assert scores.energy(nothing, masks).tolist() == [0.0] * 4
    assert scores.pointing_game(nothing, masks).tolist() == [0.0] * 4
    assert scores.max_box_acc(nothing, masks).tolist() == [0.0] * 4
    covered = scores.area(masks)
    torch.testing.assert_close(scores.energy_gain(nothing, masks), -covered / (1 - covered))


def test_auroc_does_not_change_with_increasing_transforms_nor_energy_with_scale():
    heat, masks = torch.rand(4, 16, 16), squares()
    assert torch.equal(scores.auroc(heat, masks), scores.auroc((3 * heat).exp(), masks))
    torch.testing.assert_close(scores.energy(heat, masks), scores.energy(1e30 * heat, masks))
    assert not torch.allclose(scores.energy(heat, masks), scores.energy(heat**3, masks))


def test_auroc_is_that_of_sklearn():
    signed, masks = maps(5, 5, 3), squares(5, 24)
    signed[0] = signed[0].round()  # with ties beside those of the rectified zeros
    heat = scores.heat(signed, (24, 24))
    expected = [sklearn_metrics.roc_auc_score(m.flatten(), h.flatten()) for m, h in zip(masks, heat, strict=True)]
    torch.testing.assert_close(scores.auroc(signed, masks).tolist(), expected, rtol=0, atol=1e-6)


def test_energy_by_hand_and_as_relevance_mass_accuracy():
    signed, masks = maps(5, 16, 16).abs(), squares(5)
    within = (signed * masks).flatten(1).sum(1) / signed.flatten(1).sum(1)  # Quantus' RelevanceMassAccuracy
    torch.testing.assert_close(scores.energy(signed, masks), within)
    one = torch.tensor([[[-5.0, 1.0, 3.0]]])
    assert scores.energy(one, torch.tensor([[[True, False, True]]])).tolist() == [0.75], "negative values are no heat"


def test_a_tie_counts_as_the_share_that_hits_and_not_as_a_hit():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 1, 1] = True
    tied = torch.zeros(1, 4, 4)
    tied[0, 0, 0] = tied[0, 3, 3] = tied[0, 3, 0] = tied[0, 0, 3] = 2.0
    assert scores.pointing_game(tied, masks, 0).tolist() == [0.25]
    as_quantus = ((tied == tied.max()) & masks[:, 1::2, 1::2]).any()  # any of the tied cells
    assert bool(as_quantus), "Quantus 0.6.0 counts a hit here, and for every constant map"
    quantus_of_empty = np.array([False])
    quantus_of_empty[:] = np.nan  # its line for an empty mask, on an array of bool
    assert quantus_of_empty[0], "Quantus 0.6.0 counts an empty mask as a hit"
    assert scores.pointing_game(tied, torch.zeros_like(masks)).isnan().all()


def test_pointing_game_reads_the_centre_of_the_cell():
    masks = torch.zeros(1, 9, 9, dtype=torch.bool)
    masks[0, 4, 7] = True
    single = torch.zeros(1, 3, 3)
    single[0, 1, 2] = 1.0  # its centre is pixel (4, 7)
    assert scores.pointing_game(single, masks, 0).tolist() == [1.0]
    assert scores.pointing_game(single.roll(1, 1), masks, 0).tolist() == [0.0]
    assert scores.pointing_game(single.roll(1, 1), masks, 3).tolist() == [1.0]
    assert scores.pointing_game_chance(masks, 1).tolist() == [pytest.approx(9 / 81)]


def overlaps_by_scipy(heat, box, threshold):
    labels, _ = ndimage.label(heat > threshold, structure=np.ones((3, 3)))
    best = 0.0
    for rows, columns in ndimage.find_objects(labels):
        top, bottom = max(rows.start, box[0]), min(rows.stop, box[2])
        left, right = max(columns.start, box[1]), min(columns.stop, box[3])
        shared = max(0, bottom - top) * max(0, right - left)
        own = (rows.stop - rows.start) * (columns.stop - columns.start)
        true = (box[2] - box[0]) * (box[3] - box[1])
        best = max(best, shared / (own + true - shared))
    return best


def test_box_overlaps_are_those_of_regions_found_by_scipy():
    signed, masks = maps(4, 12, 12), squares(4, 24)  # many regions, some of which touch at corners only
    boxes = scores.mask_boxes(masks)
    found = scores.box_overlaps(signed, boxes, (24, 24))
    heat = scores.heat(signed, (24, 24))
    heat = (heat / heat.amax(dim=(1, 2), keepdim=True)).numpy()
    expected = [[overlaps_by_scipy(h, b, t / 20) for t in range(20)] for h, b in zip(heat, boxes.tolist(), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert 0 < found.mean() < 1


def test_a_long_region_is_one_region():
    spiral = torch.zeros(1, 31, 31)
    for row in range(0, 31, 2):
        spiral[0, row] = 1
        spiral[0, row + 1 : row + 2, 30 if row % 4 == 0 else 0] = 1
    assert scores.box_overlaps(spiral, torch.tensor([[0, 0, 31, 31]]), (31, 31), [0.5]).tolist() == [[1.0]]


def test_thresholds_are_chosen_on_other_images():
    overlaps = torch.tensor([[0.9, 0.1, 0.4], [0.8, 0.2, 0.6], [0.2, 0.3, 0.75]])
    chosen = scores.box_thresholds(overlaps)
    assert chosen.tolist() == [2, 0, 0]
    torch.testing.assert_close(scores.box_accuracy(overlaps, chosen), torch.tensor([1.0, 1.0, 1 / 3]))
    several = torch.tensor([[[0, 0, 2, 2], [4, 4, 8, 8]], [[0, 0, 2, 2], [0, 0, 0, 0]]])
    corner = torch.zeros(2, 8, 8)
    corner[:, 4:, 4:] = 1
    assert scores.box_overlaps(corner, several, (8, 8), [0.5]).tolist() == [[1.0], [0.0]]


def test_the_centre_box_is_scored_beside_it():
    centre = scores.pseudo_maps(torch.zeros(1, 3, 32, 32), (32, 32))["centre"]
    middle, corner = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    middle[:, 8:24, 8:24] = corner[:, :4, :4] = True
    assert float(scores.max_box_acc(centre, middle)) == 1.0
    assert float(scores.max_box_acc(centre, corner)) == 0.0


def test_pxap_is_the_average_precision_of_sklearn_over_the_pooled_pixels():
    signed, masks = maps(5, 6, 6), squares(5, 24)
    heat = scores.heat(signed, (24, 24))
    rounded = (heat * 1000).long().clamp(max=999)
    expected = sklearn_metrics.average_precision_score(masks.flatten(), rounded.flatten())
    assert float(scores.pxap(signed, masks)) == pytest.approx(expected, abs=1e-9)
    exact = sklearn_metrics.average_precision_score(masks.flatten(), heat.flatten())
    assert float(scores.pxap(signed, masks)) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("name", ["auroc", "energy", "energy_gain", "pointing_game", "max_box_acc"])
def test_an_image_with_an_empty_mask_has_no_value_and_the_others_do(name):
    masks, signed = squares(), maps()
    masks[1] = False
    found = getattr(scores, name)(signed, masks)
    assert found.isnan().tolist() == [False, True, False, False]
    assert scores.mean_interval(found).unscored == 1


def test_a_mask_of_the_whole_picture():
    full = torch.ones(1, 8, 8, dtype=torch.bool)
    assert scores.auroc(maps(1), full).isnan().all()
    assert scores.energy_gain(maps(1), full).isnan().all()
    assert scores.energy_gain(-maps(1).abs(), full).isnan().all()
    assert scores.energy(maps(1), full).tolist() == [1.0]
    assert scores.pointing_game(maps(1), full).tolist() == [1.0]


@pytest.mark.parametrize("name", ["auroc", "energy", "energy_gain", "pointing_game", "max_box_acc", "pxap"])
def test_bad_input_is_refused_in_one_line(name):
    score, signed, masks = getattr(scores, name), maps(), squares()
    broken = signed.clone()
    broken[1, 0, 0] = torch.nan
    for given, words in (
        ((broken, masks), "maps: 1 of 4 has NaN or infinite values"),
        ((signed[0], masks), "maps: got float32 4×4, but N×h×w is needed"),
        ((signed[:, None], masks), "maps: got float32 4×1×4×4"),
        ((signed, masks[:3]), "masks: got bool 3×16×16"),
        ((signed, masks[:, :3, :3]), "masks: 3×3 pixels for maps of 4×4 cells"),
        ((signed, 255 * masks.int()), "masks: values other than 0 and 1"),
        ((signed, None), "masks: got NoneType"),
        (("cam", masks), "maps: got str"),
    ):
        with pytest.raises(UserError) as refused:
            score(*given)
        assert str(refused.value).startswith(words)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["auroc", "energy", "energy_gain", "pointing_game", "max_box_acc"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_maps_of_any_number_format_and_masks_of_zeros_and_ones(name, dtype):
    score, signed, masks = getattr(scores, name), (8 * maps()).round(), squares()
    given = signed.to(dtype)
    torch.testing.assert_close(score(given, masks.int()).float(), score(signed, masks))
    assert torch.equal(score(signed[:1], masks[:1]), score(signed, masks)[:1]) or name == "max_box_acc"


def test_an_empty_batch_has_no_values():
    for name in ("auroc", "energy", "energy_gain", "pointing_game"):
        assert getattr(scores, name)(torch.zeros(0, 4, 4), torch.zeros(0, 8, 8, dtype=torch.bool)).shape == (0,)
