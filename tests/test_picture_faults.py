"""Faults of one's own pictures: each is read rightly or refused in one line, never taken for something else."""

import io
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from camlab.data.coco_outlines import draw_outline
from camlab.data.folder import Folder
from camlab.data.huggingface import HuggingFace
from camlab.data.loader import Loader
from camlab.data.own_pictures import OwnPictures
from camlab.data.picture_table import Picture, class_names_of
from camlab.data.sources import PictureFile
from camlab.data.table import Table
from camlab.data.truth import Outlines
from camlab.errors import UserError
from camlab.evaluation.scoring.picture_folder import read_folder
from camlab.models.preprocess import Preprocess
from camlab.runs.data_identity import files_hash
from camlab.storage.array_store import ArrayStore
from camlab.storage.mask_pictures import decode_mask
from camlab.storage.pictures import find_pictures

SIDE = 16


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def draw(path: Path, value: int, size: int = SIDE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value, value, value)).save(path)
    return path


def fill(place: Path, first: int = 0, n: int = 6, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for i, name in enumerate(classes):
        for k in range(n):
            draw(place / name / f"{k}.bmp", first + 20 * i + k)
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes in train/ and in test/, six grey pictures each, and bitmaps, whose size says nothing of what they show."""
    fill(tmp_path / "photos" / "train")
    fill(tmp_path / "photos" / "test", 100)
    return tmp_path / "photos"


def folder(root: Path, **options) -> Folder:
    data = Folder(str(root), **{"image_size": SIDE, "cache": str(root.parent / "cache"), "split": (1, 0, 0), **options})
    data.setup()
    return data


def greys(data: OwnPictures, split: str = "train") -> list[int]:
    return sorted(data.splits[split].to(torch.device("cpu")).images[:, 0, 0, 0].tolist())


def told(make) -> str:
    with pytest.raises(UserError) as refused:
        make()
    assert len(str(refused.value).splitlines()) <= 2
    return str(refused.value)


def table(path: Path, text: str, **options) -> Table:
    path.write_text(text)
    return Table(str(path), image_size=SIDE, cache=str(path.parent / "cache"), **options)


# ---- batches


def test_a_rank_without_a_share_of_the_last_batch_gets_no_pictures(root, tmp_path):
    stored = folder(root).splits["train"]
    last = torch.tensor([0])
    for pictures, on_host in ((stored, True), (stored.to(torch.device("cpu")), False)):
        share = Loader(pictures, 4, rank=1, world_size=2, on_host=on_host).fetch_share(last)
        assert share.images.shape == (0, 3, SIDE, SIDE)
        assert (share.labels.tolist(), share.global_size) == ([], 1)
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    rows = ArrayStore(tmp_path / "features").rows("key", array.shape, lambda: [array], "rows")
    assert rows.read(np.empty(0, np.int64)).shape == (0, 4)
    assert np.array_equal(rows.read(np.array([4])), array[1, 1:2])


def test_memory_is_pinned_for_the_runs_device_only(root):
    data = folder(root, placement="host")
    for device, pinned in (("cpu", False), ("cuda", True)):
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
        assert data.loader("train").pinned is pinned


# ---- tables and data sets


def test_numbers_of_equal_value_are_classes_in_an_order_that_is_always_the_same():
    labels = ["1", "2", "01", "0001", "001", "02"]
    pictures = [Picture(label, (label,), PictureFile(Path(label)), "train") for label in labels]
    assert class_names_of(pictures) == ("0001", "001", "01", "1", "02", "2")


def test_spaces_around_the_values_of_a_table_do_not_count(tmp_path):
    fill(tmp_path)
    mask = draw(tmp_path / "m.png", 255)
    rows = "".join(f"{name}/{k}.bmp , {name} ,train, {mask.name}\n" for name in ("cat", "dog") for k in range(6))
    found = table(tmp_path / "t.csv", f"path, label,split , mask\n{rows}").find()
    assert {(picture.labels[0], picture.split, picture.truth.source.path) for picture in found} == {
        ("cat", "train", mask),
        ("dog", "train", mask),
    }
    (tmp_path / "t.jsonl").write_text('{"path": "cat/1.bmp", "label": "cat "}')
    assert Table(str(tmp_path / "t.jsonl")).find()[0].labels == ("cat",)


def test_a_column_counts_even_if_the_first_line_lacks_it(tmp_path):
    fill(tmp_path)
    rows = [{"path": f"{name}/{k}.bmp", "label": name, "split": "train"} for name in ("cat", "dog") for k in range(6)]
    del rows[0]["split"]
    said = told(table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))).setup)
    assert said.startswith("cat/0.bmp has no split, but other pictures have one.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "path,klass\n1.png,cat,9\n",
            "row 1: 3 values for 2 columns. Put a value that contains commas in quotation marks.",
        ),
        ("path,label\n1.png,cat,\n\n2.png,a,b\n", "row 2: 3 values for 2 columns"),
        ("path,label, label\n1.png,cat,dog\n", "two columns are named label"),
        ("path,klass\n1.png,cat\n", "there is no column label"),
    ],
)
def test_columns_of_a_table_that_do_not_fit(tmp_path, text, said):
    assert told(table(tmp_path / "t.csv", text).find).count(said) == 1
    assert "cannot be read" not in told(table(tmp_path / "t.csv", text).find)


def test_columns_of_one_data_set_do_not_share_pictures(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    columns = {
        name: [str(draw(tmp_path / name / f"{k}.bmp", 40 * i + k)) for k in range(8)] for i, name in enumerate("abcd")
    }
    features = datasets.Features(
        {name: datasets.Image() for name in "abcd"} | {"label": datasets.ClassLabel(names=["x", "y"])}
    )
    rows = datasets.Dataset.from_dict({**columns, "label": [0, 1] * 4}, features=features)
    datasets.disable_progress_bars()
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "set"))

    def read(image: str, mask: str) -> HuggingFace:
        options = {"image_column": image, "mask_column": mask, "split": (1, 0, 0)}
        data = HuggingFace(str(tmp_path / "set"), image_size=SIDE, cache=str(tmp_path / "cache"), **options)
        data.setup()
        return data

    first, second = read("b", "a"), read("c", "d")
    assert greys(first) == list(range(40, 48))
    assert greys(second) == list(range(80, 88))
    assert first.splits["train"].masks.read(np.array([0, 1])).any(dim=(1, 2)).tolist() == [False, True]
    assert second.splits["train"].masks.read(np.array([0, 1])).all()


# ---- masks, boxes and outlines


def mask_file(path: Path, form: str) -> None:
    """A mask of the upper left quarter, in one of the ways in which people save masks."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[: SIDE // 2, : SIDE // 2] = {"two.png": 2, "index.png": 8, "indices 16.png": 0}.get(form, 255)
    grey = Image.fromarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    if form in ("alpha.png", "clear.png"):
        alpha = Image.new("L", grey.size, 255) if form == "alpha.png" else grey
        grey = Image.merge("LA", [grey if form == "alpha.png" else Image.new("L", grey.size, 255), alpha])
    elif form in ("index.png", "white first.png"):
        grey = Image.fromarray(values if form == "index.png" else np.where(values > 0, 0, 1).astype(np.uint8), "P")
        grey.putpalette([0, 0, 0] * 8 + [64, 0, 0] if form == "index.png" else [255, 255, 255, 0, 0, 0])
    elif form == "indices 16.png":
        grey = Image.fromarray(
            np.where(np.add.outer(np.arange(SIDE) // 8, np.arange(SIDE) // 8), 0, 3).astype(np.uint16)
        )
    grey.save(path.with_suffix(Path(form).suffix), **({"quality": 30} if form.endswith(("webp", "jpg")) else {}))


QUARTER = np.add.outer(np.arange(SIDE) // 8, np.arange(SIDE) // 8) == 0
FORMS = [
    "grey.png",
    "alpha.png",
    "clear.png",
    "two.png",
    "index.png",
    "white first.png",
    "indices 16.png",
    "a.webp",
    "a.jpg",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_a_mask_means_the_same_to_training_and_to_scores(tmp_path, form):
    place = fill(tmp_path / "photos", n=1)
    for name in ("cat", "dog"):
        mask_file(place / "masks" / name / "0.png", form)
    pictures = Folder(str(place)).find()
    drawn = pictures[0].truth.draw(pictures[0].truth.read((SIDE, SIDE))[1], (SIDE, SIDE))
    scored = read_folder(str(place), 2, Preprocess(SIDE), ("cat", "dog")).masks[0].numpy()
    wrong = [int((found ^ QUARTER).sum()) for found in (np.asarray(drawn) > 0, scored)]
    assert wrong[0] == wrong[1] <= (4 if form.startswith("a.") else 0)


def test_a_mask_that_compression_made_unreadable_is_refused():
    file = io.BytesIO()
    Image.new("L", (8, 8), 2).save(file, "jpeg")
    assert "x.jpg: the mask has values up to 2 only" in told(lambda: decode_mask(file.getvalue(), "x.jpg"))
    assert "x.jpg: the mask is not a readable picture" in told(lambda: decode_mask(b"none", "x.jpg"))


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ("0 0 inf 10", "row 1: box 0 0 inf 10 is not"),
        ("0 0 1e12 10", "0.bmp: a box cannot be drawn: 1000000000000.0 is far outside of its picture"),
        ("-1e30 0 5 5", "a box cannot be drawn: -1e+30 is far outside of its picture, which has 16×16 pixels."),
        (".1 .1 .9 .9", "row 1: box .1 .1 .9 .9 is in shares of the picture, not in pixels."),
        ("20 3 25 8", "the box 20 3 25 8 is outside of its picture, which has 16×16 pixels."),
        ("-8 -8 -1 8", "the box -8 -8 -1 8 is outside of its picture"),
    ],
)
def test_boxes_that_are_none_of_the_picture(tmp_path, box, said):
    fill(tmp_path, n=1)
    text = f"path,label,split,box\ncat/0.bmp,cat,train,{box}\ndog/0.bmp,dog,train,\ndog/0.bmp,dog,test,\n"
    draw(tmp_path / "dog" / "1.bmp", 9)
    assert said in told(table(tmp_path / "t.csv", text.replace("dog/0.bmp,dog,test", "dog/1.bmp,dog,test")).setup)


def test_boxes_that_leave_the_picture_are_cut_off():
    mask = np.asarray(Outlines(((-3, -3, 8, 8.2), (2.1, 3.2, 2.4, 3.4))).draw(b"", (SIDE, SIDE)))
    assert np.array_equal(mask > 0, QUARTER)


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ([[0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]], "1000000000.0 is far outside"),
        ([[-1e9, -1e9, 5, 5, 1, 9]], "-1000000000.0 is far outside"),
        ([[float("nan")] * 6], "nan is far outside"),
        ([[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]], "its numbers are shares of the picture"),
        ([[1, 2, 3, 4]], "at least three points"),
        ([1, 2, 3, 4, 5, 6], "at least three points"),
        ("abc", "neither a list of polygons nor a run-length code"),
        ({"size": [16, 16], "counts": [10]}, "its runs have 10 pixels, its picture has 256"),
        ({"size": [16, 16], "counts": [10**30, 5]}, "its runs have 1000000"),
        ({"size": [16, 16], "counts": [-5, 261]}, "not whole numbers"),
        ({"size": [16, 16], "counts": "zz~~PP00"}, "damaged"),
        ({"size": [16, 16], "counts": "PP"}, "end too early"),
        ({"size": [16, 8], "counts": [256]}, "it is for [16, 8] pixels, its picture has [16, 16]"),
        ({"size": [16, 16]}, "not whole numbers"),
    ],
)
def test_outlines_that_are_none_of_the_picture(outline, said):
    assert said in told(lambda: Outlines((), (json.dumps(outline),)).draw(b"", (SIDE, SIDE)))


def test_run_lengths_are_those_of_cocos_own_tools():
    coco = pytest.importorskip("pycocotools.mask")
    for seed in range(20):
        mask = (np.random.default_rng(seed).random((9 + seed, 40)) < 0.05 * seed).astype(np.uint8)
        counts = coco.encode(np.asfortranarray(mask))["counts"].decode()
        code = {"size": list(mask.shape), "counts": counts}
        assert np.array_equal(draw_outline(code, mask.shape[::-1]), mask > 0)


# ---- folders


def test_links_to_folders_are_followed_once(tmp_path, caplog):
    place, pool = fill(tmp_path / "photos", classes=("cat",)), fill(tmp_path / "pool", 100, 3, ("dogs", "cats"))
    (place / "dog").symlink_to(pool / "dogs")  # a class
    (place / "cat" / "more").symlink_to(pool / "cats")  # more pictures of a class
    (place / "cat" / "up").symlink_to(tmp_path)  # in a circle
    (place / "a cat").symlink_to(place / "cat")  # sorted before the folder itself
    before = files_hash.__wrapped__(str(place))
    with pytest.raises(UserError, match="a cat: a link to a folder that is read already"):
        Folder(str(place)).find()
    assert "left out 2 links to folders that are read already (a cat, up)." in caplog.text
    (place / "a cat").unlink()
    found = Folder(str(place)).find()
    assert [sum(picture.labels[0] == label for picture in found) for label in ("cat", "dog")] == [9, 3]
    assert len(find_pictures(str(place))) == 12
    draw(pool / "cats" / "new.bmp", 3)
    assert files_hash.__wrapped__(str(place)) != before


def test_pictures_outside_of_the_classes_are_counted_and_named(root, tmp_path, caplog):
    draw(root / "loose.png", 0)
    fill(root / "extra")
    draw(root / "train" / "top.png", 0)
    folder(root)
    assert "left out 14 pictures outside of the folders of the classes (extra/, loose.png, train/)." in caplog.text
    caplog.clear()
    plain = fill(tmp_path / "plain")
    (draw(plain / "1.png", 0), (plain / "notes.txt").touch())
    Folder(str(plain)).find()
    assert (
        "left out 1 picture outside of the folders of the classes (1.png) and 1 file by its ending (.txt: 1)."
        in caplog.text
    )


def test_folders_of_splits_have_one_spelling_and_are_no_classes(root, tmp_path):
    for name, right in (("Test", "test"), ("valid", "val"), ("Validation", "val")):
        (root / name).mkdir()
        assert f"{root / name}: if this is a split, name it {right}" in told(lambda: folder(root))
        (root / name).rmdir()
    (root / "train").rename(root / "Train")
    assert f"{root / 'Train'}: if this is a split, name it train" in told(lambda: folder(root))
    classes = fill(tmp_path / "seals", classes=("valid", "invalid"))
    assert {picture.labels[0] for picture in Folder(str(classes)).find()} == {"valid", "invalid"}


def test_a_class_named_masks_is_refused(tmp_path):
    place = fill(tmp_path / "things", classes=("faces", "hats", "masks"))
    assert f"{place / 'masks'}: none of its 6 pictures is the mask of a picture" in told(Folder(str(place)).find)
    draw(place / "masks" / "hats" / "1.png", 255)
    assert sum(picture.truth is not None for picture in Folder(str(place)).find()) == 1


# ---- annotations


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_annotations_of_another_size_are_refused(root, tmp_path, kind):
    """A picture that its EXIF data turn, or that was made smaller since, has its boxes elsewhere."""
    turned = Image.new("RGB", (8, 16))
    turned.getexif()[0x0112] = 6
    turned.save(root / "train" / "cat" / "0.png", exif=turned.getexif())

    def annotated(width: int, height: int) -> str:
        if kind == "coco":
            size = {} if width == 0 else {"width": width, "height": height}
            content = {
                "images": [{"id": 1, "file_name": "train/cat/0.png", **size}],
                "categories": [{"id": 7, "name": "cat"}],
                "annotations": [{"image_id": 1, "category_id": 7, "bbox": [4, 0, 4, 4]}],
            }
            (tmp_path / "coco.json").write_text(json.dumps(content))
            return str(tmp_path / "coco.json")
        box = "<bndbox><xmin>5</xmin><ymin>1</ymin><xmax>8</xmax><ymax>4</ymax></bndbox>"
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (tmp_path / "voc" / "train" / "cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "voc" / "train" / "cat" / "0.xml").write_text(
            f"<annotation>{size}<object><name>cat</name>{box}</object></annotation>"
        )
        return str(tmp_path / "voc")

    (root / "train" / "cat" / "0.bmp").unlink()
    for width, height in ((16, 8), (0, 0)):  # the picture's, once it is turned, and not stated
        data = folder(root, annotations=annotated(width, height))
        assert data.splits["train"].to(torch.device("cpu")).masks.sum() > 0
    said = told(lambda: folder(root, annotations=annotated(8, 16)))
    assert said.startswith(
        f"{root / 'train' / 'cat' / '0.png'}: its annotation is for 8×16 pixels, but the picture has 16×8 once"
    )
    said = told(lambda: folder(root, annotations=annotated(32, 32)))
    assert "its annotation is for 32×32 pixels, but the picture has 16×8." in said


def test_a_box_that_is_narrower_than_a_pixel_has_one():
    mask = np.asarray(Outlines(((3.1, 2.0, 3.4, 2.3), (15.7, 0, 15.9, 1))).draw(b"", (SIDE, SIDE)))
    assert np.argwhere(mask).tolist() == [[0, 15], [2, 3]]


# ---- what is said


def test_the_same_picture_in_two_classes_is_told(root, caplog):
    draw(root / "train" / "dog" / "again.bmp", 0)
    folder(root)
    assert (
        "The same content in two classes: a picture is there more than once, such as train/cat/0.bmp, tr" in caplog.text
    )
    assert "in two splits" not in caplog.text


def test_tables_that_are_not_what_they_seem(root, tmp_path):
    rows = [{"path": str(file), "label": 1.0 if file.parent.name == "cat" else 2.0} for file in root.rglob("*.bmp")]
    text = "\n".join(map(json.dumps, rows))
    assert table(tmp_path / "t.jsonl", text, root=str(root)).find()[0].labels in {("1",), ("2",)}
    no_label = text.replace("1.0", "NaN", 1)
    assert ": it has no label." in told(table(tmp_path / "t.jsonl", no_label, root=str(root)).find)
    assert "its path is not a text, but 3" in told(table(tmp_path / "t.jsonl", '{"path": 3, "label": "a"}').find)
    for line in ('[{"path": "a", "label": "b"}]', "[1, 2]"):
        assert "a line is not an object such as" in told(table(tmp_path / "t.jsonl", line).find)
    (tmp_path / "t.csv").write_bytes("path,label\nä.png,cat\n".encode("latin-1"))
    assert "its text is not in UTF-8. Save it so" in told(Table(str(tmp_path / "t.csv")).find)


# ---- the store


def test_a_file_that_was_replaced_at_its_old_time_is_read_again(root, tmp_path):
    assert greys(folder(root))[0] == 0
    old = root / "train" / "cat" / "0.bmp"
    time = old.stat().st_mtime_ns
    new = draw(tmp_path / "new.bmp", 200)
    assert new.stat().st_size == old.stat().st_size
    os.utime(new, ns=(time, time))
    new.rename(old)  # as rsync does
    assert greys(folder(root))[-1] == 200
    draw(old, 201)
    os.utime(old, ns=(time, time))  # as cp -p does
    assert greys(folder(root))[-1] == 201
