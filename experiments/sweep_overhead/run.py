"""How much time does a job of a sweep take in addition to its training?

    python experiments/sweep_overhead/run.py [--jobs 300] [--out FILE]

Each engine runs tiny jobs (one epoch of 64 synthetic pictures, without checkpoints and heatmaps) on this machine. A few
jobs are also run as separate commands. The overhead of a job is processes × wall time / jobs, minus the time of its
training epochs. This takes 10 minutes on 2 cores.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import csv_file, machine, warn_if_busy, write_csv

TINY = [
    "data=shapes", "data.train_size=84", "data.val_size=20", "data.test_size=20", "data.image_size=64",
    "data.batch_size=32", "arch.weights=null", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "trainer.enable_checkpointing=false", "logger=csv", "callbacks.heatmaps=null", "cache=false",
]  # fmt: skip
IMAGES = 64


def sweep(engine: str, processes: int, jobs: int, place: Path) -> dict[str, Any]:
    """Run a sweep over seeds; the wall time is that of the whole command."""
    arguments = ["-m", f"seed=range({jobs})", f"launcher={engine}", "sweep=tiny"]
    if engine == "joblib":
        arguments.append(f"hydra.launcher.n_jobs={processes}")
    seconds = run([*TINY, *arguments], place)
    return row(engine, processes, seconds, sorted(place.glob("outputs/sweeps/tiny/*/result.json")))


def commands(jobs: int, place: Path) -> dict[str, Any]:
    """Run the same jobs as separate commands, one after the other."""
    seconds = sum(run([*TINY, f"seed={seed}", f"hydra.run.dir={place}/{seed}"], place) for seed in range(jobs))
    return row("a command each", 1, seconds, sorted(place.glob("*/result.json")))


def run(arguments: list[str], place: Path) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "camlab.train", *arguments]
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "HOME": str(place)})
    return time.perf_counter() - began


def row(engine: str, processes: int, seconds: float, results: list[Path]) -> dict[str, Any]:
    training = statistics.fmean(epoch_seconds(path.with_name("metrics.csv")) for path in results)
    waited = statistics.fmean(json.loads(path.read_text())["wall_time_s"] for path in results)
    per_job = processes * seconds / len(results)
    return {
        "engine": engine,
        "processes": processes,
        "jobs": len(results),
        "wall_s": round(seconds, 1),
        "per_job_s": round(per_job, 3),
        "of_it_in_the_run_s": round(waited, 3),
        "training_s": round(training, 3),
        "overhead_s": round(per_job - training, 3),
    }


def epoch_seconds(metrics: Path) -> float:
    with open(metrics, newline="") as file:
        return sum(
            IMAGES / float(r["train/images_per_second"]) for r in csv.DictReader(file) if r["train/images_per_second"]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--out", type=csv_file, metavar="FILE", default=Path(__file__).parent / "results.csv")
    options = parser.parse_args()
    about, rows = {**machine(), "load": round(warn_if_busy(), 2)}, []
    for measure in (
        lambda place: sweep("joblib", 2, options.jobs, place),
        lambda place: sweep("basic", 1, max(2, options.jobs // 10), place),
        lambda place: commands(max(2, options.jobs // 60), place),
    ):
        with tempfile.TemporaryDirectory() as place:
            rows.append({**measure(Path(place)), **about})
        print(rows[-1], flush=True)
    write_csv(options.out, rows)


if __name__ == "__main__":
    main()
