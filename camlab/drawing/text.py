"""Draw one or several lines of text on white, in the DejaVu font that comes with matplotlib.

DejaVu has Latin, Greek, Cyrillic, Arabic and Hebrew letters and many symbols, but no Chinese, Japanese or Korean
characters; those are drawn as empty boxes.
"""

import functools
import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from camlab.drawing.render import PAPER

log = logging.getLogger(__name__)

BLACK, GREY = (25, 25, 25), (110, 110, 110)
_SIZE = 14  # font size, in pixels
_NO_BREAK = "\u00a0"
_SMALLEST = 12  # font size to which long text shrinks before it is cut


def line_height(size: int = _SIZE) -> int:
    """Height of a line of text, in pixels."""
    return round(1.4 * size)


@functools.lru_cache(maxsize=512)
def line(
    text: str, width: int, size: int = _SIZE, bold: bool = False, colour: tuple[int, int, int] = BLACK
) -> np.ndarray:
    """Draw one line of text on white: uint8 RGB, (line height)×width×3.

    Text that is too wide is drawn smaller and, if that is not enough, an ellipsis takes the place of its middle,
    because names of files often differ at their ends. The array is read-only, because callers share it.
    """
    text, font = _fitted(_drawable(text), width, size, bold)
    strip = Image.new("RGB", (width, line_height(size)), PAPER)
    ImageDraw.Draw(strip).text((0, round(1.05 * size)), text, colour, font, anchor="ls")
    pixels = np.asarray(strip)
    pixels.flags.writeable = False
    return pixels


def paragraph(text: str, width: int, size: int = _SIZE, colour: tuple[int, int, int] = BLACK) -> np.ndarray:
    """Draw text on white, in as many lines as it needs: uint8 RGB, H×width×3."""
    font, lines = _font(size, False), [""]
    for word in _drawable(text).split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return np.vstack([line(each, width, size, False, colour) for each in lines])


def text_width(text: str, size: int = _SIZE, bold: bool = False) -> int:
    """Width of a line of text, in pixels."""
    return int(_font(size, bold).getlength(_drawable(text))) + 1


def _fitted(text: str, width: int, size: int, bold: bool) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text, cut if necessary, and the font in which it fits the width."""
    for smaller in range(size, min(size, _SMALLEST) - 1, -1):
        font = _font(smaller, bold)
        if font.getlength(text) <= width:
            return text, font
    low, high = 0, len(text)  # the most letters that fit, by bisection
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(_without_middle(text, middle)) <= width:
            low = middle
        else:
            high = middle - 1
    return _without_middle(text, low), font


def _without_middle(text: str, kept: int) -> str:
    """The text with `kept` of its letters, half of them from its beginning.

    Example:
        >>> _without_middle("cat/photo 12.jpg", 9)
        'cat/p….jpg'
    """
    return text[: kept - kept // 2].rstrip() + "…" + text[len(text) - kept // 2 :].lstrip()


def _drawable(text: str) -> str:
    """The text in one line, without surrogates, which stand for undecodable bytes of file names."""
    valid = text.encode("utf-8", "replace").decode()
    plain = "".join(letter if letter.isprintable() or letter == _NO_BREAK else " " for letter in valid)
    plain = " ".join(word for word in plain.split(" ") if word)
    if any(ord(letter) not in _letters() for letter in plain):
        _warn_of_boxes(plain)
    return plain


_has_warned = False


def _warn_of_boxes(text: str) -> None:
    """Warn once in a process: many pictures share their names."""
    global _has_warned
    if not _has_warned:
        _has_warned = True
        log.warning("Pictures show empty boxes for letters that their font lacks, as in: %s", text)


@functools.cache
def _letters() -> frozenset[int]:
    """Code points that the font can draw."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_file(bold=False))).get_charmap())


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_font_file(bold)), size)


@functools.cache
def _font_file(bold: bool) -> Path:
    import matplotlib  # takes 0.2 s, and its fonts are needed only where text is drawn

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
