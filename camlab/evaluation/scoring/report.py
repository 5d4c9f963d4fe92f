"""The files of a scoring (docs/file_formats.md), and its table on the terminal."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from camlab.errors import plain
from camlab.evaluation.scoring.request import is_of_true_class, score_of_measure, titled
from camlab.evaluation.scoring.rows import Row
from camlab.evaluation.scoring.sentences import sentence, sentences
from camlab.evaluation.scoring.summary import LEAST, Cell, Summary
from camlab.scores.statistics import Interval
from camlab.storage.files import write_atomically

JSON, TABLE, PICTURES = "scores.json", "scores.md", "scores.csv"
NOTHING = "–"


def write_tables(folder: Path, summary: Summary, about: Mapping[str, Any]) -> None:
    """Write `scores.json`, `scores.csv` and `scores.md`.

    Args:
        folder: Output folder.
        summary: What the scoring has found.
        about: More entries for `scores.json`.

    Raises:
        OSError: A file cannot be written.
    """
    write_atomically(folder / PICTURES, _per_image(summary).encode("utf-8", "surrogateescape"))
    write_atomically(folder / TABLE, _markdown(summary))
    content = {**about, "measures": _measures(summary), "scores": _scores(summary), "sentences": sentences(summary)}
    write_atomically(folder / JSON, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def print_table(summary: Summary, whole: bool = False) -> None:
    """Print the table and the sentences.

    Args:
        summary: What the scoring has found.
        whole: Whether all scores have a column, not just those of where the heat is and whether the network needs it.
    """
    measures = list(summary.measures)
    if not whole:
        measures = [name for name in measures if score_of_measure(name).question in ("place", "need")]
        measures = [name for name in measures if name != "energy" or "energy_gain" not in measures]  # it says the same
    console = Console()
    title: Text | None = Text(plain(heading(summary)))
    for columns in _side_by_side(_columns(summary, measures), console.width):
        console.print(_table(columns, title, [_style(summary, row) for row in summary.rows]))
        title = None
    for each in sentences(summary):
        console.print(Text(f"• {plain(each)}"), soft_wrap=True)


def _columns(summary: Summary, measures: Sequence[str]) -> list[list[str]]:
    """The columns of the table, with their heads and the levels of chance: methods, gate, and one for each score."""
    rows = summary.rows
    columns = [["", *(row.title for row in rows), "chance"], ["gate", *(_gate(summary, row) for row in rows), ""]]
    for name, chance in zip(measures, _chances(summary, measures), strict=True):
        cells = (_short(summary.cells[row.name][name], _is_signed(name)) for row in rows)
        columns.append([titled(name), *cells, _number(chance, False)])
    return columns


def _side_by_side(columns: list[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Divide columns among tables that are no wider than a terminal; each begins with the first two."""
    fixed, part = columns[:2], columns[:2]
    for column in columns[2:]:
        if len(part) > 2 and 1 + sum(map(_width, [*part, column])) > width:
            yield part
            part = list(fixed)
        part.append(column)
    yield part


def _width(column: list[str]) -> int:
    """Width of a column with its borders, in cells of the terminal; heads may have several lines."""
    head, *cells = column
    return 3 + max(map(cell_len, [*head.split(), *cells]))


def _table(columns: list[list[str]], title: Text | None, styles: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for k, (head, *_) in enumerate(columns):
        table.add_column(Text(head), justify="left" if k < 2 else "right", min_width=_width(columns[k]) - 3)
    for cells, style in zip(zip(*(column[1:] for column in columns), strict=True), [*styles, "dim"], strict=True):
        table.add_row(*map(Text, cells), style=style)
    return table


def _style(summary: Summary, row: Row) -> str:
    return "dim" if row.is_pseudo else "red" if _gate(summary, row) == "FAILS" else ""


def _short(cell: Cell, signed: bool) -> str:
    """A mean with half of its interval, as text."""
    own = cell.interval
    mean = _number(own.mean, signed)
    return mean if own.n < LEAST or mean == NOTHING else f"{mean} ±{_number((own.high - own.low) / 2, False)}"


def heading(summary: Summary) -> str:
    """One line with the pictures and their number."""
    n = len(summary.pictures)
    return f"{summary.pictures.place}: {n:,} picture{'' if n == 1 else 's'}"


def shown(cell: Cell, signed: bool = False) -> str:
    """A mean with its interval, as text.

    Example:
        >>> shown(Cell(Interval(0.94, 0.931, 0.949, 100), 0, 0.5))
        '.94 [.93, .95]'
    """
    own = cell.interval
    if math.isnan(own.mean):
        return NOTHING
    mean = _number(own.mean, signed)
    return mean if own.n < LEAST else f"{mean} [{_number(own.low, signed)}, {_number(own.high, signed)}]"


def _number(value: float, signed: bool) -> str:
    if math.isnan(value):
        return NOTHING
    rounded = round(value, 2) + 0.0  # no -0
    text = f"{rounded:+.2f}" if signed else f"{rounded:.2f}"
    return text.replace("0.", ".", 1) if abs(rounded) < 1 else text


def _chances(summary: Summary, measures: Sequence[str]) -> list[float]:
    """Chance levels of some measures; NaN where there is none."""
    of_any_row = next(iter(summary.cells.values()))
    return [math.nan if (level := of_any_row[measure].chance) is None else level for measure in measures]


def _is_signed(measure: str) -> bool:
    return measure.startswith("srg_") or measure in ("energy_gain", "feature_srg", "road")


def _gate(summary: Summary, row: Row) -> str:
    verdict = summary.verdicts.get(row.name)
    if verdict is None:
        return NOTHING
    return {True: "passes", False: "FAILS", None: "unknown"}[verdict.passes]


def _markdown(summary: Summary) -> str:
    head = ["method", "sanity gate", *map(titled, summary.measures)]
    lines = [f"# {plain(heading(summary))}", "", *(f"- {_escaped(each)}" for each in sentences(summary)), ""]
    lines += [_line(head), _line(["---"] * len(head))]
    for row in summary.rows:
        verdict = summary.verdicts.get(row.name)
        gate = _gate(summary, row) + ("" if verdict is None else f" ({_number(verdict.similarity.mean, True)})")
        name = (
            f"*{row.title}*" if row.is_pseudo else f"~~{row.title}~~" if _gate(summary, row) == "FAILS" else row.title
        )
        lines.append(_line([name, gate, *(_cell(summary, row, measure) for measure in summary.measures)]))
    chance = _chances(summary, summary.measures)
    lines.append(_line(["*chance*", "", *(_number(level, False) for level in chance)]))
    return "\n".join([*lines, "", _EXPLANATION, ""])


_EXPLANATION = """\
Means with bootstrap 95 % intervals over the pictures. Rows in italics are pseudo-methods, which know nothing of the
network. A method that is struck out fails the sanity gate: whatever else it scores, it does not explain this network.
The number beside the verdict is Spearman's correlation of its maps before and after all weights are randomised.
**Bold**: no other row is better beyond doubt, that is, with a paired difference whose interval excludes 0; the
intervals are not corrected for the number of comparisons. `none` counts pictures whose map has no positive value; they
stay in the means."""


def _cell(summary: Summary, row: Row, measure: str) -> str:
    cell = summary.cells[row.name][measure]
    text = shown(cell, _is_signed(measure))
    text = f"**{text}**" if cell.rank == 1 else text
    return f"{text} ({cell.none} none)" if cell.none and text != NOTHING else text


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return plain(text).replace("|", "\\|")


def _per_image(summary: Summary) -> str:
    """A row for each picture and method, with the pictures' own values."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["picture", "method", *summary.measures])
    for row in summary.rows:
        values = summary.values[row.name]
        columns = [values[measure].tolist() if measure in values else None for measure in summary.measures]
        for i, name in enumerate(summary.pictures.names):
            cells = ("" if of is None or math.isnan(of[i]) else f"{of[i]:.6g}" for of in columns)
            writer.writerow([name, row.name, *cells])
    return table.getvalue()


def _measures(summary: Summary) -> dict[str, dict[str, Any]]:
    """What each score in the tables is called, which end is good, and which class's map it is of."""
    return {
        name: {
            "title": titled(name),
            "higher_is_better": score_of_measure(name).higher_is_better,
            "class": "true" if is_of_true_class(name) else "predicted",
        }
        for name in summary.measures
    }


def _scores(summary: Summary) -> dict[str, Any]:
    return {
        row.name: {
            "pseudo": row.is_pseudo,
            "layers": list(row.layers),
            "grid": list(row.grid),
            "gate": _verdict(summary, row),
            "sentence": None if row.is_pseudo else sentence(summary, row),
            "scores": {name: _as_json(cell) for name, cell in summary.cells[row.name].items()},
        }
        for row in summary.rows
    }


def _verdict(summary: Summary, row: Row) -> dict[str, Any] | None:
    verdict = summary.verdicts.get(row.name)
    if verdict is None:
        return None
    pair = _interval(verdict.of_random_pair)
    return {"passes": verdict.passes, "similarity": _interval(verdict.similarity), "of_random_pair": pair}


def _as_json(cell: Cell) -> dict[str, Any]:
    return {**_interval(cell.interval), "none": cell.none, "chance": cell.chance, "rank": cell.rank}


def _interval(of: Interval) -> dict[str, Any]:
    """The entries of an interval; null for what is unknown, as the ends are with fewer than two pictures."""
    known = of.n > 0
    ends = (of.low, of.high) if of.n > 1 else (None, None)
    return {"mean": of.mean if known else None, "low": ends[0], "high": ends[1], "n": of.n, "unscored": of.unscored}
