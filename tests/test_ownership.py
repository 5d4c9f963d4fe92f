"""Output goes into new folders and into camlab's own; other files are neither changed nor removed."""

import json
import shutil
from pathlib import Path

import pytest
from test_cli import launch  # noqa: F401  (a fixture)
from test_entries import TINY, command

from camlab import train
from camlab.errors import UserError
from camlab.runs import ownership, run_folder

QUICK = [*TINY, "logger=csv", "data.train_size=40", "trainer.max_epochs=1", "cache=false"]
HASH = "0123456789abcdef"


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: the content of files, and the targets of links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder.parent))
        assert command(patch, train.main, *QUICK, f"out={folder}") == 0
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# ---- folders with other files, without torch


@pytest.mark.parametrize("force", ["force=false", "force=true"])
@pytest.mark.parametrize("name", ["config.yaml", "result.json", "metrics.csv", "heatmaps/a.png", ".hydra/hydra.yaml"])
def test_a_folder_with_other_files_is_refused_even_with_force(launch, tmp_path, name, force):  # noqa: F811
    for file in (name, "thesis.tex"):
        (tmp_path / "theirs" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs" / file).write_text("hydra: {help: {app_name: another}}")
    before = tree(tmp_path)
    code, err, seen = launch("out=theirs", "data=shapes", force)
    assert (code, seen) == (2, [])
    assert err.startswith("theirs holds files that are not from a camlab run, such as ")
    assert err.endswith("; nothing was changed. Give another out=FOLDER.\n")
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_a_folder_in_which_a_job_failed_early_may_be_used(launch, tmp_path):  # noqa: F811
    for _ in range(2):
        assert launch("out=mine", "data=shapes")[0] == 0
    assert (tmp_path / "mine" / ".hydra" / "hydra.yaml").is_file()
    (tmp_path / "mine" / "failure.json").write_text("{}")
    assert launch("out=mine", "data=shapes")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["first line\n", "", "\0\0\0", "# config_hash: \n", None])
def test_a_run_whose_configuration_is_damaged_is_not_overwritten_in_silence(launch, tmp_path, damage):  # noqa: F811
    assert launch("out=mine", "data=shapes")[0] == 0
    run_folder.write_config(tmp_path / "mine", "seed: 0\n", HASH)
    run_folder.write_result(tmp_path / "mine", {"metrics": {}})
    if damage is None:
        (tmp_path / "mine" / "config.yaml").unlink()
    else:
        (tmp_path / "mine" / "config.yaml").write_text(damage)
    before = tree(tmp_path)
    code, err, seen = launch("out=mine", "data=shapes")
    assert (code, seen) == (2, [])
    assert err.splitlines() == [
        "mine/config.yaml is missing, damaged or has been changed since the run wrote it, so it is unknown which run this is;"
        " nothing was changed.",
        "Give another out=FOLDER; to replace that run with a new one, add force=true.",
    ]
    assert tree(tmp_path) == before
    assert launch("out=mine", "data=shapes", "force=true")[0] == 0


@pytest.mark.parametrize("entry", ["train", "evaluate", "explain", "score"])
@pytest.mark.parametrize("name", ["multirun.yaml", "summary.csv", "seed-1/result.json", "thesis.tex"])
def test_a_sweep_keeps_out_of_folders_with_other_files(launch, tmp_path, entry, name):  # noqa: F811
    (tmp_path / "theirs" / name).parent.mkdir(parents=True)
    (tmp_path / "theirs" / name).write_text("hydra: {help: {app_name: another}}")
    given = {"train": ["data=shapes", "seed=1,2"], "evaluate": ["checkpoint=.", "data=shapes", "split=val,test"]}
    given["score"] = ["images=x", "n=1,2"]
    before = tree(tmp_path)
    code, err, seen = launch("-m", "out=theirs", *given.get(entry, ["images=x", "top_k=1,2"]), entry=entry)
    assert (code, seen) == (2, [])
    assert err.startswith("theirs")
    assert "nothing was changed" in err
    assert len(err.splitlines()) == 1
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_the_output_of_another_command_is_neither_a_run_nor_a_sweep(launch, tmp_path):  # noqa: F811
    (tmp_path / "x.png").touch()
    assert launch("out=mine", "images=x.png", "network=vgg16", entry="explain")[0] == 0
    (tmp_path / "mine" / "explain.json").touch()
    assert launch("-m", "out=many", "images=x.png", "network=vgg16,vgg11", entry="explain")[0] == 0
    before = tree(tmp_path)
    assert "are not from a camlab run, such as explain.json" in launch("out=mine", "data=shapes")[1]
    assert "are not from a sweep of camlab.train, such as " in launch("-m", "out=many", "data=shapes", "seed=1,2")[1]
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_the_same_sweep_again_finds_its_folder(launch, tmp_path):  # noqa: F811
    for _ in range(2):
        assert launch("-m", "out=mine", "data=shapes", "seed=1,2")[0] == 0
    (tmp_path / "mine" / "multirun.yaml").unlink()  # Optuna's sweeps have none
    assert launch("-m", "out=mine", "data=shapes", "seed=1,2")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("force", ["force=false", "force=true"])
@pytest.mark.parametrize(
    "name", ["config.yaml", "result.json", "metrics.csv", "data.json", "failure.json", ".lock", "checkpoints/last.ckpt",
             "checkpoints/best.ckpt.sha256", "heatmaps/epoch_0001/sheet.png"]
)  # fmt: skip
def test_a_folder_in_place_of_a_file_is_refused_before_anything_is_removed(launch, tmp_path, name, force):  # noqa: F811
    assert launch("out=mine", "data=shapes")[0] == 0
    run_folder.write_config(tmp_path / "mine", "seed: 0\n", HASH)
    (tmp_path / "mine" / "metrics.csv").write_text("epoch")
    (tmp_path / "mine" / name).unlink(missing_ok=True)
    (tmp_path / "mine" / name / "inner").mkdir(parents=True)
    before = tree(tmp_path)
    code, err, seen = launch("out=mine", "data=shapes", force)
    assert (code, seen) == (2, [])
    assert err == f"mine/{name} is in the way; nothing was changed. Remove it, or give another out=FOLDER.\n"
    assert tree(tmp_path) == before


# ---- what a refused command leaves


@pytest.mark.slow
def test_a_job_of_a_sweep_that_is_refused_leaves_hydras_notes_as_they_are(launch, tmp_path):  # noqa: F811
    assert launch("-m", "out=mine", "data=shapes", "seed=1,2")[0] == 0
    run_folder.write_config(tmp_path / "mine" / "seed-1", "seed: 0\n", HASH)
    (tmp_path / "mine" / "seed-1" / "metrics.csv").write_text("epoch")
    before = tree(tmp_path / "mine" / "seed-1" / ".hydra")
    assert set(before) == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    code, err, _ = launch("-m", "out=mine", "data=shapes", "seed=1,2", "trainer.max_epochs=7")
    assert code == 2
    assert "seed-1: " in err
    assert tree(tmp_path / "mine" / "seed-1" / ".hydra") == before


# ---- names that are paths


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../../x", "..", ".", "", "/tmp/x", "a/b", "a\nb", "x" * 250])
def test_names_do_not_leave_their_folders(launch, tmp_path, name):  # noqa: F811
    for setting in ("sweep", "run_name"):
        code, err, seen = launch(f"{setting}='{name}'", "data=shapes")
        assert (code, seen) == (2, []), setting
        assert f"{setting}=" in err
        assert "must be a plain name" in err
    code, err, seen = launch("-m", f"sweep='{name}'", "data=shapes", "seed=1,2")
    assert (code, seen) == (2, [])
    assert err.startswith("sweep=")
    assert "run_name=" in launch("data=shapes", "data.name=../../x")[1]
    for setting in ("name", "version", "sub_dir"):
        if name or setting == "name":
            given = (
                f"+logger.tensorboard.{setting}='{name}'"
                if setting == "sub_dir"
                else f"logger.tensorboard.{setting}='{name}'"
            )
            assert "must be a plain name" in launch("data=shapes", "logger=tensorboard", given)[1]
    assert not list(tmp_path.iterdir())


# ---- links


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [".hydra", ".hydra/config.yaml", "train.log", "checkpoints", "heatmaps", "heatmaps/epoch_0001", "wandb"]
)
def test_links_that_would_be_written_through_are_refused(launch, tmp_path, name):  # noqa: F811
    assert launch("out=mine", "data=shapes")[0] == 0
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "config.yaml").write_text("precious")
    link = tmp_path / "mine" / name
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(precious / "config.yaml" if link.suffix else precious)
    before = tree(tmp_path)
    for force in ("force=false", "force=true"):
        code, err, _ = launch("out=mine", "data=shapes", force)
        assert code == 2
        assert err.startswith(f"mine/{name} is a symbolic link, through which files elsewhere would be written")
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_links_in_the_jobs_of_a_sweep_are_refused_before_it_begins(launch, tmp_path):  # noqa: F811
    assert launch("-m", "out=mine", "data=shapes", "seed=1,2")[0] == 0
    shutil.rmtree(tmp_path / "mine" / "seed-2" / ".hydra")
    (tmp_path / "mine" / "seed-2" / ".hydra").symlink_to(tmp_path)
    before = tree(tmp_path)
    code, err, _ = launch("-m", "out=mine", "data=shapes", "seed=1,2")
    assert (code, err.split(" is a symbolic link")[0]) == (2, "mine/seed-2/.hydra")
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_links_in_the_places_of_a_runs_files_are_replaced(run, tmp_path, monkeypatch):
    (precious := tmp_path / "precious").write_text("precious")
    for name in (run_folder.METRICS, run_folder.LAST, run_folder.BEST, "data.json", "heatmaps/epoch_0001/sheet.png"):
        (run / name).unlink()
        (run / name).symlink_to(precious)
    assert command(monkeypatch, train.main, *QUICK, f"out={run}", "force=true") == 0
    assert precious.read_text() == "precious"
    assert not [path for path in run.rglob("*") if path.is_symlink()]


# ---- runs


@pytest.mark.slow
def test_force_names_what_it_removes_and_leaves_the_files_of_others(run, monkeypatch, capsys):
    theirs = [
        run / name for name in ("notes.txt", "heatmaps/talk.pdf", "heatmaps/epoch_0001/mine.jpg", "checkpoints/a.ckpt")
    ]
    for path in theirs:
        path.write_text("mine")
    assert command(monkeypatch, train.main, *QUICK, f"out={run}", "force=true") == 0
    assert [path.read_text() for path in theirs] == ["mine"] * len(theirs)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("force=true: removing ")]
    for name in (run_folder.RESULT, run_folder.METRICS, run_folder.LAST, run_folder.BEST, "files in heatmaps/"):
        assert name in line
    assert line.endswith(f" in {run}.")


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten_by_resume(run, tmp_path, monkeypatch, capsys):
    """Neither another run's checkpoint nor its own may change a finished run."""
    other = Path(shutil.copytree(run, tmp_path / "other"))
    before = tree(tmp_path)
    for given in (other, other / run_folder.LAST, run, run / run_folder.BEST):
        assert command(monkeypatch, train.main, *QUICK, f"out={run}", f"resume={given}") == 2
        assert f"{run} holds a finished run; nothing was changed" in capsys.readouterr().err
    more = [*QUICK, f"resume={run}", "trainer.max_epochs=2"]
    assert command(monkeypatch, train.main, *more, f"out={run}") == 2
    told = capsys.readouterr().err
    assert f"To continue that run with new settings, add resume={run} and another out=FOLDER." in told
    after = {name: text for name, text in tree(tmp_path).items() if ".hydra" not in name and not name.endswith(".log")}
    assert after == {name: before[name] for name in after}


@pytest.mark.slow
def test_the_same_command_with_resume_skips_what_is_finished_and_goes_on_with_the_rest(
    run, tmp_path, monkeypatch, capsys
):
    new = tmp_path / "new"
    plan = [*QUICK, f"out={new}", f"resume={run}", "trainer.max_epochs=2"]
    assert command(monkeypatch, train.main, *plan) == 0
    before = (new / run_folder.RESULT).read_bytes()
    assert json.loads(before)["epochs"] == 2
    capsys.readouterr()
    assert command(monkeypatch, train.main, *plan) == 0
    assert f"{new} is finished" in capsys.readouterr().out
    assert (new / run_folder.RESULT).read_bytes() == before
    (new / run_folder.RESULT).unlink()
    assert command(monkeypatch, train.main, *plan) == 0
    assert f"Resuming from {new / run_folder.LAST}" in capsys.readouterr().out


def test_an_unfinished_run_of_the_same_settings_is_not_overwritten_either(tmp_path):
    run_folder.write_config(tmp_path, "resume: auto\n", HASH)
    (tmp_path / run_folder.METRICS).touch()
    elsewhere = tmp_path.parent / "elsewhere.ckpt"
    with pytest.raises(UserError, match=r"did not start from .*elsewhere\.ckpt; nothing was changed"):
        ownership.check_not_taken(tmp_path, HASH, elsewhere)
    ownership.check_not_taken(tmp_path, HASH, tmp_path / run_folder.LAST)
    assert not ownership.was_started_with(tmp_path, str(elsewhere))
    run_folder.write_config(tmp_path, f"resume: {elsewhere}\n", HASH)
    assert ownership.was_started_with(tmp_path, f"{elsewhere.parent}/./elsewhere.ckpt")


@pytest.mark.parametrize(
    ("place", "is_folder"), [("train.log", True), (".hydra/config.yaml", True), (".hydra", False), ("heatmaps", False)]
)
def test_what_is_in_the_way_is_named(launch, tmp_path, place, is_folder):  # noqa: F811
    path = tmp_path / "mine" / place
    path.parent.mkdir(parents=True)
    path.mkdir() if is_folder else path.touch()
    code, err, seen = launch("out=mine", "data=shapes")
    assert (code, err, seen) == (
        2,
        f"mine/{place} is in the way; nothing was changed. Remove it, or give another out=FOLDER.\n",
        [],
    )


def test_the_folder_of_another_program_of_hydras_is_refused(launch, tmp_path):  # noqa: F811
    for folder in (tmp_path / "mine", tmp_path / "many" / "seed-1"):
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "hydra.yaml").write_text("hydra: {help: {app_name: theirs}}\n")
        (folder / "train.log").write_text("theirs\n")
    before = tree(tmp_path)
    for given in (["out=mine", "data=shapes"], ["-m", "out=many", "data=shapes", "seed=1,2"]):
        code, err, seen = launch(*given)
        assert (code, seen) == (2, []), err
        assert "nothing was changed" in err
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_a_foreign_multirun_yaml_is_not_replaced(launch, tmp_path):  # noqa: F811
    assert launch("-m", "out=many", "data=shapes", "seed=1,2")[0] == 0
    (tmp_path / "many" / "multirun.yaml").write_text("theirs: 1\n")
    code, err, _ = launch("-m", "out=many", "data=shapes", "seed=3,4")
    assert code == 2
    assert "such as multirun.yaml; nothing was changed" in err
