"""The contact sheet of augmented pictures: training pictures, and what some epochs make of each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from camlab.drawing import layout, text
from camlab.drawing.tiles import titled

_MARGIN, _GAP = 18, 6


class View(NamedTuple):
    """A picture or what an epoch makes of it.

    Attributes:
        image: uint8 RGB, H×W×3.
        title: First line above it.
        subtitle: Second line above it.
        mask: Mask of the object, bool h×w, whose outline is drawn; None if there is none.
    """

    image: np.ndarray
    title: str
    subtitle: str
    mask: np.ndarray | None = None


def augmentation_sheet(heading: str, steps: str, rows: Sequence[Sequence[View]]) -> np.ndarray:
    """Draw a sheet with one row for each picture: uint8 RGB, H×W×3.

    Args:
        heading: First line of the sheet.
        steps: The steps of the augmentation, in words.
        rows: For each picture, the picture itself and its views.
    """
    body = layout.below([layout.beside([titled(*view) for view in row], _GAP) for row in rows], 2 * _GAP)
    width = body.shape[1]
    head = [text.line(heading, width, 17, bold=True), text.paragraph(steps, width, colour=text.GREY)]
    return layout.frame(layout.below([*head, body], _GAP), _MARGIN)
