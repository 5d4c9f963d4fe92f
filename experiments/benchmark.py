"""Functions for all measurements. Contestants, the programs that are compared, take turns in one run."""

import argparse
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

_BUSY = 0.5  # number of other running processes from which the machine counts as busy


def alternate(contestants: Mapping[str, Callable[[], Any]], rounds: int = 7) -> dict[str, list[float]]:
    """Measure the seconds that each contestant takes in each round. A first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(rounds + 1):
        for name, run in contestants.items():
            began = settled()
            run()
            if i:
                seconds[name].append(settled() - began)
    return seconds


def settled() -> float:
    """Read a clock in seconds, after a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Compute the median and the first and third quartile."""
    if len(values) < 2:
        return {"median": round(values[0], 5), "q1": round(values[0], 5), "q3": round(values[0], 5)}
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 5), "q1": round(low, 5), "q3": round(high, 5)}


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Compute a / b for each round. Other work on the machine slows both down, so ratios vary less than times."""
    return [x / y for x, y in zip(a, b, strict=True)]


def warn_if_busy() -> float:
    """Return the machine's load in the last minute, and warn if other processes are running."""
    load = os.getloadavg()[0]
    if load > _BUSY:
        print(f"warning: the machine is busy (load {load:.1f}); only the ratios are reliable", file=sys.stderr)
    return load


def resident_mb(field: str = "VmRSS") -> float:
    """Read this process's memory in MB, on Linux; VmHWM is its peak (getrusage would include the parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(f"{field}:"))


def peak_mb() -> float:
    """Read the most memory that was in use so far, in MB: the GPU's if there is one, or else this process's."""
    settled()
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else resident_mb("VmHWM")


def machine() -> dict[str, Any]:
    """Describe the hardware, the version of torch and the commit, as columns of the results.

    COMMIT names the commit of a copy without .git.
    """
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = os.environ.get("COMMIT") or subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "device": gpu or f"{_cpu()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__.partition("+")[0],
        "commit": commit,
    }


def csv_file(text: str) -> Path:
    """Type of an option `--out` for argparse: a file, not a folder, in a folder that exists."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; give a file such as {path / 'results.csv'}")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent}: no such folder")
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all rows, with the columns in the order in which they first appear."""
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
