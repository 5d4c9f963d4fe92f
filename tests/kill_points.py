"""Kills a small run at a random point, resumes it with the same command, and compares it with an uninterrupted run.

    python tests/kill_points.py FOLDER --count 60 --seed 0

It prints one line of JSON for each point. The stack is imported once, every run is a fork of this process, and the
signals are real. To end a run at a given site, a function that the run calls there is wrapped: its n-th call sends the
signal or raises an exception; the writing of a checkpoint may also be stopped half-way.
"""

import argparse
import contextlib
import csv
import functools
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from camlab import train
from camlab.drawing import render
from camlab.runs import run_folder
from camlab.tracking.metrics_csv import MetricsCsv
from camlab.tracking.wandb_logger import WandbLogger
from camlab.training.callbacks import feature_cache
from camlab.training.classifier import Classifier

TINY = [
    "data=shapes", "data.train_size=34", "data.val_size=10", "data.test_size=10", "data.image_size=64",
    "data.batch_size=8", "arch.weights=null", "trainer.max_epochs=3", "trainer.accelerator=cpu",
    "callbacks.heatmaps.per_class=1",
]  # fmt: skip
MODES = {
    "finetune": ["mode=finetune"],
    "frozen, cached": ["mode=frozen"],
    "frozen, uncached": ["mode=frozen", "cache=false"],
}
SITES: dict[str, tuple[Any, str, int]] = {  # object, attribute, and the approximate number of calls in a run
    "step": (Classifier, "training_step", 9),
    "optimizer": (torch.optim.Adam, "step", 9),
    "validation": (Classifier, "validation_step", 6),
    "checkpoint": (torch, "save", 6),
    "rename": (os, "replace", 30),
    "heatmaps": (render, "write_image", 40),
    "cache": (feature_cache.BackbonePass, "_head_statistic", 6),
    "metrics.csv": (MetricsCsv, "log_metrics", 7),
    "wandb": (WandbLogger, "log_metrics", 7),
    "wandb pictures": (WandbLogger, "log_pictures", 4),
    "test": (Classifier, "test_step", 2),
    "result": (run_folder, "write_result", 1),
}
ENDS = ("SIGKILL", "SIGTERM", "SIGINT", "exception")
SWALLOW = ("heatmaps", "wandb", "wandb pictures")  # a failure there is logged and does not end a run


def fork(arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Run a command in a child process; return its exit code, negative for a signal."""
    if pid := os.fork():
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    code = 1
    with contextlib.suppress(BaseException):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = ["camlab-train", *arguments]
        prepare()
        try:
            train.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    os._exit(code)


def end_at(site: str, call: int, how: str) -> None:
    """Make this process end at the n-th call of a site."""
    owner, name, _ = SITES[site]
    inner, calls = getattr(owner, name), iter(range(1, 1 << 30))

    @functools.wraps(inner)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            if site == "checkpoint" and how in ("SIGKILL", "exception"):  # after other signals it is completed
                arguments[1].write(b"half a checkpoint")
            if how == "exception":
                raise RuntimeError("pulled the plug")
            os.kill(os.getpid(), getattr(signal, how))
        return inner(*arguments, **options)

    setattr(owner, name, wrapped)


def end_in_optimizer_step(call: int, how: str) -> None:
    """Make this process end in the middle of an optimizer step, when some weights are new and others are not."""
    inner, calls = torch.optim.Adam.step, iter(range(1, 1 << 30))

    @functools.wraps(inner)
    def wrapped(self: Any, closure: Any = None) -> Any:
        if next(calls) != call:
            return inner(self, closure)
        loss = inner(self, closure)
        if how in ("SIGKILL", "exception"):  # a state that no checkpoint may hold; after other signals the step ends
            self.param_groups[0]["params"][0].data.zero_()
        if how == "exception":
            raise RuntimeError("pulled the plug")
        os.kill(os.getpid(), getattr(signal, how))
        return loss

    torch.optim.Adam.step = wrapped  # type: ignore[method-assign]


def outcome(run: Path) -> dict[str, Any]:
    """Everything about a run that must not depend on whether it was interrupted."""
    checkpoint = torch.load(run / run_folder.LAST, weights_only=True)
    result = json.loads((run / run_folder.RESULT).read_text())
    with open(run / run_folder.METRICS, newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.endswith("per_second")} for row in csv.DictReader(file)]
    return {
        "weights": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer_states"][0]["state"],
        "rng": checkpoint["camlab_run"]["rng_state"],
        "steps": checkpoint["global_step"],
        "metrics": {k: v for k, v in result["metrics"].items() if not k.endswith("per_second")},
        "rows": rows,
        "maps": {str(path.relative_to(run)): dict(np.load(path)) for path in sorted(run.glob("heatmaps/*/*.npz"))},
        "pictures": sorted(str(path.relative_to(run)) for path in run.glob("heatmaps/*/*.*")),
    }


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yield the places where two outcomes are not equal bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            if key in one and key in other:
                yield from differences(one[key], other[key], f"{place}/{key}")
            else:
                yield f"{place}/{key} is missing in one"
    elif isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield place
    elif isinstance(one, np.ndarray):
        if not np.array_equal(one, other):
            yield place
    elif one != other:
        yield f"{place}: {one} != {other}"


def interrupted(mode: str, folder: Path, chance: random.Random) -> dict[str, Any]:
    """End a run once or twice, then let it finish; return where and how it was ended, and the exit codes."""
    options = [*TINY, *MODES[mode], f"hydra.run.dir={folder}", f"paths.cache={folder}.cache"]
    site = chance.choice([s for s in SITES if mode == "frozen, cached" or s != "cache"])
    how = chance.choice([end for end in ENDS if end != "exception" or site not in SWALLOW])
    options += ["logger=wandb" if site.startswith("wandb") else "logger=csv"]
    every = chance.choice([None, 1, 2])
    if every:
        options.append(f"checkpoint_every={every}")
    told: dict[str, Any] = {"mode": mode, "site": site, "how": how, "checkpoint_every": every, "calls": [], "codes": []}
    for _ in range(chance.choice([1, 1, 2])):
        call = chance.randint(1, SITES[site][2])
        end = end_in_optimizer_step if site == "optimizer" else functools.partial(end_at, site)
        told["calls"].append(call)
        told["codes"].append(fork(options, Path(f"{folder}.log"), functools.partial(end, call, how)))
    told["end"] = fork(options, Path(f"{folder}.log"))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no OpenMP threads
    chance, whole = random.Random(options.seed), {}
    for mode, settings in MODES.items():
        run = options.folder / f"whole {mode}"
        code = fork(
            [*TINY, *settings, "logger=csv", f"hydra.run.dir={run}", f"paths.cache={run}.cache"], options.folder / "log"
        )
        assert code == 0, (options.folder / "log").read_text()
        whole[mode] = outcome(run)
    done = 0
    while done < options.count:
        mode, run = chance.choice(list(MODES)), options.folder / f"run {done}"
        told = interrupted(mode, run, chance)
        if any(told["codes"]):  # otherwise it was never ended
            done += 1
            told["differs"] = list(differences(whole[mode], outcome(run))) if told["end"] == 0 else ["not resumed"]
            print(json.dumps(told), flush=True)
        if not told.get("differs"):
            shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    main()
