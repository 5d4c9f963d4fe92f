"""Which share of an epoch's time do the scores of heatmaps take at their defaults?

    python experiments/score_cost/share.py DATA WEIGHTS [--only NAME …] [--tiny] [--out FILE]

DATA is a folder with cifar-10-batches-py/, WEIGHTS a file of AlexNet's features. The script trains the demo, fine-tunes
AlexNet at 224², and trains a frozen one on cached features. `camlab.train` measures the time of scoring beside the rest
of each epoch; both are written to share.csv. A frozen run's scoring before training and after its last epoch, which
computes `srg` as well, is left out. This takes about ten minutes on 2 cores.
"""

import argparse
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import csv_file, machine, warn_if_busy, write_csv

TINY = ["trainer.limit_train_batches=3", "data.val_size=50", "trainer.max_epochs=2", "data.image_size=128"]


def runs(data: Path, weights: Path, cache: Path) -> dict[str, list[str]]:
    """The settings of each run."""
    cifar10 = [f"data.root={data}", "data.verify=false", f"arch.weights={weights}", f"paths.cache={cache}"]
    return {
        "demo": ["experiment=demo"],
        "fine-tuned at 224²": ["arch=alexnet", "mode=finetune", *cifar10, "data.val_size=500", "trainer.max_epochs=2"],
        "frozen at 128², cached": [
            "arch=alexnet", "mode=frozen", *cifar10, "data.image_size=128", "data.val_size=500",
            "trainer.max_epochs=10",
        ],
    }  # fmt: skip


def shorter(settings: list[str]) -> list[str]:
    """The settings for a trial of this script."""
    given = {setting.split("=")[0] for setting in TINY}
    return [setting for setting in settings if setting.split("=")[0] not in given] + TINY


def measured(settings: list[str]) -> list[dict[str, float]]:
    """Train, in a process of its own; returns the seconds of scoring and of the rest, for each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        words = [*settings, "logger=csv", f"out={folder}/run"]
        subprocess.run([sys.executable, __file__, "--one", str(file), *words], check=True)
        return json.loads(file.read_text())


def train(file: Path, words: list[str]) -> None:
    """Run `camlab.train` in this process, and write down what it measures."""
    from camlab.models.devices import settled_time
    from camlab.training.scoring_time import ScoringTime

    seconds, ends = [], ScoringTime.end_epoch

    def end_epoch(self: ScoringTime, device: Any, ways_out: str) -> None:
        if self._began is not None:
            others = settled_time(device) - self._began - self._seconds
            seconds.append({"scoring": self._seconds, "others": others})
        ends(self, device, ways_out)

    ScoringTime.end_epoch = end_epoch
    sys.argv = ["camlab.train", *words]
    try:
        runpy.run_module("camlab.train", run_name="__main__")
    finally:
        file.write_text(json.dumps(seconds))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        train(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the runs, by name")
    parser.add_argument("--tiny", action="store_true", help="a few small batches, to try the script")
    parser.add_argument("--out", type=csv_file, metavar="FILE", default=Path(__file__).with_name("share.csv"))
    options = parser.parse_args()
    warn_if_busy()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for name, settings in runs(options.data, options.weights, Path(cache)).items():
            if options.only is None or name in options.only:
                epochs = [e for e in measured(shorter(settings) if options.tiny else settings) if e["scoring"] > 0]
                scoring, others = (statistics.median(epoch[key] for epoch in epochs) for key in ("scoring", "others"))
                figures = {"scoring_s": round(scoring, 3), "others_s": round(others, 2)}
                rows.append({"run": name, "epochs": len(epochs), **figures, "share": round(scoring / others, 4)})
                print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    write_csv(options.out, [{**row, **machine()} for row in rows])


if __name__ == "__main__":
    main()
