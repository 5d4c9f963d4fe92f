"""The table of runs: settings that vary, groups of seeds, unfinished and broken runs, and a thousand runs."""

import csv
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camlab import summary
from camlab.runs import run_folder
from camlab.runs.comparison import side_by_side
from camlab.runs.data_identity import DataIdentity, read_data_identity, write_data_identity
from camlab.runs.plot import draw
from camlab.runs.records import read_runs


def make_run(
    folder: Path,
    overrides: list[str],
    accuracies: list[float],
    finished: bool = True,
    split: str = "val",
    config: str = "seed: 0\noptimizer:\n  lr: 0.0001\n",
    **scores: float,
) -> Path:
    """Make a folder as a run leaves it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {item}\n" for item in overrides) or "[]\n")
    for item in (item for item in overrides if item.startswith("optimizer.lr=")):
        config = config.replace("lr: 0.0001", f"lr: {item.partition('=')[2]}")
    run_folder.write_config(folder, config, "0123456789abcdef")
    with open(folder / run_folder.METRICS, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "train/images_per_second", "train/loss", f"{split}/acc", f"{split}/loss"])
        for epoch, accuracy in enumerate(accuracies, 1):
            writer.writerow([epoch, epoch * 10 - 1, "", "", accuracy, 1 - accuracy])
            writer.writerow([epoch, epoch * 10 - 1, 100.0, 0.5, "", ""])
    if finished:
        metrics = {"test/acc": accuracies[-1] - 0.01, f"{split}/acc": accuracies[-1], **scores}
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
    assert best.mean("val_acc_best") == pytest.approx(0.82)
    assert best.std("val_acc_best") == pytest.approx(0.02)
    assert best.mean("val_acc_last") == pytest.approx(0.7)
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
    assert states["cut"]["val_acc_last"] == "0.6"
    assert states["job"]["failure"] == "loss is NaN"
    assert (tmp_path / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_test_accuracy_counts_where_nothing_was_held_out(tmp_path):
    make_run(tmp_path / "a", [], [0.5, 0.4], split="test")
    compared = side_by_side(read_runs([tmp_path]))
    assert compared.ranked_by == "test_acc"
    assert compared.groups[0].mean("test_acc_best") == 0.5


def test_a_diverged_run_is_in_the_table(tmp_path, monkeypatch):
    make_run(tmp_path / "a", ["optimizer.lr=1"], [math.nan, math.nan])
    make_run(tmp_path / "b", ["optimizer.lr=0.1"], [0.1, 0.2])
    assert summarize(monkeypatch, tmp_path) == 0


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of summary.md, by column."""
    lines = [line.strip("| \n").split(" | ") for line in (folder / "summary.md").read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_test_accuracy_is_never_ranked_with_validation_accuracy(tmp_path, monkeypatch):
    config = "seed: 0\ndata:\n  val_size: {}\n"
    make_run(tmp_path / "validated", ["data.val_size=500"], [0.5, 0.4], config=config.format(500))
    make_run(tmp_path / "tested", ["data.val_size=0"], [0.9, 0.8], split="test", config=config.format(0))
    assert summarize(monkeypatch, tmp_path) == 0
    first, second = table(tmp_path)
    assert (first["run"], first["val % best"], first["test %"]) == ("validated", "50.00", "39.00")
    assert (second["run"], second["val % best"], second["test %"]) == ("tested", "–", "80.00")
    assert (first["test % best epoch"], second["test % best epoch"]) == ("–", "90.00")


@pytest.mark.parametrize("given", ["launcher=joblib", "sweeper=optuna", "logger=csv", "checkpoint_every=5", "out=x"])
def test_runs_are_not_separated_by_how_they_were_started(tmp_path, given):
    make_run(tmp_path / "a", ["optimizer.lr=1e-3", given], [0.5])
    make_run(tmp_path / "b", ["optimizer.lr=1e-3", "seed=1"], [0.4])
    (group,) = side_by_side(read_runs([tmp_path])).groups
    assert len(group.runs) == 2


def test_runs_with_and_without_a_callback_that_takes_part_are_no_seeds_of_each_other(tmp_path):
    given = "+callbacks.swa._target_=SWA"
    for name, overrides, config in (("a", [], ""), ("b", [given], "callbacks: {swa: {_target_: SWA}}\n")):
        make_run(tmp_path / name, overrides, [0.5], config=f"seed: 0\n{config}")
    compared = side_by_side(read_runs([tmp_path]))
    assert len(compared.groups) == 2
    assert any(key.startswith("callbacks.swa") for key in compared.varied)


def test_defaults_are_shown_as_the_run_used_them(tmp_path, monkeypatch):
    """The option of a group is read from Hydra's files; settings that nobody gave are compared in `config.yaml`."""
    config = "seed: 0\nmode: {}\nscheduler: null\ndata:\n  seed: {}\n  flip: {}\n"
    runs = {"a": (["data=shapes"], "frozen", 0.5), "b": (["mode=finetune"], "finetune", 0.5), "c": ([], "frozen", 0.25)}
    for seed, (name, (overrides, mode, flip)) in enumerate(runs.items()):
        folder = make_run(
            tmp_path / name, [*overrides, "scheduler=null"], [0.5], config=config.format(mode, seed, flip)
        )
        data = "shapes" if name == "a" else "cifar10"
        notes = f"hydra:\n  runtime:\n    choices:\n      data: {data}\n      hydra/launcher: basic\n"
        (folder / ".hydra" / "hydra.yaml").write_text(notes)
    make_run(tmp_path / "d", [], [0.5], config=config.format("frozen", 3, 0.125))
    (tmp_path / "d" / ".hydra" / "hydra.yaml").write_text(notes)
    assert summarize(monkeypatch, tmp_path) == 0
    rows = {row["run"]: row for row in table(tmp_path)}
    assert [rows[name]["data"] for name in "abcd"] == ["shapes", "cifar10", "cifar10", "cifar10"]
    assert [rows[name]["mode"] for name in "abcd"] == ["frozen", "finetune", "frozen", "frozen"]
    assert [rows[name]["data.flip"] for name in "abcd"] == ["0.5", "0.5", "0.25", "0.125"]
    assert not {"scheduler", "data.seed", "seed"} & set(rows["a"])


def test_long_values_are_shortened_in_the_table_and_whole_in_the_csv(tmp_path, monkeypatch):
    for name, root, lr in (("a", "/data/pets/cats", "0.000123456781"), ("b", "/data/pets/dogs", "0.000123456789")):
        overrides = [f"data.root={root}", f"optimizer.lr={lr}"]
        make_run(tmp_path / "sweep" / name, overrides, [0.5], config=f"optimizer:\n  lr: {lr}\n")
    assert summarize(monkeypatch, tmp_path) == 0
    assert [row["data.root"] for row in table(tmp_path)] == ["cats", "dogs"]
    assert len({row["optimizer.lr"] for row in table(tmp_path)}) == 2, "different values must stay distinct"
    with open(tmp_path / "summary.csv", newline="") as file:
        assert [row["data.root"] for row in csv.DictReader(file)] == ["/data/pets/cats", "/data/pets/dogs"]


def test_whatever_was_scored_has_a_column_and_its_baselines_are_in_the_csv(tmp_path, monkeypatch):
    scores = {"test/pointing_game": 0.75, "test/pointing_game_random": 0.2, "val/insertion": 0.5}
    make_run(tmp_path / "a", ["mode=frozen"], [0.5], **scores)
    make_run(tmp_path / "b", ["mode=finetune"], [0.4])
    assert summarize(monkeypatch, tmp_path) == 0
    first, second = table(tmp_path)
    assert (first["test/pointing_game"], second["test/pointing_game"]) == ("0.750", "–")
    assert first["val/insertion"] == "0.500"
    assert "test/pointing_game_random" not in first
    assert "test % best epoch" not in first, "columns without values must be left out"
    with open(tmp_path / "summary.csv", newline="") as file:
        assert next(csv.DictReader(file))["test/pointing_game_random"] == "0.2"


def test_of_the_scores_of_heatmaps_the_table_shows_two(tmp_path, monkeypatch):
    names = ("auroc", "auroc_chance", "srg", "drift", "pointing_game")
    make_run(tmp_path / "a", ["mode=frozen"], [0.5], **{f"val/heat/{name}": 0.25 for name in names})
    assert summarize(monkeypatch, tmp_path) == 0
    assert [name for name in table(tmp_path)[0] if name.startswith("val/heat")] == ["val/heat/auroc", "val/heat/srg"]
    with open(tmp_path / "summary.csv", newline="") as file:
        assert {f"val/heat/{name}" for name in names} <= set(next(csv.DictReader(file)))


def test_names_are_not_read_as_markup(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "[red]", ["arch=$_$"], [0.5, 0.6])
    make_run(tmp_path / "größer", ["arch=[bold]"], [0.4, 0.7])
    make_run(tmp_path / "猫", ["arch=猫"], [0.4, 0.7])
    assert summarize(monkeypatch, tmp_path) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("[red]", "[bold]", "$_$", "größer", "猫"))


def test_damaged_values_of_a_result_are_ignored(tmp_path):
    folder = make_run(tmp_path / "a", [], [0.5])
    result = {"metrics": {"test/acc": "high", "val/acc": 0.5}, "objective": 0, "epochs": "two", "wall_time_s": None}
    (folder / run_folder.RESULT).write_text(json.dumps(result))
    (run,) = read_runs([tmp_path])
    assert (run.state, run.epochs, run.seconds) == ("unfinished", 1.0, None)
    assert "test/acc" not in run.metrics


def test_ticks_of_the_chart_are_whole_epochs_and_its_legend_names_the_groups(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: seen.append(figure))
    for i in range(12):
        make_run(tmp_path / f"{i}", [f"optimizer.lr={10.0 ** (i - 12):g}"], [0.1, 0.2, 0.3 + i / 100])
    compared = side_by_side(read_runs([tmp_path]))
    draw(compared)
    left, right = seen[0].axes
    assert left.get_xscale() == "log"
    assert all(float(tick).is_integer() for tick in right.get_xticks())
    legend = right.get_legend()
    assert [text.get_text() for text in legend.get_texts()][:2] == ["0.1", "0.01"], "the best group comes first"
    assert "optimizer.lr" in legend.get_title().get_text()
    assert "2 more in grey" in legend.get_title().get_text()


def test_the_tick_of_runs_of_one_epoch_is_that_epoch(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: seen.append(figure))
    for i in range(2):
        make_run(tmp_path / f"{i}", [f"optimizer.lr={10.0 ** (i - 3):g}"], [0.1 + i / 10])
    draw(side_by_side(read_runs([tmp_path])))
    right = seen[0].axes[1]
    low, high = right.get_xlim()
    assert [tick for tick in right.get_xticks() if low <= tick <= high] == [1.0]


def test_a_closed_pipe_ends_the_command_silently(tmp_path):
    """`camlab-summary outputs | head` ends without a message, as other commands do, and its files are written."""
    make_run(tmp_path / "a", [], [0.5])
    command = [sys.executable, "-m", "camlab.summary", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (141, b"")
    assert (tmp_path / "summary.md").is_file()


@pytest.mark.parametrize("arguments", [[], ["--nonsense", "."], [".", "out=file"], [".", "--out", "/proc/none"]])
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    make_run(tmp_path / "a", [], [0.5])
    assert summarize(monkeypatch, *arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["nowhere"], "nowhere: no such folder."), (["."], ".: no runs of camlab were found there.")],
)
def test_nothing_to_compare(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert summarize(monkeypatch, *arguments) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_infinite_metric_has_no_spread(tmp_path, monkeypatch):
    for seed, accuracy in enumerate([0.5, math.inf]):
        make_run(tmp_path / str(seed), [f"seed={seed}"], [accuracy])
    assert summarize(monkeypatch, tmp_path) == 0


def test_a_run_gets_no_table_unless_it_is_asked_for(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", [], [0.5])
    before = sorted(run.iterdir())
    assert summarize(monkeypatch, run, tmp_path) == 2
    assert (
        capsys.readouterr().err == f"{run} is a run's own folder. Give another folder for the table with out=FOLDER.\n"
    )
    assert summarize(monkeypatch, run, f"out={tmp_path / 'table'}") == 0
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("name", ["summary.csv", "summary.md", "summary.png"])
def test_files_of_others_and_what_links_lead_to_are_left_alone(tmp_path, monkeypatch, capsys, name):
    make_run(tmp_path / "runs" / "a", [], [0.5])
    mine = tmp_path / "runs" / name
    mine.write_text("mine")
    assert summarize(monkeypatch, tmp_path / "runs") == 2
    told = f"{mine} was not written by camlab; nothing was changed. Move it away, or give out=FOLDER.\n"
    assert capsys.readouterr().err == told
    assert [path.name for path in mine.parent.iterdir() if path.is_file()] == [name]
    mine.rename(tmp_path / "elsewhere")
    assert summarize(monkeypatch, tmp_path / "runs") == 0
    mine.unlink()
    mine.symlink_to(tmp_path / "elsewhere")
    if name == "summary.csv":
        assert summarize(monkeypatch, tmp_path / "runs") == 2
        (tmp_path / "elsewhere").write_text("folder,state,mine")
    assert summarize(monkeypatch, tmp_path / "runs") == 0
    assert (tmp_path / "elsewhere").read_text() in ("mine", "folder,state,mine")
    assert not mine.is_symlink()


@pytest.mark.timeout(60)
def test_pipes_in_the_places_of_files_are_not_waited_for(tmp_path, monkeypatch):
    for name in (run_folder.CONFIG, run_folder.RESULT, run_folder.FAILURE, run_folder.METRICS, ".hydra/overrides.yaml"):
        run = make_run(tmp_path / name.replace("/", "-"), [], [0.5])
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    assert summarize(monkeypatch, tmp_path) == 0


def test_a_folder_for_nothing_is_not_made(tmp_path, monkeypatch):
    assert summarize(monkeypatch, tmp_path, f"out={tmp_path}/new") == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_thousand_runs_in_seconds(tmp_path, monkeypatch, capsys):
    curve = [0.5 + 0.001 * epoch for epoch in range(150)]
    for i in range(1000):
        make_run(tmp_path / f"job{i}", [f"optimizer.lr={10 ** (i % 50 / 10)}", f"seed={i // 50}"], curve)
    began = time.process_time()
    assert summarize(monkeypatch, tmp_path) == 0
    assert time.process_time() - began < 20, "it must take seconds, even on a slow machine"
    assert "1000 runs" in capsys.readouterr().out
    (row,) = (line for line in (tmp_path / "summary.md").read_text().splitlines() if line.startswith("| 1 "))
    assert "20 finished" in row


def test_no_torch_is_needed(tmp_path):
    make_run(tmp_path / "a", [], [0.5])
    code = f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]; from camlab import summary; summary.main(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_result_without_metrics_does_not_count(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"metrics": 3, "objective": 1, "epochs": 1, "wall_time_s": 1}))
    assert run_folder.read_result(tmp_path) is None


def test_the_chart_is_drawn_along_the_setting_with_the_most_values(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: seen.append(figure))
    for i, rate in enumerate(("0.001", "0.01", "0.1")):
        for decay in ("0.5", "0.25"):
            make_run(tmp_path / f"{i}{decay}", [f"optimizer.weight_decay={decay}", f"optimizer.lr={rate}"], [0.1, 0.2])
    draw(side_by_side(read_runs([tmp_path])))
    assert seen[0].axes[0].get_xlabel() == "optimizer.lr"


RESULT = {"metrics": {"test/acc": 0.5}, "objective": 0.5, "epochs": 2, "wall_time_s": 60.0}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps(RESULT | {"metrics": {}}),
        json.dumps(RESULT | {"metrics": {"test/acc": None}}),
        json.dumps(RESULT | {"metrics": {"test/acc": 10**400}}),
        json.dumps(RESULT | {"metrics": [0.5]}),
        json.dumps(RESULT | {"objective": "0.5"}),
        json.dumps(RESULT | {"epochs": None}),
        json.dumps(RESULT | {"wall_time_s": 10**400}),
    ],
    ids=range(9),
)
def test_a_damaged_result_is_none(tmp_path, monkeypatch, text):
    make_run(tmp_path / "a", ["mode=frozen"], [0.5])
    (tmp_path / "a" / run_folder.RESULT).write_text(json.dumps(RESULT))
    assert run_folder.read_result(tmp_path / "a") == RESULT
    (tmp_path / "a" / run_folder.RESULT).write_text(text)
    assert run_folder.read_result(tmp_path / "a") is None
    assert [run.state for run in read_runs([tmp_path])] == ["unfinished"]


ODD = ["[" * 3000, '{"a":' * 3000, "1e999", "null", "9" * 400, '"\\ud800"', "{}", "[]", "nan", "2026-13-45", "&a [*a]", "? [a]\n: 1", "\xff", "\0", ""]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.csv", "result.json", "failure.json", "data.json", ".hydra/overrides.yaml"]
)
def test_a_file_with_anything_in_it_costs_its_own_part_of_the_table_at_most(tmp_path, monkeypatch, capsys, name):
    damaged = make_run(tmp_path / "a", ["optimizer.lr=1e-3"], [0.5, 0.6])
    make_run(tmp_path / "b", ["optimizer.lr=1e-2"], [0.4, 0.5])
    run_folder.write_failure(damaged, run_folder.Failure("no room", by_user=True))
    write_data_identity(damaged, DataIdentity("0123", ("cat", "dog"), "/photos"))
    whole, chance = (damaged / name).read_text(), random.Random(name)
    for odd in ODD:
        first, last = sorted(chance.sample(range(len(whole) + 1), 2))
        for text in (odd, whole[:first] + odd + whole[last:], whole[:first] + odd):
            (damaged / name).write_text(text, encoding="latin-1")
            compared = side_by_side(read_runs([tmp_path]))
            assert "b" in {run.folder.name for run in compared.runs}
            read_data_identity(damaged)
    assert summarize(monkeypatch, tmp_path) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_control_characters_in_the_columns_of_metrics_are_shown_as_escapes(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "a", [], [0.5], finished=False)
    (run / run_folder.METRICS).write_text("epoch,val/acc,val/\x1b[2Jx\x9b\n1,0.5,0.7\n")
    assert summarize(monkeypatch, tmp_path) == 0
    said = capsys.readouterr().out
    assert "val/\\x1b[2Jx\\x9b" in said
    assert not set("\x1b\x9b") & set(said)


def test_markup_and_control_characters_in_a_setting_are_shown_as_they_are(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        make_run(
            tmp_path / name, [], [0.5], config=f"'[/b]$_$': '[/{name}]\\e[2J'\ndata:\n  name: \"[/{name}]\\n|$x$\\e\"\n"
        )
    assert summarize(monkeypatch, tmp_path) == 0
    said = capsys.readouterr().out
    assert "[/b]$_$" in said
    assert "a]\\n|$x$\\x1b" in said
    assert "\x1b[2J" not in said
    assert len((tmp_path / "summary.md").read_text().splitlines()) == 4


def test_figures_in_which_each_class_counts_the_same_are_columns(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "a", [], [0.5], **{"test/balanced_acc": 0.25, "test/f1": 0.125, "val/f1": 0.5})
    assert summarize(monkeypatch, tmp_path) == 0
    header, _, row, *_ = (tmp_path / "summary.md").read_text().splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert (cells["test balanced %"], cells["test F1"]) == ("25.00", "0.125")
    assert "val_f1" in (tmp_path / "summary.csv").read_text()
