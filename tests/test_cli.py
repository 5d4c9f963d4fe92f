"""The command line: what a user types, the configuration that results, and the messages and exit codes."""

import errno
import itertools
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from camlab.attribution.methods import METHODS
from camlab.command_line.arguments import quote, quote_path
from camlab.command_line.help import help_text
from camlab.command_line.launch import launch as launch_command
from camlab.command_line.run_identity import config_hash
from camlab.errors import Interrupted, UserError
from camlab.runs.run_folder import write_config

Launch = Callable[..., tuple[int, str, list[DictConfig]]]


@pytest.fixture
def launch(tmp_path, monkeypatch, capsys) -> Iterator[Launch]:
    """A function that runs a command line in an empty folder and returns exit code, stderr and its jobs' settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["camlab-train"])
    handlers, level = list(logging.root.handlers), logging.root.level

    def run(*arguments: str, task: Callable[[DictConfig], Any] | None = None, entry: str = "train") -> Any:
        seen: list[DictConfig] = []

        def noted(config: DictConfig) -> Any:
            seen.append(config)
            return task and task(config)

        code = 0
        capsys.readouterr()
        try:
            launch_command(noted, entry, arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err, seen

    yield run
    for handler in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(handler)
        handler.close()
    logging.root.setLevel(level)


# ---- paths

PATHS = [
    "plain/folder", "a b", "a=b", "it's", "it''s", "(1)", "[1]", "{1}", "~", "x~y", "é/ü", "a,b", "end\\", "end\\\\", "a\\b", "\\'", "a\\'b",
    '"', 'a"b', "$x", "%", "#", "a;b", "&", "*", "a:b", "2024", "1e-3", "true", "nan", " a ", "null ", "choice", "a\tb",
]  # fmt: skip


def parsed(argument: str) -> Any:
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_reaches_its_setting_as_typed(path):
    assert parsed(quote_path(f"data.root=x/{path}")) == f"x/{path}"


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r${}"), min_size=1, max_size=30))
def test_any_path_survives_quoting(path):
    assert parsed("data.root=" + quote(path)) == path
    if path[0] not in "'\"~" and path not in ("null", "???"):
        assert parsed(quote_path(f"data.root={path}")) == path
        assert parsed(quote_path(f"+data.root={path}")) == path


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/é b")
    assert parsed(quote_path("checkpoint=~/x")) == "/home/é b/x"


@pytest.mark.parametrize(
    "argument",
    [
        "seed=3",
        "data.root=null",
        "data.root='a b'",
        'resume="x"',
        "data.root=${paths.data}/x",
        "run_name=a b",
        "data.root=",
        "-m",
    ],
)
def test_other_arguments_are_not_quoted(argument):
    assert quote_path(argument) == argument


def test_paths_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    sweep = OverridesParser.create().parse_override(quote_path("checkpoint=a=b,c (1),é", sweep=True))
    assert [value.text for value in sweep.sweep_iterator()] == ["a=b", "c (1)", "é"]
    assert parsed(quote_path("checkpoint=a,b", sweep=True)) == "a,b"  # this folder exists
    weights = OverridesParser.create().parse_override(quote_path("arch.weights=imagenet,null", sweep=True))
    assert [value and value.text for value in weights.sweep_iterator()] == ["imagenet", None]
    for own in ("checkpoint=choice(a,b)", "checkpoint=[a,b]", "checkpoint=a,'b c'"):
        assert quote_path(own, sweep=True) == own


@pytest.mark.parametrize("path", ["a b=it's, (1) [é] ~", 'a,"b\\', "2024"])
def test_a_path_reaches_the_task(path, launch):
    code, err, [config] = launch(f"paths.data=x/{path}", "hydra.run.dir=out")
    assert (code, err, config.data.root) == (0, "", f"x/{path}")


@pytest.mark.slow
def test_a_path_reaches_the_jobs_of_a_sweep_and_their_folders(launch, tmp_path):
    folder = "a b=(c) [d] é it's \\"
    folders: list[Path] = []
    code, err, configs = launch(
        f"hydra.sweep.dir={folder},",
        f"paths.data={folder}",
        "-m",
        "seed=1,2",
        task=lambda config: folders.append(Path(HydraConfig.get().runtime.output_dir)),
    )
    assert (code, err) == (0, "")
    assert [config.data.root for config in configs] == [folder, folder]
    assert {path.parent for path in folders} == {tmp_path / f"{folder},"}
    assert all(path.is_dir() for path in folders)


# ---- mistakes: exit code 2, one line, nothing written

MISTAKES = {
    "arch=alexnt": "arch=alexnt: unknown option. Did you mean arch=alexnet? Choose from alexnet, cam_net, classifier, vgg13.",
    "arch=null": "arch=null: unknown option. Choose from alexnet, cam_net, classifier, vgg13, or leave it out.",
    "arch=": "arch=: unknown option. Choose from alexnet, cam_net, classifier, vgg13, or leave it out.",
    "arch=[[1],[2]]": "arch=[[1],[2]]: unknown option. Choose from alexnet, cam_net, classifier, vgg13, or leave it out.",
    "~data=[[1],[2]]": "~data=[[1],[2]]: unknown option. Choose from cifar10, folder, huggingface, shapes, table, or leave it out.",
    "optimizer.lrr=1": "optimizer.lrr: unknown setting. Did you mean optimizer.lr?",
    "lr=1": "lr: unknown setting. Did you mean optimizer.lr?",
    "sed=1": "sed: unknown setting. Did you mean seed?",
    "+sed=1": "sed: unknown setting. Did you mean seed?",
    "optimizer.lr=abc": "optimizer.lr=abc: must be a number.",
    "optimizer.lr": "optimizer.lr: not understood. Settings are given as key=value, without spaces around the =.",
    "optimizer.lr = 1": "optimizer.lr = 1: not understood. Settings are given as key=value. Quote a value with special characters",
    "=1": "=1: not understood.",
    "--lr=1": "--lr=1: unknown flag. Settings are given without dashes: lr=VALUE. --help lists them.",
    "--hlep": "--hlep: unknown flag. Did you mean --help?",
    "arch=alexnet,vgg13": "arch=alexnet,vgg13: several values need a sweep: add -m. A list is written [a,b].",
    "~nothing": "Could not delete",
    "--config-name=nothing": "Cannot find primary config 'nothing'.",
    "hydra/launcher=nothing": "hydra/launcher=nothing: unknown option.",
    "resume=3": "resume=3: no such file or folder.",
    "resume=nowhere": "resume=nowhere: no such file or folder.",
    "out=": "out=: must be a folder. Leave it out for a new folder in paths.outputs.",
    "~out=x": "~out=x: must be a folder.",
}  # fmt: skip


@pytest.mark.parametrize(("argument", "said"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_told_in_a_line_and_nothing_is_written(argument, said, launch, tmp_path):
    code, err, seen = launch(argument)
    assert code == 2
    assert err.startswith(said)
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err
    assert not seen
    assert not list(tmp_path.iterdir())


LONG = "x" * 300
WRONG_PATHS = [
    ("evaluate", "checkpoint", []),
    ("explain", "images", ["network=alexnet"]),
    ("explain", "checkpoint", ["images=."]),
    ("train", "resume", []),
    ("train", "arch.weights", []),
    ("train", "data.root", []),
    ("train", "out", []),
]


@pytest.mark.parametrize("path", ["~nosuchuser/x.pth", LONG, f"{LONG}.pth"], ids=["home", "long", "ending"])
@pytest.mark.parametrize(("entry", "name", "others"), WRONG_PATHS, ids=[f"{e}-{n}" for e, n, _ in WRONG_PATHS])
def test_a_path_that_no_file_can_have_is_told_by_its_settings_name(entry, name, others, path, launch, recwarn):
    code, err, seen = launch(f"{name}={path}", *others, entry=entry)
    why = "File name too long" if LONG in path else "~nosuchuser is not a user's home folder"
    assert (code, err) == (2, f"{name}={path}: {why}. Give another path.\n")
    assert not seen
    assert not [str(warning.message) for warning in recwarn if "callback" in str(warning.message).lower()]


@pytest.mark.parametrize("word", ["clear", "claer"])
def test_a_word_without_its_setting_is_completed(word, launch):
    code, err, _ = launch(word, entry="cache")
    assert code == 2
    assert err.startswith(f"{word}: not understood. Did you mean action=clear? Settings are given as key=value")


def test_a_line_end_in_a_path_makes_no_second_line(launch):
    assert launch("checkpoint=a\nb\x1b[31m", entry="evaluate")[:2] == (
        2,
        r"checkpoint=a\nb\x1b[31m: no such file or folder. Give a .ckpt file or a run's folder." + "\n",
    )


def test_a_mistake_in_the_task_is_told_in_a_line(launch):
    def task(config: DictConfig) -> None:
        raise UserError("data.root=x: no such folder. Give another.")

    code, err, _ = launch("seed=1", task=task)
    assert (code, err) == (2, "data.root=x: no such folder. Give another.\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), FileNotFoundError(2, "a bug", "some.file")])
@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_bug_keeps_its_traceback(launch, error, flags):
    def task(config: DictConfig) -> None:
        raise error

    code, err, _ = launch(*flags, task=task)
    assert code == 1
    assert "Traceback" in err
    assert "a bug" in err


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_an_interrupted_run_says_how_to_go_on(launch, number, code):
    def task(config: DictConfig) -> None:
        raise Interrupted(number, "Interrupted. To go on: …")

    assert launch(task=task)[:2] == (code, "Interrupted. To go on: …\n")


@pytest.mark.parametrize("full", ["0", "yes"])
def test_hydras_own_variable_changes_no_message(launch, monkeypatch, full):
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    code, said, _ = launch("arch=alexnt")
    assert (code, said) == (
        2,
        "arch=alexnt: unknown option. Did you mean arch=alexnet? Choose from alexnet, cam_net, classifier, vgg13.\n",
    )


def test_flags_may_stand_between_settings(launch):
    code, _, seen = launch("mode=frozen", "-m", "arch=alexnet,vgg13", "seed=3")
    assert code == 0
    assert [(config.arch.backbone, config.seed, config.mode) for config in seen] == [
        ("alexnet", 3, "frozen"),
        ("vgg13", 3, "frozen"),
    ]


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_an_output_folder_that_cannot_be_written(launch, tmp_path, flags):
    (tmp_path / "file").write_text("kept")
    code, err, _ = launch("hydra.run.dir=file/x", "hydra.sweep.dir=file/x", *flags)
    assert code == 2
    assert "Not a directory. Give another folder for the output: out=FOLDER." in err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("number", "file", "way_out"),
    [
        (errno.EACCES, "photos/x.png", "Change the permissions, or give another path."),
        (errno.EROFS, "photos/x.png", "Change the permissions, or give another path."),
        (errno.ELOOP, "photos/x.png", "Give another path."),
        (errno.EIO, "photos/x.png", "Check the disk, then give the same command again."),
        (errno.ENOSPC, "out/x.csv", "Make room, then give the same command again."),
        (errno.EACCES, "out/x.csv", "Give another folder for the output: out=FOLDER."),
        (errno.EROFS, "out", "Give another folder for the output: out=FOLDER."),
    ],
)
def test_the_way_out_of_a_file_error_fits_the_file(launch, number, file, way_out):
    def train(config: DictConfig) -> None:
        raise OSError(number, os.strerror(number), file)

    assert launch("out=out", "data=shapes", task=train)[:2] == (2, f"{file}: {os.strerror(number)}. {way_out}\n")


# ---- evaluate takes over a run's data settings


def run_folder(folder: Path, data: str) -> Path:
    folder.mkdir()
    write_config(folder, f"data:\n{data}", "0")
    return folder


def test_evaluate_uses_the_data_of_the_run(launch, tmp_path):
    data = "  _target_: camlab.data.folder.Folder\n  name: cats\n  root: 'a \\b, it''s = (1)'\n  val_size: 7\n  mean: [0.1, 0.2, 0.3]\n"
    run = run_folder(tmp_path / "a run, é", data)
    code, err, [config] = launch(f"checkpoint={run}", "data.val_size=3", entry="evaluate")
    assert (code, err) == (0, "")
    assert (config.data.name, config.data.root, config.data.mean) == (
        "cats",
        "a \\b, it's = (1)",
        [0.1, 0.2, 0.3],
    )
    assert config.data.val_size == 3, "the user's own settings come last"
    assert config.data._target_ == "camlab.data.folder.Folder"


def test_each_job_of_an_evaluation_uses_its_own_runs_data(launch, tmp_path):
    shapes = run_folder(
        tmp_path / "shapes", "  _target_: camlab.data.shapes.Shapes\n  train_size: 40\n  image_size: 64\n"
    )
    cats = run_folder(tmp_path / "cats", "  _target_: camlab.data.folder.Folder\n  root: cats\n  image_size: 96\n")
    (cats / "checkpoints").mkdir()
    (cats / "checkpoints" / "best.ckpt").touch()
    code, err, configs = launch(
        "-m", f"checkpoint={shapes},{cats}/checkpoints/best.ckpt", "data.batch_size=7", "out=both", entry="evaluate"
    )
    assert (code, err) == (0, "")
    assert [(c.data._target_.rpartition(".")[2], c.data.image_size, c.data.batch_size) for c in configs] == [
        ("Shapes", 64, 7),
        ("Folder", 96, 7),
    ]
    assert len([path for path in (tmp_path / "both").iterdir() if path.is_dir()]) == 2


def test_a_setting_of_the_wrong_runs_data_fails_its_job_only(launch, tmp_path):
    shapes = run_folder(tmp_path / "shapes", "  _target_: camlab.data.shapes.Shapes\n")
    cats = run_folder(tmp_path / "cats", "  _target_: camlab.data.folder.Folder\n  root: cats\n")
    code, err, configs = launch("-m", f"checkpoint={shapes},{cats}", "data.train_size=40", entry="evaluate")
    assert code == 2
    assert err.startswith("1 job failed.")
    assert "data.train_size: unknown setting." in err
    assert len(configs) == 1


def test_evaluate_leaves_a_chosen_data_set_alone(launch, tmp_path):
    run = run_folder(tmp_path / "run", "  _target_: camlab.data.shapes.Shapes\n  name: shapes\n")
    code, err, [config] = launch(f"checkpoint={run}", "data=cifar10", "data.val_size=3", entry="evaluate")
    assert (code, err) == (0, "")
    assert (config.data.name, config.data.val_size) == ("cifar10", 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "checkpoint=run: not the folder of a run. Give one that camlab.train has written."),
        ("  [", "the run's settings are damaged. Say which data"),
        ("  3\n", "the run's settings are damaged. Say which data"),
        ("  _target_: os.mkdir\n  path: x\n", "data._target_=os.mkdir is not one of camlab's data sets. Say"),
        ("  _target_: camlab.data.folder.Folder\n  root: ${oc.env:HOME}\n", "data.root is not a plain value."),
        (
            "  _target_: camlab.data.folder.Folder\n  root: {_target_: os.mkdir, path: x}\n",
            "data.root is not a plain value.",
        ),
        ("  _target_: [os.mkdir]\n", "data._target_=[os.mkdir] is not one of camlab's data sets."),
        ("  _target_: camlab.data.folder.Folder\n  root: x\n  _args_: [x]\n", "data._args_ is not a setting"),
        ("  _target_: camlab.data.folder.Folder\n  root: x\n  mean: [[0.5]]\n", "data.mean is not a plain value."),
        (
            "  _target_: camlab.data.folder.Folder\n  root: x\n  shortcut_classes: ['${oc.env:HOME}']\n",
            "data.shortcut_classes is not a plain value.",
        ),
        ("  _target_: camlab.data.folder.Folder\n  root: " + "[" * 5000, "the run's settings are damaged."),
        ("  _target_: camlab.data.folder.Folder\n  rot: x\n", "data.rot: unknown setting. Did you mean data.root?"),
    ],
)
@pytest.mark.parametrize("entry", ["evaluate", "score"])
def test_evaluate_and_score_refuse_a_run_whose_settings_they_cannot_take(launch, tmp_path, data, said, entry):
    if data:
        run_folder(tmp_path / "run", data)
    else:
        (tmp_path / "run").mkdir()
    code, err, seen = launch("checkpoint=run", "out=out", entry=entry)
    assert (code, seen) == (2, [])
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("notes", ["../../evil", "evil", "shapes", "/evil", "{_target_: os.mkdir}"])
def test_nothing_in_a_runs_folder_chooses_code(launch, tmp_path, notes):
    """The files in `.hydra/` may name any option, and a file with the name of an option may be planted anywhere."""
    run = run_folder(tmp_path / "run", "  _target_: camlab.data.shapes.Shapes\n  num_workers: 99999\n")
    evil = "_target_: torch.load\nf: x.pt\nweights_only: false\n"
    for place in (tmp_path, run, run / ".hydra", run / "data"):
        place.mkdir(exist_ok=True)
        (place / "evil.yaml").write_text(evil)
    (run / ".hydra" / "hydra.yaml").write_text(f"hydra: {{runtime: {{choices: {{data: {notes}}}}}}}")
    for name in ("config.yaml", "overrides.yaml"):
        (run / ".hydra" / name).write_text(f"data:\n  {evil}")
    code, err, [config] = launch("checkpoint=run", entry="evaluate")
    assert (code, err) == (0, "")
    assert config.data == {"_target_": "camlab.data.shapes.Shapes"}, "of its own machine, nothing is taken over"


def test_a_runs_folder_starts_no_download(launch, tmp_path):
    run_folder(tmp_path / "run", "  _target_: camlab.data.cifar10.Cifar10\n  root: anywhere\n  download: true\n")
    (taken,) = launch("checkpoint=run", entry="evaluate")[2]
    assert taken.data.download is False
    with pytest.raises(UserError, match=r"CIFAR-10 is not in anywhere\. Give data=cifar10 or data"):
        instantiate(taken.data).setup()
    assert not (tmp_path / "anywhere").exists()
    for choice in ("data.root=mine", "data=cifar10"):
        (config,) = launch("checkpoint=run", choice, entry="evaluate")[2]
        assert config.data.get("download", True)


# ---- the output folder


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["train", "explain"])
@pytest.mark.parametrize("folder", ["a b=it's, (1) [é] ~", "2024"])
def test_out_is_the_folder_of_a_run_and_of_a_sweep(launch, tmp_path, entry, folder):
    (tmp_path / "x.png").touch()
    given = [f"images={tmp_path}/x.png", "network=vgg16"] if entry == "explain" else []
    folders: list[Path] = []
    note = lambda config: folders.append(Path(HydraConfig.get().runtime.output_dir))  # noqa: E731
    assert launch(*given, f"out=one/{folder}", task=note, entry=entry)[:2] == (0, "")
    varied = "top_k=1,2" if entry == "explain" else "seed=1,2"
    assert launch(*given, f"out=many/{folder}", "-m", varied, task=note, entry=entry)[:2] == (0, "")
    assert folders[0] == tmp_path / "one" / folder
    assert {path.parent for path in folders[1:]} == {tmp_path / "many" / folder}
    assert sorted(path.name for path in folders[1:]) == [varied.replace("=1,2", f"-{k}") for k in (1, 2)]


@pytest.mark.slow
def test_out_is_not_part_of_a_runs_identity(launch):
    here, there = (launch(f"out={name}")[2][0] for name in ("here", "there"))
    assert "out" not in here
    assert config_hash(here) == config_hash(there) == config_hash(launch()[2][0])


@pytest.mark.parametrize("other", ["hydra.run.dir=y", "hydra.sweep.dir=y"])
def test_the_output_folder_is_given_once(launch, tmp_path, other):
    code, err, _ = launch("out=x", other)
    assert (code, err) == (2, f"out=x: {other} gives the output folder, too. Leave one of them out.\n")
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_explanations_keeps_to_the_outputs_folder_and_reports_failures(launch, tmp_path):
    def task(config: DictConfig) -> None:
        if config.top_k == 2:
            raise UserError("an unlucky number")

    code, err, seen = launch(
        "images=x", "network=vgg16", "-m", "top_k=1,2", "paths.outputs=mine", task=task, entry="explain"
    )
    assert (code, len(seen)) == (2, 2)
    assert err == "1 job failed. Give the same command to try again:\n  top_k-2: an unlucky number\n"
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


# ---- help


@pytest.mark.parametrize("entry", ["train", "evaluate", "explain", "score", "cache", "dashboard"])
def test_help_explains_every_setting_within_100_columns(entry):
    shown = help_text(entry, ["--help"]).split("\n")
    assert [line for line in shown if len(line) > 100] == []
    start = shown.index("Settings (key=value):") + 1
    settings = shown[start : len(shown) - shown[::-1].index("")]
    assert len([line for line in settings if re.match(r"  \S", line)]) >= 2
    for line, following in itertools.pairwise(settings):
        if match := re.match(r"  (\S+=(\S| (?! ))*)( {2,}|$)(.*)", line):
            assert match[4] or following.startswith(" " * 30), f"{match[1]} is not explained"


def test_help_shows_what_the_command_takes_and_follows_choices():
    evaluate = help_text("evaluate", [])
    for absent in ("arch", "mode=", "max_epochs", "seed", "test_each_epoch", "logger"):
        assert absent not in evaluate
    assert "Choose from train, val, test." in evaluate
    assert "data=shapes" in evaluate
    explain = help_text("explain", [])
    assert all(method in explain for method in METHODS)
    assert "data=folder" in explain
    assert not [absent for absent in ("data=shapes", "data=cifar10", "paths.data") if absent in explain]
    folder = help_text("train", ["data=folder", "optimizer.lr=0.25"])
    assert re.search(r"data.root=… +Required: the folder with one folder for", folder)
    assert re.search(r"optimizer.lr=0.25 +Learning rate", folder)
    assert re.search(r"data=folder \* +Your own pictures", folder)


def test_help_lists_options_of_the_users_own(tmp_path):
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch" / "tiny.yaml").write_text("# A tiny network. It is mine.\nbackbone: tiny # Its name.\n")
    shown = help_text("train", ["--config-dir", str(tmp_path), "arch=tiny"])
    assert re.search(r"^  arch=tiny \* +A tiny network.$", shown, re.MULTILINE)
    assert re.search(r"^  arch.backbone=tiny +Its name.$", shown, re.MULTILINE)


# ---- the process itself


# Runs each command line in a fork of an interpreter that has imported the commands only, in an empty folder of its own.
FORKS = """
import importlib, json, os, sys
from pathlib import Path
lines, heavy = json.load(sys.stdin)
modules = {entry: importlib.import_module(f"camlab.{entry}") for entry, *_ in lines}
for k, (entry, *arguments) in enumerate(lines):
    Path(str(k)).mkdir()
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        Path(f"{k}.json").write_text(json.dumps([status, sorted(path.name for path in Path(str(k)).iterdir())]))
        continue
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{k}.{name}", os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(str(k))
    sys.argv = ["camlab", *arguments]
    code = 0
    try:
        modules[entry].main()
    except SystemExit as end:
        code = int(end.code or 0)
    print("LOADED", *(name for name in heavy if name in sys.modules), flush=True)
    os._exit(code)
"""
HEAVY = ("torch", "torchvision", "lightning", "wandb", "cv2", "matplotlib")
LIGHT = [
    (["train", "--help"], 0, "camlab-train arch=alexnet mode=finetune"),
    (["evaluate", "--help"], 0, "Choose from train, val, test."),
    (["explain", "--help"], 0, "grad_cam_plus_plus"),
    (["score", "--help"], 0, "flip_consistency"),
    (["cache", "--help"], 0, "action=list"),
    (["dashboard", "--help"], 0, "camlab-dashboard project=camlab"),
    (["dashboard", "projekt=x"], 2, "projekt: unknown setting. Did you mean project?"),
    (["summary", "--help"], 0, "FOLDER"),
    (["evaluate", "checkpoint=nowhere"], 2, "checkpoint=nowhere: no such file or folder."),
    (["train", "arch=alexnt"], 2, "arch=alexnt: unknown option. Did you mean arch=alexnet?"),
    (["train", "optimizer.lrr=1"], 2, "optimizer.lrr: unknown setting. Did you mean optimizer.lr?"),
    (["train", "arch=alexnet", "optimizer.lr=abc"], 2, "optimizer.lr=abc: must be a number."),
    (
        ["train", "data.image_size=48"],
        2,
        "data.image_size=48: too small for alexnet, which needs at least 63 pixels",
    ),
    (["train", "data.flip=2"], 2, "data.flip=2: must be at most 1."),
    (["train", "arch.weights=nowhere.pth"], 2, "arch.weights=nowhere.pth: no such file."),
    (["explain", "images=x", "network=vgg16", "methods=[cam,grad_cma]"], 2, "Did you mean grad_cam?"),
    (["score", "images=x", "network=vgg16", "scores=[srq]"], 2, "Did you mean srg?"),
    (
        ["explain", "images=x", "network=resnet-18"],
        2,
        "network=resnet-18: no such classifier in torchvision, nor in timm if that is installed. Did you mean",
    ),
    (["explain", "images=x", "network=timm/resnet18", "methods=[cam,grad_cma]"], 2, "Did you mean grad_cam?"),
    (["train", "arch=classifier", "arch.backbone=timm/resnet-18"], 2, "arch.backbone=timm/resnet-18: unknown"),
]


def test_help_and_mistakes_import_nothing_heavy(tmp_path):
    given = json.dumps([[arguments for arguments, *_ in LIGHT], HEAVY])
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", FORKS]
    subprocess.run(command, input=given, cwd=tmp_path, env=surroundings, text=True, timeout=300, check=True)
    for k, (arguments, returned, said) in enumerate(LIGHT):
        shown, told = ((tmp_path / f"{k}.{name}").read_text() for name in ("out", "err"))
        assert json.loads((tmp_path / f"{k}.json").read_text()) == [returned, []], (arguments, told)
        assert said in shown + told, arguments
        assert "Traceback" not in told, arguments
        assert shown.endswith("LOADED\n"), arguments


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "camlab.train", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 141)
