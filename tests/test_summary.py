"""The table of runs: what varied, seeds together, unfinished and broken folders, a thousand of them."""

import csv
import json
import math
import sys
import time
from pathlib import Path

import pytest

from camlab import summary
from camlab.runs import run_folder
from camlab.runs.comparison import side_by_side
from camlab.runs.records import read_runs


def make_run(
    folder: Path, overrides: list[str], accuracies: list[float], finished: bool = True, split: str = "val"
) -> Path:
    """A run's folder as a run leaves it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {item}\n" for item in overrides) or "[]\n")
    run_folder.write_config(folder, "seed: 0\noptimizer:\n  lr: 0.0001\n", "0123456789abcdef")
    with open(folder / run_folder.METRICS, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "train/images_per_second", "train/loss", f"{split}/acc", f"{split}/loss"])
        for epoch, accuracy in enumerate(accuracies, 1):
            writer.writerow([epoch, epoch * 10 - 1, "", "", accuracy, 1 - accuracy])
            writer.writerow([epoch, epoch * 10 - 1, 100.0, 0.5, "", ""])
    if finished:
        metrics = {"test/acc": accuracies[-1] - 0.01, f"{split}/acc": accuracies[-1]}
        result = {"metrics": metrics, "objective": 0.0, "epochs": len(accuracies), "wall_time_s": 60.0, "seed": 0}
        run_folder.write_result(folder, result)
    return folder


def summarize(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["camlab-summary", *map(str, arguments)])
    try:
        summary.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_seeds_are_grouped_and_the_best_comes_first(tmp_path):
    for lr, base in (("1e-3", 0.7), ("0.0001", 0.8)):
        for seed, more in enumerate((0.0, 0.02, 0.04)):
            overrides = ["data=shapes", f"optimizer.lr={lr}", f"seed={seed}"]
            make_run(tmp_path / f"{lr}-{seed}", overrides, [0.1, base + more, base - 0.1])
    compared = side_by_side(read_runs([tmp_path]))
    assert compared.varied == ["optimizer.lr"]
    assert [group.settings for group in compared.groups] == [("0.0001",), ("0.001",)]
    best = compared.groups[0]
    assert best.mean("acc_best") == pytest.approx(0.82)
    assert best.std("acc_best") == pytest.approx(0.02)
    assert best.mean("acc_last") == pytest.approx(0.7)
    assert best.mean("images_per_s") == 100
    assert best.state == "3 finished"


def test_what_one_run_was_not_told_is_read_from_its_configuration(tmp_path):
    make_run(tmp_path / "a", ["optimizer.lr=1e-3"], [0.5])
    make_run(tmp_path / "b", [], [0.4])
    compared = side_by_side(read_runs([tmp_path]))
    assert [group.settings for group in compared.groups] == [("0.001",), ("0.0001",)]


def test_missing_broken_and_foreign_files(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "good", ["mode=frozen"], [0.5, 0.6])
    make_run(tmp_path / "under way", ["mode=finetune"], [0.7], finished=False)
    cut = make_run(tmp_path / "cut", ["mode=finetune"], [0.5, 0.6])
    (cut / run_folder.RESULT).write_text('{"metrics": {"test/acc"')
    with open(cut / run_folder.METRICS, "a") as file:
        file.write("3,29,\0")  # a line that is being written
    no_metrics = make_run(tmp_path / "none", ["mode=frozen"], [0.5])
    (no_metrics / run_folder.METRICS).unlink()
    (no_metrics / ".hydra" / "overrides.yaml").write_text("{:")
    strange = make_run(tmp_path / "strange", ["mode=frozen"], [0.5])
    (strange / run_folder.METRICS).write_bytes(bytes(range(256)))
    failed = tmp_path / "failed" / "job"
    failed.mkdir(parents=True)
    run_folder.write_failure(failed, run_folder.Failure("loss is NaN", by_user=False))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "result.json").write_text("[1, 2]")
    (tmp_path / "foreign" / "config.yaml").write_text("a: 1\n")
    (tmp_path / "note.txt").write_text("mine")

    assert summarize(monkeypatch, tmp_path) == 0
    said = capsys.readouterr().out
    assert "6 runs" in said
    with open(tmp_path / "summary.csv", newline="") as file:
        states = {row["folder"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert {name: row["state"] for name, row in states.items()} == {
        "good": "finished", "under way": "unfinished", "cut": "unfinished", "none": "finished", "strange": "finished",
        "job": "failed",
    }  # fmt: skip
    assert states["cut"]["acc_last"] == "0.6"
    assert states["job"]["why"] == "loss is NaN"
    assert (tmp_path / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_test_accuracy_counts_where_nothing_was_held_out(tmp_path):
    make_run(tmp_path / "a", [], [0.5, 0.4], split="test")
    compared = side_by_side(read_runs([tmp_path]))
    assert compared.split == "test"
    assert compared.groups[0].mean("acc_best") == 0.5


def test_a_diverged_run_has_its_place(tmp_path, monkeypatch):
    make_run(tmp_path / "a", ["optimizer.lr=1"], [math.nan, math.nan])
    make_run(tmp_path / "b", ["optimizer.lr=0.1"], [0.1, 0.2])
    assert summarize(monkeypatch, tmp_path) == 0


@pytest.mark.parametrize(
    ("arguments", "told"), [(["nowhere"], "nowhere: no such folder."), (["."], "no runs of camlab there.")]
)
def test_nothing_to_compare(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert summarize(monkeypatch, *arguments) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_thousand_runs_in_seconds(tmp_path, monkeypatch, capsys):
    curve = [0.5 + 0.001 * epoch for epoch in range(150)]
    for i in range(1000):
        make_run(tmp_path / f"job{i}", [f"optimizer.lr={10 ** (i % 50 / 10)}", f"seed={i // 50}"], curve)
    began = time.process_time()
    assert summarize(monkeypatch, tmp_path) == 0
    assert time.process_time() - began < 20, "seconds on any machine, even a slow one"
    assert "1000 runs" in capsys.readouterr().out
    (row,) = (line for line in (tmp_path / "summary.md").read_text().splitlines() if line.startswith("| 1 "))
    assert "20 finished" in row


def test_no_torch_is_needed(tmp_path):
    import subprocess

    make_run(tmp_path / "a", [], [0.5])
    code = f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]; from camlab import summary; summary.main(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_result_is_what_json_says(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"metrics": 3, "objective": 1, "epochs": 1, "wall_time_s": 1}))
    assert run_folder.read_result(tmp_path) is None
