"""Collect what `camlab.score` found for several networks: results.csv, and how alike two imputers rank the methods.

python experiments/scores_photographs/collect.py FOLDER [FOLDER …]
"""

import argparse
import csv
import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import write_csv

HERE = Path(__file__).parent
IMPUTERS = ("srg_mean", "srg_blur")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    found = json.loads((folder / "scores.json").read_text())
    rows = []
    for method, about in found["scores"].items():
        row: dict[str, Any] = {"run": folder.name, "pictures": found["pictures"]["number"], "method": method}
        gate = about["gate"]
        row["gate"] = "" if gate is None else "passes" if gate["passes"] else "FAILS"
        for score in IMPUTERS:
            figures = about["scores"][score]
            row |= {
                f"{score}{end}": round(figures[key], 3)
                for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
            }
            row[f"{score}_rank"] = figures["rank"]
        rows.append(row)
    return rows


def disagreements(rows: list[dict[str, Any]]) -> list[str]:
    """Pairs of methods that one imputer ranks one way, and the other the other way, both beyond their intervals."""
    told = []
    for a, b in combinations(rows, 2):
        by_mean, by_blur = (a[f"{score}_rank"] - b[f"{score}_rank"] for score in IMPUTERS)
        if by_mean * by_blur < 0:
            told.append(f"{a['run']}: {a['method']} and {b['method']}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    folders, file = parser.parse_args().folders, HERE / "results.csv"
    names = {folder.name for folder in folders}
    rows = [row for row in csv.DictReader(file.open()) if row["run"] not in names]  # those of other runs stay
    for folder in folders:
        own = rows_of(folder)
        rows += own
        print(f"{folder.name}: {len(disagreements(own))} of {len(own) * (len(own) - 1) // 2} pairs ranked otherwise")
        print("\n".join(disagreements(own)))
    write_csv(file, rows)


if __name__ == "__main__":
    main()
