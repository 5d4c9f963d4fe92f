"""Contact sheets: the panels of many pictures under one legend, which says what the colours and boxes mean."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from camlab.attribution.methods import METHODS
from camlab.drawing import layout, render, text
from camlab.drawing.tiles import Panel, Style

_MARGIN, _GAP = 18, 24
_NARROWEST = 640  # pixels: smallest width of a legend
_BAR_WIDTH, _ICON_WIDTH, _ICON_HEIGHT, _ICON_COLUMN = 128, 44, 16, 190
_SCALES = {
    "per_image": "{evidence}, each map divided by its own maximum",
    "shared": "{evidence}, all maps of a method divided by their common maximum",
    "raw": "{evidence} in units of its score: {ranges}",
}


@dataclass(frozen=True)
class Legend:
    """Content of a sheet's legend.

    Attributes:
        title: First line of the legend.
        layers: Names of the target layers by method.
        style: How the heatmaps are drawn.
        peaks: Maximum of each method's maps in their own units; needed for `raw`.
        counterfactual: Whether the maps show the evidence against the class.
        is_cut: Whether the network sees only a part of some pictures.
    """

    title: str
    layers: Mapping[str, Sequence[str]]
    style: Style
    peaks: Mapping[str, float] = field(default_factory=dict)
    counterfactual: bool = False
    is_cut: bool = False


def contact_sheet(panels: Sequence[Panel], legend: Legend) -> np.ndarray:
    """Draw a contact sheet: the legend, and the panels below it in lines as full as possible; uint8 RGB.

    The tiles of all panels in a line begin at the same height, however many lines their captions have.
    """
    width = layout.best_width([panel.image.shape[:2] for panel in panels], _GAP)
    lines = layout.in_lines([panel.tiles.shape[1] for panel in panels], width, _GAP)
    body = layout.below([_beside([panels[i] for i in numbers]) for numbers in lines], _GAP)
    head = draw_legend(legend, max(body.shape[1], _NARROWEST))
    return layout.frame(layout.below([head, body], _GAP), _MARGIN)


def draw_legend(legend: Legend, width: int) -> np.ndarray:
    """Draw the title, the colour bar with its scale, the symbols in use, and the layers: uint8 RGB, H×width×3."""
    colours, beside = legend.style.colormap, width - _ICON_COLUMN
    rows = [(_colour_bar(colours, "max" if legend.style.normalize == "raw" else "1"), _scale(legend))]
    if legend.style.boxes:
        rows.append((_box_icon(colours), _boxes(legend.layers)))
    if legend.is_cut:
        rows.append((_unseen_icon(), "Not seen by the network, which reads the square in the middle"))
    rows.append((text.line("Layer", _BAR_WIDTH), _layers(legend.layers)))
    parts = [text.line(legend.title, width, 17, bold=True)]
    for icon, words in rows:
        left = layout.pad(icon, icon.shape[0], _ICON_COLUMN)
        parts.append(layout.beside([left, text.paragraph(words, beside)]))
    return layout.below(parts, 5)


def _beside(panels: Sequence[Panel]) -> np.ndarray:
    """Panels side by side, with their captions in one row and their tiles in another."""
    captions, tiles = ([getattr(panel, part) for panel in panels] for part in ("caption", "tiles"))
    return layout.below([layout.beside(captions, _GAP), layout.beside(tiles, _GAP)])


def _scale(legend: Legend) -> str:
    evidence = f"Evidence {'against' if legend.counterfactual else 'for'} the class"
    ranges = ", ".join(f"0 to {peak:.3g} ({METHODS[method].title})" for method, peak in legend.peaks.items())
    return _SCALES[legend.style.normalize].format(evidence=evidence, ranges=ranges)


def _boxes(methods: Mapping[str, Sequence[str]]) -> str:
    titles = defaultdict(list)
    for method in methods:
        titles[METHODS[method].box_share].append(METHODS[method].title)
    shares = " or ".join(f"{100 * share:.0f} % ({', '.join(names)})" for share, names in titles.items())
    return f"Box around the largest region above {shares} of the map's maximum; none is drawn around the whole picture"


def _layers(layers: Mapping[str, Sequence[str]]) -> str:
    titles = defaultdict(list)
    for method, names in layers.items():
        titles[" and ".join(names)].append(METHODS[method].title)
    mean = {names: "the mean of " if " and " in names else "" for names in titles}
    return "; ".join(f"{', '.join(methods)} at {mean[names]}{names}" for names, methods in titles.items())


def _colour_bar(colormap: str, end: str) -> np.ndarray:
    bar = render.colorize(np.tile(np.linspace(0, 1, _BAR_WIDTH, dtype=np.float32), (_ICON_HEIGHT, 1)), colormap)
    low, high = (text.line(words, text.text_width(words)) for words in ("0", end))
    return layout.beside([low, _centred(bar), high], 4)


def _box_icon(colormap: str) -> np.ndarray:
    ground = render.colorize(np.full((_ICON_HEIGHT, _ICON_WIDTH), 0.3, np.float32), colormap)
    return _centred(render.draw_box(ground, (3, 3, _ICON_WIDTH - 3, _ICON_HEIGHT - 3)))


def _unseen_icon() -> np.ndarray:
    return _centred(render.fade(np.full((_ICON_HEIGHT, _ICON_WIDTH, 3), 90, np.uint8)))


def _centred(icon: np.ndarray) -> np.ndarray:
    """An icon in the middle of a line of text."""
    above = (text.line_height() - _ICON_HEIGHT) // 2
    return layout.pad(layout.below([np.full((above, 1, 3), 255, np.uint8), icon]), text.line_height(), icon.shape[1])
