"""One's own pictures: sources, splits, masks, and the store that decodes each picture once, whatever happens to it."""

import csv
import json
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_entries import command
from test_training import classifier, trainer

from camlab import cache, evaluate, explain, train
from camlab.command_line.notes import new_folders, remove_bare
from camlab.data.class_order import number_classes
from camlab.data.folder import Folder
from camlab.data.huggingface import HuggingFace
from camlab.data.loader import Loader
from camlab.data.own_pictures import OwnPictures
from camlab.data.picture_table import Picture, with_splits
from camlab.data.sources import PictureFile
from camlab.data.table import Table
from camlab.errors import UserError
from camlab.evaluation.scoring.picture_set import of_split
from camlab.models.preprocess import Preprocess
from camlab.runs.data_identity import files_hash, hash_of_files
from camlab.storage import record_store
from camlab.storage.pictures import read_picture
from camlab.storage.record_store import RecordStore
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.feature_cache import FeatureCache
from camlab.training.run import Run

ALL = (1, 0, 0)
SIDE = 16


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (30, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with twelve pictures each, and no folders for the splits."""
    for i, name in enumerate(("cat", "dog")):
        for k in range(12):
            draw(tmp_path / "photos" / name / f"{k}.png", 100 * i + k)
    return tmp_path / "photos"


def folder(root: Path, **options) -> Folder:
    data = Folder(str(root), **{"image_size": SIDE, "cache": str(root.parent / "cache"), **options})
    data.setup()
    return data


def names(data: OwnPictures, split: str) -> set[str]:
    return {picture.name for picture in data.splits[split].pictures}


def whole(data: OwnPictures, split: str = "train"):
    return data.splits[split].to(torch.device("cpu"))


def told(make) -> str:
    with pytest.raises(UserError) as refused:
        make()
    assert len(str(refused.value).splitlines()) <= 2
    return str(refused.value)


def decoded(caplog) -> list[str]:
    return re.findall(r"Decoding (\d+) pictures? once", caplog.text)


# ---- splits


def test_classes_alone_are_split_by_their_paths_and_new_pictures_move_none(root):
    before = folder(root)
    assert sum(map(len, before.splits.values())) == 24
    assert set(before.splits) == {"train", "val", "test"}
    for k in range(12, 30):
        draw(root / "cat" / f"{k}.png", k)
    after = folder(root)
    assert all(names(before, split) <= names(after, split) for split in before.splits)
    assert names(folder(root, split_seed=1), "test") != names(after, "test")


def test_shares_are_kept_on_the_whole():
    pictures = [Picture(f"{i}.jpg", ("a",), PictureFile(Path(f"{i}.jpg"))) for i in range(4000)]
    found = [picture.split for picture in with_splits(pictures, (0.7, 0.1, 0.2), 3)]
    assert abs(found.count("test") - 800) < 100
    assert abs(found.count("val") - 400) < 75


def test_what_the_folders_do_not_state_is_split_off_the_training_pictures(root):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split).mkdir(exist_ok=True)
            for k in range(6 if split == "test" else 0, 8 if split == "test" else 6):
                (root / split / name).mkdir(exist_ok=True)
                (root / name / f"{k}.png").rename(root / split / name / f"{k}.png")
    data = folder(root, split=(0.5, 0.5, 0))
    assert names(data, "test") == {f"test/{name}/{k}.png" for name in ("cat", "dog") for k in (6, 7)}
    assert names(data, "val")
    assert all(name.startswith("train/") for name in names(data, "val") | names(data, "train"))
    assert set(folder(root, split=ALL).splits) == {"train", "test"}
    assert len(folder(root, split=(0.9, 0.1, 0), val_size=4).splits["val"]) == 4


@pytest.mark.parametrize("split", [(0.5, 0.5), (0, 0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_shares_that_are_none(root, split):
    assert "give shares of train, val and test whose sum is 1" in told(lambda: Folder(str(root), split=split))


# ---- what is read


def test_pixels_are_those_of_the_preparation(root):
    data = folder(root, val_size=0)
    pictures = data.splits["train"].pictures
    expected = [Preprocess(SIDE).prepare(read_picture(picture.source.path)) for picture in pictures]
    assert np.array_equal(whole(data).images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert [data.class_names[label] for label in whole(data).labels] == [picture.labels[0] for picture in pictures]


def test_subfolders_belong_to_their_class_or_are_classes(root):
    for k in range(3):
        draw(root / "dog" / "beagle" / f"{k}.png", 500 + k)
    assert folder(root).class_names == ("cat", "dog")
    assert folder(root, nested=True, split=(0.9, 0, 0.1)).class_names == ("cat", "dog", "dog/beagle")


def test_sixteen_bits_cmyk_palettes_alpha_and_turns(root):
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(root / "cat" / "cmyk.jpg")
    Image.fromarray(np.full((20, 30), 65535, np.uint16)).save(root / "cat" / "deep.png")
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(root / "cat" / "clear.png")
    turned = Image.new("RGB", (30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "cat" / "turned.jpg", exif=exif)
    data = folder(root)
    every = {
        p.name: split.subset(torch.tensor([i])).images[0]
        for split in data.splits.values()
        for i, p in enumerate(split.pictures)
    }
    assert every["cat/deep.png"].min() == 255
    assert every["cat/clear.png"].min() == 255
    assert every["cat/cmyk.jpg"][0].min() > 200
    store = data.splits["train"].store
    where = next(split for split in data.splits.values() if "cat/turned.jpg" in {p.name for p in split.pictures})
    row = where.rows[[p.name for p in where.pictures].index("cat/turned.jpg")]
    assert store.size(store.keys(np.array([row]))) == (20, 30)


def test_what_was_found_is_said_in_two_lines_and_what_is_odd_is_warned_of(root, caplog):
    for name in ("0", "1", "2", "3"):
        draw(root / "emu" / f"{name}.png", 900)  # four times the same content
    folder(root, split=(0.5, 0.2, 0.3))
    lines = [record.message for record in caplog.records if record.name == "camlab.data.own_pictures"]
    assert lines[0].startswith(f"{root}: 28 pictures in 3 classes (cat: 12, dog: 12, emu: 4); train ")
    assert lines[1] == "All have 30×20 pixels; the largest class has 3.0 times the pictures of the smallest; no masks."
    assert lines[2] == "Classes with fewer than 10 pictures (emu: 4)."
    assert lines[3].startswith("The same content in two splits: a picture is there more than once, such as emu/")
    assert len(lines) == 4


def test_what_a_small_set_lacks_is_told_before_the_training(root, caplog):
    seed = next(seed for seed in range(99) if lacks(root, seed) == [False, True])
    folder(root, split=(0.8, 0, 0.2), split_seed=seed)
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith(
        "No picture in test of dog: the figures there say nothing about it. Add pictures, give larger"
    )
    caplog.clear()
    said = told(lambda: folder(root, split=(0.999, 0.001, 0), cache=str(root.parent / "other")))
    assert said.startswith(f"{root}: no pictures to test on. Add pictures, give larger shares (such as data.split=[")
    assert not decoded(caplog), "it is refused before pictures are decoded"


def lacks(root: Path, seed: int) -> list[bool]:
    """Whether the test has no picture of each class."""
    tested = [
        own.labels[0] for own in with_splits(Folder(str(root)).find(), (0.8, 0, 0.2), seed) if own.split == "test"
    ]
    return [name not in tested for name in ("cat", "dog")]


def test_a_class_without_a_training_picture_is_refused(root):
    draw(root / "emu" / "1.png", 1)
    said = {told(lambda seed=seed: folder(root, split=(0.01, 0, 0.99), split_seed=seed)) for seed in range(2)}
    assert all("no training pictures" in line or "is not in train/" in line for line in said)


# ---- masks and boxes


def test_masks_mirror_the_pictures_and_are_cut_like_them(root):
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 5:15] = 1  # the left half of the square in the middle
    (root / "masks" / "cat").mkdir(parents=True)
    Image.fromarray(mask).save(root / "masks" / "cat" / "3.png")
    data = folder(root)
    masks = {
        p.name: s.subset(torch.tensor([i])).masks[0] for s in data.splits.values() for i, p in enumerate(s.pictures)
    }
    assert masks["cat/3.png"].float().mean(dim=0).tolist() == [1.0] * 8 + [0.0] * 8
    assert not any(mask.any() for name, mask in masks.items() if name != "cat/3.png")
    before = data.fingerprint()
    Image.fromarray(255 - mask).save(root / "masks" / "cat" / "3.png")
    assert folder(root).fingerprint() != before, "masks decide the scores of a test"


def test_a_mask_of_another_size_is_refused(root):
    (root / "cat" / "masks").mkdir()
    Image.new("L", (31, 20)).save(root / "cat" / "masks" / "3.png")
    assert "the mask is 31×20 pixels, but its picture 30×20." in told(lambda: folder(root))
    assert sum(map(len, folder(root, skip_broken=True).splits.values())) == 23


def test_boxes_of_pascal_voc_and_coco_are_masks(root, tmp_path):
    voc = tmp_path / "voc" / "cat"
    voc.mkdir(parents=True)
    box = "<bndbox><xmin>6</xmin><ymin>1</ymin><xmax>15</xmax><ymax>20</ymax></bndbox>"
    other = box.replace("6", "1")
    objects = f"<object><name>cat</name>{box}</object><object><name>dog</name>{other}</object>"
    (voc / "3.xml").write_text(f"<annotation>{objects}</annotation>")
    polygon = [5, 0, 15, 0, 15, 20, 5, 20]
    coco = {
        "images": [{"id": 1, "file_name": "cat/3.png"}, {"id": 2, "file_name": "dog/4.png"}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [5, 0, 10, 20], "segmentation": [polygon]},
            {"image_id": 2, "category_id": 8, "bbox": [5, 0, 10, 20]},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    for place, marked in ((voc.parent, {"cat/3.png"}), (tmp_path / "coco.json", {"cat/3.png", "dog/4.png"})):
        data = folder(root, annotations=str(place))
        found = {
            p.name: s.subset(torch.tensor([i])).masks[0] for s in data.splits.values() for i, p in enumerate(s.pictures)
        }
        assert {name for name, mask in found.items() if mask.any()} == marked
        for name in marked:
            assert found[name].float().mean(dim=0).tolist() == [1.0] * 8 + [0.0] * 8


@pytest.mark.parametrize("content", ["[]", "{", '{"images": [], "categories": [], "annotations": [{"image_id": 3}]}'])
def test_annotations_that_are_none(root, tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert "not a file in COCO's format" in told(lambda: folder(root, annotations=str(tmp_path / "x.json")))


# ---- tables


def table(path: Path, rows: list[dict], **options) -> Table:
    keys = list(rows[0])
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join([",".join(keys), *(",".join(str(row.get(key, "")) for key in keys) for row in rows)]))
    return Table(str(path), image_size=SIDE, cache=str(path.parent / "cache"), **options)


def rows_of(root: Path) -> list[dict]:
    files = sorted(root.rglob("*.png"))
    return [{"path": str(file.relative_to(root.parent)), "label": file.parent.name} for file in files]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_table_gives_what_its_folder_gives(root, tmp_path, ending):
    rows = [
        {**row, "split": "validation" if "/3" in row["path"] else "test" if "/4" in row["path"] else "train"}
        for row in rows_of(root)
    ]
    (data := table(tmp_path / f"pictures{ending}", rows)).setup()
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 20, "test": 2, "val": 2}
    assert data.class_names == ("cat", "dog")
    picture = data.splits["val"].pictures[1]
    assert picture.source.path == root / "dog" / "3.png"
    expected = Preprocess(SIDE).prepare(read_picture(picture.source.path))
    assert np.array_equal(whole(data, "val").images[1].permute(1, 2, 0).numpy(), expected)


def test_columns_masks_and_boxes_of_a_table(root, tmp_path):
    rows = [{"file": row["path"], "kind": i % 11, "box": ""} for i, row in enumerate(rows_of(root))]
    rows[3]["box"] = "5 0 15 20; 0 0 1 1"
    data = table(tmp_path / "t.csv", rows, path_column="file", label_column="kind", split=(0.98, 0, 0.02), split_seed=1)
    pictures = data.find()
    assert {picture.labels[0] for picture in pictures} == {str(k) for k in range(11)}
    assert [picture.truth is not None for picture in pictures].index(True) == 3
    assert pictures[3].truth.boxes == ((5, 0, 15, 20), (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "photos/../../x.png"}, r"row 3: photos/\.\./\.\./x\.png is outside of "),
        ({"path": "/etc/passwd"}, "row 3: /etc/passwd is outside of "),
        ({"path": "photos/cat/0.png"}, r"row 3: photos/cat/0\.png is in row 1, too"),
        ({"path": ""}, "row 3: it has no path"),
        ({"label": " "}, "row 3: it has no label"),
        ({"split": "both"}, "row 3: split both is unknown"),
        ({"box": "1 2 3"}, "row 3: box 1 2 3 is not"),
        ({"box": "9 0 5 20"}, "row 3: box 9 0 5 20 is not"),
    ],
)
def test_bad_rows_of_a_table(root, tmp_path, change, said):
    rows = [{**row, "split": "train", "box": ""} for row in rows_of(root)]
    rows[2] |= change
    assert re.search(said, told(table(tmp_path / "t.csv", rows).find))


def test_bad_tables(root, tmp_path):
    rows = rows_of(root)
    assert "no such file" in told(Table(str(tmp_path / "none.csv")).find)
    assert "the ending is not one of .csv" in told(Table(str(tmp_path / "t.xls")).find)
    assert "no column labl. Did you mean label?" in told(table(tmp_path / "t.csv", rows, label_column="labl").find)
    (tmp_path / "s.csv").write_text("path;label\na.png;cat\n")
    assert "columns seem to be separated by semicolons. Save it" in told(Table(str(tmp_path / "s.csv")).find)
    (tmp_path / "t.jsonl").write_text("{]")
    assert "cannot be read as a table" in told(Table(str(tmp_path / "t.jsonl")).find)
    (tmp_path / "t.parquet").write_text("nothing")
    assert "cannot be read as a table" in told(Table(str(tmp_path / "t.parquet")).find)
    rows = [{**row, "split": "test" if row["label"] == "dog" else "train"} for row in rows]
    assert "Class dog has no training pictures: its 12 pictures are in test." in told(
        table(tmp_path / "t.csv", rows).setup
    )


def test_missing_files_are_all_named(root, tmp_path, caplog):
    rows = [*rows_of(root), *({"path": f"photos/cat/gone{k}.png", "label": "cat"} for k in range(3))]
    said = told(table(tmp_path / "t.csv", rows).setup)
    assert said.startswith("3 of 27 pictures cannot be used; they are named above.")
    assert "data.skip_broken=true" in said
    assert all(f"gone{k}.png cannot be read (No such file or directory)" in caplog.text for k in range(3))
    (data := table(tmp_path / "t.csv", rows, skip_broken=True)).setup()
    assert sum(map(len, data.splits.values())) == 24


# ---- Hugging Face


@pytest.fixture
def hub(root, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    files = sorted(root.rglob("*.png"))
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["dog", "cat"])})
    columns = {"picture": [str(file) for file in files], "kind": [file.parent.name for file in files]}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_a_data_set_of_hugging_faces(hub, root, tmp_path, form):
    place = tmp_path / ("saved" if form == "folder" else "pictures.parquet")
    hub.save_to_disk(str(place)) if form == "folder" else hub.to_parquet(str(place))
    (data := HuggingFace(str(place), image_size=SIDE, cache=str(tmp_path / "cache"))).setup()
    assert data.class_names == ("dog", "cat")
    assert set(data.splits) == {"train", "val", "test"}
    picture, files = data.splits["train"].pictures[0], sorted(root.rglob("*.png"))
    expected = Preprocess(SIDE).prepare(read_picture(files[picture.source.row]))
    assert np.array_equal(whole(data).images[0].permute(1, 2, 0).numpy(), expected)
    number_classes(data, ("cat", "dog"))
    for split in data.splits.values():
        assert [data.class_names[label] for label in split.labels] == [picture.labels[0] for picture in split.pictures]


def test_pictures_in_files_of_their_own_are_read_again_when_they_change(hub, root, tmp_path):
    from pyarrow import parquet

    parquet.write_table(hub.data.table, tmp_path / "paths.parquet")  # paths, no bytes

    def fingerprint() -> str:
        data = HuggingFace(str(tmp_path / "paths.parquet"), image_size=SIDE, cache=str(tmp_path / "cache"))
        data.setup()
        return data.fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    Image.new("RGB", (40, 30), "pink").save(sorted(root.rglob("*.png"))[0])
    assert fingerprint() != before


def test_names_of_own_pictures(root, tmp_path):
    (data := Folder(str(root), cache=str(tmp_path / "cache"), image_size=SIDE)).setup()
    pictures = data.splits["train"]
    assert pictures.names == tuple(picture.name for picture in pictures.pictures)
    assert all((root / name).is_file() for name in pictures.names)
    assert pictures.part(torch.tensor([1])).names == pictures.names[1:2]
    assert of_split(pictures, 2, "own").names == (pictures.names[0], pictures.names[len(pictures) // 2])


def test_a_parquet_file_and_the_pictures_beside_it_decide_whether_a_finished_run_has_its_data(hub, root, tmp_path):
    hub.to_parquet(str(place := tmp_path / "t.parquet"))
    hashes = []
    for change in (lambda: None, lambda: draw(root / "cat" / "3.png", 77), lambda: os.utime(place, (1, 1))):
        change()
        files_hash.cache_clear()
        hashes.append(hash_of_files({"path": str(place)}))
    assert len(set(hashes)) == 3


def test_bad_data_sets_of_hugging_faces(hub, tmp_path):
    assert "no such file or folder" in told(HuggingFace("nobody/nothing", download=False).find)
    hub.save_to_disk(str(tmp_path / "saved"))
    assert "data.label_column=colour: no such column" in told(
        HuggingFace(str(tmp_path / "saved"), label_column="colour").find
    )
    (tmp_path / "x.parquet").write_text("nothing")
    assert "cannot be loaded" in told(HuggingFace(str(tmp_path / "x.parquet")).find)


def test_the_readme_of_a_local_data_set_names_no_files(hub, tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    hub.to_parquet(str(place / "train.parquet"))
    (place / "README.md").write_text(
        "---\nconfigs:\n- config_name: x\n  data_files: http://127.0.0.1:9/x.parquet\n---\n"
    )
    assert len(HuggingFace(str(place)).find()) == len(hub)
    assert "only data sets of the hub" in told(HuggingFace(str(place), config="x").find)


# ---- the store


def test_a_picture_is_decoded_once_for_all_runs_and_again_when_it_changes(root, caplog):
    first = folder(root)
    assert decoded(caplog) == ["24"]
    second = folder(root)
    assert decoded(caplog) == ["24"]
    assert torch.equal(whole(first).images, whole(second).images)
    assert first.fingerprint() == second.fingerprint()
    draw(root / "cat" / "3.png", 77)
    changed = folder(root)
    assert decoded(caplog) == ["24", "1"]
    assert changed.fingerprint() != first.fingerprint()
    os.utime(root / "dog" / "1.png", ns=(1, 1))  # touched: read again, but its content is in the store
    assert folder(root).fingerprint() == changed.fingerprint()
    moved = root.rename(root.with_name("moved"))
    assert folder(moved).fingerprint() == changed.fingerprint(), "the content counts, not the place"


def test_broken_pictures_are_named_all_and_the_others_are_kept(root, caplog):
    for name in ("a", "b"):
        (root / "cat" / f"{name}.jpg").write_bytes(b"no picture")
    assert told(lambda: folder(root)).startswith("2 of 26 pictures cannot be used; they are named above.")
    assert all(f"{root / 'cat' / name}.jpg is not a readable picture" in caplog.text for name in ("a", "b"))
    assert sum(map(len, folder(root, skip_broken=True).splits.values())) == 24
    assert decoded(caplog) == ["26", "2"]


def record(value: int, length: int = 12) -> bytes:
    return bytes([value] * length)


def key(value: int) -> bytes:
    return bytes([value + 1] * 32)


def filled(folder: Path, *values: int) -> RecordStore:
    store = RecordStore(folder, {"kind": "test"}, 12, "test")
    with store.filling():
        for value in values:
            store.add(key(value), record(value), (3, 4))
    return store


def read(store: RecordStore, *values: int) -> list[int]:
    out = np.empty((len(values), 12), np.uint8)
    store.read(np.array([store.row(key(value)) for value in values]), out)
    return out[:, 0].tolist()


def test_records_are_found_by_their_keys(tmp_path):
    store = filled(tmp_path / "s", 1, 2, 3)
    assert read(store, 3, 1) == [3, 1]
    store = filled(tmp_path / "s", 2, 4)
    assert read(store, 4, 2, 1) == [4, 2, 1]
    assert store.size(key(4)) == (3, 4)
    assert os.path.getsize(tmp_path / "s" / f"{store.id}.records") == 48


@pytest.mark.parametrize(("records", "index"), [(0, 7), (5, 0), (-5, 0), (100, 44), (-36, 0)])
def test_a_store_goes_on_after_a_kill_at_any_point(tmp_path, records, index):
    """A killed process leaves records without an entry, part of an entry, or (after a power cut) fewer records."""
    store = filled(tmp_path / "s", 1, 2, 3)
    for ending, change in (("records", records), ("index", index)):
        file = tmp_path / "s" / f"{store.id}.{ending}"
        content = file.read_bytes()
        file.write_bytes(content + bytes(change) if change >= 0 else content[:change])
    again = filled(tmp_path / "s", 1, 2, 3, 4)
    assert read(again, 1, 2, 3, 4) == [1, 2, 3, 4]


def test_a_damaged_record_is_noticed_and_made_again(tmp_path):
    store = filled(tmp_path / "s", 1, 2)
    file = tmp_path / "s" / f"{store.id}.records"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    store = filled(tmp_path / "s", 1, 2)
    assert read(store, 1) == [1]
    assert "was damaged: one picture will be decoded again. Repeat the command." in told(lambda: read(store, 2))
    assert read(filled(tmp_path / "s", 1, 2), 1, 2) == [1, 2]


def test_all_damaged_records_are_made_again_by_one_repetition(tmp_path):
    store = filled(tmp_path / "s", 1, 2, 3)
    file = tmp_path / "s" / f"{store.id}.records"
    length = len(file.read_bytes()) // 3
    file.write_bytes(b"x" + file.read_bytes()[1:-1] + b"x")
    store = filled(tmp_path / "s", 1, 2, 3)
    assert length > 1
    assert "was damaged: 2 pictures will be decoded again." in told(lambda: read(store, 3))
    assert read(filled(tmp_path / "s", 1, 2, 3), 1, 2, 3) == [1, 2, 3]


def test_a_file_that_is_cut_while_it_is_read_ends_in_a_line(tmp_path):
    store = filled(tmp_path / "s", 1, 2)
    os.truncate(tmp_path / "s" / f"{store.id}.records", 12)
    assert "was damaged" in told(lambda: read(store, 2))


def test_a_store_of_another_version_is_refused(tmp_path, monkeypatch):
    filled(tmp_path / "s", 1)
    monkeypatch.setattr(record_store, "FORMAT", 2)
    assert "written by another version of camlab" in told(lambda: filled(tmp_path / "s", 1))
    assert "camlab-cache action=clear" in told(lambda: filled(tmp_path / "s", 1))


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds files that are not camlab's" in told(lambda: filled(tmp_path, 1))
    assert "not a cache of camlab" in told(lambda: record_store.clear(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_clearing_frees_the_disk_while_a_reader_goes_on(root, tmp_path):
    data = folder(root)
    place = tmp_path / "cache" / "pictures"
    ((_, about, num_bytes),) = record_store.stores(place)
    assert about == f"pictures of {SIDE}²"
    assert num_bytes >= 24 * 3 * SIDE**2
    assert record_store.clear(place) > num_bytes
    assert [path.name for path in place.iterdir()] == ["CACHEDIR.TAG"]
    assert len(whole(data).images) == len(data.splits["train"])


def test_a_disk_that_is_too_small_is_noticed_before(root, monkeypatch):
    monkeypatch.setattr("camlab.data.first_pass.free_disk", lambda folder: 1000)
    assert told(lambda: folder(root)).startswith("24 decoded pictures take 0.02 MB, but the disk of")


def test_links_in_place_of_files_are_replaced(tmp_path):
    store = filled(tmp_path / "s")
    target = tmp_path / "target"
    target.write_text("mine")
    for ending in ("records", "index"):
        (tmp_path / "s" / f"{store.id}.{ending}").symlink_to(target)
    assert read(filled(tmp_path / "s", 1), 1) == [1]
    assert target.read_text() == "mine"


def test_batches_from_the_store_are_those_from_memory(root):
    data = folder(root, batch_size=5)
    in_memory = Loader(whole(data), 5, True, 3)
    stored = Loader(data.splits["train"], 5, True, 3, on_host=True)
    for one, other in zip(in_memory, stored, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.image_idx, other.image_idx)
    assert data.splits["train"].subset(torch.arange(0)).images.shape == (0, 3, SIDE, SIDE), "the share of a rank"


def test_a_loop_that_ends_early_leaves_no_thread_behind(root):
    data = folder(root, batch_size=2)
    before = threading.active_count()
    for _ in range(3):
        loader = Loader(data.splits["train"], 2, True, 3, on_host=True)
        next(iter(loader))
    assert threading.active_count() == before


def test_larger_squares_are_stored_for_crops(root):
    data = folder(root, store_size=20)
    assert whole(data).images.shape[-2:] == (20, 20)
    assert data.fingerprint() != folder(root).fingerprint()
    assert "must be at least data.image_size=16" in told(lambda: folder(root, store_size=8))


@pytest.mark.parametrize("store_size", [None, 24, 40])
def test_an_evaluation_sees_what_the_network_was_trained_on_at_any_store_size(root, store_size):
    ramp = np.broadcast_to(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (200, 300, 3))
    for path in root.rglob("*.png"):
        Image.fromarray(ramp).save(path)  # each column has its own grey
    data = Folder(str(root), image_size=SIDE, cache=str(root.parent / "cache"), store_size=store_size)
    data.preprocess = Preprocess(SIDE, resize_size=20)  # as the commands that evaluate a checkpoint set it
    data.setup()
    squares = whole(data).images
    assert squares.shape[-1] == (store_size or SIDE)
    seen = (data.preprocess(squares)[0, 0, 0] + 1) / 2 * 300
    left, _, right, _ = data.preprocess.visible_box(300, 200)
    assert seen.tolist() == pytest.approx((left + (right - left) * (np.arange(SIDE) + 0.5) / SIDE).tolist(), abs=5)
    data.preprocess = Preprocess(48)
    data.splits = {}
    data.setup()
    assert whole(data).images.shape[-1] == 48, "the network of the checkpoint needs larger pictures"


def test_crops_are_cut_out_of_the_larger_squares(root):
    data = folder(root, store_size=40, augment=[{"crop": 0.2}])
    squares = whole(data).images
    crops, _ = data.training_views.augmentation(squares, None, torch.arange(len(squares)), len(squares), epoch=0)
    assert crops.shape[-2:] == (SIDE, SIDE)
    assert data.preprocess(squares).shape == data.preprocess(crops).shape


def test_the_cache_command_lists_and_clears_decoded_pictures(root, tmp_path, monkeypatch, capsys):
    folder(root)
    assert command(monkeypatch, cache.main, f"paths.cache={tmp_path / 'cache'}") == 0
    assert f"pictures of {SIDE}²" in capsys.readouterr().out
    assert command(monkeypatch, cache.main, "action=clear", f"paths.cache={tmp_path / 'cache'}") == 0
    assert [path.name for path in (tmp_path / "cache" / "pictures").iterdir()] == ["CACHEDIR.TAG"]


# ---- whole commands


QUICK = [
    "data.image_size=64", "data.batch_size=8", "arch.weights=null", "arch.keep_last_pool=false", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "logger=csv", "callbacks.heatmaps=null",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_on_a_table_is_evaluated_and_knows_its_data(root, tmp_path, monkeypatch, capsys):
    rows = [{**row, "split": "test" if "/4" in row["path"] else "train"} for row in rows_of(root)]
    table(tmp_path / "t.csv", rows)
    places = [f"paths.cache={tmp_path / 'cache'}", f"out={tmp_path / 'run'}"]
    arguments = ["data=table", f"data.file={tmp_path / 't.csv'}", *QUICK, *places]
    assert command(monkeypatch, train.main, *arguments) == 0
    assert command(monkeypatch, train.main, *arguments) == 0
    assert "is finished" in capsys.readouterr().out
    out = f"out={tmp_path / 'evaluated'}"
    more = [f"checkpoint={tmp_path / 'run'}", f"paths.cache={tmp_path / 'other cache'}", "trainer.accelerator=cpu", out]
    assert command(monkeypatch, evaluate.main, *more) == 0
    said = capsys.readouterr().out
    assert "are not those that the network was trained with" not in said
    assert (tmp_path / "other cache").is_dir(), "the run's folder does not say where files are written"
    table(tmp_path / "t.csv", [{**row, "label": "dog" if "cat/1" in row["path"] else row["label"]} for row in rows])
    assert command(monkeypatch, train.main, *arguments) == 2
    assert "holds a run on other data" in capsys.readouterr().err


@pytest.mark.slow
def test_a_first_pass_that_is_killed_goes_on_where_it_was(root, tmp_path):
    """The records that were written before the kill are kept; two processes at once decode each picture once."""
    code = f"""
import os, sys
from camlab.data import first_pass
from camlab.data.folder import Folder
from camlab.storage import record_store
record_store._FLUSH_BYTES = 1
first_pass._AHEAD_BYTES, first_pass._AT_ONCE = 0, 1
decode, count = first_pass.decode_picture, [0]
def counted(*arguments):
    count[0] += 1
    if sys.argv[1] == "kill" and count[0] == 12:
        os.kill(os.getpid(), 9)
    return decode(*arguments)
first_pass.decode_picture = counted
data = Folder({str(root)!r}, image_size={SIDE}, cache={str(tmp_path / "cache")!r})
data.setup()
print(count[0], data.fingerprint())
"""
    run = [sys.executable, "-c", code]
    assert subprocess.run([*run, "kill"]).returncode == -9
    both = [subprocess.Popen([*run, "go on"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].split()[-2:] for process in both]
    counts = sorted(int(count) for count, _ in said)
    assert counts[0] == 0
    assert 12 <= counts[1] < 24, "some were there already"
    assert {fingerprint for _, fingerprint in said} == {folder(root).fingerprint()}


@pytest.mark.parametrize("source", ["folder", "table", "huggingface"])
def test_heatmaps_of_a_split_of_ones_own_pictures(root, hub, tmp_path, monkeypatch, capsys, source):
    table(tmp_path / "t.csv", rows_of(root))
    hub.to_parquet(str(tmp_path / "t.parquet"))
    place = {
        "folder": f"root={root}",
        "table": f"file={tmp_path / 't.csv'}",
        "huggingface": f"path={tmp_path / 't.parquet'}",
    }
    network = ["network=squeezenet1_1", "network.weights=null", "device=cpu"]
    arguments = [f"data={source}", f"data.{place[source]}", "split=val", f"out={tmp_path / 'out'}", *network]
    assert command(monkeypatch, explain.main, *arguments) == 0
    told_of = json.loads((tmp_path / "out" / "explain.json").read_text())
    expected = folder(root).splits["val"] if source != "huggingface" else (tmp_path / "out" / "pictures").iterdir()
    assert told_of["pictures"]["explained"] == len(list(expected)) if source == "huggingface" else len(expected)


@pytest.fixture
def own_run(root, tmp_path, monkeypatch) -> Path:
    """A run on half of the pictures, whose test split differs from that of the default shares."""
    data = ["data=folder", f"data.root={root}", "data.split=[.5,.25,.25]", "data.split_seed=3", "data.image_size=64"]
    others = ["arch.weights=null", "logger=csv", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    cache_folder = f"paths.cache={tmp_path / 'cache'}"
    others += ["callbacks.heatmaps=null", "callbacks.scores=null"]
    assert command(monkeypatch, train.main, *data, *others, cache_folder, f"out={tmp_path / 'run'}") == 0
    return tmp_path / "run"


def explained(out: Path) -> set[str]:
    with open(out / "predictions.csv", newline="") as file:
        return {"/".join(Path(row["file"]).parts[-2:]) for row in csv.DictReader(file)}


def test_explain_takes_the_splits_of_the_run(own_run, root, tmp_path, monkeypatch, capsys):
    cache_folder = f"paths.cache={tmp_path / 'cache'}"
    common = [f"checkpoint={own_run}", "device=cpu", cache_folder]
    assert command(monkeypatch, explain.main, *common, f"out={tmp_path / 'a'}") == 0
    tested = names(folder(root, split=(0.5, 0.25, 0.25), split_seed=3, image_size=64), "test")
    assert explained(tmp_path / "a") == tested
    assert "divided these pictures by other settings" not in capsys.readouterr().out
    given = ["data=folder", f"data.root={root}"]
    assert command(monkeypatch, explain.main, *common, *given, f"out={tmp_path / 'b'}") == 0
    assert "divided these pictures by other settings" in capsys.readouterr().out
    held = ["data.val_size=4", "data.image_size=64"]
    for split in ("val", "train"):
        chosen = [*common, *given, *held, f"split={split}", f"out={tmp_path / split}"]
        assert command(monkeypatch, explain.main, *chosen) == 0
        assert explained(tmp_path / split) == names(folder(root, val_size=4, image_size=64), split)


def test_a_run_is_not_written_among_its_pictures(root, tmp_path, monkeypatch, capsys):
    common = ["data=folder", "logger=csv", "arch.weights=null"]
    for places in ([f"data.root={root}", f"out={root / 'run'}"], ["data.root=."]):
        monkeypatch.chdir(root)
        assert command(monkeypatch, train.main, *common, *places) == 2
        assert "the folder of the run would be inside" in capsys.readouterr().err
    assert {path.name for path in root.iterdir()} == {"cat", "dog"}
    places = [f"data.root={root}", f"out={tmp_path / 'run'}", "paths.cache=cache"]
    assert command(monkeypatch, train.main, *common, *places) == 2
    assert "paths.cache=cache: the cache would be inside" in capsys.readouterr().err


def test_explain_wants_pictures_from_one_place(root, tmp_path, monkeypatch, capsys):
    network = ["network=squeezenet1_1", "network.weights=null", f"out={tmp_path / 'out'}"]
    for places in ([], [f"images={root}", "data=folder", f"data.root={root}"]):
        assert command(monkeypatch, explain.main, *places, *network) == 2
        assert "Which pictures? Give images=PLACE" in capsys.readouterr().err
    assert command(monkeypatch, explain.main, "data=shapes", *network) == 2
    assert "data=shapes: its pictures are not in files." in capsys.readouterr().err


def test_a_mistaken_command_leaves_no_new_folder(tmp_path, monkeypatch, capsys):
    network = ["network=squeezenet1_1", "network.weights=null", "device=cpu", "data=folder"]
    (tmp_path / "there").mkdir()
    for out in ("new/folder", "there"):
        assert command(monkeypatch, explain.main, *network, "data.root=photo", f"out={tmp_path / out}") == 2
        assert "photo: no such folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    shares = ["data.root=.", "data.split=[8,1,1]"]
    assert command(monkeypatch, explain.main, *network, *shares, f"out={tmp_path / 'new'}") == 2
    told = "data.split=[8,1,1]: must be shares of train, val and test whose sum is 1, such as [0.8,0.1,0.1].\n"
    assert capsys.readouterr().err == told


def test_bare_folders_only_are_removed(tmp_path):
    for extra in (None, "result.json", ".hydra/mine", "kept"):
        folder = tmp_path / "runs" / str(extra)
        made = new_folders(folder)
        (folder / ".hydra").mkdir(parents=True)
        for name in (".hydra/config.yaml", "train.log", ".lock", *filter(None, [extra])):
            (folder / name).touch()
        remove_bare(made)
        assert folder.exists() == (extra is not None)
        assert extra is None or len([*folder.rglob("*")]) == 5, "nothing is removed from any other folder"


@pytest.mark.slow
def test_a_run_from_the_store_that_is_resumed_ends_as_one_that_was_not(root, tmp_path):
    ended = []
    for name, stops in (("whole", [2]), ("resumed", [1, 2])):
        run = Run(tmp_path / name)
        path = run.folder / "checkpoints" / "last.ckpt"
        for epochs in stops:
            torch.manual_seed(0)
            data = folder(root, image_size=64, batch_size=8, flip=0.5)
            fitted = trainer(run.folder, max_epochs=epochs, callbacks=checkpoints(run, True))
            fitted.fit(classifier("alexnet", "finetune"), data, ckpt_path=str(path) if path.is_file() else None)
        ended.append(torch.load(path, weights_only=True)["state_dict"])
    assert all(torch.equal(value, ended[1][name]) for name, value in ended[0].items())


def test_frozen_features_of_stored_pictures_replace_them(root, tmp_path):
    """With cached features, no picture is read from the store while training."""
    data = folder(root, image_size=64, batch_size=8)
    callbacks = [FeatureCache(str(tmp_path / "cache"))]
    fitted = trainer(tmp_path, max_epochs=3, callbacks=callbacks, enable_checkpointing=False)
    fitted.fit(classifier("alexnet", "frozen"), data)
    assert set(data.head_statistics) == {"train", "val", "test"}
    assert next(iter(data.train_dataloader())).images.numel() == 0
