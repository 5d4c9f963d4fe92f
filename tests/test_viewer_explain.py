"""Folders of `camlab.explain` in the viewer: what is read, reduced, left out and refused."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_viewer import about_of, run_view
from viewer_runs import make_explained, make_run

from camlab.drawing import render
from camlab.errors import UserError
from camlab.viewer import explain_content
from camlab.viewer.document import make_document
from camlab.viewer.html import write_into, write_page
from camlab.viewer.sources import find_sources, read_source


def test_maps_and_the_visible_part_of_photographs_are_read(tmp_path):
    results = make_explained(tmp_path / "out", tmp_path / "photos")
    content = read_source(tmp_path / "out")
    assert [series.title for series in content.series] == ["Grad-CAM", "LayerCAM"]
    for i, result in enumerate(results):
        photo = cv2.imread(str(tmp_path / "photos" / f"{i:02d}.png"))[..., ::-1]
        np.testing.assert_array_equal(content.pictures[i].image, photo[:, 10:50])
        np.testing.assert_array_equal(content.series[1].maps[0, i], result.maps["layer_cam"][0].numpy().astype("f2"))
        assert content.predicted[0, i] == result.probabilities.argmax()
        assert content.class_idx[0, i].tolist() == list(result.class_idx)
    assert content.overrides == {"network": "vgg16", "images": str(tmp_path / "photos")}
    assert "Pictures show the part that the network saw." in content.notes


def test_large_photographs_are_reduced_and_the_page_says_so(tmp_path):
    make_explained(tmp_path / "out", tmp_path / "photos", pictures=2, size=(900, 700))
    about = make_document([read_source(tmp_path / "out")], 32).about
    assert not about["hasEpochs"]
    assert about["style"] == {
        "klass": "predicted", "box": True, "colours": "viridis", "scale": "per_image", "opacity": 0.6
    }  # fmt: skip
    for picture in about["pictures"]:
        assert (picture["width"], picture["height"]) == (320, 320)
        assert picture["image"].startswith("data:image/jpeg")
        assert len(picture["image"]) < 60_000
    told = "\n".join(about["notes"])
    assert "Large photographs are reduced" in told
    assert "stored as JPEG" in told


def test_a_page_has_as_many_pictures_as_fit(tmp_path, monkeypatch):
    make_explained(tmp_path / "out", tmp_path / "photos", pictures=6, size=(500, 400))
    monkeypatch.setattr(explain_content, "MOST_PICTURES", 5)
    content = read_source(tmp_path / "out")
    assert "Of 6 pictures, the first 5 are here." in content.notes
    whole = make_document([content], 32)
    sizes = [len(picture["image"]) for picture in whole.about["pictures"]]
    some = make_document([content], (200_000 + sum(sizes[:3]) + 1500) / 1e6)
    assert len(some.about["pictures"]) == 3
    assert "Of 5 pictures, the first 3 are here, to limit the size of this file." in some.about["notes"]
    assert some.about["pictures"] == whole.about["pictures"][:3]
    with pytest.raises(UserError, match=r"too large\. Allow more with max_mb=100"):
        make_document([content], 0.2)


def test_classes_of_the_same_name_are_told_apart(tmp_path):
    make_explained(tmp_path / "out", tmp_path / "photos", class_names=("crane", "cat", "crane"))
    assert read_source(tmp_path / "out").class_names == ["crane (0)", "cat", "crane (2)"]


def test_a_target_is_not_the_predicted_class(tmp_path):
    results = make_explained(tmp_path / "out", tmp_path / "photos", target=2, counterfactual=True)
    about = make_document([read_source(tmp_path / "out")], 32).about
    assert about["style"]["klass"] == "name:frog"
    assert about["runs"][0]["predicted"] == [[int(result.probabilities.argmax()) for result in results]]
    assert about["runs"][0]["explained"] == [[[2]] * 3]
    assert about["runs"][0]["series"][0]["title"] == "Grad-CAM against the class"


def test_missing_photographs_are_left_out_and_told(tmp_path):
    make_explained(tmp_path / "out", tmp_path / "photos")
    (tmp_path / "photos" / "00.png").unlink()
    render.write_image(tmp_path / "photos" / "02.png", np.zeros((5, 5, 3), np.uint8))
    content = read_source(tmp_path / "out")
    assert [picture.name for picture in content.pictures] == ["01.png"]
    assert "Pictures whose files are missing or have changed are left out: 2." in content.notes


def test_folders_beside_runs_are_left_out_and_told(tmp_path, caplog):
    make_explained(tmp_path / "all" / "out", tmp_path / "photos", pictures=1)
    make_run(tmp_path / "all" / "run", epochs=(0,), pictures=1)
    assert find_sources(tmp_path / "all" / "out") == [tmp_path / "all" / "out"]
    assert not caplog.records
    assert find_sources(tmp_path / "all") == [tmp_path / "all" / "run"]
    (told,) = caplog.messages
    assert "1 folder without epochs left out, such as out: they cannot share a page with runs" in told
    with pytest.raises(
        UserError, match=r"out has no epochs and cannot share a page with runs\. Give only runs, or only such folders\."
    ):
        write_page([tmp_path / "all" / "run", tmp_path / "all" / "out"], tmp_path / "page.html")


def test_two_networks_are_shown_side_by_side(tmp_path, monkeypatch, capsys):
    for seed, name in enumerate(("a", "b")):
        make_explained(tmp_path / name, tmp_path / "photos", seed=seed)
    assert run_view(monkeypatch, tmp_path / "a", tmp_path / "b", f"out={tmp_path / 'both.html'}") == 0
    about = about_of((tmp_path / "both.html").read_text())
    assert [run["name"] for run in about["runs"]] == ["a", "b"]
    assert len(about["pictures"]) == 3


def spoil_about(folder: Path) -> None:
    (folder / "explain.json").write_text('{"settings": ')


def spoil_boxes(folder: Path) -> None:
    with np.load(folder / "maps.npz") as stored:
        arrays = {**stored, "visible": stored["visible"][:, :3]}
    np.savez(folder / "maps.npz", **arrays)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_about, r"explain\.json is damaged\. Repeat the command camlab\.explain\."),
        (spoil_boxes, r"maps\.npz is damaged: its arrays do not fit each other\. Repeat the command"),
        (lambda folder: (folder / "maps.npz").write_bytes(b"PK"), r"maps\.npz is not a file of raw maps"),
        (lambda folder: shutil.rmtree(folder.parent / "photos"), r"none of its photographs is where it was, such as"),
        (lambda folder: (folder / "maps.npz").unlink(), r"no heatmaps there \(.*, or maps\.npz beside explain\.json\)"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path, monkeypatch, capsys, spoil, told):
    make_explained(tmp_path / "out", tmp_path / "photos")
    spoil(tmp_path / "out")
    assert run_view(monkeypatch, tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, line)
    assert write_into(tmp_path / "out") is None


def test_settings_out_of_range_are_not_used(tmp_path):
    make_explained(tmp_path / "out", tmp_path / "photos")
    about = json.loads((tmp_path / "out" / "explain.json").read_text())
    about["settings"].update(target=99, alpha="x", colormap="<b>")
    (tmp_path / "out" / "explain.json").write_text(json.dumps(about))
    style = make_document([read_source(tmp_path / "out")], 32).about["style"]
    assert style == {"klass": "predicted", "box": True, "colours": "jet", "scale": "per_image", "opacity": 0.5}
