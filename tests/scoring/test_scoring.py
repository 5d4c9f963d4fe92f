"""Scoring of a set of pictures: values, interruptions, bad input, and the check of the scoring itself."""

import json
import logging

import pytest
import torch
from torch import Tensor, nn

from camlab import scores
from camlab.data.image_set import ImageSet
from camlab.errors import UserError
from camlab.evaluation.scoring.picture_set import PictureSet, of_split
from camlab.evaluation.scoring.report import write_tables
from camlab.evaluation.scoring.request import Request
from camlab.evaluation.scoring.rows import Row
from camlab.evaluation.scoring.score_pictures import score_pictures
from camlab.evaluation.scoring.summary import _box_accuracy, check_scoring
from camlab.models.cam_net import CamNet
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.runs.score_names import OTHER_SCORES, PSEUDO_METHODS, SCORES
from camlab.scores.statistics import ScoringError
from tests.scores.networks import small_network, squares

CPU = torch.device("cpu")
SIDE = 16
QUICK = Request(methods=("cam",), scores=("auroc", "srg"), imputers=("mean",), steps=2)


def pictures(n: int = 12, masks: Tensor | None = None, asked: int | None = None) -> PictureSet:
    drawn = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names, labels = ("a", "b", "c"), torch.arange(n) % 3
    return of_split(ImageSet(drawn, labels, names, squares(n) if masks is None else masks), asked or n, "noise (test)")


def trained(network: nn.Module | None = None) -> TrainedNetwork:
    return TrainedNetwork(network or small_network(), Preprocess(SIDE), ("a", "b", "c"), "small")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [64, 5])
def test_the_values_are_those_of_the_functions_in_batches_of_any_size(tmp_path, batch_size):
    given, network = pictures(), small_network()
    wanted = ("auroc", "energy_gain", "srg", "effective_area", "class_contrast", "flip_consistency")
    request = Request(("cam",), (), wanted, ("mean", "road"), 4, 0, batch_size)
    found = score_pictures(trained(network), given, tmp_path, request, CPU).values
    images = Preprocess(SIDE)(given.images)
    explaining = scores.Explaining("cam")
    shown = explaining(network, images, given.labels)["cam"]
    logits = network(images).detach()
    needed = explaining(network, images, logits.argmax(dim=1))["cam"]
    others = logits.scatter(1, given.labels[:, None], -torch.inf).argmax(dim=1)
    expected = {
        "auroc": scores.auroc(shown, given.masks),
        "energy_gain": scores.energy_gain(shown, given.masks),
        "srg_mean": scores.srg(network, images, needed, steps=4),
        "srg_road": scores.srg(network, images, needed, imputer="road", steps=4),
        "effective_area": scores.effective_area(shown),
        "class_contrast": scores.class_contrast(shown, explaining(network, images, others)["cam"]),
        "flip_consistency": scores.flip_consistency(network, images, "cam")["cam"],
    }
    assert (logits.argmax(dim=1) != given.labels).any(), "the two classes never differ, so nothing is tested"
    for name, values in expected.items():
        assert torch.allclose(found["cam"][name], values, atol=1e-5, equal_nan=True), name


def test_every_score_is_computed_and_written(tmp_path):
    found = score_pictures(trained(), pictures(10), tmp_path, Request(("cam",), (), SCORES, ("mean",), 2), CPU)
    for name in ({*found.measures, "srg_mean"} | set(OTHER_SCORES)) - {"feature_srg"}:
        assert found.cells["cam"][name].interval.n > 0, name
    images, masks = Preprocess(SIDE)(pictures(10).images), pictures(10).masks
    shown = scores.Explaining("cam")(small_network(), images, pictures(10).labels)["cam"]
    assert found.cells["cam"]["pxap"].interval.mean == pytest.approx(float(scores.pxap(shown, masks)))
    assert found.cells["cam"]["pxap"].rank is None, "a measure of the whole set is not ranked"
    write_tables(tmp_path, found, {})
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["scores"]["cam"]["scores"].keys() == set(found.measures)


def test_feature_srg_of_a_cam_net_favours_cam(tmp_path):
    network = CamNet("alexnet", num_classes=3, cam_channels=4, keep_last_pool=False, weights=None).eval()
    given = TrainedNetwork(network, Preprocess(64), ("a", "b", "c"), "alexnet")
    found = score_pictures(given, pictures(4), tmp_path, Request(("cam",), (), ("feature_srg",)), CPU)
    assert found.cells["cam"]["feature_srg"].interval.mean > found.cells["random"]["feature_srg"].interval.mean
    assert set(found.measures) == {"feature_srg"}


def test_box_thresholds_are_chosen_on_other_pictures():
    overlaps = torch.zeros(4, 20)
    overlaps[0::2, 3] = overlaps[1::2, 8] = 1.0  # each half has a threshold of its own, which is wrong for the other
    assert _box_accuracy(overlaps).tolist() == [0.0] * 4
    overlaps[:, 3] = 1.0
    assert _box_accuracy(overlaps).tolist() == [1.0, 1.0, 1.0, 1.0]
    assert _box_accuracy(overlaps[:1]).isnan().all(), "one picture has no others"


class Interrupting(nn.Sequential):
    """A network whose user presses Ctrl-C after some passes."""

    left = 10**9

    def forward(self, images: Tensor) -> Tensor:
        type(self).left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().forward(images)


def test_an_interrupted_scoring_goes_on_with_the_same_numbers(tmp_path, monkeypatch):
    network, given = Interrupting(*small_network()), pictures()
    whole = score_pictures(trained(network), given, tmp_path / "whole", QUICK, CPU)
    monkeypatch.setattr(Interrupting, "left", 12)
    with pytest.raises(KeyboardInterrupt):
        score_pictures(trained(network), given, tmp_path / "parts", QUICK, CPU)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts" / ".scores").glob("*.npy")}
    assert 0 < len(kept) < len(whole.rows)
    monkeypatch.setattr(Interrupting, "left", 10**9)
    parts = score_pictures(trained(network), given, tmp_path / "parts", QUICK, CPU)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}, "finished methods are computed again"
    assert parts.cells["cam"] == whole.cells["cam"]
    assert parts.cells["random"] == whole.cells["random"]


def test_other_weights_pictures_or_a_damaged_file_are_not_taken_for_finished(tmp_path):
    score_pictures(trained(), pictures(), tmp_path, QUICK, CPU)
    other = score_pictures(trained(small_network(seed=1)), pictures(), tmp_path, QUICK, CPU)
    fresh = score_pictures(trained(small_network(seed=1)), pictures(), tmp_path / "fresh", QUICK, CPU)
    assert other.cells["cam"] == fresh.cells["cam"]
    for file in (tmp_path / "fresh" / ".scores").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    again = score_pictures(trained(small_network(seed=1)), pictures(), tmp_path / "fresh", QUICK, CPU)
    assert again.cells["cam"] == fresh.cells["cam"]


class NotFinite(torch.autograd.Function):
    """Passes values on, but gives the gradients of all pictures of a batch but the first as NaN."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return torch.cat([gradient[:1], gradient[1:] * torch.nan])


class WithoutGradient(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return NotFinite.apply(values)


def test_methods_that_do_not_apply_or_give_nan_are_told_and_the_others_go_on(tmp_path, caplog):
    *layers, head = small_network()
    network = nn.Sequential(*layers, WithoutGradient(), head).eval()
    request = Request(("cam", "grad_cam", "legrad"), (), ("srg",), ("mean",), 2)
    with caplog.at_level(logging.WARNING):
        found = score_pictures(trained(network), pictures(), tmp_path, request, CPU)
    assert [row.name for row in found.methods] == ["cam"]
    assert found.refused.keys() == {"legrad", "grad_cam"}
    assert "grad_cam is left out: " in caplog.text
    assert "not finite" in found.refused["grad_cam"] or "NaN" in found.refused["grad_cam"]
    with pytest.raises(UserError, match="No method can be scored"):
        score_pictures(trained(network), pictures(), tmp_path, Request(("grad_cam",), (), ("srg",), ("mean",), 2), CPU)


class Half(nn.Module):
    """A network that answers in half precision, as under autocast."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.float()).half()


@pytest.mark.parametrize("network", [Half(small_network()), small_network().to(torch.bfloat16)])
def test_a_network_in_half_precision(tmp_path, network):
    found = score_pictures(trained(network), pictures(), tmp_path, QUICK, CPU)
    full = score_pictures(trained(), pictures(), tmp_path / "full", QUICK, CPU)
    for name in ("auroc", "srg_mean"):
        assert found.cells["cam"][name].interval.mean == pytest.approx(full.cells["cam"][name].interval.mean, abs=0.05)


def test_one_picture_gives_numbers_but_no_ranks_and_no_verdict(tmp_path):
    found = score_pictures(trained(), pictures(1), tmp_path, QUICK, CPU)
    assert found.cells["cam"]["auroc"].interval.n == 1
    assert found.cells["cam"]["auroc"].rank is None
    assert found.verdicts["cam"].passes is None
    write_tables(tmp_path, found, {})
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["scores"]["cam"]["scores"]["auroc"]["low"] is None
    assert written["scores"]["cam"]["sentence"] == "CAM cannot be judged: 1 picture is too few."


def test_missing_empty_and_full_masks_are_counted(tmp_path):
    masks = squares(12)
    masks[0], masks[1] = False, True
    found = score_pictures(trained(), pictures(masks=masks, asked=50), tmp_path, QUICK, CPU)
    assert found.pictures.notes == (
        "50 pictures were asked for, but there are only 12.",
        "1 of 12 pictures has no mask or an empty one; only the others tell where the heat is.",
        "1 of 12 masks covers the whole picture, which leaves nothing to tell apart.",
    )
    interval = found.cells["cam"]["auroc"].interval
    assert (interval.n, interval.unscored) == (10, 2)
    assert found.cells["cam"]["srg_mean"].interval.n == 12
    (row,) = (row for row in found.rows if row.method == "mask")
    of_mask = found.cells[row.name]
    assert found.values[row.name]["srg_mean"].isnan().tolist() == [True] + 11 * [False], "no mask, no order of removal"
    assert (of_mask["srg_mean"].interval.n, of_mask["auroc"].none) == (11, 0)
    assert not found.curves[row.name]["mean"].isnan().any()


def test_masks_of_every_second_picture_choose_thresholds_for_each_other(tmp_path):
    masks = squares(24)
    masks[1::2] = False
    request = Request(methods=("cam",), scores=("max_box_acc", "pxap"), steps=2)
    found = score_pictures(trained(), pictures(24, masks), tmp_path, request, CPU)
    for measure in ("max_box_acc", "pxap"):
        interval = found.cells["cam"][measure].interval
        assert (interval.n, interval.unscored) == (12, 12)
        assert interval.low <= interval.mean <= interval.high
    (constant,) = (row for row in found.rows if row.method == "constant")
    assert found.cells[constant.name]["pxap"].none == 0


def test_without_masks_only_what_needs_none_is_scored(tmp_path):
    found = score_pictures(
        trained(), pictures(masks=torch.zeros(12, SIDE, SIDE, dtype=torch.bool)), tmp_path, QUICK, CPU
    )
    assert found.measures == ("srg_mean",)
    assert "mask" not in found.cells
    assert found.pictures.notes == ("There are no masks, so it is not scored where the heat is.",)


def test_a_class_that_is_not_there(tmp_path):
    given = pictures()
    given.labels[3] = 7
    with pytest.raises(UserError, match="the network has 3 classes"):
        score_pictures(trained(), given, tmp_path, QUICK, CPU)


def test_layers_are_scored_one_by_one_each_grid_with_its_pseudo_methods(tmp_path):
    request = Request(("grad_cam", "hires_cam", "legrad"), ("1", "3"), ("srg",), ("mean",), 2)
    found = score_pictures(trained(), pictures(), tmp_path, request, CPU)
    assert [row.name for row in found.methods] == ["grad_cam@1", "grad_cam@3", "hires_cam@1", "hires_cam@3"]
    assert [row.grid for row in found.methods] == [(16, 16), (8, 8)] * 2
    pseudo = [row.name for row in found.rows if row.is_pseudo]
    assert pseudo == [f"{name} {side}×{side}" for side in (16, 8) for name in PSEUDO_METHODS]
    assert found.beside("centre", found.methods[1]) == "centre 8×8"
    assert list(found.refused) == ["legrad@1", "legrad@3"]


def test_maps_that_are_finer_than_the_masks_are_scored(tmp_path):
    wanted = ("auroc", "pointing_game", "max_box_acc", "pxap")
    request, finer = (
        Request(("grad_cam",), ("1",), wanted),
        TrainedNetwork(small_network(), Preprocess(40), ("a", "b", "c"), "small"),
    )
    found = score_pictures(finer, pictures(), tmp_path, request, CPU)
    assert {row.grid for row in found.rows} == {(40, 40)}, "the masks have 16×16 pixels"
    assert found.cells["mask"]["auroc"].interval.mean == 1
    assert found.cells["mask"]["max_box_acc"].interval.mean == 1


@pytest.mark.slow
def test_the_thresholds_of_boxes_are_chosen_on_validation_pictures_and_it_is_said(tmp_path):
    request = Request(("cam",), (), ("max_box_acc",))
    given, network = pictures(), small_network()
    validation = of_split(ImageSet(given.images.flip(0), given.labels.flip(0), ("a", "b", "c"), squares(12)), 8, "val")
    found = score_pictures(trained(network), given, tmp_path, request, CPU, validation)

    def overlaps(of: PictureSet) -> Tensor:
        shown = scores.Explaining("cam")(network, Preprocess(SIDE)(of.images), of.labels)["cam"]
        return scores.box_overlaps(shown, scores.mask_boxes(of.masks), (SIDE, SIDE))

    expected = scores.box_accuracy(overlaps(given), scores.box_thresholds(overlaps(validation)))
    assert torch.equal(found.values["cam"]["max_box_acc"], expected)
    assert found.pictures.notes[-1] == "max_box_acc: the thresholds are those that are best on 8 pictures of val."
    without = score_pictures(trained(network), given, tmp_path, request, CPU)
    assert "no validation pictures with masks" in without.pictures.notes[-1]


def test_the_scoring_checks_itself():
    random, edges = (Row(name, name, name, None, (), (4, 4)) for name in ("random", "edges"))
    given, drawn = pictures(40), torch.rand(40, generator=torch.Generator().manual_seed(0))
    check_scoring(given, random, {"auroc": drawn, "srg_blur": drawn - 0.5, "effective_area": drawn + 9})
    with pytest.raises(ScoringError, match=r"srg_blur: random maps score 0\.46 above chance"):
        check_scoring(given, random, {"srg_blur": drawn})
    check_scoring(given, edges, {"mprt": torch.ones(40), "pair": torch.ones(40)})
    with pytest.raises(ScoringError, match="an edge detector passes the sanity gate"):
        check_scoring(given, edges, {"mprt": drawn - 0.5, "pair": drawn})
