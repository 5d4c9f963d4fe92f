"""Write a comparison of runs for people: a table on the terminal, CSV, Markdown, a chart."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from camlab.errors import plain
from camlab.progress import duration
from camlab.runs.comparison import MEASURES, SEED, UNKNOWN, Comparison, Group, side_by_side
from camlab.runs.records import read_runs
from camlab.runs.short_names import shorten

NAME = "summary"  # of the files: summary.csv, summary.md, summary.png


def compare(folders: Sequence[Path], out: Path) -> Comparison:
    """Read the runs in some folders, write `summary.{csv,md,png}`, and print their table.

    Args:
        folders: Folders that are searched, with all folders below them.
        out: Folder for the files; it is made if need be.

    Returns:
        The comparison; if there are no runs, it has no groups, and nothing is written.

    Raises:
        OSError: The files cannot be written.
    """
    compared = side_by_side(read_runs(folders))
    if compared.groups:
        out.mkdir(parents=True, exist_ok=True)
        header, rows = _cells(compared)
        _write_csv(compared, out / f"{NAME}.csv")
        (out / f"{NAME}.md").write_text(_markdown(header, rows), encoding="utf-8", errors="surrogateescape")
        from camlab.runs.plot import draw  # takes a second to import

        draw(compared, out / f"{NAME}.png")
        _print(header, rows)
    return compared


def _cells(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table; columns without a single value are left out."""
    columns: dict[str, Sequence[str]] = {
        "run": _names(compared.groups),
        **dict(zip(compared.varied, zip(*compared.short_settings, strict=True), strict=False)),
        "val % best": [_spread(group, "val_acc_best", 100, 2) for group in compared.groups],
        "val % last": [_spread(group, "val_acc_last", 100, 2) for group in compared.groups],
        "test %": [_spread(group, "test_acc", 100, 2) for group in compared.groups],
        "test % best epoch": [_spread(group, "test_acc_best", 100, 2) for group in compared.groups],
        "val loss": [_spread(group, "val_loss", 1, 3) for group in compared.groups],
        "test loss": [_spread(group, "test_loss", 1, 3) for group in compared.groups],
        **{name: [_spread(group, name, 1, 3) for group in compared.groups] for name in _without_baselines(compared)},
        "time": [_duration(group.mean("time_s")) for group in compared.groups],
        "images/s": [_spread(group, "images_per_s", 1, 0) for group in compared.groups],
        "epochs": [_epochs(group) for group in compared.groups],
        "state": [group.state if len(group.runs) > 1 else group.runs[0].state for group in compared.groups],
    }
    shown = {plain(title): map(plain, cells) for title, cells in columns.items() if set(cells) != {UNKNOWN}}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def _names(groups: Sequence[Group]) -> list[str]:
    """The run's folder where a row is one run."""
    alone = [str(group.runs[0].folder.resolve()) for group in groups if len(group.runs) == 1]
    names = iter(shorten(alone))
    return [next(names) if len(group.runs) == 1 else UNKNOWN for group in groups]


def _without_baselines(compared: Comparison) -> list[str]:
    """Scores for the table: not `test/pointing_game_random`, which says what `test/pointing_game` is compared to."""
    scores = compared.scores
    return [name for name in scores if not any(name.startswith(f"{other}_") for other in scores)]


def _spread(group: Group, name: str, scale: float, digits: int) -> str:
    mean, std = scale * group.mean(name), scale * group.std(name)
    if math.isnan(mean):
        return "nan" if group.values(name) else UNKNOWN
    return f"{mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {std:.{digits}f}")


def _duration(seconds: float) -> str:
    return UNKNOWN if math.isnan(seconds) else duration(seconds)


def _epochs(group: Group) -> str:
    """Epochs done, from the fewest to the most."""
    counts = sorted({f"{count:g}" for count in group.values("epochs")}, key=float)
    return "–".join(dict.fromkeys((counts[0], counts[-1]))) if counts else UNKNOWN


def _print(header: list[str], rows: list[list[str]]) -> None:
    table = Table()
    for title in header:
        table.add_column(Text(title))  # brackets are no markup
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal:
        console.width = 250  # nothing folds in a file or a pipe
    with console.capture() as captured:
        console.print(table)
    print(captured.get(), end="")  # raises BrokenPipeError where nobody reads; Rich would exit with code 1


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _write_csv(compared: Comparison, path: Path) -> None:
    """One line for each run, with whole names and all digits."""
    scores = compared.scores
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["folder", "state", *compared.varied, SEED, *MEASURES, *scores, "failure"])
        for group in compared.groups:
            for run in group.runs:
                values = [*(measure(run) for measure in MEASURES.values()), *map(run.metrics.get, scores)]
                numbers = ["" if value is None else value for value in values]
                about = [run.folder, run.state, *group.settings, run.setting(SEED) or ""]
                writer.writerow([*about, *numbers, run.failure])
