"""Charts of a scoring: removal curves, and methods with their intervals beside the pseudo-methods."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlab.errors import cut
from camlab.evaluation.scoring.report import heading
from camlab.evaluation.scoring.request import score_of_measure, signed, titled
from camlab.evaluation.scoring.rows import Row
from camlab.evaluation.scoring.summary import LEAST, Summary
from camlab.scores.randomisation import GATE
from camlab.scores.statistics import Interval
from camlab.storage.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES, RANKING = "curves.png", "ranking.png"
_PASSES, _FAILS, _PSEUDO, _INK, _FAINT = "#1f5fa8", "#c2371f", "#8a8f98", "#22262b", "#d5d8dd"
_ACROSS = 10  # panels of curves beside each other
_FILLED = {"mean": "the mean", "blur": "blur", "road": "neighbours"}
_QUESTIONS = {
    "auroc": "Is the object hotter?",
    "energy": "Heat on the object",
    "energy_gain": "Heat on it, above chance",
    "pointing_game": "Hottest cell on it?",
    "max_box_acc": "Box around the heat",
    "pxap": "Hot pixels on it?",
    "feature_srg": "Gain on features",
    "deletion": "(low is good)",
    "average_drop": "(low is good)",
}


def write_charts(folder: Path, summary: Summary) -> list[str]:
    """Write `ranking.png` and, where removal has been scored, `curves.png`; return their names.

    Raises:
        OSError: A file cannot be written.
    """
    written = [RANKING]
    with _style():
        write_atomically(folder / RANKING, _png(_ranking(summary)))
        if any(summary.curves[row.name] for row in summary.rows):
            write_atomically(folder / CURVES, _png(_curves(summary)))
            written.append(CURVES)
    return written


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context  # takes a second to import

    style: dict[Any, Any] = {
        "text.parse_math": False,  # a dollar sign does not start a formula
        "font.size": 8,
        "text.color": _INK,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box is drawn instead
        yield


def _png(figure: "Figure") -> bytes:
    png = io.BytesIO()
    figure.savefig(png, dpi=150, facecolor="white")
    return png.getvalue()


def _colour(summary: Summary, row: Row) -> str:
    if row.is_pseudo:
        return _PSEUDO
    return _FAILS if summary.verdicts[row.name].passes is False else _PASSES


def _ranking(summary: Summary) -> "Figure":
    """A panel for each score that has a good end, with all rows in one order, and one for the sanity gate."""
    from matplotlib.figure import Figure

    measures = [name for name in summary.measures if score_of_measure(name).question in ("place", "need")]
    measures = [name for name in measures if name != "energy" or "energy_gain" not in measures]  # it says the same
    rows = sorted(summary.rows, key=lambda row: _order(summary, row, measures))
    figure = Figure(figsize=(2.2 + 1.75 * (len(measures) + 1), 1.5 + 0.27 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(measures) + 1, sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=False):
        cells = {row.name: summary.cells[row.name][measure] for row in rows}
        _dots(axes, summary, rows, {name: cell.interval for name, cell in cells.items()})
        chance = cells[rows[0].name].chance
        if chance is not None:
            axes.axvline(chance, color=_INK, lw=0.8, ls=(0, (1, 2)), zorder=1)
        _title(axes, *_words(measure))
    _gate_panel(panels[-1], summary, rows)
    panels[0].set_yticks(range(len(rows)), [cut(row.title, 36) for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    for label, row in zip(panels[0].get_yticklabels(), rows, strict=True):
        label.set_color(_colour(summary, row))
    _caption(figure, summary)
    return figure


def _order(summary: Summary, row: Row, measures: list[str]) -> float:
    """The best of the first score first; what has no value comes last."""
    if not measures:
        return 0.0
    mean = summary.cells[row.name][measures[0]].interval.mean
    sign = 1 if score_of_measure(measures[0]).higher_is_better else -1
    return math.inf if math.isnan(mean) else -sign * mean


def _words(measure: str) -> tuple[str, str]:
    """The question that a score answers, and its name."""
    if measure.startswith("srg_"):
        imputer = measure.removeprefix("srg_")
        return f"Needed? Filled with {_FILLED.get(imputer, imputer)}", titled(measure)
    return _QUESTIONS.get(measure, ""), titled(measure)


def _title(axes: "Axes", question: str, name: str) -> None:
    """Write two lines above a panel; as one text of two lines, those of different panels would not be level."""
    axes.set_title(question, fontsize=8, loc="left", pad=17)
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(name, (0, 1), (0, 6), fontsize=7.5, color=_PSEUDO, **place)


def _dots(axes: "Axes", summary: Summary, rows: list[Row], intervals: dict[str, Interval]) -> None:
    for place, row in enumerate(rows):
        axes.axhline(place, color=_FAINT, lw=0.5, zorder=0)
        own = intervals.get(row.name)
        if own is None or math.isnan(own.mean):
            continue
        colour, fails = _colour(summary, row), _colour(summary, row) == _FAILS
        if own.n >= LEAST:
            axes.plot([own.low, own.high], [place, place], color=colour, lw=1.6, solid_capstyle="butt", zorder=2)
        axes.plot(own.mean, place, "o", ms=5, mec=colour, mfc="white" if fails else colour, mew=1.2, zorder=3)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter("{x:g}")


def _gate_panel(axes: "Axes", summary: Summary, rows: list[Row]) -> None:
    _dots(axes, summary, rows, {name: verdict.similarity for name, verdict in summary.verdicts.items()})
    axes.set_xlim(-0.6, 1.08)
    axes.axvspan(GATE, 1.08, color=_FAILS, alpha=0.07, lw=0)
    _title(axes, "Alike for a random network?", "sanity gate: fails beyond ½")


def _caption(figure: "Figure", summary: Summary) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=_PASSES, marker="o", ms=5, lw=1.6, label=_passing(summary)),
        Line2D([], [], color=_FAILS, marker="o", ms=5, mfc="white", lw=1.6, label="fails it"),
        Line2D([], [], color=_PSEUDO, marker="o", ms=5, lw=1.6, label="knows nothing of the network"),
        Line2D([], [], color=_INK, lw=0.8, ls=(0, (1, 2)), label="chance"),
    ]
    figure.suptitle(f"{cut(heading(summary), 100)} · means with 95 % intervals", fontsize=9, x=0.01, ha="left")
    columns = 4 if figure.get_figwidth() > 7 else 2
    figure.legend(handles=marks, loc="outside lower left", ncols=columns, frameon=False, fontsize=8)


def _passing(summary: Summary) -> str:
    """What blue stands for."""
    is_open = any(summary.verdicts[row.name].passes is None for row in summary.methods)
    return "passes the sanity gate, or undecided" if is_open else "passes the sanity gate"


def _curves(summary: Summary) -> "Figure":
    """A panel for each row and imputer: both curves, and the area between them, which is the gain."""
    from matplotlib.figure import Figure

    imputers = list(next(iter(summary.curves.values())))
    rows = [*summary.methods, *(row for row in summary.rows if row.is_pseudo)]
    across = min(_ACROSS, len(rows))
    lines = math.ceil(len(rows) / across) * len(imputers)
    figure = Figure(figsize=(0.7 + 1.4 * across, 0.9 + 1.5 * lines), layout="constrained")
    panels = figure.subplots(lines, across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    for i, row in enumerate(rows):
        for k, imputer in enumerate(imputers):
            axes = panels[i // across * len(imputers) + k, i % across]
            axes.set_visible(True)
            _curve_panel(axes, summary, row, imputer)
            axes.tick_params(labelbottom=k == len(imputers) - 1, labelsize=7)
            if i % across == 0:
                axes.set_ylabel(f"probability\nfilled with {_FILLED[imputer]}", fontsize=7)
    figure.supxlabel("share of the map's cells that are removed", fontsize=8)
    what = "upper curve: the coldest cells go first; lower curve: the hottest; the area between them is the gain (srg)"
    colours = f"blue: {_passing(summary)}; red: fails it; grey: knows nothing of the network"
    title = f"{cut(heading(summary), 100)} · {what}\n{colours}"
    figure.suptitle(title, fontsize=8, x=0.01, ha="left", linespacing=1.5)
    return figure


def _curve_panel(axes: "Axes", summary: Summary, row: Row, imputer: str) -> None:
    import torch

    highest, lowest = summary.curves[row.name][imputer]
    cells = row.grid[0] * row.grid[1]
    steps = len(highest) - 1
    shares = torch.tensor(sorted({round(step * cells / steps) for step in range(steps + 1)})) / cells
    colour, count = _colour(summary, row), len(shares)
    axes.fill_between(shares, highest[:count], lowest[:count], color=colour, alpha=0.18, lw=0)
    axes.plot(shares, lowest[:count], color=colour, lw=1.3)
    axes.plot(shares, highest[:count], color=colour, lw=1.3)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.5, 1], ["0", "½", "1"])
    gain = summary.cells[row.name][f"srg_{imputer}"].interval.mean
    axes.set_title(f"{cut(row.title, 20)}  {signed(gain)}", fontsize=8, loc="left", color=colour, pad=3)
