"""Odd arguments of the Python functions: one line that names the argument, whatever its type."""

import pytest
import torch
from torch import nn

import camlab
from camlab import scores
from camlab.errors import UserError

NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
IMAGES, MAPS = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4)
MASKS, CLASSES = torch.arange(128).reshape(2, 8, 8) % 3 == 0, torch.tensor([0, 1])


def fails(output: object) -> torch.Tensor:
    raise KeyError("no such key")


HEATMAPS = {
    "reshape: got str": {"layer": "0", "reshape": "NCHW"},
    "reshape: the function cannot take": {"layer": "0", "reshape": fails},
    "output: got float": {"output": 1.5},
    "output: the function cannot take what the network gives, float32 2×2: 'no such key'": {"output": fails},
    "target='cat'": {"target": "cat"},
    "target=<object": {"target": object()},
    "method=None": {"method": None},
    "method=5": {"method": 5},
    "layer: got int": {"layer": 5},
    "layer: got dict": {"layer": {}},
}


@pytest.mark.parametrize("message", HEATMAPS)
def test_heatmaps(message):
    with pytest.raises(UserError) as error:
        camlab.heatmaps(NETWORK, IMAGES, **HEATMAPS[message])
    assert str(error.value).startswith(message), error.value


def test_explainer():
    explainer = camlab.Explainer(NETWORK)
    for message, call in {
        "images: got list": lambda: explainer.default_layer([1]),
        "images: got str": lambda: explainer.method_for("cat"),
        "layer=features": lambda: explainer.layout_of("features", IMAGES),
        "methods: got str": lambda: explainer.explain(IMAGES, "cam"),
        "top_k=1.5": lambda: explainer.explain(IMAGES, ["cam"], top_k=1.5),
        "class_idx: N×R classes": lambda: explainer.explain(IMAGES, ["cam"], class_idx=fails),
    }.items():
        with pytest.raises(UserError, match=message):
            call()


def test_callback_and_page():
    for message, call in {
        "class_names: got str": lambda: camlab.HeatmapCallback(class_names="cat"),
        "class_names: got int, but each": lambda: camlab.HeatmapCallback(class_names=[1]),
        "methods: got int": lambda: camlab.HeatmapCallback(methods=5),
        "layers: got str": lambda: camlab.HeatmapCallback(layers="conv"),
        "output: got float": lambda: camlab.HeatmapCallback(output=1.5),
        "reshape: got str": lambda: camlab.HeatmapCallback(reshape="NCHW"),
        "run: got int": lambda: camlab.browse(5),
        "run: got list": lambda: camlab.browse(["a", "b"]),
        "height: got str": lambda: camlab.browse("runs", height="800"),
        "max_mb: got NoneType": lambda: camlab.browse("runs", max_mb=None),
    }.items():
        with pytest.raises(UserError, match=message):
            call()


def test_scores():
    boxes, picture = scores.mask_boxes(MASKS), (NETWORK, IMAGES)
    passes = scores.Passes(*picture)
    for message, call in {
        "shares=.10, 50.": lambda: scores.road(*picture, MAPS, shares=[10, 50]),
        "shares=0.5: must": lambda: scores.road(*picture, MAPS, shares=0.5),
        "seed=1.5": lambda: scores.srg(*picture, MAPS, seed=1.5),
        "numbers: a whole number for each of 2": lambda: scores.srg(*picture, MAPS, numbers=[1]),
        "batch_size=0": lambda: scores.srg(*picture, MAPS, batch_size=0),
        "which=.*choose from": lambda: scores.removal_curves(passes, MAPS, which=["highest"]),
        "maps: got str": lambda: scores.cell_order("maps"),
        "pixels=-1": lambda: scores.dilate(MASKS, -1),
        "tolerance=2.5": lambda: scores.pointing_game(MAPS, MASKS, 2.5),
        "boxes: got str": lambda: scores.box_overlaps(MAPS, "boxes", (8, 8)),
        r"size=\(0, 8\)": lambda: scores.box_overlaps(MAPS, boxes, (0, 8)),
        r"thresholds=\[50\]": lambda: scores.box_overlaps(MAPS, boxes, (8, 8), [50]),
        "chosen: the index of one of 20": lambda: scores.max_box_acc(MAPS, MASKS, torch.tensor([99, 0, 0])),
        "size=8": lambda: scores.heat(MAPS, 8),
        "radius=-1.0": lambda: scores.max_sensitivity(*picture, "cam", radius=-1.0),
        "methods: got int": lambda: scores.flip_consistency(*picture, 5),
        "mine: got int": lambda: scores.flip_consistency(*picture, {"mine": 5}),
        "layers=0: give a list": lambda: scores.mprt(*picture, "cam", layers="0"),
        "stages=0": lambda: scores.mprt(*picture, "cam", stages=0),
        "bins=-1": lambda: scores.emprt(MAPS, MAPS, bins=-1),
        "sigma=nan": lambda: scores.rfs(*picture, MASKS, CLASSES, sigma=float("nan")),
        "true_N: got list": lambda: scores.rfs(*picture, MASKS, [0, 1]),
        "predictions and marks: 2 and 1": lambda: scores.reliance(CLASSES, CLASSES, CLASSES[:1]),
        "first_N: got list": lambda: scores.paired_difference([1.0], [1.0]),
        "level=95": lambda: scores.mean_interval(torch.ones(3), level=95),
        "cam: the signed CAM": lambda: scores.feature_srg(MAPS, None, MAPS, CLASSES),
        "scale=odds": lambda: scores.feature_srg(torch.rand(2, 2, 4, 4), None, MAPS, CLASSES, scale="odds"),
        "grid=4": lambda: scores.pseudo_maps(IMAGES, 4),
        "score=5": lambda: scores.score_of(5),
    }.items():
        with pytest.raises(UserError, match=message):
            call()
