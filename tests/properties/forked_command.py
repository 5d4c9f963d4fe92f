"""Commands of camlab, each in a fork of one warm process, watched from within.

The standard library's fork server holds the warm process. It has no threads and none of pytest's state, so that a fork
of it is as good as a new process, in milliseconds instead of ten seconds.
"""

import importlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from properties.watching import Event, record_events

TESTS = Path(__file__).parents[1]
SECONDS = float(
    os.environ.get("CAMLAB_TEST_SECONDS", "60")
)  # a command takes one second, perhaps ten on a busy machine
MEMORY = 3 << 30  # bytes of data beyond which Python raises a MemoryError


@dataclass(frozen=True)
class Kill:
    """The n-th call of a site of `kill_points.SITES`, where the command ends itself."""

    site: str
    call: int
    how: str = "SIGKILL"


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: Exit code, negative for a signal; None if it hung and was killed.
        out: Its standard output.
        err: Its standard error.
        events: Processes, connections and writes, in their order.
    """

    code: int | None
    out: str
    err: str
    events: tuple[Event, ...]


def run(command: str, arguments: Sequence[str], place: Path, logs: Path, kill: Kill | None = None) -> Outcome:
    """Run a command to its end.

    Args:
        command: `train`, `evaluate`, `explain`, `summary` or `cache`.
        arguments: Its command line.
        place: Its working directory, with `home/` in it.
        logs: Folder outside of what the test watches, for output and events.
        kill: Where it ends itself, if it gets there.
    """
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    context = _fork_server()
    process = context.Process(target=_child, args=(command, list(arguments), place, logs, kill))
    process.start()
    process.join(SECONDS)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    out, err, events = (_read(logs / name) for name in ("out", "err", "events"))
    return Outcome(code, out, err, tuple(Event(**json.loads(line)) for line in events.splitlines()))


def _fork_server() -> Any:
    """The fork server, started with the stack preloaded where this is the first call."""
    context = multiprocessing.get_context("forkserver")
    if not getattr(_fork_server, "started", False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)  # the server gets no sys.path before Python 3.14
            patch.setenv("OMP_NUM_THREADS", "1")
            context.set_forkserver_preload(["properties.warm"])
            multiprocessing.forkserver.ensure_running()
        _fork_server.started = True  # type: ignore[attr-defined]
    return context


def _child(command: str, arguments: list[str], place: Path, logs: Path, kill: Kill | None) -> None:
    if "properties.warm" not in sys.modules:
        raise RuntimeError("the fork server is not warm: import properties.warm to see why")
    _redirect(logs)
    os.chdir(place)
    os.environ |= {"HOME": str(place / "home"), "NETRC": str(place / "home" / "no-netrc")}
    for name in ("WANDB_API_KEY", "WANDB_MODE", "HYDRA_FULL_ERROR", "PYTHONPATH"):
        os.environ.pop(name, None)
    sys.argv = [f"camlab-{command}", *arguments]
    os.fsync = lambda descriptor: None  # no test cuts the power
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if kill is not None:
        _arm(kill)
    import torch

    torch.set_num_threads(torch.get_num_threads())  # makes torch's pool of threads anew before several threads want it
    main = importlib.import_module(f"camlab.{command}").main
    record_events(logs / "events")
    main()


def _redirect(logs: Path) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(logs / name, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False, encoding="utf-8") for n in (1, 2))


def _arm(kill: Kill) -> None:
    import kill_points

    if kill.site == "optimizer":
        kill_points.end_in_optimizer_step(kill.call, kill.how)
    else:
        kill_points.end_at(kill.site, kill.call, kill.how)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
