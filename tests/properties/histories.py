"""Random histories of runs: a machine that draws commands, kills, moves and damage, and knows what must hold after each."""

import csv
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kill_points
import torch
import yaml
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from camlab.runs import checkpoint_files, run_folder
from properties.damage import Damage, Surroundings, cuts, flips
from properties.forked_command import Kill, Outcome, run
from properties.watching import CONNECTS, STARTS, Tree, changes, snapshot
from properties.world import OF_OTHERS, TINY

NAMES = ("a", "b", "c")
SETTINGS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "another seed": ("seed=1",),
    "another rate": ("optimizer.lr=0.01",),
    "fine-tuned": ("mode=finetune",),
    "three epochs": ("trainer.max_epochs=3",),
    "SGD": ("optimizer._target_=torch.optim.SGD",),
    "one cycle": ("+scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "+scheduler._partial_=true", "+scheduler.max_lr=0.01"),
}  # fmt: skip
SITES = {
    "step": 4, "optimizer": 4, "validation": 4, "checkpoint": 4, "rename": 20, "cache": 3, "metrics.csv": 6, "test": 2, "result": 1,
}  # fmt: skip
CODES = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "exception": 1}
DECIDES = (run_folder.CONFIG, run_folder.RESULT, "data.json", "last.ckpt.sha256", "best.ckpt.sha256")


@st.composite
def kills(draw: st.DrawFn) -> Kill:
    site = draw(st.sampled_from(sorted(SITES)))
    return Kill(site, draw(st.integers(1, SITES[site])), draw(st.sampled_from(["SIGKILL", "SIGKILL", *CODES])))


names = st.sampled_from(NAMES)
settings_names = st.sampled_from(["plain", *SETTINGS])
perhaps_killed = st.one_of(kills(), kills(), st.none())


@dataclass(frozen=True)
class Step:
    """A command that has ended: where it was to end itself, and the tree around it."""

    command: str
    arguments: tuple[str, ...]
    kill: Kill | None
    out: tuple[str, ...]
    outcome: Outcome
    before: Tree
    after: Tree


@dataclass
class Known:
    """What the machine knows of a run's folder.

    Attributes:
        setting: Key of `SETTINGS` with which it was last trained.
        promised: Whether its bits must be those of a run that was left alone.
        trusted: Whether its configuration and result are as camlab wrote them.
        finished: Digests of its files if it is finished; they must not change without `force`.
        compared: Whether its bits have been compared.
    """

    setting: str | None = None
    promised: bool = True
    trusted: bool = True
    finished: dict[str, str] | None = None
    compared: bool = False


class Histories(RuleBasedStateMachine):
    """Draws a history. Subclasses say where it takes place."""

    place: Path
    logs: Path

    def __init__(self) -> None:
        super().__init__()
        self.root = self.place / "tree"
        shutil.rmtree(self.root, ignore_errors=True)
        for part in ("home", "others", "cache", "outputs"):
            (self.root / part).mkdir(parents=True)
            for name in OF_OTHERS:
                (self.root / part / name).write_text(f"{name} of somebody else")
        self.runs: dict[str, Known] = {}
        self.step: Step | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    # ---- actions

    @rule(name=names, setting=settings_names, kill=perhaps_killed)
    def train(self, name: str, setting: str, kill: Kill | None) -> None:
        self._train(name, setting, kill, f"out=outputs/{name}")

    @rule(name=names, kill=perhaps_killed)
    def repeat(self, name: str, kill: Kill | None) -> None:
        if name in self.runs and (setting := self.runs[name].setting):
            self._train(name, setting, kill, f"out=outputs/{name}")

    @rule(name=names, setting=settings_names)
    def train_by_force(self, name: str, setting: str) -> None:
        if self._train(name, setting, None, f"out=outputs/{name}", "force=true", fresh=True) == 0:
            assert self.runs[name].finished is not None, "it ended without a result"

    @rule(source=names, name=names, setting=settings_names, kill=perhaps_killed)
    def resume(self, source: str, name: str, setting: str, kill: Kill | None) -> None:
        if source not in self.runs:
            return
        known = self.runs[source]
        promised = known.promised and known.trusted and known.setting == setting
        self._train(name, setting, kill, f"out=outputs/{name}", f"resume=outputs/{source}", promised=promised)

    @rule(source=names, name=names)
    def move(self, source: str, name: str) -> None:
        if source in self.runs and not self._folder(name).exists():
            self._folder(source).rename(self._folder(name))
            self.runs[name] = self.runs.pop(source)

    @rule(kill=st.one_of(st.none(), st.none(), kills()))
    def sweep(self, kill: Kill | None) -> None:
        out = ("outputs/sweeps", "cache")
        step = self._run("train", (*TINY, "-m", "seed=0,1"), out, kill)
        for folder in sorted((self.root / "outputs" / "sweeps").glob("*/seed-*")):
            name = str(folder.relative_to(self.root / "outputs"))
            self._remember(name, "plain" if folder.name == "seed-0" else "another seed", step, True, False)

    @rule(name=names)
    def evaluate(self, name: str) -> None:
        if name not in self.runs:
            return
        shutil.rmtree(self.root / "out", ignore_errors=True)
        step = self._run("evaluate", (f"checkpoint=outputs/{name}", "out=out", "trainer.accelerator=cpu"), ("out",))
        if step.outcome.code == 0 and self.runs[name].finished and self.runs[name].trusted:
            measured = json.loads((self.root / "out" / "evaluation.json").read_text())["metrics"]
            reported = _result(self._folder(name))["metrics"]
            for key in ("acc", "loss"):
                assert abs(measured[key] - reported[f"test/{key}"]) < 1e-5, (
                    f"evaluate {measured}, result.json {reported}"
                )

    @rule()
    def summarize(self) -> None:
        step = self._run("summary", ("outputs", "--out", "out"), ("out",))
        if step.outcome.code == 0:
            with open(self.root / "out" / "summary.csv", newline="") as file:
                table = {row["folder"]: row for row in csv.DictReader(file)}
            for name, known in self.runs.items():
                if known.trusted and known.finished:
                    row = next((row for folder, row in table.items() if folder.endswith(name)), None)
                    assert row is not None, f"{name} is missing in the table, {sorted(table)}"
                    assert row["state"] == "finished"
                    assert float(row["val_acc_best"]) == _result(self._folder(name))["objective"]

    @rule()
    def clear_cache(self) -> None:
        self._run("cache", ("action=clear",), ("cache",))

    @rule(name=names, number=st.integers(0, 99), damage=flips | cuts)
    def damage(self, name: str, number: int, damage: Damage) -> None:
        if name not in self.runs:
            return
        folder = self._folder(name)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        if files:
            path, known = files[number % len(files)], self.runs[name]
            damage.apply(path, Surroundings(self.root, self.root))
            known.trusted &= path.name not in DECIDES
            if known.finished is not None:
                known.finished = digests(folder) if known.trusted else None

    # ---- what must hold after each of them: every method yields a line for everything that is wrong

    @invariant()
    def all_holds(self) -> None:
        told = [f"{check.__name__}: {line}" for check in self.checks() for line in check()]
        assert not told, "\n".join(told)

    def checks(self) -> list[Callable[[], Iterator[str]]]:
        return [
            self.commands_end_well,
            self.nothing_else_is_touched,
            self.a_finished_result_stays,
            self.a_result_belongs_to_its_configuration,
            self.bits_are_those_of_a_run_left_alone,
        ]

    def commands_end_well(self) -> Iterator[str]:
        if (step := self.step) is None:
            return
        code, told = step.outcome.code, step.outcome.err[-2000:]
        by_exception = step.kill is not None and step.kill.how == "exception"
        if code not in {0, 2} | ({CODES[step.kill.how]} if step.kill else set()):
            yield f"exit code {code}: {told}"
        if "Traceback" in told and not by_exception:
            yield f"a traceback: {told}"
        if (
            code == 2
            and not by_exception
            and not 1 <= len(told.strip().splitlines()) <= (6 if "-m" in step.arguments else 2)
        ):
            yield f"not in a line: {told}"

    def nothing_else_is_touched(self) -> Iterator[str]:
        if (step := self.step) is None:
            return
        yield from changes(step.before, step.after, step.out)
        for name, entry in step.before.items():
            if Path(name).name in OF_OTHERS and entry != step.after.get(name):
                yield f"{name} was changed or deleted"
        yield from (f"{event.name} {event.about}" for event in step.outcome.events if event.name in STARTS | CONNECTS)

    def a_finished_result_stays(self) -> Iterator[str]:
        for name, known in self.runs.items():
            if known.finished is not None:
                now = digests(self._folder(name))
                changed = sorted(
                    key for key in known.finished.keys() | now.keys() if known.finished.get(key) != now.get(key)
                )
                if changed:
                    yield f"{name} was finished, and without force {', '.join(changed)} changed"

    def a_result_belongs_to_its_configuration(self) -> Iterator[str]:
        for name, known in self.runs.items():
            if known.trusted and known.finished:
                yield from (f"{name}: {line}" for line in foreign(self._folder(name)))

    def bits_are_those_of_a_run_left_alone(self) -> Iterator[str]:
        for name, known in self.runs.items():
            if known.promised and known.trusted and known.finished and known.setting and not known.compared:
                known.compared = True
                alone, found = left_alone(self.place, known.setting), kill_points.outcome(self._folder(name))
                if told := sorted(kill_points.differences(alone, found)):
                    yield f"{name} ({known.setting}) differs from a run that was left alone in {told[:5]}"

    # ---- how it is done

    def _train(
        self, name: str, setting: str, kill: Kill | None, *arguments: str, promised: bool = True, fresh: bool = False
    ) -> int | None:
        known = self.runs.get(name)
        if fresh and known:
            known.finished = None
        step = self._run("train", (*TINY, *SETTINGS[setting], *arguments), (f"outputs/{name}", "cache"), kill)
        if self._folder(name).exists():
            self._remember(name, setting, step, promised, fresh)
        return step.outcome.code

    def _remember(self, name: str, setting: str, step: Step, promised: bool, fresh: bool) -> None:
        """Note what a training command has made of a folder; one that was refused has made nothing."""
        known = self.runs.setdefault(name, Known())
        if step.outcome.code == 2 and not fresh:
            return
        if known.finished is not None:
            return  # it must be as it was
        was_resumed = any(argument.startswith("resume=") for argument in step.arguments)
        known.promised = promised if was_resumed or fresh else known.promised
        known.trusted |= fresh
        known.setting = setting
        if run_folder.read_result(self._folder(name)) is not None:
            known.finished, known.compared = digests(self._folder(name)), False

    def _run(self, command: str, arguments: tuple[str, ...], out: tuple[str, ...], kill: Kill | None = None) -> Step:
        before = snapshot(self.root)
        ended = run(command, arguments, self.root, self.logs, kill)
        self.step = Step(command, arguments, kill, out, ended, before, snapshot(self.root))
        return self.step

    def _folder(self, name: str) -> Path:
        return self.root / "outputs" / name


@functools.cache
def left_alone(place: Path, setting: str) -> dict[str, Any]:
    """All of a run that nobody touched, trained once for each setting."""
    root = place / "left alone" / setting
    (root / "home").mkdir(parents=True)
    ended = run("train", (*TINY, *SETTINGS[setting], "out=run"), root, place / "logs")
    assert ended.code == 0, ended
    found = kill_points.outcome(root / "run")
    shutil.rmtree(root)
    return found


def digests(folder: Path) -> dict[str, str]:
    """Checksums of the files that make up a run; logs, locks and Hydra's notes of the last command do not count."""
    files = [folder / run_folder.CONFIG, folder / run_folder.RESULT, folder / run_folder.METRICS, folder / "data.json"]
    files += sorted((folder / "checkpoints").glob("*.ckpt"))
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }


def foreign(folder: Path) -> Iterator[str]:
    """What in a finished run is not of the configuration beside its result."""
    result, config = _result(folder), yaml.safe_load((folder / run_folder.CONFIG).read_text())
    if result["config_hash"] != run_folder.read_config_hash(folder):
        yield "result.json has the hash of another configuration"
    if result["epochs"] != config["trainer"]["max_epochs"]:
        yield f"{result['epochs']} epochs, but trainer.max_epochs={config['trainer']['max_epochs']}"
    path = folder / run_folder.LAST
    if path.is_file() and checkpoint_files.is_whole(path):  # else a `damage` of this history has changed it
        last = torch.load(path, weights_only=True)
        rate = last["optimizer_states"][0]["param_groups"][0]["lr"]
        if config["scheduler"] is None and rate != config["optimizer"]["lr"]:
            yield f"trained with the rate {rate}, but optimizer.lr={config['optimizer']['lr']}"
        if last["camlab"]["best_acc"] != result["objective"]:
            yield f"the last checkpoint's best accuracy is {last['camlab']['best_acc']}, the objective {result['objective']}"


def _result(folder: Path) -> dict[str, Any]:
    result = run_folder.read_result(folder)
    assert result is not None
    return result
