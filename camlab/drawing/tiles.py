"""Draw the result of a picture as tiles: the picture and its overlays, each with a title, under one caption."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camlab.attribution.methods import METHODS
from camlab.attribution.results import MOST_NAMED, PictureResult, Source
from camlab.drawing import layout, render, text
from camlab.drawing.render import Box
from camlab.errors import cut, plain
from camlab.maps import Normalization

TILE_HEIGHT = 192  # pixels, a multiple of 32
_NARROWEST = 128  # pixels: smallest width of a tile, so that its title can be read
_LEAST_BOXED = 32  # pixels: no box is drawn if the visible part is smaller, because the box's lines would hide it
_WIDEST = 1500  # pixels: largest width of a line of tiles
_LONGEST = 3  # ratio of a tile's sides; of a longer picture, the tile shows a part
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
        rank: Index of the class among the picture's R classes.
        class_name: Name of the class.
        image: uint8 RGB, at the picture's own size.
        box: The box around the largest hot region, in the picture's pixels; None if there is no such region or boxes
            are not asked for.
        has_evidence: Whether the map has any evidence for the class.
    """

    method: str
    rank: int
    class_name: str
    image: np.ndarray
    box: Box | None
    has_evidence: bool


@dataclass(frozen=True)
class Panel:
    """The drawing of one picture's result.

    Attributes:
        caption: The caption, uint8 RGB, as wide as the tiles.
        tiles: The picture and its overlays, uint8 RGB.
    """

    caption: np.ndarray
    tiles: np.ndarray

    @property
    def image(self) -> np.ndarray:
        """The caption above the tiles."""
        return layout.below([self.caption, self.tiles])


def draw_overlays(
    picture: np.ndarray,
    result: PictureResult,
    heat: dict[str, np.ndarray],
    class_names: Sequence[str],
    style: Style,
) -> list[Overlay]:
    """Draw one overlay for each class and method, on the part of the picture that the network has seen.

    The rest of the picture is made grey and light.

    Args:
        picture: uint8 RGB, upright and whole.
        result: The network's result for this picture.
        heat: Scaled maps by method, R×h×w in [0, 1].
        class_names: Names of all classes.
        style: How to draw.
    """
    left, top, right, bottom = result.source.visible_pixels
    seen = picture[top:bottom, left:right]
    faded = render.fade(picture) if result.source.is_cut else None
    overlays = []
    for rank, class_idx in enumerate(result.class_idx):
        if class_idx in result.class_idx[:rank]:  # it is drawn already: the true class is the predicted one
            continue
        for method, of_ranks in heat.items():
            own = render.resize(of_ranks[rank], (bottom - top, right - left))
            drawn = render.overlay(seen, own, style.alpha, style.colormap)
            box = render.largest_box(own, METHODS[method].box_share) if style.boxes else None
            if box is not None:
                is_whole = box == (0, 0, right - left, bottom - top)
                if min(seen.shape[:2]) >= _LEAST_BOXED and not is_whole:
                    drawn = render.draw_box(drawn, box)
                box = (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
            if faded is not None:
                whole = faded.copy()
                whole[top:bottom, left:right] = drawn
                drawn = whole
            overlays.append(Overlay(method, rank, class_names[class_idx], drawn, box, bool(of_ranks[rank].any())))
    return overlays


def caption(result: PictureResult, class_names: Sequence[str]) -> str:
    """Make the caption of a picture: its name, its true classes if they are known, and the most probable classes.

    These are two, or if each class is decided on its own, the first three whose probability is above ½ and the next
    one. A class that was asked for has its probability there, too, if it is not one of them.

    Returns:
        For instance `a.jpg: predicted dog (53 %), then deer (20 %)`, `true cat, predicted dog (53 %), …` or
        `true cat, dog; yes: dog (73 %); next: deer (20 %)`.
    """
    heading, answer = _caption_parts(result, class_names)
    if not heading:
        return answer
    sign = ";" if result.true_classes is not None else ":" if result.label is None else ","
    return f"{heading}{sign} {answer}"


def panel(
    picture: np.ndarray,
    result: PictureResult,
    overlays: Sequence[Overlay],
    class_names: Sequence[str],
    mask: np.ndarray | None = None,
) -> Panel:
    """Draw a picture and its overlays as tiles side by side, and their caption.

    If they do not fit in one line, each class has lines of its own beside the picture. Of a very long picture, the
    tiles show the part around what the network sees.

    Args:
        picture: uint8 RGB, H×W×3.
        result: The network's result for this picture.
        overlays: What `draw_overlays` returns.
        class_names: Names of all classes.
        mask: bool H×W, True on the object, which is then outlined in the picture's own tile; None if it is not known.
    """
    width, height = result.source.size
    rows, columns = _window(result.source)
    is_part = (rows.stop - rows.start, columns.stop - columns.start) != (height, width)
    subtitle = f"{'part of ' if is_part else ''}{width}×{height}"
    first = titled(picture[rows, columns], "Picture", subtitle, None if mask is None else mask[rows, columns])
    classes: dict[str, list[np.ndarray]] = {}
    for overlay in overlays:
        subtitle = overlay.class_name if overlay.has_evidence else f"{overlay.class_name}: no evidence"
        tile = titled(overlay.image[rows, columns], METHODS[overlay.method].title, subtitle)
        classes.setdefault(overlay.class_name, []).append(tile)
    body = _arranged(first, list(classes.values()))
    heading, answer = _caption_parts(result, class_names)
    wrong = result.label is not None and result.label != int(result.probabilities.argmax())
    lines = [text.line(heading, body.shape[1], bold=True)] if heading else []
    lines.append(text.paragraph(answer, body.shape[1], colour=_WRONG if wrong else text.BLACK))
    return Panel(layout.below(lines), body)


def _arranged(first: np.ndarray, classes: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The picture's tile, then the tiles of each class: in one line if they fit, else in lines for each class."""
    tiles = [tile for of_class in classes for tile in of_class]
    if len(classes) < 2 or layout.count_lines([first, *tiles], _WIDEST, _GAP) == 1:
        tiles = [first, *tiles]
        return layout.flow(tiles, layout.even_width(tiles, _WIDEST, _GAP), _GAP)
    left = _WIDEST - first.shape[1] - _GAP
    lines = [layout.flow(of_class, layout.even_width(of_class, left, _GAP), _GAP) for of_class in classes]
    return layout.beside([first, layout.below(lines, _GAP)], _GAP)


def _window(source: Source) -> tuple[slice, slice]:
    """Rows and columns of a picture that its tiles show: all, or of a long one those around the part that is seen."""
    left, top, right, bottom = source.visible_pixels
    longest = _LONGEST * min(source.size)
    (left, right), (top, bottom) = (
        _around(low, high, longest, length)
        for low, high, length in zip((left, top), (right, bottom), source.size, strict=True)
    )
    return slice(top, bottom), slice(left, right)


def _around(low: int, high: int, longest: int, length: int) -> tuple[int, int]:
    """A range with `low` to `high` in its middle: `longest` pixels of `length`, or more if these are more."""
    wanted = min(length, max(longest, high - low))
    start = min(max(0, (low + high - wanted) // 2), length - wanted)
    return start, start + wanted


def titled(image: np.ndarray, title: str, subtitle: str, mask: np.ndarray | None = None) -> np.ndarray:
    """Draw a tile: the image at `TILE_HEIGHT`, with two lines of text above it, and the outline of a mask."""
    small = render.thumbnail(image, TILE_HEIGHT)
    if mask is not None:
        small = render.draw_outline(small, mask)
    width = max(small.shape[1], _NARROWEST)
    return layout.below([text.line(title, width), text.line(subtitle, width, colour=text.GREY), small])


def _caption_parts(result: PictureResult, class_names: Sequence[str]) -> tuple[str, str]:
    """The two parts of a caption: the name or true classes, and the predicted classes."""
    truth = "" if result.label is None else f"true {cut(class_names[result.label])}"
    heading = ": ".join(part for part in (plain(result.name_with_truth(class_names)), truth) if part)
    best = result.probabilities.argsort(descending=True, stable=True).tolist()
    yes = [i for i in best if result.probabilities[i] > 0.5] if result.one_by_one else []
    first = yes[:MOST_NAMED] if result.one_by_one else best[:2]
    following = best[len(yes) : len(yes) + 1] if result.one_by_one else []
    asked = [i for i in result.class_idx if len(result.class_idx) == 1 and i not in (*first, *following)]
    said = [f"{cut(class_names[i])} ({_percent(float(result.probabilities[i]))})" for i in (*first, *following, *asked)]
    answer, others = said[: len(first)], said[len(first) :]
    if not result.one_by_one:
        return heading, "; ".join(["predicted " + ", then ".join(answer), *others])
    more = f", … ({len(yes)} in all)" if len(yes) > MOST_NAMED else ""
    others = [f"next: {one}" for one in others[: len(following)]] + others[len(following) :]
    return heading, "; ".join([f"yes: {', '.join(answer) or 'none'}{more}", *others])


def _percent(probability: float) -> str:
    return "<1\u00a0%" if probability < 0.005 else f"{100 * probability:.0f}\u00a0%"
