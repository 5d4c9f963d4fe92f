"""Scoring and explaining leave the network, the generators and torch.compile as they were, on any default device."""

import threading

import pytest
import torch
from torch import nn

import camlab
from camlab import scores
from camlab.attribution.explainer import Explainer
from camlab.attribution.hooks import passing
from camlab.errors import UserError
from camlab.maps.gradient_methods import GRADIENT_METHODS
from camlab.scores.metrics import ImageScore

CPU = torch.device("cpu")


class Drawing(nn.Sequential):
    """A network that draws random numbers in eval mode, too."""

    def forward(self, images):
        torch.rand(3)
        return super().forward(images)


def small() -> nn.Module:
    torch.manual_seed(0)
    return Drawing(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_scores_leave_the_generators_alone():
    network, images = small(), torch.rand(2, 3, 8, 8)
    state = torch.get_rng_state()
    scores.srg(network, images, torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_that_score_a_network_leave_it_in_training_mode():
    network, images, maps = small().train(), torch.rand(4, 3, 8, 8), torch.rand(4, 4, 4)
    modes = []
    network[0].register_forward_hook(lambda module, *_: modes.append(module.training))
    threads = [threading.Thread(target=scores.srg, args=(network, images, maps)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(module.training for module in network.modules())
    assert modes
    assert not any(modes)


def test_compiling_is_on_again_after_passes_that_overlap():
    import torch._dynamo  # otherwise nothing is switched off

    first, second = passing(small(), CPU), passing(small(), CPU)
    stance = torch._dynamo.eval_frame._stance.stance
    first.__enter__()
    second.__enter__()
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    first.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == stance


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_sums_beyond_the_range_of_float16(method):
    activations = torch.full((1, 2, 64, 64), 20.0)
    gradients = torch.full((1, 2, 64, 64), 0.01)
    whole = GRADIENT_METHODS[method](activations, gradients)
    half = GRADIENT_METHODS[method](activations.half(), gradients.half())
    assert float(whole.max()) > 0
    torch.testing.assert_close(half, whole, rtol=2e-3, atol=0)


def test_another_default_device_changes_nothing():
    network, images = small(), torch.rand(2, 3, 8, 8)
    maps = camlab.heatmaps(network, images, "grad_cam", layer="0")
    torch.set_default_device("meta")
    try:
        assert scores.mean_interval(maps[0, 0]).n == 8
        assert set(scores.pseudo_maps(images, (4, 4))) == {"random", "constant", "centre", "edges"}
        assert scores.mprt(network, images, ("grad_cam",), stages=1)["grad_cam"].similarity.shape == (2, 1)
    finally:
        torch.set_default_device(None)


def test_calling_a_metric_counts_images_as_updating_it_does():
    network, images, maps = small(), torch.rand(6, 3, 8, 8), torch.zeros(6, 4, 4)  # all cells are tied
    called, updated = ImageScore("srg"), ImageScore("srg")
    for part in range(0, 6, 2):
        called(network, images[part : part + 2], maps[part : part + 2])
        updated.update(model=network, images=images[part : part + 2], maps_NHW=maps[part : part + 2])
    assert torch.equal(called.per_image, updated.per_image)
    assert torch.equal(called.per_image, scores.srg(network, images, maps))


def test_nothing_to_explain_is_told():
    explainer = Explainer(small())
    with pytest.raises(UserError, match="none to explain"):
        explainer.explain(torch.rand(0, 3, 8, 8), ["cam"])
    with pytest.raises(UserError, match="no classes"):
        explainer.explain(torch.rand(2, 3, 8, 8), ["cam"], torch.empty(2, 0, dtype=torch.int64))
    assert explainer.explain(torch.rand(2, 3, 8, 8), ["cam"], [[1], [0]]).class_idx.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (lambda network, images, maps: scores.road(network, images, maps, shares=[10, 50]), "between 0 and 1"),
        (lambda network, images, maps: scores.road(network, images, maps, shares=[]), "between 0 and 1"),
        (lambda network, images, maps: scores.srg(network, images, maps, steps=2.5), "steps=2.5"),
        (lambda network, images, maps: scores.max_sensitivity(network, images, "cam", copies=0), "copies=0"),
        (lambda network, images, maps: scores.paired_difference(torch.rand(5), torch.rand(1)), "5 and 1 images"),
        (lambda network, images, maps: scores.mean_interval(torch.rand(4, 5)), "one value for each image"),
        (lambda network, images, maps: scores.srg(network, images, maps + 1j), "complex"),
        (
            lambda network, images, maps: scores.feature_srg(maps[:, None], None, maps, torch.tensor([-1, 0])),
            "classes 0",
        ),
        (
            lambda network, images, maps: scores.feature_srg(
                maps[:, None].expand(-1, 3, -1, -1), torch.zeros(1), maps, torch.tensor([0, 0])
            ),
            "for 3 classes",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(score, told):
    with pytest.raises(UserError, match=told):
        score(small(), torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4))
