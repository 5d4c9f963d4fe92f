"""Any file of a run, of weights or of the cache, damaged or replaced: a right result or one line, and nothing else.

Each case is a command that meets one damaged file in a tree of files of others. `python -m pytest -m long` draws a
thousand cases; a case that fails is printed so that it can be pasted into `check`.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import kill_points
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlab.runs import run_folder
from camlab.storage.files import sha256
from properties.damage import Damage, Special, Surroundings, damages
from properties.forked_command import Outcome, run
from properties.scenarios import SCENARIOS, Scenario, arguments_of, files_in, is_decisive
from properties.watching import CONNECTS, STARTS, Tree, changes, snapshot
from properties.world import OF_OTHERS, copy_parts, make_world


@dataclass(frozen=True)
class Case:
    """A command that meets a damaged file.

    Attributes:
        scenario: Key of `SCENARIOS`.
        target: The file, in the tree.
        damage: What is done to it.
        sealed: Whether the checksum beside it is made to fit, as an attacker would do.
    """

    scenario: str
    target: str
    damage: Damage
    sealed: bool = False


@dataclass(frozen=True)
class End:
    """How the command of a case ended, and the tree before and after."""

    case: Case
    root: Path
    outcome: Outcome
    before: Tree
    after: Tree

    @property
    def scenario(self) -> Scenario:
        return SCENARIOS[self.case.scenario]


# ---- what must hold: each yields a line for everything that is wrong


def it_ends_with_a_result_or_a_refusal(end: End) -> Iterator[str]:
    if end.outcome.code not in (0, 2):
        yield "it hung" if end.outcome.code is None else f"exit code {end.outcome.code}: {_last_line(end.outcome.err)}"


def a_refusal_is_a_line_or_two(end: End) -> Iterator[str]:
    if "Traceback" in end.outcome.err + end.outcome.out:
        yield "a traceback"
    lines = end.outcome.err.strip().splitlines()
    if end.outcome.code == 2 and not 1 <= len(lines) <= 2:
        yield f"{len(lines)} lines instead of one or two: {lines[:4]}"
    if end.outcome.code == 2 and any(len(line) > 1000 for line in lines):
        yield f"a line of {max(map(len, lines))} characters"


def nothing_else_is_touched(end: End) -> Iterator[str]:
    yield from changes(end.before, end.after, end.scenario.out)


def files_of_others_stay_among_camlabs(end: End) -> Iterator[str]:
    for name, entry in end.before.items():
        if Path(name).name in OF_OTHERS and entry != end.after.get(name):
            yield f"{name} was {'changed' if name in end.after else 'deleted'}"


def nothing_is_written_outside_of_the_tree(end: End) -> Iterator[str]:
    for event in end.outcome.events:
        inside = Path(event.about).is_relative_to(end.root) or event.about in ("/dev/null", "/")
        if event.name not in STARTS | CONNECTS and not inside:
            yield f"{event.name} {event.about}"


def no_process_is_started(end: End) -> Iterator[str]:
    yield from (f"{event.name} {event.about}" for event in end.outcome.events if event.name in STARTS)


def no_connection_is_made(end: End) -> Iterator[str]:
    yield from (f"{event.name} {event.about}" for event in end.outcome.events if event.name in CONNECTS)


def a_refusal_deletes_nothing(end: End) -> Iterator[str]:
    if end.outcome.code == 2 and end.scenario.command == "train":
        gone = [
            n for n in end.before.keys() - end.after.keys() if not n.endswith(".lock") and not n.startswith("cache/")
        ]
        yield from (f"refused, but {name} is gone" for name in sorted(gone))


INVARIANTS: list[Callable[[End], Iterator[str]]] = [
    it_ends_with_a_result_or_a_refusal,
    a_refusal_is_a_line_or_two,
    nothing_else_is_touched,
    files_of_others_stay_among_camlabs,
    nothing_is_written_outside_of_the_tree,
    no_process_is_started,
    no_connection_is_made,
    a_refusal_deletes_nothing,
]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]


# ---- carrying it out


@dataclass(frozen=True)
class Laboratory:
    """The world that is copied for each case, where, and the right results of every scenario."""

    world: Path
    place: Path
    right: dict[str, list[Any]]

    def violations(self, case: Case) -> list[str]:
        """Everything that is wrong with the end of a case, after the invariant that it breaks."""
        scenario = SCENARIOS[case.scenario]
        root = self.fresh(scenario)
        self.do_damage(case, root)
        before = snapshot(root)
        outcome = run(scenario.command, arguments_of(scenario, case.target), root, self.place / "logs")
        end = End(case, root, outcome, before, snapshot(root))
        told = [
            f"{invariant.__name__}: {line}" for invariant in INVARIANTS for line in itertools.islice(invariant(end), 3)
        ]
        return told + [f"the_result_is_right: {line}" for line in self.wrong(end)]

    def fresh(self, scenario: Scenario) -> Path:
        """A new copy of what a scenario needs."""
        root = self.place / "tree"
        shutil.rmtree(root, ignore_errors=True)
        copy_parts(self.world, scenario.parts, root)
        return root

    def do_damage(self, case: Case, root: Path) -> None:
        """Damage the file; reject the case where its content cannot be edited or stored in that form."""
        path = root / case.target
        try:
            case.damage.apply(path, Surroundings(root, self.world / "whole"))
        except (
            AttributeError,
            KeyError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
            IndexError,
            OSError,
            ZeroDivisionError,
        ):
            hypothesis.reject()
        if case.sealed:
            _seal(path)

    def wrong(self, end: End) -> Iterator[str]:
        """What is wrong with the result of a command that succeeded."""
        if end.outcome.code != 0:
            return
        try:
            found = end.scenario.read(end.root)
        except Exception as error:  # a file that cannot be read, whatever is wrong with it
            yield f"{type(error).__name__}: {error}"
            return
        if end.case.sealed or is_decisive(end.scenario, end.case.target):
            return
        right = self.right[end.case.scenario]
        if all(list(kill_points.differences(found, one)) for one in right):
            yield f"it differs in {list(kill_points.differences(found, right[0]))[:5]}"


def _seal(path: Path) -> None:
    """Make the checksum of a checkpoint, of a configuration or of a cached array fit its content."""
    entry = path.with_suffix(".json")
    if path.suffix == ".ckpt":
        for sums in path.parent.glob("*.sha256"):
            sums.unlink()  # without one, a checkpoint is trusted
    elif path.name == run_folder.CONFIG and path.is_file() and not path.is_symlink():
        with suppress(ValueError):  # it is not UTF-8
            path.write_text(run_folder.with_checksum(path.read_text().partition("\n")[2]))
    elif path.suffix == ".npy" and path.is_file() and not path.is_symlink() and entry.is_file():
        about = json.loads(entry.read_text()) | {"num_bytes": path.stat().st_size, "sha256": sha256(path)}
        entry.write_text(json.dumps(about))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    folder = tmp_path_factory.mktemp("damaged")
    return Laboratory(make_world(folder / "world", folder / "logs"), folder, {})


def learn_right_results(laboratory: Laboratory, name: str) -> None:
    """Run a scenario with nothing damaged, and with `best.ckpt` missing, so that another checkpoint counts as best."""
    if name in laboratory.right:
        return
    scenario, laboratory.right[name] = SCENARIOS[name], []
    ways: list[str | None] = [None]
    if scenario.command in ("evaluate", "explain", "train"):
        ways += files_in(laboratory.fresh(scenario), ("outputs/*/checkpoints/best.ckpt",))
    for missing in ways:
        root = laboratory.fresh(scenario)
        if missing:
            Special("missing").apply(root / missing, Surroundings(root, laboratory.world / "whole"))
        target = files_in(root, scenario.targets)[0]
        outcome = run(scenario.command, arguments_of(scenario, target), root, laboratory.place / "logs")
        assert outcome.code == 0, outcome
        laboratory.right[name].append(scenario.read(root))


# ---- the tests

drawing = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


@st.composite
def cases(draw: st.DrawFn, world: Path, names: list[str]) -> Case:
    name = draw(st.sampled_from(names))
    scenario = SCENARIOS[name]
    target = draw(st.sampled_from([*files_in(world, scenario.targets), *scenario.planted]))
    return Case(name, target, draw(damages(Path(target).suffix)), draw(st.booleans()))


def check(laboratory: Laboratory, names: list[str], count: int) -> None:
    """Draw cases and fail with all that break an invariant."""
    for name in names:
        learn_right_results(laboratory, name)
    failed: dict[Case, list[str]] = {}

    @settings(drawing, max_examples=count)
    @given(cases(laboratory.world, names))
    def draw_and_try(case: Case) -> None:
        if told := laboratory.violations(case):
            failed[case] = told

    draw_and_try()
    report = "\n".join(f"{case}\n    " + "\n    ".join(told) for case, told in failed.items())
    assert not failed, f"{len(failed)} of {count} cases break an invariant:\n{report}"


FEW = {
    "evaluate a run": 6, "evaluate a checkpoint": 4, "explain with a run": 6, "explain with weights": 4,
    "train from weights": 4, "summary": 6, "resume": 4, "repeat": 2, "resume elsewhere": 2, "clear the cache": 3,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_some_damaged_files(laboratory, name):
    check(laboratory, [name], FEW.get(name, 0) or 2)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_thousand_damaged_files(laboratory, name):
    check(laboratory, [name], 25 * FEW.get(name, 1))
