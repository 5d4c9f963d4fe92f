"""Folders of pictures: masks in all places and sizes, boxes in a CSV file, classes, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camlab.errors import UserError
from camlab.evaluation.scoring.picture_folder import read_folder
from camlab.models.preprocess import Preprocess

CLASSES = ("cat", "dog")
SQUARE = Preprocess(16)


def picture(path: Path, width: int = 16, height: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def mask(path: Path, width: int = 16, height: int = 16, on: int = 255) -> None:
    """A mask of the upper left quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((height, width), np.uint8)
    values[: height // 2, : width // 2] = on
    Image.fromarray(values).save(path)


QUARTER = torch.zeros(16, 16, dtype=torch.bool)
QUARTER[:8, :8] = True


@pytest.mark.parametrize(
    ("place", "name"),
    [("x.png", "x_mask.png"), ("x.jpg", "masks/x.png"), ("cat/x.jpg", "cat/masks/x.png"), ("cat/x.jpg", "masks/cat/x.png")],
)  # fmt: skip
def test_masks_are_found_beside_the_picture_and_in_folders(tmp_path, place, name):
    picture(tmp_path / place)
    mask(tmp_path / name)
    found = read_folder(str(tmp_path), 5, SQUARE, CLASSES)
    assert found.names == (place,)
    assert torch.equal(found.masks[0], QUARTER)
    assert (found.labels is not None) == place.startswith("cat")


@pytest.mark.parametrize("size", [(16, 16), (48, 48), (7, 7)])
@pytest.mark.parametrize("on", [255, 1])
def test_a_mask_may_have_another_size_and_hold_ones(tmp_path, size, on):
    picture(tmp_path / "x.png", 32, 32)
    mask(tmp_path / "x_mask.png", *size, on=on)
    found = read_folder(str(tmp_path), 1, SQUARE, CLASSES)
    assert (found.masks[0] ^ QUARTER).float().mean() < 0.1


def test_a_mask_is_cut_like_its_picture(tmp_path):
    picture(tmp_path / "x.png", 32, 16)  # the network sees the columns 8 to 24
    mask(tmp_path / "x_mask.png", 32, 16)
    assert torch.equal(read_folder(str(tmp_path), 1, SQUARE, CLASSES).masks[0], QUARTER)


def test_masks_of_another_shape_or_damaged_are_told_and_count_as_missing(tmp_path):
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png")
    mask(tmp_path / "a_mask.png")
    mask(tmp_path / "b_mask.png", 32, 16)
    (tmp_path / "c_mask.png").write_bytes(b"no picture")
    found = read_folder(str(tmp_path), 4, SQUARE, CLASSES)
    assert found.masks.flatten(1).any(dim=1).tolist() == [True, False, False, False]
    assert found.notes[0].startswith("3 of 4 pictures have no mask or an empty one")
    assert found.notes[-1] == "2 masks are not used, such as b_mask.png: 32×16 pixels for a picture of 16×16."


def test_boxes_are_used_where_the_mask_says_nothing(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png")
    mask(tmp_path / "a_mask.png", on=0)
    mask(tmp_path / "b_mask.png", 32, 16)
    mask(tmp_path / "c_mask.png")
    lines = ["file,left,top,right,bottom", *(f"{name}.png,0,0,4,4" for name in "abc")]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    found = read_folder(str(tmp_path), 3, SQUARE, CLASSES)
    assert found.masks.flatten(1).sum(dim=1).tolist() == [16, 16, int(QUARTER.sum())]
    assert found.notes[-1] == "1 mask is not used, such as b_mask.png: 32×16 pixels for a picture of 16×16."


def test_boxes_of_several_objects_with_classes(tmp_path):
    for name in ("x.png", "y.png"):
        picture(tmp_path / name, 32, 16)
    lines = ["file,left,top,right,bottom,class", "x.png,8,0,16,8,dog", "x.png,20,8,40,16,dog", "y.png,0,0,8,16,cat"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    found = read_folder(str(tmp_path), 2, SQUARE, CLASSES)
    assert found.labels.tolist() == [1, 0]
    assert found.boxes[0].tolist() == [[0, 0, 8, 8], [8, 12, 16, 16]]
    assert found.masks[0].sum() == 64 + 32
    assert not found.masks[1].any(), "the network does not see that box"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("file,left,top,right,bottom\nx.png,9,0,8,8", "line 2: 9,0,8,8 is no box"),
        ("file,left,top,right,bottom\nx.png,a,0,8,8", "line 2: no box"),
        ("file,left,top,right,bottom\nx.png,nan,0,8,8", "is no box"),
        ("x.png,0,0,8,8", "no pictures are named"),
        ("file,left,top,right,bottom,class\nx.png,0,0,8,8,catt", "catt is no class of the network. Did you mean cat?"),
        ("file,left,top,right,bottom\nz.png,0,0,8,8", "z.png is no picture of that folder"),
        (
            "file,left,top,right,bottom,class\nx.png,0,0,8,8,cat\nx.png,0,0,8,8,dog",
            "another class than the line before",
        ),
    ],
)
def test_damaged_boxes_are_refused_in_one_line(tmp_path, lines, told):
    picture(tmp_path / "x.png")
    (tmp_path / "boxes.csv").write_text(lines)
    with pytest.raises(UserError) as error:
        read_folder(str(tmp_path), 1, SQUARE, CLASSES)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_are_classes_only_in_part_are_refused(tmp_path):
    picture(tmp_path / "cat" / "x.png")
    picture(tmp_path / "dgo" / "x.png")
    with pytest.raises(UserError, match="dgo is no class of the network, but other folders are"):
        read_folder(str(tmp_path), 2, SQUARE, CLASSES)


def test_classes_of_the_table_and_of_the_folders_complete_each_other_or_are_refused(tmp_path):
    for name in ("x.png", "cat/y.png"):
        picture(tmp_path / name)
    (tmp_path / "boxes.csv").write_text("file,left,top,right,bottom,class\nx.png,0,0,8,8,dog")
    assert read_folder(str(tmp_path), 2, SQUARE, CLASSES).labels.tolist() == [0, 1]
    picture(tmp_path / "z.png")
    with pytest.raises(UserError, match=r"not that of z\.png"):
        read_folder(str(tmp_path), 3, SQUARE, CLASSES)
    (tmp_path / "boxes.csv").write_text("file,left,top,right,bottom,class\ncat/y.png,0,0,8,8,dog")
    with pytest.raises(UserError, match=r"cat/y\.png is dog there, but lies in the folder of another class"):
        read_folder(str(tmp_path), 3, SQUARE, CLASSES)


def test_boxes_of_other_pictures_do_not_matter_and_boxes_that_are_not_seen_are_told(tmp_path):
    for name in ("x.png", "y.png"):
        picture(tmp_path / name)
    lines = (
        "\ufefffile,left,top,right,bottom\r\nx.png,0,0,8,8\r\ny.png,900,900,950,950\r\n"  # as a spreadsheet saves it
    )
    (tmp_path / "boxes.csv").write_text(lines, encoding="utf-8")
    assert read_folder(f"{tmp_path}/x.png", 9, SQUARE, CLASSES).masks[0].sum() == 64
    found = read_folder(str(tmp_path), 2, SQUARE, CLASSES)
    assert found.masks.flatten(1).any(dim=1).tolist() == [True, False]
    assert "1 picture has boxes, but none in what the network sees, such as y.png." in found.notes


def test_a_pattern_over_several_folders(tmp_path):
    for folder in ("cat", "dog"):
        picture(tmp_path / folder / "x.png")
        mask(tmp_path / folder / "x_mask.png")
    found = read_folder(f"{tmp_path}/*/*.png", 9, SQUARE, CLASSES)
    assert found.names == ("cat/x.png", "dog/x.png")
    assert found.labels.tolist() == [0, 1]
    assert found.masks.flatten(1).any(dim=1).all()


def test_folders_that_are_no_classes_leave_the_predicted_ones(tmp_path):
    picture(tmp_path / "monday" / "x.png")
    found = read_folder(str(tmp_path), 9, SQUARE, CLASSES)
    assert found.labels is None
    assert found.notes == (
        "9 pictures were asked for, but there is only 1.",
        "There are no masks, so it is not scored where the heat is.",
        "The true classes are unknown, so all maps are of the predicted classes.",
    )


def test_unreadable_pictures_are_skipped_and_told(tmp_path):
    picture(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(b"no picture")
    found = read_folder(str(tmp_path), 2, SQUARE, CLASSES)
    assert found.names == ("x.png",)
    assert "y.png is not a readable picture" in found.skipped[0]
    (tmp_path / "x.png").unlink()
    with pytest.raises(UserError, match="none of the pictures can be read"):
        read_folder(str(tmp_path), 2, SQUARE, CLASSES)


def test_n_pictures_are_spread_over_the_folder_and_masks_of_a_pattern_are_no_pictures(tmp_path):
    for k in range(10):
        picture(tmp_path / f"{k}.png")
    mask(tmp_path / "0_mask.png")
    assert read_folder(str(tmp_path), 5, SQUARE, CLASSES).names == ("0.png", "2.png", "4.png", "6.png", "8.png")
    assert len(read_folder(f"{tmp_path}/*.png", 50, SQUARE, CLASSES)) == 10
