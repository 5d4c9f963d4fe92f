"""The outermost layer: what a person types, what becomes of it, and what the process says and returns."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from camlab import evaluate
from camlab.command_line.arguments import quote, quote_path
from camlab.command_line.launch import launch as launch_command
from camlab.errors import Interrupted, UserError

Launch = Callable[..., tuple[int, str, list[DictConfig]]]


@pytest.fixture
def launch(tmp_path, monkeypatch, capsys) -> Iterator[Launch]:
    """Runs a command line in an empty folder; gives the exit code, stderr and the configurations of its jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["camlab-train"])
    handlers, level = list(logging.root.handlers), logging.root.level

    def run(*arguments: str, task: Callable[[DictConfig], Any] | None = None, entry: str = "train") -> Any:
        seen: list[DictConfig] = []

        def job(config: DictConfig) -> Any:
            seen.append(config)
            return task and task(config)

        code = 0
        try:
            launch_command(job, entry, arguments)
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
def test_the_rest_is_left_alone(argument):
    assert quote_path(argument) == argument


def test_paths_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    sweep = OverridesParser.create().parse_override(quote_path("checkpoint=a=b,c (1),é", sweep=True))
    assert [value.text for value in sweep.sweep_iterator()] == ["a=b", "c (1)", "é"]
    assert parsed(quote_path("checkpoint=a,b", sweep=True)) == "a,b"  # it is there
    weights = OverridesParser.create().parse_override(quote_path("arch.weights=imagenet,null", sweep=True))
    assert [value and value.text for value in weights.sweep_iterator()] == ["imagenet", None]
    for own in ("checkpoint=choice(a,b)", "checkpoint=[a,b]", "checkpoint=a,'b c'"):
        assert quote_path(own, sweep=True) == own


@pytest.mark.parametrize("path", ["a b=it's, (1) [é] ~", 'a,"b\\', "2024"])
def test_a_path_reaches_the_task(path, launch):
    code, err, [config] = launch(f"paths.data=x/{path}", "hydra.run.dir=out")
    assert (code, err, config.data.root) == (0, "", f"x/{path}")


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
    "arch=alexnt": "arch=alexnt: there is no such option. Did you mean arch=alexnet? Choose one of alexnet, vgg13.",
    "arch=null": "arch=null: there is no such option. Choose one of alexnet, vgg13, or leave it out.",
    "arch=": "arch=: there is no such option. Choose one of alexnet, vgg13, or leave it out.",
    "optimizer.lrr=1": "optimizer.lrr: no such setting. Did you mean optimizer.lr?",
    "lr=1": "lr: no such setting. Did you mean optimizer.lr?",
    "sed=1": "sed: no such setting. Did you mean seed?",
    "+sed=1": "sed: no such setting. Did you mean seed?",
    "optimizer.lr=abc": "optimizer.lr=abc: must be a number.",
    "optimizer.lr": "optimizer.lr: not understood. Settings are given as key=value, without spaces around the =.",
    "optimizer.lr = 1": "optimizer.lr = 1: not understood. Settings are given as key=value; quote a value with special characters",
    "=1": "=1: not understood.",
    "--lr=1": "--lr=1: no such flag. Settings are given without dashes: lr=VALUE (--help lists them).",
    "arch=alexnet,vgg13": "arch=alexnet,vgg13: several values are a sweep, which needs -m; a list is written [a,b].",
    "~nothing": "Could not delete",
    "--config-name=nothing": "Cannot find primary config 'nothing'.",
    "hydra/launcher=nothing": "hydra/launcher=nothing: there is no such option.",
    "resume=3": "resume=3: no such file or folder.",
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
    assert "Not a directory. Give another place for the output: hydra.run.dir=FOLDER." in err
    assert (tmp_path / "file").read_text() == "kept"


# ---- evaluate takes over a run's data settings


def run_folder(folder: Path, data: str, choice: str) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"# config_hash: 0\ndata:\n{data}")
    (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  runtime:\n    choices:\n      data: {choice}\n")
    return folder


def test_evaluate_uses_the_data_of_the_run(launch, tmp_path):
    data = "  _target_: camlab.data.folder.Folder\n  name: cats\n  root: 'a \\b, it''s = (1)'\n  val_size: 7\n  mean: [0.1, 0.2, 0.3]\n"
    run = run_folder(tmp_path / "a run, é", data, "folder")
    arguments = evaluate.with_data_of_run([f"checkpoint={run}", "data.val_size=3"])
    code, err, [config] = launch(*arguments, entry="evaluate")
    assert (code, err) == (0, "")
    assert (config.data.name, config.data.root, config.data.mean) == (
        "cats",
        "a \\b, it's = (1)",
        [0.1, 0.2, 0.3],
    )
    assert config.data.val_size == 3, "the user's own come last"
    assert config.data._target_ == "camlab.data.folder.Folder"


def test_evaluate_leaves_a_chosen_data_set_alone(tmp_path):
    run = run_folder(tmp_path / "run", "  _target_: camlab.data.shapes.Shapes\n  name: shapes\n", "shapes")
    for arguments in ([f"checkpoint={run}", "data=cifar10"], ["checkpoint=nowhere"], ["seed=1"]):
        assert evaluate.with_data_of_run(arguments) == arguments


def test_evaluate_tells_a_damaged_run(tmp_path):
    (tmp_path / "config.yaml").write_text("data: [")
    with pytest.raises(UserError, match="say which data to evaluate on"):
        evaluate.with_data_of_run([f"checkpoint={tmp_path}"])


# ---- the process itself


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter; the heavy modules that it loaded are named at the end of its output."""
    code = (
        "import atexit, resource, sys\n"
        "heavy = ('torch', 'lightning', 'wandb', 'cv2', 'torchvision')\n"
        "atexit.register(lambda: print('LOADED', *(m for m in heavy if m in sys.modules)))\n"
        "atexit.register(lambda: print('SECONDS', resource.getrusage(resource.RUSAGE_SELF).ru_utime))\n"
        "from camlab import {entry}\n{entry}.main()"
    )
    entry, *rest = arguments
    command = [sys.executable, "-c", code.format(entry=entry), *rest]
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "returned", "said"),
    [
        (["train", "--help"], 0, "python -m camlab.train arch=alexnet mode=finetune"),
        (["evaluate", "checkpoint=nowhere"], 2, "checkpoint=nowhere: no such file or folder."),
        (["train", "arch=alexnet", "optimizer.lr=abc"], 2, "optimizer.lr=abc: must be a number."),
    ],
)
def test_help_and_mistakes_come_at_once(arguments, returned, said, tmp_path):
    done = process(*arguments, cwd=tmp_path)
    assert done.returncode == returned
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "LOADED\n" in done.stdout, "no heavy import"
    assert float(done.stdout.split("SECONDS")[1].split()[0]) < 4  # 0.8 s on a quiet machine
    assert not list(tmp_path.iterdir())


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "camlab.train", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 141)
