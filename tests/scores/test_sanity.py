"""Is it an explanation of this network, how stable is it, and what describes it? Limits first, then oracles."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from camlab import scores
from camlab.errors import UserError
from camlab.scores.randomisation import histogram_entropy, randomise, restoring
from tests.scores.networks import Head, images, maps, small_network

stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle of Spearman's correlation and of entropy")


def edges(model, x, class_idx):
    return scores.pseudo_maps(x, (8, 8))["edges"]


def test_spearman_is_that_of_scipy_with_ties_too():
    one, other = maps(5, 6, 7).round(), maps(5, 6, 7, seed=3)
    expected = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(scores.spearman(one, other).numpy(), expected, atol=1e-6)
    torch.testing.assert_close(scores.spearman(one, one), torch.ones(5))
    torch.testing.assert_close(scores.spearman(one, -one), -torch.ones(5))
    assert scores.spearman(torch.zeros(1, 2, 2), maps(1, 2, 2)).isnan().all(), "as scipy, which warns"


def test_spearman_of_large_maps_does_not_overflow():
    large = maps(1, 300, 300)
    assert float(scores.spearman(large, large)) == pytest.approx(1, abs=1e-5)


def test_a_map_that_ignores_the_weights_stays_the_same_and_fails_the_gate():
    x = images(6)
    found = scores.mprt(small_network(), x, {"edges": edges})["edges"]
    torch.testing.assert_close(found.similarity, torch.ones(6, 3))
    torch.testing.assert_close(found.of_random_pair, torch.ones(6))
    verdict = scores.gate(found)
    assert verdict.passes is False
    assert verdict.similarity.mean == pytest.approx(1)


def test_nothing_randomised_is_one():
    model = small_network()
    model[4].register_module("spare", nn.Conv2d(2, 2, 1))  # which no pass uses
    found = scores.mprt(model, images(), ["cam", "grad_cam", "layer_cam"], layers=["4.spare"])
    for name, result in found.items():
        assert torch.equal(result.before, result.after), name
        torch.testing.assert_close(result.similarity, torch.ones(4, 1))


def test_cam_depends_on_the_weights_and_passes():
    found = scores.mprt(small_network(), images(40), ["cam", "grad_cam"], stages=1)
    for result in found.values():
        assert result.layers == ("0",)
        assert scores.gate(result).passes is True


def test_layers_are_randomised_from_the_top_down_and_stay_so():
    model, seen = small_network(), []

    def recorded(network, x, class_idx):
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return scores.pseudo_maps(x, (4, 4))["random"]

    found = scores.mprt(model, images(), {"recorded": recorded})["recorded"]
    assert found.layers == ("4.fc", "2", "0")
    changed = [
        {name.rpartition(".")[0] for name, value in now.items() if not torch.equal(value, before[name])}
        for before, now in itertools.pairwise(seen)
    ]
    assert changed == [{"4.fc"}, {"2"}, {"0"}, {"4.fc", "2", "0"}]
    grouped = scores.mprt(model, images(), {"recorded": recorded}, stages=2)["recorded"]
    assert grouped.layers == ("2", "0")
    assert grouped.similarity.shape == (4, 2)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("fails_at", [None, 0, 2, 4])
def test_weights_are_restored_even_after_an_error(fails_at):
    model, calls = small_network().train(), []
    model.insert(1, nn.BatchNorm2d(8))
    model[1].running_mean.fill_(3.0)
    model[1].num_batches_tracked.fill_(7)
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.ones_like(model[0].bias)
    before, parameters, rng = state(model), list(model.parameters()), torch.get_rng_state()

    def failing(network, x, class_idx):
        calls.append(network)
        if len(calls) - 1 == fails_at:
            raise RuntimeError("an explainer that fails")
        return edges(network, x, class_idx)

    try:
        scores.mprt(model, images(), {"failing": failing})
        assert fails_at is None
    except RuntimeError:
        assert fails_at is not None
    after = state(model)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(old is new for old, new in zip(parameters, model.parameters(), strict=True))
    assert model.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert not model[0].weight.requires_grad
    assert torch.equal(model[0].bias.grad, torch.ones_like(model[0].bias))


def test_restoring_is_bit_exact_for_nan_and_negative_zero():
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[torch.nan, -0.0, 1e-45]]))
    before = model.weight.detach().clone().view(torch.int32)
    with restoring(model):
        randomise(model, torch.Generator().manual_seed(0))
        assert not torch.equal(model.weight.view(torch.int32), before)
    assert torch.equal(model.weight.view(torch.int32), before)


def test_random_weights_keep_the_signal_alive_through_many_layers():
    layers = [nn.Sequential(nn.Conv2d(64 if i else 3, 64, 3, padding=1), nn.ReLU()) for i in range(20)]
    model, generator = nn.Sequential(*layers), torch.Generator().manual_seed(0)
    for module in model.modules():
        randomise(module, generator)
    with torch.no_grad():
        spread = model(images(2, 16)).std()
    assert 0.05 < float(spread) < 20, "torch's own initial weights shrink it to 1e-8"


def test_randomise_knows_normalisations_and_tokens():
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.fill_(5), norm.bias.fill_(5), norm.running_var.fill_(5)
    randomise(norm, generator)
    for value, expected in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
        assert (value == expected).all()

    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 1000) * 3 + 7)

    token = Token()
    old = token.token.detach().clone()
    randomise(token, generator)
    assert not torch.equal(token.token, old)
    assert token.token.std().item() == pytest.approx(3, rel=0.1)
    assert token.token.mean().item() == pytest.approx(7, rel=0.1)


def test_statistics_of_normalisations_without_parameters_are_forgotten_too():
    from torchvision.ops import FrozenBatchNorm2d

    frozen, plain = FrozenBatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), frozen, plain, Head(4, 3)).eval()
    frozen.weight.fill_(5)
    plain.running_mean.fill_(3)
    seen = []

    def own(network, given, class_idx):
        seen.append((float(frozen.weight[0]), float(plain.running_mean[0])))
        return maps()

    scores.mprt(model, images(), {"own": own}, stages=1)
    assert seen == [(5, 3), (1, 0), (1, 0)]
    assert (float(frozen.weight[0]), float(plain.running_mean[0])) == (5, 3)


def test_a_weight_that_is_computed_in_each_pass_is_restored():
    model = small_network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model[0])
    model(images())
    before = model[0].weight.detach().clone()
    scores.mprt(model, images(), "grad_cam", stages=1)
    assert torch.equal(model[0].weight, before)


def test_the_same_seed_gives_the_same_randomised_maps():
    model, x = small_network(), images()
    one, again, other = (scores.mprt(model, x, "cam", seed=seed)["cam"].after for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_known_maps_are_not_computed_again():
    calls = []

    def counted(network, x, class_idx):
        calls.append(1)
        return edges(network, x, class_idx)

    x = images()
    scores.mprt(small_network(), x, {"own": counted}, stages=1, before={"own": edges(None, x, None)})
    assert len(calls) == 2


def test_a_vision_transformer_is_randomised_whole():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    model = timm.models.VisionTransformer(**options).eval()
    before, seen = state(model), []

    def recorded(network, x, class_idx):
        seen.append(state(network))
        return scores.pseudo_maps(x, (4, 4))["random"]

    scores.mprt(model, images(), {"recorded": recorded}, stages=1)
    same = [name for name in before if torch.equal(before[name], seen[1][name])]
    assert all("norm" in name or name.endswith("bias") for name in same), "these had their initial values before"
    assert any("cls_token" in name for name in before)


def test_the_gate_needs_its_whole_interval_above_a_half():
    def result(values):
        similarity = torch.tensor(values)[:, None]
        return scores.Randomised(("fc",), similarity, similarity[:, 0], similarity[:, None], similarity[:, None])

    assert scores.gate(result([0.9, 0.8, 0.85] * 10)).passes is False
    assert scores.gate(result([0.0, 1.0, 0.7] * 3)).passes is True, "its interval contains a half"
    assert scores.gate(result([0.1, 0.0, -0.1] * 10)).passes is True
    unknown = scores.gate(result([torch.nan] * 3))
    assert unknown.passes is None
    assert unknown.similarity.unscored == 3


def test_mprt_refuses_what_it_cannot_randomise():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    with pytest.raises(UserError, match="the network has no weights to randomise"):
        scores.mprt(Fixed(), images(), {"edges": edges})
    with pytest.raises(UserError, match=r"layers: conv9 is no layer with weights. They are in 0, 2, 4.fc"):
        scores.mprt(small_network(), images(), {"edges": edges}, layers=["conv9"])
    with pytest.raises(UserError, match=r"own: gives \(4, 1, 2, 2\) for 4 images"):
        scores.mprt(small_network(), images(), {"own": lambda model, x, c: torch.zeros(4, 1, 2, 2)})
    with pytest.raises(UserError, match="method=camm: unknown method"):
        scores.mprt(small_network(), images(), "camm")


def test_emprt_is_the_relative_rise_of_scipys_entropy():
    before, after = maps(4, 8, 8).abs() ** 4, maps(4, 8, 8, seed=5)
    found = []
    for signed in (before, after):
        counts = [np.histogram(one.flatten().numpy(), bins=100)[0] for one in signed]
        found.append(np.array([stats.entropy(count) for count in counts]))  # as Quantus 0.6.0's discrete_entropy
    np.testing.assert_allclose(histogram_entropy(after, 100).numpy(), found[1], atol=1e-5)
    expected = (found[1] - found[0]) / found[0]
    np.testing.assert_allclose(scores.emprt(before, after, bins=100).numpy(), expected, atol=1e-5)
    assert (scores.emprt(before, after) > 0).all()
    assert scores.emprt(before, before).tolist() == [0.0] * 4
    assert scores.emprt(torch.ones(1, 4, 4), after[:1]).isnan().all()


def test_max_sensitivity_is_captums():
    from captum.metrics import sensitivity_max

    model, x, drawn = small_network(), images(3), []
    explaining = scores.Explaining("grad_cam")
    class_idx = scores.Passes(model, x).class_idx

    def recorded(network, given, classes):
        drawn.append(given)
        return explaining(network, given, classes)["grad_cam"]

    found = scores.max_sensitivity(model, x, {"own": recorded}, radius=0.1, copies=4)["own"]
    copies = torch.stack(drawn[1:], dim=1)  # 3 images × 4 copies
    assert float((copies - x[:, None]).abs().max()) == pytest.approx(0.1, rel=0.01)

    def explain(inputs):
        given = inputs[0] if isinstance(inputs, tuple) else inputs
        return (explaining(model, given, class_idx.repeat_interleave(len(given) // 3))["grad_cam"],)

    def perturb(inputs, radius):
        return copies.flatten(0, 1)

    expected = sensitivity_max(explain, x, perturb_func=perturb, perturb_radius=0.1, n_perturb_samples=4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (found > 0).all()


def test_max_sensitivity_at_its_limits():
    model, x = small_network(), images()
    assert scores.max_sensitivity(model, x, ["cam", "layer_cam"], radius=0)["layer_cam"].tolist() == [0.0] * 4
    grows = [scores.max_sensitivity(model, x, "cam", radius=radius)["cam"].mean() for radius in (0.001, 0.01, 0.1)]
    assert 0 < grows[0] < grows[1] < grows[2]
    zeros = {"zeros": lambda network, given, c: torch.zeros(4, 2, 2)}
    assert scores.max_sensitivity(model, x, zeros)["zeros"].tolist() == [0.0] * 4
    from_zero = {"own": lambda network, given, c: (given[:, 0, :2, :2] != x[:, 0, :2, :2]).float()}
    assert scores.max_sensitivity(model, x, from_zero)["own"].isnan().all()
    parts = [scores.max_sensitivity(model, x[i : i + 2], "cam", numbers=torch.arange(i, i + 2))["cam"] for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), scores.max_sensitivity(model, x, "cam")["cam"])


def test_maps_that_are_no_numbers_are_refused_and_tiny_ones_scored():
    model, x = small_network(), images()
    for odd in (torch.nan, torch.inf):
        with pytest.raises(UserError, match="own"):
            scores.max_sensitivity(model, x, {"own": lambda network, given, c, odd=odd: given.mean(dim=1) * odd})
    of_scale = [
        scores.max_sensitivity(model, x, {"own": lambda network, given, c, by=by: given.mean(dim=1) * by})["own"]
        for by in (1.0, 1e-30)
    ]
    assert of_scale[0].min() > 0
    torch.testing.assert_close(*of_scale)
    whole = {"own": lambda network, given, c: (100 * given.mean(dim=1)).to(torch.int32)}
    assert scores.max_sensitivity(model, x, whole)["own"].isfinite().all()


class Mirrored(nn.Module):
    """A network that treats an image and its mirror image alike, cell by cell."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.copy_((self.conv.weight + self.conv.weight.flip(-1)) / 2)
        self.relu = nn.ReLU()
        self.head = Head(6, 3)

    def forward(self, x):
        return self.head(self.relu(self.conv(x)))


def test_flip_consistency_of_an_equivariant_network_is_one():
    torch.manual_seed(0)
    model = Mirrored().eval()
    for name, found in scores.flip_consistency(model, images(), ["cam", "grad_cam", "layer_cam"]).items():
        torch.testing.assert_close(found, torch.ones(4), rtol=0, atol=1e-3), name
    assert (scores.flip_consistency(small_network(), images(), "cam")["cam"] < 0.999).any()
    ramp = {"ramp": lambda network, x, c: torch.arange(16.0).reshape(1, 1, 16).expand(len(x), -1, -1)}
    torch.testing.assert_close(scores.flip_consistency(model, images(), ramp)["ramp"], -torch.ones(4))


@pytest.mark.parametrize("score", [scores.mprt, scores.max_sensitivity, scores.flip_consistency])
def test_networks_are_left_as_they_were_found(score):
    model, rng = small_network().train(), torch.get_rng_state()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = state(model)
    with torch.no_grad():
        score(model, images(), ["cam", "grad_cam"])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_auto_and_several_layers_and_outputs_as_in_heatmaps():
    class TwoAnswers(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_network()

        def forward(self, x):
            logits = self.inner(x)
            return {"a": logits, "b": logits}

    model = TwoAnswers()
    found = scores.flip_consistency(model, images(), scores.Explaining("grad_cam", "inner.3", "a"), output="a")
    assert torch.isfinite(found["grad_cam"]).all()
    layers = scores.Explaining("layer_cam", [model.inner[1], model.inner[3]], "a")
    assert layers(model, images(), torch.zeros(4, dtype=torch.int64))["layer_cam"].shape == (4, 16, 16)
    assert set(scores.flip_consistency(small_network(), images(), "auto")) == {"auto"}


def test_effective_area_at_its_limits():
    one_cell = torch.zeros(1, 4, 5)
    one_cell[0, 1, 2] = 7.0
    assert float(scores.effective_area(one_cell)) == pytest.approx(1 / 20)
    assert float(scores.effective_area(torch.full((1, 4, 5), 0.3))) == pytest.approx(1)
    assert float(scores.effective_area(one_cell - 0.5)) == pytest.approx(1 / 20), "negative cells are no heat"
    assert scores.effective_area(-one_cell).isnan().all()
    heat = maps(3).relu()
    expected = [np.exp(stats.entropy(one.flatten())) / 16 for one in heat.numpy()]
    np.testing.assert_allclose(scores.effective_area(heat).numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(scores.effective_area(heat), scores.effective_area(1e30 * heat))


def test_contrast_drift_and_agreement():
    one, other = maps(), maps(seed=9)
    rho = scores.spearman(one, other)
    torch.testing.assert_close(scores.class_contrast(one, other), 1 - rho)
    torch.testing.assert_close(scores.drift(one, other), 1 - rho)
    torch.testing.assert_close(scores.agreement(one, other), rho)
    torch.testing.assert_close(scores.class_contrast(one, one), torch.zeros(4))
    torch.testing.assert_close(scores.drift(one, -one), torch.full((4,), 2.0))
    finer = one.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (scores.agreement(one, finer) > 0.8).all()
    torch.testing.assert_close(scores.agreement(finer, one), scores.agreement(one, finer))
    with pytest.raises(UserError, match="maps: grids of 4×4 and 8×8 cells"):
        scores.drift(one, finer)
    with pytest.raises(UserError, match="maps: 4 and 3, but both must be of the same images"):
        scores.drift(one, other[:3])
    with pytest.raises(UserError, match="maps: 4 of 4 have NaN or infinite values"):
        scores.effective_area(one / 0 * 0)


def test_cam_and_grad_cam_agree_where_they_are_the_same():
    found = scores.Explaining(["cam", "grad_cam"], "3")(small_network(), images(), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(scores.agreement(found["cam"], found["grad_cam"]), torch.ones(4), rtol=0, atol=0.02)
