"""Faults of one's own pictures: each is read rightly or refused in one line, never taken for something else."""

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from camlab.data.folder import Folder
from camlab.data.huggingface import HuggingFace
from camlab.data.loader import Loader
from camlab.data.own_pictures import OwnPictures
from camlab.data.picture_table import Picture, class_names_of
from camlab.data.sources import PictureFile
from camlab.data.table import Table
from camlab.errors import UserError
from camlab.storage.array_store import ArrayStore

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
    pictures = [Picture(label, label, PictureFile(Path(label)), "train") for label in labels]
    assert class_names_of(pictures) == ("0001", "001", "01", "1", "02", "2")


def test_spaces_around_the_values_of_a_table_do_not_count(tmp_path):
    fill(tmp_path)
    mask = draw(tmp_path / "m.png", 255)
    rows = "".join(f"{name}/{k}.bmp , {name} ,train, {mask.name}\n" for name in ("cat", "dog") for k in range(6))
    found = table(tmp_path / "t.csv", f"path, label,split , mask\n{rows}").find()
    assert {(picture.label, picture.split, picture.truth.source.path) for picture in found} == {
        ("cat", "train", mask),
        ("dog", "train", mask),
    }
    (tmp_path / "t.jsonl").write_text('{"path": "cat/1.bmp", "label": "cat "}')
    assert Table(str(tmp_path / "t.jsonl")).find()[0].label == "cat"


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
    assert said in told(table(tmp_path / "t.csv", text).find)


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
