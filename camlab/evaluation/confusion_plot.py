"""Draw a confusion matrix with matplotlib."""

import textwrap
import warnings
from collections.abc import Sequence

import numpy as np

from camlab.errors import cut

_LONGEST_NAME = 24  # characters
_MOST_NUMBERS = 30  # classes; with more of them the counts would be too small to read


def draw_confusion(confusion: np.ndarray, class_names: Sequence[str], title: str = "") -> np.ndarray:
    """Draw a confusion matrix; the colour of a cell is its share of the true class's images.

    Args:
        confusion: Counts of images, M×M; row = true class, column = predicted class.
        class_names: M names, drawn literally: a dollar sign does not start a formula.
        title: Line above the matrix.

    Returns:
        A picture, uint8 RGB H×W×3.
    """
    from matplotlib import rc_context  # takes a second to import
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    m = len(class_names)
    side = max(4.0, min(0.55 * m + 1.5, 60.0))  # inches
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box is drawn instead
        figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
        axes = figure.subplots()
        share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        names = [cut(name, _LONGEST_NAME) for name in class_names]
        axes.set_xticks(range(m), names, rotation=45, ha="right")
        axes.set_yticks(range(m), names)
        axes.set(xlabel="predicted", ylabel="true")
        figure.suptitle(textwrap.fill(title, int(9 * side)), fontsize=10)
        for (row, column), count in np.ndenumerate(confusion if m <= _MOST_NUMBERS else np.empty((0, 0))):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
