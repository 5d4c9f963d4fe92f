"""The figure of a comparison: accuracy against what was swept, and every run's curve."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from camlab.runs.comparison import Comparison, Group

_MOST_NAMES = 12  # in a legend


def draw(compared: Comparison, path: Path) -> None:
    """Write the figure as PNG: left the accuracy against the swept axis (mean ± std), right each run's curve."""
    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_axis(left, compared)
    _draw_curves(right, compared)
    figure.savefig(path)


def _draw_axis(axes: Axes, compared: Comparison) -> None:
    """One line for each combination of the other settings, where a swept setting is a number; else a row of points."""
    axis = next((i for i in range(len(compared.varied)) if _numbers(compared, i)), None)
    axes.set_ylabel(f"{compared.figure.removeprefix('acc_')} {compared.split} accuracy, %")
    if axis is None:
        names = [_name(group) for group in compared.groups]
        _draw_points(axes, [float(i) for i in range(len(names))], compared.groups, compared.figure, "o", "")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
        axes.set_xlabel(", ".join(compared.varied))
        axes.margins(x=0.3)
        return
    lines: dict[tuple[str, ...], list[Group]] = {}
    for group in compared.groups:
        others = tuple(value for i, value in enumerate(group.settings) if i != axis)
        lines.setdefault(others, []).append(group)
    for others, groups in sorted(lines.items()):
        groups.sort(key=lambda group: float(group.settings[axis]))
        x = [float(group.settings[axis]) for group in groups]
        _draw_points(axes, x, groups, compared.figure, "o-", ", ".join(others))
    values = [float(group.settings[axis]) for group in compared.groups]
    if min(values) > 0 and max(values) >= 20 * min(values):
        axes.set_xscale("log")
    axes.set_xlabel(compared.varied[axis])
    if 1 < len(lines) <= _MOST_NAMES:
        axes.legend(fontsize=7)


def _draw_points(axes: Axes, x: list[float], groups: list[Group], figure: str, style: str, label: str) -> None:
    means = [100 * group.mean(figure) for group in groups]
    spread = [0.0 if math.isnan(std := group.std(figure)) else 100 * std for group in groups]
    axes.errorbar(x, means, spread, fmt=style, ms=4, lw=1, capsize=3, label=label)


def _draw_curves(axes: Axes, compared: Comparison) -> None:
    for i, group in enumerate(compared.groups):
        for k, run in enumerate(group.runs):
            label = _name(group) if k == 0 and len(compared.groups) <= _MOST_NAMES else None
            epochs, accuracies = [e for e, _ in run.curve], [100 * a for _, a in run.curve]
            style = "." if len(epochs) == 1 else "-"
            axes.plot(epochs, accuracies, style, lw=1, alpha=0.8, color=f"C{i % 10}", label=label)
    axes.set(xlabel="epochs", ylabel=f"{compared.split} accuracy, %")
    if compared.varied and len(compared.groups) <= _MOST_NAMES:
        axes.legend(fontsize=7, title=", ".join(compared.varied), title_fontsize=7)


def _numbers(compared: Comparison, i: int) -> bool:
    """Whether the setting is a number in every group."""
    try:
        return all(math.isfinite(float(group.settings[i])) for group in compared.groups)
    except ValueError:
        return False


def _name(group: Group) -> str:
    return ", ".join(group.settings)
