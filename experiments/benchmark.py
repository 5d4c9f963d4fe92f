"""What measurements share: contestants alternate in one run; medians, interquartile ranges, a word on the machine."""

import csv
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

_BUSY = 0.5  # processes that want to run beside this one


def alternate(contestants: Mapping[str, Callable[[], Any]], rounds: int = 7) -> dict[str, list[float]]:
    """Seconds of each contestant, round by round; a first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(rounds + 1):
        for name, run in contestants.items():
            began = settled()
            run()
            if i:
                seconds[name].append(settled() - began)
    return seconds


def settled() -> float:
    """The clock, once a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and interquartile range."""
    if len(values) < 2:
        return {"median": round(values[0], 5), "q1": round(values[0], 5), "q3": round(values[0], 5)}
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 5), "q1": round(low, 5), "q3": round(high, 5)}


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """a / b, round by round: what slows the machine down for a while slows both."""
    return [x / y for x, y in zip(a, b, strict=True)]


def warn_if_busy() -> float:
    """The load of the last minute, with a warning if others work here, too."""
    load = os.getloadavg()[0]
    if load > _BUSY:
        print(f"warning: the machine is busy (load {load:.1f}); ratios hold, absolute figures less so", file=sys.stderr)
    return load


def machine() -> dict[str, Any]:
    """Hardware, versions and commit, for the results."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "device": gpu or f"{_cpu()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__.partition("+")[0],
        "commit": commit.stdout.strip(),
    }


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows; columns as they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
