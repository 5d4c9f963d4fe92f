"""Draw the result of a picture as tiles: the picture and its overlays, each under its title, with one caption above."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camlab.attribution.methods import METHODS
from camlab.drawing import layout, render, text
from camlab.drawing.render import Box
from camlab.drawing.results import PictureResult
from camlab.errors import cut, plain
from camlab.maps import Normalization

TILE_HEIGHT = 192  # pixels, a multiple of 32
_NARROWEST = 128  # width of a tile, so that its title can be read
_LEAST_BOXED = 32  # pixels of the visible part's shorter side; a box of 3 pixels would hide a smaller one
_WIDEST = 1500  # width of a panel with more tiles than fit in one line
_GAP = 6
_WRONG = (170, 30, 30)


@dataclass(frozen=True)
class Style:
    """How heatmaps are drawn, in training and by `explain`.

    Attributes:
        normalize: `per_image`, `shared` over all pictures of a method, or `raw` (drawn as `shared`).
        alpha: The heatmap's share of an overlay.
        colormap: One of `camlab.drawing.colormaps.COLORMAPS`.
        boxes: Whether the box around the largest hot region is drawn.
    """

    normalize: Normalization = "per_image"
    alpha: float = 0.5
    colormap: str = "jet"
    boxes: bool = True


@dataclass(frozen=True)
class Overlay:
    """One heatmap, drawn over its picture.

    Attributes:
        method: Name of the method.
        rank: Place of the class among those that were asked for.
        class_name: Name of the class.
        image: uint8 RGB, at the picture's own size.
        box: The box around the largest hot region, in the picture's pixels; None where none is drawn.
        has_evidence: Whether the map has any evidence for the class.
    """

    method: str
    rank: int
    class_name: str
    image: np.ndarray
    box: Box | None
    has_evidence: bool


def draw_overlays(
    picture: np.ndarray,
    result: PictureResult,
    heat: dict[str, np.ndarray],
    class_names: Sequence[str],
    style: Style,
) -> list[Overlay]:
    """Draw each class once for each method, in the part of the picture that the network has seen.

    The rest of the picture is grey and light.

    Args:
        picture: uint8 RGB, upright and whole.
        result: The network's result for this picture.
        heat: By method, R×h×w in [0, 1].
        class_names: Names of all classes.
        style: How to draw.
    """
    left, top, right, bottom = result.source.visible_pixels
    seen = picture[top:bottom, left:right]
    faded = render.fade(picture) if result.source.is_cut else None
    overlays = []
    for rank, class_idx in enumerate(result.class_idx):
        if class_idx in result.class_idx[:rank]:  # the true class is the predicted one
            continue
        for method, of_ranks in heat.items():
            own = render.resize(of_ranks[rank], (bottom - top, right - left))
            drawn = render.overlay(seen, own, style.alpha, style.colormap)
            box = render.largest_box(own, METHODS[method].box_share) if style.boxes else None
            if box is not None:
                if min(seen.shape[:2]) >= _LEAST_BOXED:
                    drawn = render.draw_box(drawn, box)
                box = (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
            if faded is not None:
                whole = faded.copy()
                whole[top:bottom, left:right] = drawn
                drawn = whole
            overlays.append(Overlay(method, rank, class_names[class_idx], drawn, box, bool(of_ranks[rank].any())))
    return overlays


def caption(result: PictureResult, class_names: Sequence[str]) -> str:
    """A picture's name, its true class where it is known, and the two most probable classes.

    Returns:
        For instance `a.jpg: predicted dog 53 %, then deer 20 %` or `true cat, predicted dog 53 %, then deer 20 %`.
    """
    heading, answer = _caption_parts(result, class_names)
    if not heading:
        return answer
    return f"{heading}{':' if result.label is None else ','} {answer}"


def panel(
    picture: np.ndarray, result: PictureResult, overlays: Sequence[Overlay], class_names: Sequence[str]
) -> np.ndarray:
    """A picture and its overlays as tiles beside each other, under their caption: uint8 RGB."""
    width, height = result.source.size
    tiles = [titled(picture, "Picture", f"{width}×{height}")]
    for overlay in overlays:
        evidence = "" if overlay.has_evidence else ": none"
        tiles.append(titled(overlay.image, METHODS[overlay.method].title, f"{overlay.class_name}{evidence}"))
    body = layout.flow(tiles, layout.even_width(tiles, _WIDEST, _GAP), _GAP)
    heading, answer = _caption_parts(result, class_names)
    wrong = result.label is not None and result.label != int(result.probabilities.argmax())
    lines = [text.line(heading, body.shape[1], bold=True)] if heading else []
    lines.append(text.paragraph(answer, body.shape[1], colour=_WRONG if wrong else text.BLACK))
    return layout.below([*lines, body])


def titled(image: np.ndarray, title: str, subtitle: str) -> np.ndarray:
    """A tile: the image at `TILE_HEIGHT`, with two lines of text above it."""
    small = render.thumbnail(image, TILE_HEIGHT)
    width = max(small.shape[1], _NARROWEST)
    return layout.below([text.line(title, width), text.line(subtitle, width, colour=text.GREY), small])


def _caption_parts(result: PictureResult, class_names: Sequence[str]) -> tuple[str, str]:
    """The two parts of a caption: the name or true class, and the predicted classes."""
    truth = "" if result.label is None else f"true {cut(class_names[result.label])}"
    heading = ": ".join(part for part in (plain(result.source.name), truth) if part)
    best = result.probabilities.topk(min(2, len(result.probabilities)))
    ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    said = [f"{cut(class_names[class_idx])} {_percent(probability)}" for class_idx, probability in ranked]
    return heading, "predicted " + ", then ".join(said)


def _percent(probability: float) -> str:
    return "<1 %" if probability < 0.005 else f"{100 * probability:.0f} %"
