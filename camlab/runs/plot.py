"""Draw the chart of a comparison: accuracy against a swept setting, and the curve of every run."""

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from camlab.errors import cut
from camlab.runs.comparison import Comparison, Group

_NAMED = 10  # groups with a colour and a name of their own: matplotlib has ten colours
_LONGEST_NAME, _LONGEST_SETTING, _TITLE_LINES = 48, 32, 4  # of legends: characters, characters, lines
_SMALL: dict[str, Any] = {"fontsize": 7, "title_fontsize": 7}  # for legends
_TITLES = {"val_acc_best": "validation accuracy of the best epoch, %", "test_acc": "test accuracy, %"}


def draw(compared: Comparison) -> bytes:
    """Return the chart as PNG: accuracy (mean ± std) against a setting that differs, and the curve of each run.

    The chart shows one kind of accuracy, validation accuracy if any run has it. Runs without it are left out.
    """
    shown = _Shown(compared)
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():  # a dollar sign does not start a formula
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box is drawn instead
        figure = Figure(figsize=(11, 4.2) if compared.varied else (6, 4.2), dpi=120, layout="constrained")
        *left, right = figure.subplots(1, 2 if compared.varied else 1, squeeze=False)[0]
        for axes in left:
            shown.draw_means(axes)
        shown.draw_curves(right)
        for axes in (*left, right):
            low, high = axes.get_ylim()
            axes.set_ylim(low, min(high, 101))  # no accuracy is above 100 %
        if omitted := len(compared.groups) - len(shown.groups):
            rows = "row" if omitted == 1 else "rows"
            figure.suptitle(f"Not drawn: {omitted} {rows} of the table without this accuracy", fontsize=8)
        png = io.BytesIO()
        figure.savefig(png)
        return png.getvalue()


class _Shown:
    """The groups that have the accuracy that the chart shows, with their names."""

    def __init__(self, compared: Comparison) -> None:
        self.measure = compared.ranked_by
        self.split = self.measure.partition("_")[0]
        self.varied = [cut(key, _LONGEST_NAME) for key in compared.varied]
        settings = compared.short_settings
        chosen = [i for i, group in enumerate(compared.groups) if not math.isnan(group.mean(self.measure))]
        self.groups = [compared.groups[i] for i in chosen]
        self.names = [cut(", ".join(settings[i]), _LONGEST_NAME) for i in chosen]
        self.settings = [settings[i] for i in chosen]

    def draw_means(self, axes: Axes) -> None:
        """Draw accuracy against the numeric setting with the most values; without one, a row of points.

        There is a line for each combination of the other settings.
        """
        axes.set_ylabel(_TITLES[self.measure])
        numeric = [i for i in range(len(self.varied)) if self._is_numeric(i)]
        if numeric:
            self._draw_lines(axes, max(numeric, key=self._count_values))
        else:
            self._draw_row(axes)

    def draw_curves(self, axes: Axes) -> None:
        """Draw every run's accuracy against epochs; the best groups in colours, the others in grey."""
        for i, group in enumerate(self.groups):
            colour, front = (f"C{i}", 2) if i < _NAMED else ("0.8", 1)
            for k, run in enumerate(group.runs):
                epochs, accuracies = [epoch for epoch, _ in run.curve], [100 * accuracy for _, accuracy in run.curve]
                style = "o" if len(epochs) == 1 else "-"
                label = self.names[i] if k == 0 and i < _NAMED else None
                axes.plot(epochs, accuracies, style, ms=4, lw=1, alpha=0.8, color=colour, zorder=front, label=label)
        axes.set(xlabel="epochs done", ylabel="validation accuracy, %" if self.split == "val" else "test accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if self.varied and self.groups:
            more = len(self.groups) - _NAMED
            title = _title(self.varied) + (f"\n(best {_NAMED}; {more} more in grey)" if more > 0 else "")
            beside = (1.01, 1.0)  # to the right of the axes, where the legend hides no curve
            axes.legend(title=title, loc="upper left", bbox_to_anchor=beside, frameon=False, **_SMALL)

    def _draw_row(self, axes: Axes) -> None:
        places = list(range(len(self.groups)))
        self._draw_points(axes, [float(place) for place in places], self.groups, "o", "")
        axes.set_xticks(places[: 4 * _NAMED], self.names[: 4 * _NAMED], rotation=30, ha="right", fontsize=7)
        axes.set_xlabel(_title(self.varied))
        axes.margins(x=0.3 if len(places) < _NAMED else 0.05)

    def _draw_lines(self, axes: Axes, axis: int) -> None:
        lines: dict[str, list[int]] = {}
        for k, settings in enumerate(self.settings):
            others = ", ".join(value for i, value in enumerate(settings) if i != axis)
            lines.setdefault(others, []).append(k)
        value = {k: float(settings[axis]) for k, settings in enumerate(self.settings)}
        for others, members in lines.items():
            ordered = sorted(members, key=value.__getitem__)
            label = cut(others, _LONGEST_NAME)
            self._draw_points(axes, [value[k] for k in ordered], [self.groups[k] for k in ordered], "o-", label)
        axes.set_xlabel(self.varied[axis])
        _scale(axes, sorted(set(value.values())))
        if 1 < len(lines) <= _NAMED:
            axes.legend(title=_title([name for i, name in enumerate(self.varied) if i != axis]), **_SMALL)

    def _draw_points(self, axes: Axes, x: list[float], groups: list[Group], style: str, label: str) -> None:
        means = [100 * group.mean(self.measure) for group in groups]
        spread = [100 * group.std(self.measure) for group in groups]  # no bar is drawn for NaN
        axes.errorbar(x, means, spread, fmt=style, ms=4, lw=1, capsize=3, label=label)

    def _count_values(self, i: int) -> int:
        return len({settings[i] for settings in self.settings})

    def _is_numeric(self, i: int) -> bool:
        """Whether a setting is a number in every group, and not always the same one."""
        try:
            values = {float(settings[i]) for settings in self.settings}
        except ValueError:
            return False
        return len(values) > 1 and all(map(math.isfinite, values))


def _title(names: Sequence[str]) -> str:
    """Names of settings, one below the other; of many, the first."""
    shown = [cut(name, _LONGEST_SETTING) for name in names]
    more = len(shown) - _TITLE_LINES
    return "\n".join(shown if more < 1 else [*shown[:_TITLE_LINES], f"and {more} more"])


def _scale(axes: Axes, values: list[float]) -> None:
    """Put ticks at the values themselves if they are few; use a logarithmic axis if they span a factor of 20."""
    if values[0] > 0 and values[-1] >= 20 * values[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if len(values) <= _NAMED:
        axes.set_xticks(values, [f"{value:g}" for value in values])
