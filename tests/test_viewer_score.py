"""Folders of `camlab.score` in the viewer: what is kept, read, left out and refused."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_viewer import run_view
from viewer_runs import SIDE, make_scored

from camlab.models.preprocess import Preprocess
from camlab.runs.score_files import remove_maps
from camlab.scores import Explaining
from camlab.storage.maps_file import read_maps
from camlab.viewer.document import make_document
from camlab.viewer.html import write_into
from camlab.viewer.sources import find_sources, read_source

POSITIONS = [0, 1, 3, 4]  # 4 of 6 pictures, evenly spread


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of scores, what was found, the network, and a function that keeps the maps of some pictures."""
    folder = tmp_path_factory.mktemp("scored") / "scores"
    return folder, *make_scored(folder)


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made[0], tmp_path / "scores"))


def test_maps_pictures_and_scores_are_read_as_they_were_computed(made):
    folder, summary, network, _ = made
    content = read_source(folder)
    assert [series.title for series in content.series][:3] == ["CAM", "Grad-CAM", "random"]
    assert [picture.name for picture in content.pictures] == [summary.pictures.names[i] for i in POSITIONS]
    images, labels = summary.pictures.images[POSITIONS], summary.pictures.labels[POSITIONS]
    for picture, image in zip(content.pictures, images, strict=True):
        np.testing.assert_array_equal(picture.image, image.permute(1, 2, 0))
        np.testing.assert_array_equal(picture.mask, summary.pictures.masks[0])
    logits = network(Preprocess(SIDE)(images)).detach()
    assert content.predicted[0].tolist() == logits.argmax(dim=1).tolist()
    assert (logits.argmax(dim=1) != labels).any(), "the two classes never differ, so nothing is tested"
    for classes in (labels, logits.argmax(dim=1), logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)):
        wanted = Explaining("grad_cam")(network, Preprocess(SIDE)(images), classes)["grad_cam"]
        rank = (torch.from_numpy(content.class_idx[0]) == classes[:, None]).int().argmax(dim=1)
        found = content.series[1].maps[0, range(4), rank]
        np.testing.assert_allclose(found, wanted.detach(), atol=1e-3)
    auroc, deletion, _ = content.measures
    np.testing.assert_allclose(auroc.values[0], summary.values["cam"]["auroc"][POSITIONS], atol=1e-5)
    assert (auroc.higher_is_better, deletion.higher_is_better) == (True, False)
    assert (auroc.of_class, deletion.of_class) == ("true", "predicted")
    assert "Of 6 pictures that were scored, 4 are here, evenly chosen." in content.notes
    assert content.overrides == {"network": "small", "pictures": "photos"}


def test_the_page_has_a_score_for_each_picture_that_has_one(made, folder):
    made[-1](folder, 9)
    about = make_document([read_source(folder)], 32).about
    auroc = about["runs"][0]["measures"][0]
    assert auroc["values"][0][-1] is None, "the last picture has no mask"
    assert about["pictures"][-1]["mask"] is None
    assert [picture["image"][:14] for picture in about["pictures"]] == ["data:image/png"] * 6, "small ones are lossless"


def test_finished_maps_are_not_computed_again_and_others_are_removed(made, folder):
    kept = {path: path.stat().st_mtime_ns for path in (folder / ".scores").glob("*.npy")}
    theirs = folder / "heatmaps" / "pictures" / "mine.png"
    theirs.write_bytes(b"")
    before = read_maps(folder / "heatmaps" / "maps.npz")
    made[-1](folder, 4)
    assert kept == {path: path.stat().st_mtime_ns for path in (folder / ".scores").glob("*.npy")}
    np.testing.assert_array_equal(read_maps(folder / "heatmaps" / "maps.npz").maps["cam"][0], before.maps["cam"][0])
    made[-1](folder, 2)
    assert sorted(path.name for path in (folder / "heatmaps" / "pictures").iterdir()) == [
        "0000.png",
        "0003.png",
        "mine.png",
    ]
    write_into(folder)
    assert remove_maps(folder) == ["5 files in heatmaps/", "heatmaps.html"]
    assert theirs.exists()
    assert find_sources(made[0].parent) == [made[0]]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "scores.json").write_text('{"network": '), r"scores\.json is damaged\. Repeat the comm"),
        (lambda folder: (folder / "scores.csv").write_text("picture,method\n"), r"scores\.csv is damaged\. Repeat the"),
        (lambda folder: (folder / "scores.csv").unlink(), r"scores\.csv is damaged\. Repeat the command camlab\.score\."),
        (lambda folder: (folder / "heatmaps/maps.npz").write_bytes(b"PK"), r"maps\.npz is not a file of raw maps .* Rep"),
        (lambda folder: (folder / "heatmaps/pictures/0001.png").unlink(), r"0001\.png is missing; .* Repeat the command"),
        (remove_maps, r"there are scores, but no heatmaps \(maps=0, .*\)\. Give the command camlab\.score again with"),
        (lambda folder: (folder / "scores.json").unlink(), r"this scoring has not ended\. Give the command camlab\.score again"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_in_one_line(folder, monkeypatch, capsys, spoil, told):
    spoil(folder)
    assert run_view(monkeypatch, folder) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, line), line
    assert write_into(folder) is None
