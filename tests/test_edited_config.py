"""A run's `config.yaml` that was edited after the run wrote it is not believed, and one line says so."""

from pathlib import Path

import pytest
from test_cli import launch  # noqa: F401  (a fixture)
from test_summary import make_run, summarize

from camlab.errors import UserError
from camlab.runs import run_folder
from camlab.runs.records import read_runs
from camlab.training.checkpoint import check_place

EDITS = [
    ("lr: 0.0001", "lr: 0.5"),
    ("config_hash: 0", "config_hash: 9"),
    ("# sha256", "# sha"),
    ("run_id: ", "run_id: x"),
]


def edit(run: Path, old: str, new: str) -> None:
    text = (run / run_folder.CONFIG).read_text()
    assert old in text
    (run / run_folder.CONFIG).write_text(text.replace(old, new))


@pytest.mark.parametrize(("old", "new"), EDITS)
def test_any_edit_is_noticed(tmp_path, old, new):
    run = make_run(tmp_path / "run", [], [0.5])
    assert run_folder.read_config_hash(run) == "0123456789abcdef"
    assert run_folder.read_config(run)["optimizer"]["lr"] == 0.0001
    assert not run_folder.is_config_changed(run)
    edit(run, old, new)
    assert run_folder.is_config_changed(run)
    assert run_folder.read_config_hash(run) is run_folder.read_run_id(run) is None
    with pytest.raises(ValueError, match="changed since the run wrote it"):
        run_folder.read_config(run)


def test_the_table_of_runs_does_not_show_edited_settings(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "a", [], [0.5])
    edit(make_run(tmp_path / "b", [], [0.6]), "lr: 0.0001", "lr: 0.5")
    assert summarize(monkeypatch, tmp_path) == 0
    said = capsys.readouterr().out
    assert "The settings in config.yaml have been changed since the run, or damaged: " in said
    assert said.splitlines()[-2].endswith("/b.")
    assert [run.settings for run in read_runs([tmp_path])][1] == {}


def test_evaluate_refuses_edited_settings_of_the_data(launch, tmp_path):  # noqa: F811
    data = "data:\n  _target_: camlab.data.shapes.Shapes\n  test_size: 100\n"
    run_folder.write_config(tmp_path, data, "0")
    (tmp_path / "x.ckpt").touch()
    assert launch("checkpoint=x.ckpt", "out=a", entry="evaluate")[0] == 0
    edit(tmp_path, "test_size: 100", "test_size: 10")
    code, err, seen = launch("checkpoint=x.ckpt", "out=b", entry="evaluate")
    assert (code, seen, len(err.splitlines())) == (2, [], 1)
    assert "config.yaml is damaged or has been changed since the run wrote it. Say which data to evaluate on" in err
    assert launch("checkpoint=x.ckpt", "data=shapes", "out=b", entry="evaluate")[0] == 0


def test_a_run_with_edited_settings_is_not_continued_in_place(launch, tmp_path):  # noqa: F811
    assert launch("out=mine", "data=shapes")[0] == 0
    run_folder.write_config(tmp_path / "mine", "seed: 0\n", "0")
    (tmp_path / "mine" / run_folder.METRICS).touch()
    edit(tmp_path / "mine", "seed: 0", "seed: 1")
    code, err, seen = launch("out=mine", "data=shapes")
    assert (code, seen, len(err.splitlines())) == (2, [], 2)
    assert "has been changed since the run wrote it" in err


def test_a_checkpoint_beside_edited_settings_is_used_without_them(tmp_path, caplog):
    run_folder.write_config(tmp_path, "seed: 0\n", "0", "mine")
    with pytest.raises(UserError, match="belongs to another run"):
        check_place({"camlab_run": {"id": "another"}}, tmp_path / "x.ckpt")
    edit(tmp_path, "seed: 0", "seed: 1")
    check_place({"camlab_run": {"id": "mine"}}, tmp_path / "x.ckpt", "resume")
    assert "config.yaml is damaged or has been changed since the run wrote it; it is not used." in caplog.text
