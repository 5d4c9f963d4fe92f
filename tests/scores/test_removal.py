"""Does the network need what is hot? Limits, then oracles, then any network, then bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from camlab import maps as map_maths
from camlab import scores
from camlab.errors import UserError
from camlab.models.cam_net import CamNet
from camlab.scores.imputers import IMPUTERS, ROAD_NOISE, gaussian_blur
from camlab.scores.linear_imputation import interpolated
from camlab.scores.statistics import check_chance
from tests.scores.networks import images, maps, small_network, squares

NUMPY_2 = pytest.mark.filterwarnings(
    "ignore:__array_wrap__ must accept"
)  # pytorch-grad-cam gives numpy torch's tensors


class BrightSpot(nn.Module):
    """Class 1 if the cell at (1, 2) of a 4×4 grid is bright: the network needs one cell and nothing else."""

    def forward(self, x):
        logit = x[:, :, 4:8, 8:12].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(logit), 8 * logit - 4], dim=1)


def spot_map():
    found = torch.zeros(1, 4, 4)
    found[0, 1, 2] = 1.0
    return found


def test_srg_by_hand():
    bright = torch.ones(1, 3, 16, 16)
    p, q = torch.tensor([4.0, -4.0]).sigmoid().tolist()
    found = scores.srg(BrightSpot(), bright, spot_map() + 0.01 * maps(1), steps=4, target=1)
    highest = (p + q) / 2 * 0.25 + q * 0.75  # gone from the first step on
    lowest = p * 0.75 + (p + q) / 2 * 0.25
    assert float(found) == pytest.approx(lowest - highest, abs=1e-6)


def test_the_reversed_order_negates_srg_exactly():
    model, x, signed = small_network(), images(), maps()
    for imputer in ("mean", "blur"):
        found = scores.srg(model, x, signed, imputer=imputer)
        torch.testing.assert_close(scores.srg(model, x, -signed, imputer=imputer), -found, rtol=0, atol=1e-6)
        assert found.abs().max() > 1e-4


def test_lowest_first_is_highest_first_reversed_also_where_cells_are_tied():
    seen = []

    class Recorder(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.stack([x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))], dim=1)

    tied = torch.zeros(1, 4, 4)
    tied[0, 0, :2] = 1.0
    passes = scores.Passes(Recorder(), torch.ones(1, 1, 8, 8))
    seen.clear()
    scores.removal_curves(passes, tied, steps=16)
    left = torch.cat(seen)[:30, 0, ::2, ::2]  # the emptied picture comes last
    highest, lowest = 1 - left[:15], 1 - left[15:]
    assert highest.flatten(1).sum(dim=1).tolist() == list(range(1, 16)), "exactly k cells are gone"
    assert lowest.flatten(1).sum(dim=1).tolist() == list(range(1, 16))
    assert torch.equal(lowest, 1 - highest.flip(0)), "the same permutation reversed"
    assert bool((highest[1:] >= highest[:-1]).all()), "what is gone stays gone"
    assert torch.equal(highest[1], tied[0])


def test_cells_are_those_of_the_maps_own_grid():
    seen = []

    class Recorder(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return x.mean(dim=(2, 3))

    scores.srg(Recorder(), torch.ones(1, 2, 10, 9), maps(1, 3, 4), steps=6)
    for picture in torch.cat(seen)[:, 0]:
        cells = [block for rows in picture.split([4, 3, 3]) for block in rows.split([3, 2, 2, 2], dim=1)]
        assert all(len(block.unique()) == 1 for block in cells)


@pytest.mark.parametrize(
    ("cells", "steps", "counts"),
    [(16, 10, [0, 2, 3, 5, 6, 8, 10, 11, 13, 14, 16]), (4, 10, [0, 1, 2, 3, 4]), (1, 5, [0, 1]), (6, 1, [0, 6])],
)
def test_by_step_s_of_k_round_sz_k_cells_are_gone(cells, steps, counts):
    passes = scores.Passes(small_network(), images(2))
    curves = scores.removal_curves(passes, maps(2, 1, cells), steps=steps)
    assert (curves.shares * cells).round().tolist() == counts
    assert curves.highest_first.shape == (2, len(counts))
    assert torch.equal(curves.lowest_first[:, 0], passes.intact)
    assert torch.equal(curves.highest_first[:, -1], curves.lowest_first[:, -1])


@pytest.mark.parametrize("imputer", ["mean", "blur", "road"])
def test_random_orders_score_zero_in_expectation(imputer):
    x, model = images(120, 8), small_network()
    noise = scores.pseudo_maps(x, (4, 4))
    for name in ("random", "constant"):
        values = scores.srg(model, x, noise[name], imputer=imputer, steps=4)
        assert values.std() > 0
        check_chance("srg", values, 0.0)


def test_road_of_random_maps_is_zero_in_expectation():
    x = images(120, 8)
    values = scores.road(small_network(), x, scores.pseudo_maps(x, (4, 4))["random"], shares=(0.25, 0.5, 0.75))
    assert values.std() > 0
    check_chance("road", values, 0.0)


def test_ties_depend_on_the_seed_and_on_the_images_number_but_not_on_the_batch():
    tied, numbers = torch.zeros(6, 5, 5), torch.arange(6)
    order = scores.cell_order(tied, seed=3)
    assert torch.equal(order.sort(dim=1).values, torch.arange(25).expand(6, -1))
    assert torch.equal(scores.cell_order(tied[2:4], seed=3, numbers=numbers[2:4]), order[2:4])
    assert len({tuple(row) for row in order.tolist()}) == 6
    assert not torch.equal(scores.cell_order(tied, seed=4), order)
    model, x = small_network(), images(6)
    whole = scores.srg(model, x, tied, seed=3)
    parts = [scores.srg(model, x[i : i + 2], tied[i : i + 2], seed=3, numbers=numbers[i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    small = scores.srg(model, x, tied, seed=3, batch_size=7)
    torch.testing.assert_close(small, whole, rtol=0, atol=1e-6)


def test_ties_are_broken_evenly():
    first = scores.cell_order(torch.zeros(2000, 2, 2))[:, 0].bincount(minlength=4)
    assert first.min() > 420, "each of four cells comes first about 500 times"


def test_srg_is_insertion_less_deletion_with_the_same_imputer():
    model, x, signed = small_network(), images(), maps()
    found = {
        name: getattr(scores, name)(model, x, signed, imputer="mean", steps=8) for name in ("insertion", "deletion")
    }
    torch.testing.assert_close(
        scores.srg(model, x, signed, steps=8), found["insertion"] - found["deletion"], rtol=0, atol=1e-6
    )


class GivenMaps:
    """An extractor as torchcam's metrics take it, which hands over maps that are given."""

    def __init__(self, model, signed):
        self.model, self.signed = model, signed

    def __call__(self, class_idx=None, scores=None, normalized=True, *, targets=None, **kwargs):
        return [self.signed]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return torch.no_grad()


def softmax(logits):
    return logits.softmax(dim=-1)


def test_insertion_and_deletion_are_torchcams():
    metrics = pytest.importorskip("torchcam.metrics", reason="torchcam is the oracle of insertion and deletion")
    model, x, signed = small_network(), images(4, 10), maps(4, 10, 10)  # cells are pixels: torchcam orders pixels
    oracle = metrics.DeletionInsertionMetric(GivenMaps(model, signed), softmax, steps=20)
    oracle.update(x)
    found = {
        name: float(getattr(scores, name)(model, x, signed, imputer="mean").mean())
        for name in ("insertion", "deletion")
    }
    expected = oracle.summary()
    assert found["insertion"] == pytest.approx(expected["insertion_auc"], abs=1e-5)
    assert found["deletion"] == pytest.approx(expected["deletion_auc"], abs=1e-5)


def test_torchcam_orders_the_pixels_of_one_cell_by_interpolation_and_we_do_not():
    metrics = pytest.importorskip("torchcam.metrics", reason="torchcam is the oracle of insertion and deletion")
    model, x, signed = small_network(), images(4, 16), maps(4, 4, 4)
    oracle = metrics.DeletionInsertionMetric(GivenMaps(model, signed), softmax, steps=16)
    oracle.update(x)
    found = float(scores.deletion(model, x, signed, steps=16).mean())
    assert abs(found - oracle.summary()["deletion_auc"]) > 1e-5
    blocks = signed.repeat_interleave(4, 1).repeat_interleave(4, 2)  # where the interpolation has no say, we agree
    oracle = metrics.DeletionInsertionMetric(GivenMaps(model, blocks), softmax, steps=16)
    oracle.update(x)
    assert found == pytest.approx(oracle.summary()["deletion_auc"], abs=1e-5)


def test_average_drop_and_increase_are_torchcams():
    metrics = pytest.importorskip("torchcam.metrics", reason="torchcam is the oracle of average drop and increase")
    model, x, signed = small_network(), images(12), maps(12)
    oracle = metrics.ClassificationMetric(GivenMaps(model, map_maths.normalize(signed)), softmax)
    oracle.update(x)
    expected = oracle.summary()
    assert float(scores.average_drop(model, x, signed).mean()) == pytest.approx(expected["avg_drop"], abs=1e-5)
    assert float(scores.increase(model, x, signed).mean()) == pytest.approx(expected["conf_increase"], abs=1e-6)
    assert 0 < expected["conf_increase"] < 1


def test_a_map_of_ones_scores_a_perfect_drop():
    model, x = small_network(), images()
    assert scores.average_drop(model, x, torch.ones(4, 4, 4)).tolist() == [0.0] * 4
    assert scores.increase(model, x, torch.ones(4, 4, 4)).tolist() == [0.0] * 4
    nothing = scores.average_drop(model, x, -torch.ones(4, 4, 4))
    grey = scores.Passes(model, torch.zeros_like(x), scores.Passes(model, x).class_idx).intact
    p = scores.Passes(model, x).intact
    torch.testing.assert_close(nothing, (p - grey).relu() / p)


def removed_by(signed, x, k):
    """The k highest cells of each map, as pixels of a picture."""
    ranks = signed.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).reshape(signed.shape)
    side = x.shape[-1] // signed.shape[-1]
    return (ranks < k).repeat_interleave(side, 1).repeat_interleave(side, 2)


@NUMPY_2
def test_the_stencil_is_solved_as_pytorch_grad_cam_solves_it():
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    x, oracle = images(6, 24), NoisyLinearImputer(noise=0)
    for k in (1, 8, 15):
        gone = removed_by(maps(6), x, k)
        expected = torch.stack([oracle(picture, (~mask).float()) for picture, mask in zip(x, gone, strict=True)])
        torch.testing.assert_close(interpolated(x, gone, tolerance=1e-6), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(interpolated(x, gone), expected, rtol=0, atol=ROAD_NOISE / 4)
    assert torch.equal(interpolated(x, torch.ones_like(gone)), torch.zeros_like(x))
    assert torch.equal(interpolated(x, torch.zeros_like(gone)), x)


@NUMPY_2
def test_road_is_pytorch_grad_cams_on_maps_without_ties(monkeypatch):
    monkeypatch.setattr("camlab.scores.imputers.ROAD_NOISE", 0.0)
    from pytorch_grad_cam.metrics.perturbation_confidence import (
        PerturbationConfidenceMetric,
        RemoveLeastRelevantFirst,
        RemoveMostRelevantFirst,
    )
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    model, x, signed = small_network(), images(3), maps(3, 16, 16)  # its maps have the size of the picture
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in model(x).argmax(dim=1)]
    shares = (25, 50, 75)  # percentiles at which it removes the same number of 256 pixels

    def mean(remove):
        metrics = [PerturbationConfidenceMetric(remove(share, NoisyLinearImputer(noise=0))) for share in shares]
        return np.mean([metric(x, signed.numpy(), targets, model) for metric in metrics], axis=0)

    expected = (mean(RemoveLeastRelevantFirst) - mean(RemoveMostRelevantFirst)) / 2
    found = scores.road(model, x, signed, shares=[share / 100 for share in shares])
    np.testing.assert_allclose(found.numpy(), expected, atol=5e-5)
    assert np.abs(expected).max() > 2e-3


def test_pytorch_grad_cams_threshold_empties_a_rectified_map_and_ours_does_not():
    from pytorch_grad_cam.metrics.perturbation_confidence import RemoveMostRelevantFirst

    gone, rectified = [], maps(1, 8, 8).sub(1).relu()
    assert (rectified == 0).float().mean() > 0.8
    RemoveMostRelevantFirst(50, lambda picture, kept: gone.append(1 - kept))(images(1)[0], rectified[0])
    assert float(gone[0].mean()) == 1.0, "it removes the whole picture, where half was asked for"
    half = scores.cell_order(rectified)[:, :32]
    assert set(rectified.flatten().nonzero()[:, 0].tolist()) <= set(half[0].tolist())


def test_quantus_road_averages_its_first_batch_only_and_ours_all_images():
    model, x, signed = small_network(), images(6), maps(6)
    whole = scores.road(model, x, signed, shares=(0.5,))
    metric = scores.ImageScore("road", shares=(0.5,))
    for part in (slice(0, 2), slice(2, 6)):
        metric.update(model, x[part], signed[part])
    torch.testing.assert_close(metric.per_image, whole, rtol=0, atol=1e-5)
    first_batch = whole[:2].mean()  # what Quantus 0.6.0 reports
    assert abs(float(metric.compute() - first_batch)) > 1e-4


def test_imputers():
    x, rows, gone = images(3), torch.tensor([2, 0]), squares(2)
    for name, imputer in IMPUTERS.items():
        filled = imputer(x, 0, torch.arange(3))(rows, gone)
        kept = (~gone)[:, None].expand_as(filled)
        assert torch.equal(filled[kept], x[rows][kept]), name
        assert not torch.allclose(filled, x[rows])
        assert torch.isfinite(filled).all()
    assert (IMPUTERS["mean"](x, 0, torch.arange(3))(rows, gone)[gone[:, None].expand(-1, 3, -1, -1)] == 0).all()
    noisy = IMPUTERS["road"](x, 0, torch.arange(3))(rows, gone) - interpolated(x[rows], gone)
    inside = noisy[gone[:, None].expand_as(noisy)]
    assert float(inside.std()) == pytest.approx(ROAD_NOISE, rel=0.3)
    assert abs(float(inside.mean())) < ROAD_NOISE / 3
    torch.testing.assert_close(gaussian_blur(x, 2).mean(), x.mean(), rtol=0, atol=0.05)
    assert gaussian_blur(x, 2).std() < 0.4 * x.std()


def test_an_imputer_of_ones_own():
    def black(x, seed, numbers):
        return lambda rows, gone: x[rows].masked_fill(gone[:, None], -2.0)

    model, x, signed = small_network(), images(), maps()
    assert not torch.allclose(scores.srg(model, x, signed, imputer=black), scores.srg(model, x, signed))


def test_several_maps_and_imputers_share_the_passes_of_the_unchanged_images():
    calls = []
    model, x = small_network(), images(3)
    model.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    passes = scores.Passes(model, x, target=[0, 1, 2])
    found = [scores.removal_curves(passes, maps(3, seed=seed), "mean").srg for seed in range(4)]
    found.append(scores.removal_curves(passes, maps(3), "blur").srg)
    assert sum(calls) == 3 + 2 * 3 + 5 * 3 * 2 * 9, "the unchanged images once, the emptied ones once for each imputer"
    alone = scores.srg(model, x, maps(3, seed=2), target=[0, 1, 2])
    torch.testing.assert_close(found[2], alone, rtol=0, atol=1e-6)


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = small_network(), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda logits: (logits, -logits), None),
        (lambda logits: {"logits": logits, "loss": None}, None),
        (lambda logits: SimpleNamespace(logits=logits), None),
        (lambda logits: {"a": logits, "b": logits}, "b"),
    ],
)
def test_networks_whose_logits_are_in_something(wrap, output):
    x, signed = images(), maps()
    found = scores.srg(Wrapped(wrap), x, signed, output=output)
    torch.testing.assert_close(found, scores.srg(small_network(), x, signed))


def test_a_network_of_transformers():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    options = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    config = transformers.ViTConfig(image_size=16, patch_size=4, num_labels=3, **options)
    found = scores.srg(transformers.ViTForImageClassification(config), images(2), maps(2))
    assert found.shape == (2,)
    assert torch.isfinite(found).all()


def test_one_logit_is_a_sigmoid():
    model, x = small_network(classes=1), images()
    passes = scores.Passes(model, x)
    torch.testing.assert_close(passes.intact, model(x)[:, 0].sigmoid())
    assert scores.srg(model, x, maps()).abs().max() > 1e-5


@pytest.mark.parametrize("imputer", ["mean", "blur", "road"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_that_answer_in_half_precision(imputer, dtype):
    x, signed = images(3, 8), maps(3)
    exact = scores.srg(small_network(), x, signed, imputer=imputer, steps=4)
    half = scores.srg(small_network().to(dtype), x.to(dtype), signed.to(dtype), imputer=imputer, steps=4)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0, atol=0.02)


def test_the_network_is_left_as_it_was_found():
    model, x = small_network().train(), images()
    model.insert(1, nn.BatchNorm2d(8))
    model.insert(2, nn.Dropout(0.5))
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags, state = [module.training for module in model.modules()], torch.get_rng_state()
    for name in ("srg", "insertion", "deletion", "road", "average_drop", "increase"):
        value = getattr(scores, name)(model, x, maps())
        assert not value.requires_grad
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert flags == [module.training for module in model.modules()]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(own.grad is None for name, own in model.named_parameters() if name != "0.weight")
    assert torch.equal(images(), x)


def test_it_works_in_inference_mode_and_under_autocast():
    model, x, signed = small_network(), images(), maps()
    expected = scores.srg(model, x, signed)
    with torch.inference_mode():
        torch.testing.assert_close(scores.srg(model, x, signed), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(scores.srg(model, x, signed, imputer="mean"), expected, rtol=0, atol=0.02)
        assert torch.isfinite(scores.srg(model, x, signed, imputer="road", steps=2)).all()


def test_a_network_that_fails_is_left_in_train_mode():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    model = Broken().train()
    with pytest.raises(UserError, match="the network cannot take float32 images of 3×16×16: no"):
        scores.srg(model, images(), maps())
    assert model.training


@pytest.mark.parametrize("name", ["srg", "insertion", "deletion", "road", "average_drop", "increase"])
def test_bad_input_is_refused_in_one_line(name):
    score, model, x, signed = getattr(scores, name), small_network(), images(), maps()
    broken, unseen = signed.clone(), x.clone()
    broken[1, 0, 0] = unseen[0] = torch.nan
    for given, words in (
        ((model, x, broken), "maps: 1 of 4 has NaN or infinite values"),
        ((model, unseen, signed), "images: 1 of 4 has NaN or infinite values"),
        ((model, x, signed[:3]), "maps and images: 3 and 4, but both must be of the same images"),
        ((model, x, signed, 7), "target: the network has the classes 0 to 2"),
        ((model, x, signed, [0, 1]), "target: 4 images need one class each"),
        (("resnet18", x, signed), "model: got str"),
        ((model, x[:0], signed[:0]), "images: there are none to score"),
        ((model, x[0], signed), "images: got float32 3×16×16"),
    ):
        with pytest.raises(UserError) as refused:
            score(*given)
        assert str(refused.value).startswith(words)


def test_more_bad_input():
    model, x = small_network(), images()
    with pytest.raises(UserError, match=r"maps: 32×32 cells for images of 16×16 pixels"):
        scores.srg(model, x, maps(4, 32, 32))
    with pytest.raises(UserError, match=r"imputer=mena: unknown. Did you mean mean\?"):
        scores.srg(model, x, maps(), imputer="mena")
    with pytest.raises(UserError, match="steps=0"):
        scores.srg(model, x, maps(), steps=0)

    class Overflows(nn.Module):
        def forward(self, x):
            return torch.stack([1 / x[:, 0, 0, 0], x[:, 0, 0, 0]], dim=1)  # infinite once that pixel has gone

    with pytest.raises(UserError, match="NaN or infinite logits"):
        scores.srg(Overflows(), x, maps())


def test_feature_srg_is_that_of_the_head_with_features_set_to_zero():
    torch.manual_seed(0)
    net, signed = CamNet("alexnet", num_classes=4, cam_channels=5, keep_last_pool=False).eval(), maps(3, 3, 4)
    features, target = torch.randn(3, 5, 3, 4), torch.tensor([2, 0, 3])
    cam = map_maths.cam(features, net.fc.weight)
    curves = scores.feature_curves(cam, net.fc.bias, signed, target, steps=6)
    order = scores.cell_order(signed)
    for curve, cells in ((curves.highest_first, order), (curves.lowest_first, order.flip(1))):
        for point in range(7):
            kept = torch.ones(3, 12).scatter(1, cells[:, : 2 * point], 0).reshape(3, 1, 3, 4)
            with torch.no_grad():
                p = net.forward_head(features * kept).softmax(dim=1)[torch.arange(3), target]
            torch.testing.assert_close(curve[:, point], p, rtol=0, atol=1e-6)


def test_on_logits_no_order_beats_that_of_the_signed_cam():
    cam, target = torch.randn(50, 3, 4, 4), torch.arange(50) % 3
    own = cam[torch.arange(50), target]

    def of(order):
        return scores.feature_srg(cam, torch.randn(3), order, target, steps=16, scale="logit")

    best = of(own)
    for seed in range(5):
        assert (of(maps(50, seed=seed)) <= best + 1e-6).all()
    assert (of(own.relu()) <= best + 1e-6).all()
    assert (of(own.relu()) < best - 1e-3).any(), "the rectified map has lost the order of what speaks against the class"
    check_chance("feature_srg", of(maps(50)), 0.0)
    torch.testing.assert_close(of(-own), -best)
    single = scores.feature_srg(cam[:, :1], None, own, torch.zeros(50, dtype=torch.int64))
    assert torch.isfinite(single).all()


def test_feature_srg_refuses_another_grid():
    with pytest.raises(UserError, match="maps: 4×4 cells, but the features have 3×3"):
        scores.feature_srg(torch.randn(2, 3, 3, 3), None, maps(2), torch.tensor([0, 1]))
