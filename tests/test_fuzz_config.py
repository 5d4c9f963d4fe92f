"""Whatever a user types after `camlab-train`, it runs, or ends with a message of one or two lines and exit code 2."""

import contextlib
import functools
import io
import sys
import warnings

import hypothesis
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from camlab import train
from camlab.command_line.arguments import read_arguments
from camlab.command_line.conf import conf_dir
from camlab.command_line.mistakes import explain_mistake
from camlab.command_line.settings import checked

VALUES = [
    "0", "1", "-1", "3", "0.5", "-0.5", "1e-3", "1e30", "1e400", "nan", "inf", "-inf", "10000000000000000000000", "0x10", "1_000",
    "null", "true", "false", "off", "", "''", '""', "'", '"', "abc", "a b", "é", "日本", "[", "]", "[]", "[1,2]", "[0.5,0.5,0.5]",
    "[nan,0,0]", "{", "{}", "{a:1}", "{a:", "(", ")", "a=b", "=", "==", "a,b", ",", "1,", "${", "${}", "${seed}", "${nothing.there}",
    "${oc.env:NOPE}", "${job_name:a,b}", "range(3)", "range(", "choice(1,2)", "interval(0,1)", "tag(a,1)", "glob(*)", "sort(1,2)",
    "???", "..", "/", "/dev/null", "~", "~nobody", "\\", "\\,", "%s", "#", "!", "*", "&x", "@", "$", "-", "--", "- 1", "a: b",
    "[[1],[2]]", "[a,{b:1}]", "imagenet", "alexnet", "vgg13", "cpu", "gpu", "auto", "last", "10min", "ddp", "shapes", "cifar10",
]  # fmt: skip
PREFIXES = ["", "", "", "", "+", "++", "~"]
HEAVY = ("trainer.devices", "trainer.num_nodes", "trainer.strategy", "data.root", "data=", "arch=", "arch.backbone")
BASE = ("data=shapes", "arch.weights=null", "logger=csv")


def keys(node: DictConfig, path: str = "") -> list[str]:
    """All settings, sections included."""
    found = []
    for key in map(str, node):
        child = node._get_node(key)
        found.append(f"{path}{key}")
        if isinstance(child, DictConfig) and not child._is_none():
            found += keys(child, f"{path}{key}.")
    return found


@functools.cache
def known_keys() -> list[str]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        found = keys(compose("train", list(BASE)))
    return [
        *found,
        "experiment",
        "debug",
        "launcher",
        "sweeper",
        "data.flp",
        "optimizer.learning_rate",
        "trainer",
        "x.y.z",
        "",
        ".",
    ]


@st.composite
def overrides(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(known_keys()))
    if draw(st.integers(0, 9)) == 0 and key:  # a typo
        place = draw(st.integers(0, len(key) - 1))
        key = key[:place] + draw(st.sampled_from(["", "x", ".", " ", "é", "@", "/"])) + key[place + 1 :]
    value = draw(st.one_of(st.sampled_from(VALUES), st.text(max_size=8)))
    return f"{draw(st.sampled_from(PREFIXES))}{key}={value}".replace("\0", "")


def build(run: DictConfig) -> None:
    """Build everything except the network and the data, which the schemas have checked."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = instantiate(run.optimizer, _convert_="all")([parameter])
    if run.scheduler is not None:
        instantiate(run.scheduler, _convert_="all")
    instantiate(run.data)
    for node in (run.callbacks or {}).values():
        instantiate(node, _convert_="all")
    instantiate(run.trainer, _convert_="all", logger=False, enable_progress_bar=False)
    optimizer.zero_grad()


def answer(override: str) -> str | None:
    """Return the message about a command line, or None if it would run; raise if it would end with a traceback."""
    try:
        arguments = read_arguments([*BASE, override])
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            run = compose("train", arguments)
        run = checked(run, "train")
        build(run)
    except Exception as error:
        told = explain_mistake(error)
        if told is None:
            raise
        return told
    finally:
        GlobalHydra.instance().clear()
    return None


def assert_clear(override: str) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        told = answer(override)
    if told is not None:
        assert 1 <= len(told.splitlines()) <= 2, (override, told)
        assert "Traceback" not in told


fuzzing = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), print_blob=False
)


@pytest.mark.slow
@settings(fuzzing, max_examples=250)
@given(overrides())
def test_any_override(override):
    assert_clear(override)


TINY = [
    "data=shapes", "data.train_size=40", "data.val_size=10", "data.test_size=10", "data.image_size=64", "data.batch_size=10",
    "arch.weights=null", "trainer.accelerator=cpu", "callbacks.heatmaps.per_class=1", "logger=csv", "debug=fast",
]  # fmt: skip


@pytest.mark.slow
def test_whole_commands(tmp_path, monkeypatch, capsys):
    """Run whole commands; overrides that are accepted and cheap go through training."""
    monkeypatch.chdir(tmp_path)
    ran: dict[str, int] = {}

    @settings(fuzzing, max_examples=40, phases=[hypothesis.Phase.generate])
    @given(overrides().filter(lambda o: not o.lstrip("+~").startswith(HEAVY)))
    def run(override: str) -> None:
        place = tmp_path / str(len(ran))
        ran[override] = whole_command(monkeypatch, [*TINY, override, f"hydra.run.dir={place}", f"paths.cache={place}"])
        told = capsys.readouterr().err
        assert ran[override] in (0, 2), (override, told)
        assert "Traceback" not in told, (override, told)

    run()
    print(f"{len(ran)} commands, {list(ran.values()).count(0)} ran")
    assert 0 in ran.values()


def whole_command(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["camlab", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            train.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0
