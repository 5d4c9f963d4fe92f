"""A comparison of runs as a person reads it: a table on the terminal, CSV, Markdown, a figure."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from camlab.progress import duration
from camlab.runs.comparison import FIGURES, SEED, Comparison, Group, side_by_side
from camlab.runs.records import read_runs

NAME = "summary"  # of the files: summary.csv, summary.md, summary.png


def compare(folders: Sequence[Path], out: Path) -> Comparison:
    """Read the runs in folders, print their table and write `summary.{csv,md,png}`.

    Args:
        folders: searched with all below them.
        out: where the files go.

    Returns:
        The comparison; without groups, and nothing written, where there is no run.

    Raises:
        OSError: the files cannot be written.
    """
    compared = side_by_side(read_runs(folders))
    if compared.groups:
        header, rows = _cells(compared)
        _print(header, rows)
        _write_csv(compared, out / f"{NAME}.csv")
        (out / f"{NAME}.md").write_text(_markdown(header, rows), encoding="utf-8")
        from camlab.runs.plot import draw  # takes a second to import

        draw(compared, out / f"{NAME}.png")
    return compared


def _cells(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    split = compared.split
    header = [*compared.varied, f"{split} % best", f"{split} % last", "test %", f"{split} loss", "time", "images/s"]
    rows = []
    for group in compared.groups:
        row = [*group.settings]
        row += [_spread(group, figure, 100, 2) for figure in ("acc_best", "acc_last", "test_acc")]
        row += [_spread(group, "loss", 1, 3), _duration(group.mean("time_s")), _spread(group, "images_per_s", 1, 0)]
        rows.append([*row, _spread(group, "epochs", 1, 0, with_std=False), group.state])
    return [*header, "epochs", "runs"], rows


def _spread(group: Group, figure: str, scale: float, digits: int, with_std: bool = True) -> str:
    mean, std = scale * group.mean(figure), scale * group.std(figure)
    if math.isnan(mean):
        return "–" if not group.values(figure) else "nan"
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if with_std and not math.isnan(std) else "")


def _duration(seconds: float) -> str:
    return "–" if math.isnan(seconds) else duration(seconds)


def _print(header: list[str], rows: list[list[str]]) -> None:
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console = Console()
    Console(width=None if console.is_terminal else 200).print(table)  # a file has no edge to fold at


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _write_csv(compared: Comparison, path: Path) -> None:
    """One line for each run."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["folder", "state", *compared.varied, SEED, "split", *FIGURES, "why"])
        for group in compared.groups:
            for run in group.runs:
                figures = ["" if (value := figure(run)) is None else value for figure in FIGURES.values()]
                seed = run.setting(SEED) or ""
                writer.writerow([run.folder, run.state, *group.settings, seed, run.split, *figures, run.why])
