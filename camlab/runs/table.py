"""Write a comparison of runs as a table on the terminal, as CSV, as Markdown and as a chart."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from camlab.errors import UserError, listed, plain
from camlab.runs import run_folder
from camlab.runs.comparison import MEASURES, SEED, UNKNOWN, Comparison, Group, side_by_side
from camlab.runs.records import read_runs
from camlab.runs.short_names import shorten
from camlab.runs.watchers import HEADLINES, HEAT
from camlab.storage.files import read_text, write_atomically
from camlab.storage.progress import duration

NAME = "summary"  # name of the files without their endings: summary.csv, summary.md, summary.png
_FIRST_COLUMNS = "folder,state"  # of summary.csv
_LEAST_FIRST = (
    "images/s", "test loss", "val loss", "val % last", "time", "epochs", "test % best epoch", "test F1", "state",
    "test balanced %",
)  # fmt: skip
_ALWAYS = ("run", "val % best", "test %")  # columns of even the narrowest table


def compare(folders: Sequence[Path], out: Path) -> Comparison:
    """Read the runs in some folders, write `summary.{csv,md,png}`, and print their table.

    Args:
        folders: Folders to search, with all their subfolders.
        out: Folder for the files; it is created if it does not exist.

    Returns:
        The comparison; if there are no runs, it has no groups, and nothing is written.

    Raises:
        UserError: The folder holds files with these names that camlab has not written.
        OSError: The files cannot be written.
    """
    compared = side_by_side(read_runs(folders))
    if compared.groups:
        check_replaceable(out)
        out.mkdir(parents=True, exist_ok=True)
        header, rows = _cells(compared)
        for ending, text in (("csv", _csv(compared)), ("md", _markdown(header, rows))):
            write_atomically(out / f"{NAME}.{ending}", text.encode("utf-8", "surrogateescape"))
        from camlab.runs.plot import draw  # takes a second to import

        write_atomically(out / f"{NAME}.png", draw(compared))
        _print(header, rows)
        if changed := [str(run.folder) for run in compared.runs if run_folder.is_config_changed(run.folder)]:
            print(
                f"The settings in {run_folder.CONFIG} have been changed since the run, or damaged: {listed(changed)}."
            )
    return compared


def check_replaceable(out: Path) -> None:
    """Refuse to replace files named `summary.csv`, `.md` or `.png` that camlab has not written.

    All three files count as camlab's if `summary.csv` begins with the columns of camlab's table.

    Raises:
        UserError: There are such files.
    """
    there = [path for path in (out / f"{NAME}.{ending}" for ending in ("csv", "md", "png")) if path.exists()]
    if not there:
        return
    try:
        own = read_text(out / f"{NAME}.csv", errors="surrogateescape").startswith(_FIRST_COLUMNS)
    except OSError:
        own = False
    if not own:
        raise UserError(
            f"{there[0]} was not written by camlab; nothing was changed. Move it away, or give another folder."
        )


def _cells(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table; columns without a single value are left out."""
    columns: dict[str, Sequence[str]] = {
        "run": _names(compared.groups),
        **dict(zip(compared.varied, zip(*compared.short_settings, strict=True), strict=False)),
        "val % best": [_spread(group, "val_acc_best", 100, 2) for group in compared.groups],
        "val % last": [_spread(group, "val_acc_last", 100, 2) for group in compared.groups],
        "test %": [_spread(group, "test_acc", 100, 2) for group in compared.groups],
        "test % best epoch": [_spread(group, "test_acc_best", 100, 2) for group in compared.groups],
        "test balanced %": [_spread(group, "test_balanced_acc", 100, 2) for group in compared.groups],
        "test F1": [_spread(group, "test_f1", 1, 3) for group in compared.groups],
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
    """The first cell of each row: the run's folder if the row is a single run."""
    alone = [str(group.runs[0].folder.resolve()) for group in groups if len(group.runs) == 1]
    names = iter(shorten(alone))
    return [next(names) if len(group.runs) == 1 else UNKNOWN for group in groups]


def _without_baselines(compared: Comparison) -> list[str]:
    """Scores for the table: `test/pointing_game`, but not `test/pointing_game_random`; of heatmaps, the headlines."""
    shown = {f"{HEAT}{name}" for name in HEADLINES}
    scores = [name for name in compared.scores if name in shown or not name.startswith(HEAT)]
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
    """Print the table; on a terminal that is too narrow, without the columns that matter least, which are named."""
    console, wide, shown = Console(), Console(width=10_000), list(header)
    rest = [name for name in reversed(header) if name not in (*_LEAST_FIRST, *_ALWAYS)]
    left_out: list[str] = []
    for name in (*_LEAST_FIRST, *rest) if console.is_terminal else ():
        if name in shown and wide.measure(_table(header, rows, shown)).maximum > console.width:
            shown.remove(name)
            left_out.append(name)
    if not console.is_terminal:
        console.width = wide.measure(_table(header, rows, shown)).maximum  # each row on one line in a file or a pipe
    with console.capture() as captured:
        console.print(_table(header, rows, shown))
    print(captured.get(), end="")  # raises BrokenPipeError if the pipe is closed; Rich would exit with code 1
    if left_out:
        print(f"Too narrow for: {', '.join(left_out)}. All columns are in {NAME}.md.")


def _table(header: list[str], rows: list[list[str]], shown: list[str]) -> Table:
    """The columns that are shown; cells are Text, so that brackets are not read as markup."""
    table = Table()
    for title in shown:
        table.add_column(Text(title), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for title, cell in zip(header, row, strict=True) if title in shown))
    return table


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _csv(compared: Comparison) -> str:
    """Content of `summary.csv`: one line for each run, with unshortened names and all digits."""
    scores, table = compared.scores, io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([*_FIRST_COLUMNS.split(","), *compared.varied, SEED, *MEASURES, *scores, "failure"])
    for group in compared.groups:
        for run in group.runs:
            values = [*(measure(run) for measure in MEASURES.values()), *map(run.metrics.get, scores)]
            numbers = ["" if value is None else value for value in values]
            about = [run.folder, run.state, *group.settings, run.setting(SEED) or ""]
            writer.writerow([*about, *numbers, run.failure])
    return table.getvalue()
