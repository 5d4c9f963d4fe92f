"""A run belongs to its data: a run on cats is not reported or resumed by a command for dogs, wherever the data are."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_entries import command

from camlab import train
from camlab.data.folder import Folder
from camlab.runs import run_folder
from camlab.runs.data_identity import files_hash

QUICK = [
    "data=folder", "data.image_size=64", "data.batch_size=8", "arch.weights=null", "arch.keep_last_pool=false",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "logger=csv", "callbacks.heatmaps=null",
]  # fmt: skip


def draw(root: Path, seed: int, classes: tuple[str, str] = ("black", "white")) -> Path:
    generator = np.random.default_rng(seed)
    for split in ("train", "test"):
        for i, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for k in range(6):
                pixels = generator.integers(100 * i, 100 * i + 100, (70, 70, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Pictures of cats and dogs in folders of the same names, and a finished run on the cats."""
    folder = tmp_path_factory.mktemp("made")
    draw(folder / "cats", 0)
    draw(folder / "dogs", 1)
    draw(folder / "birds", 2, ("black", "yellow"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        assert (
            command(patch, train.main, *QUICK, f"data.root={folder / 'cats'}", f"hydra.run.dir={folder / 'run'}") == 0
        )
    return folder


@pytest.fixture
def there(made, tmp_path) -> Path:
    """A copy of `made` that tests may change; it looks as if the run had been made there."""
    folder = Path(shutil.copytree(made, tmp_path / "there", dirs_exist_ok=True))
    kept = folder / "run" / "data.json"
    kept.write_text(kept.read_text().replace(str(made), str(folder)))
    return folder


def run(monkeypatch, there: Path, animals: str, *arguments: str) -> int:
    place = [f"data.root={there / animals}", f"paths.outputs={there}"]
    return command(monkeypatch, train.main, *QUICK, *place, *arguments)


def unfinish(run_dir: Path) -> None:
    (run_dir / run_folder.RESULT).unlink()


def files(run_dir: Path) -> dict[str, bytes]:
    endings = (".json", ".csv", ".ckpt", ".yaml")
    return {str(path): path.read_bytes() for path in run_dir.rglob("*") if path.suffix in endings}


@pytest.mark.slow
def test_a_run_without_validation_warns_of_nothing(there, monkeypatch, recwarn):
    """Lightning must not warn of an empty list of loaders."""
    assert run(monkeypatch, there, "dogs", f"hydra.run.dir={there / 'new'}") == 0
    assert not [str(w.message) for w in recwarn if "Total length of" in str(w.message)]


def test_what_is_kept(made):
    kept = json.loads((made / "run" / "data.json").read_text())
    assert kept["class_names"] == ["black", "white"]
    assert kept["root"] == str(made / "cats")
    result = json.loads((made / "run" / run_folder.RESULT).read_text())
    assert kept["fingerprint"] == result["data_fingerprint"]


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("animals", ["dogs", "birds"])
def test_a_run_on_other_data_is_not_this_run(there, monkeypatch, capsys, finished, animals):
    folder = there / "run"
    if not finished:
        unfinish(folder)
    before = files(folder)
    assert run(monkeypatch, there, animals, f"hydra.run.dir={folder}") == 2
    told = capsys.readouterr().err
    assert f"{folder} holds a run on other data" in told
    assert "out=FOLDER" in told
    assert len(told.splitlines()) == 2
    assert files(folder) == before


def test_data_that_moved_are_the_same_data(there, monkeypatch, capsys):
    folder = there / "run"
    (there / "cats").rename(there / "felines")
    before = files(folder)
    assert run(monkeypatch, there, "felines", f"hydra.run.dir={folder}") == 0
    assert f"{folder} is finished" in capsys.readouterr().out
    assert files(folder) == before
    unfinish(folder)
    assert run(monkeypatch, there, "felines", f"hydra.run.dir={folder}") == 0
    assert "Resuming from" in capsys.readouterr().out
    assert json.loads((folder / "data.json").read_text())["root"] == str(there / "felines")


def test_pictures_that_were_exchanged_in_their_place_are_other_data(there, monkeypatch, capsys):
    unfinish(there / "run")
    shutil.rmtree(there / "cats")
    (there / "dogs").rename(there / "cats")
    assert run(monkeypatch, there, "cats", f"hydra.run.dir={there / 'run'}") == 2
    told = capsys.readouterr()
    assert "holds a run on other data" in told.err
    assert told.out.count(" pictures in 2 classes") == 1, "the data are loaded once"

    arguments = ["resume=last", f"hydra.run.dir={there / 'new'}"]
    assert run(monkeypatch, there, "cats", *arguments) == 2
    assert "no unfinished run with this configuration and these data" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_that_were_changed_in_their_place_are_noticed_beside_a_finished_run(there, monkeypatch, capsys):
    folder, picture = there / "run", there / "cats" / "train" / "black" / "3.png"
    shutil.rmtree(folder)
    assert run(monkeypatch, there, "cats", f"hydra.run.dir={folder}") == 0
    before, content = files(folder), picture.read_bytes()
    (there / "cats" / "notes.txt").touch()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "load", None)  # nothing is read while nothing has changed
        assert run(monkeypatch, there, "cats", f"hydra.run.dir={folder}") == 0
    Image.fromarray(np.zeros((70, 70, 3), dtype=np.uint8)).save(picture)
    capsys.readouterr()
    assert run(monkeypatch, there, "cats", f"hydra.run.dir={folder}") == 2
    told = capsys.readouterr().err
    assert f"{folder} holds a run on other data: the files in {there / 'cats'} have changed since." in told
    picture.write_bytes(content)
    assert run(monkeypatch, there, "cats", f"hydra.run.dir={folder}") == 0, "the same content at another time"
    assert files(folder) == before


def test_files_are_told_apart_and_links_in_circles_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    (tmp_path / "a" / "x").write_text("1")
    hashes = [files_hash.__wrapped__(str(tmp_path)) for _ in range(2)]
    os.rename(tmp_path / "a" / "x", tmp_path / "a" / "y")
    hashes.append(files_hash.__wrapped__(str(tmp_path)))
    (tmp_path / "a" / "y").write_text("12")
    hashes.append(files_hash.__wrapped__(str(tmp_path)))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert files_hash(None) is None


def test_the_last_run_is_the_last_one_on_these_data(there, monkeypatch, capsys):
    unfinish(there / "run")
    assert run(monkeypatch, there, "dogs", "resume=last", f"hydra.run.dir={there / 'new'}") == 2
    assert "no unfinished run with this configuration and these data" in capsys.readouterr().err
    (there / "cats").rename(there / "felines")
    assert run(monkeypatch, there, "felines", "resume=last", f"hydra.run.dir={there / 'new'}") == 0
    assert f"Resuming from {there / 'run'}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_checkpoint_named_by_hand_may_know_other_pictures_but_not_other_classes(there, monkeypatch, capsys):
    more = [f"resume={there / 'run'}", "trainer.max_epochs=3"]
    assert run(monkeypatch, there, "birds", *more, f"hydra.run.dir={there / 'birds run'}") == 2
    assert "its classes (black, white) are not those of the data" in capsys.readouterr().err
    assert run(monkeypatch, there, "dogs", *more, f"hydra.run.dir={there / 'dogs run'}") == 0
    assert "was trained on other data with the same classes" in capsys.readouterr().out


def test_force_starts_anew_on_other_data(there, monkeypatch):
    assert run(monkeypatch, there, "dogs", "force=true", f"hydra.run.dir={there / 'run'}") == 0
    assert json.loads((there / "run" / "data.json").read_text())["root"] == str(there / "dogs")
