"""Commands that read files of others, and what each of them must have written where it succeeds."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kill_points

from camlab.runs import run_folder
from properties.world import OF_OTHERS, TINY

RUN, STOPPED = "outputs/finished", "outputs/stopped"
Result = Any


@dataclass(frozen=True)
class Scenario:
    """A command, the files whose damage it meets, and how its result is read.

    Attributes:
        command: Name of the command.
        arguments: Its command line; `{target}` is the damaged file.
        parts: Parts of the world that it needs.
        targets: Patterns of the files that may be damaged, in the world as it is before the damage.
        out: Folders that it may write into.
        read: Reads the result from the tree, or raises where there is none.
        decisive: Patterns of the files whose content decides the result, so that another result may be right.
        planted: Files that may appear although they are not there.
    """

    command: str
    arguments: tuple[str, ...]
    parts: tuple[str, ...]
    targets: tuple[str, ...]
    out: tuple[str, ...]
    read: Callable[[Path], Result]
    decisive: tuple[str, ...] = ()
    planted: tuple[str, ...] = ()


def read_evaluation(root: Path) -> Result:
    """Accuracies and confusion matrix, which must be numbers of as many images as there are."""
    found = json.loads((root / "out" / "evaluation.json").read_text())
    assert math.isfinite(found["metrics"]["loss"]), f"loss {found['metrics']['loss']}"
    assert 0 <= found["metrics"]["acc"] <= 1
    assert sum(map(sum, found["confusion_matrix"])) == found["images"]
    assert (root / "out" / "confusion_matrix.png").is_file()
    return {key: found[key] for key in ("metrics", "per_class", "confusion_matrix", "class_names")}


def read_explanation(root: Path) -> Result:
    """Predictions, which must be probabilities, with a sheet that shows them."""
    with open(root / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2, f"{len(rows)} rows for two pictures"
    assert all(0 <= float(row["probability"]) <= 1 for row in rows), rows
    assert (root / "out" / "sheet.png").is_file()
    return rows


def read_table(root: Path) -> Result:
    """The row of the run that is whole, and whether each run is there at most once."""
    with open(root / "out" / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["folder"] for row in rows]
    assert len(set(names)) == len(names), names
    whole = [row for row in rows if row["folder"].endswith("neighbour")]
    assert len(whole) == 1, f"the whole run is missing in {names}"
    kept = ("state", "val_acc_best", "val_acc_last", "test_acc", "val_loss", "test_loss", "epochs")
    return {key: whole[0][key] for key in kept}


def read_run(root: Path, name: str) -> Result:
    """Weights, optimizer, metrics and rows of a finished run, whose result is of the configuration beside it."""
    folder = root / name
    result = run_folder.read_result(folder)
    assert result is not None, "there is no result"
    assert math.isfinite(result["objective"]), f"objective {result['objective']}"
    assert result["config_hash"] == run_folder.read_config_hash(folder), "the result is of another configuration"
    return kill_points.outcome(folder)


def read_metrics(root: Path, name: str) -> Result:
    """Metrics of a finished run that was only repeated: nobody has to read its checkpoints again."""
    result = run_folder.read_result(root / name)
    assert result is not None, "there is no result"
    return {key: value for key, value in result["metrics"].items() if not key.endswith("per_second")}


def read_nothing(root: Path) -> Result:
    """Of a command without a result the invariants say all there is to say."""
    return None


def files_in(root: Path, patterns: tuple[str, ...]) -> list[str]:
    """Files that match a pattern, but none of others, and no locks."""
    found = {
        str(path.relative_to(root))
        for pattern in patterns
        for path in root.glob(pattern)
        if path.is_file() and path.name not in OF_OTHERS and not path.name.endswith(".lock")
    }
    return sorted(found)


_CPU = "trainer.accelerator=cpu"
_SMALL_FILES = tuple(
    f"{run}/{name}"
    for run in (RUN, "outputs/neighbour")
    for name in ("config.yaml", "result.json", "metrics.csv", "data.json", ".hydra", "train.log")
)
_SMALL_TARGETS = (f"{RUN}/*.*", f"{RUN}/.hydra/*.yaml")

SCENARIOS: dict[str, Scenario] = {
    "evaluate a run": Scenario(
        "evaluate", (f"checkpoint={RUN}", "out=out", _CPU), (RUN,), (f"{RUN}/**/*.*",), ("out",), read_evaluation,
        decisive=(f"{RUN}/config.yaml",),
    ),
    "evaluate a checkpoint": Scenario(
        "evaluate", (f"checkpoint={RUN}/{run_folder.LAST}", "data=shapes", "data.test_size=10", "out=out", _CPU), (RUN,),
        (f"{RUN}/checkpoints/last*",), ("out",), read_evaluation,
    ),
    "explain with a run": Scenario(
        "explain", (f"checkpoint={RUN}", "images=pictures", "out=out", "device=cpu"), (RUN, "pictures"),
        (f"{RUN}/checkpoints/*", f"{RUN}/checkpoints/*", f"{RUN}/*.*"), ("out",), read_explanation,
    ),
    "explain with weights": Scenario(
        "explain", ("network=squeezenet1_1", "network.weights={target}", "images=pictures", "out=out", "device=cpu"),
        ("weights", "pictures"), ("weights/squeezenet*",), ("out",), read_explanation, decisive=("weights/*",),
    ),
    "train from weights": Scenario(
        "train", (*TINY, "arch.weights={target}", "out=out", "cache=false"), ("weights",), ("weights/features*",), ("out",),
        lambda root: read_run(root, "out"), decisive=("weights/*",),
    ),
    "summary": Scenario(
        "summary", ("outputs", "--out", "out"), _SMALL_FILES, _SMALL_TARGETS, ("out",), read_table,
        planted=(f"{RUN}/failure.json",),
    ),
    "resume": Scenario(
        "train", (*TINY, f"out={STOPPED}"), (STOPPED, "cache"), (f"{STOPPED}/**/*.*", "cache/features/*.npy", "cache/features/*.json"),
        (STOPPED, "cache"), lambda root: read_run(root, STOPPED),
        planted=(f"{STOPPED}/result.json", f"{STOPPED}/failure.json", f"{STOPPED}/checkpoints/best.ckpt"),
    ),
    "repeat": Scenario(
        "train", (*TINY, f"out={RUN}"), (RUN, "cache"), (f"{RUN}/**/*.*", "cache/features/*.npy", "cache/features/*.json"),
        (RUN, "cache"), lambda root: read_metrics(root, RUN), decisive=(f"{RUN}/result.json",),
    ),
    "resume elsewhere": Scenario(
        "train", (*TINY, f"resume={STOPPED}", "out=out"), (STOPPED, "cache"), (f"{STOPPED}/**/*.*", "cache/features/*.npy"),
        ("out", "cache"), lambda root: read_run(root, "out"),
    ),
    "list the cache": Scenario("cache", (), ("cache",), ("cache/features/*",), (), read_nothing),
    "clear the cache": Scenario("cache", ("action=clear",), ("cache",), ("cache/features/*",), ("cache",), read_nothing),
}  # fmt: skip


def arguments_of(scenario: Scenario, target: str) -> list[str]:
    return [argument.replace("{target}", target) for argument in scenario.arguments]


def is_decisive(scenario: Scenario, target: str) -> bool:
    """Whether another content of a file makes another result right."""
    return any(Path(target).match(pattern) for pattern in scenario.decisive)
