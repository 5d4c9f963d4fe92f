"""Picture files of every kind are found and read, upright and in 8-bit RGB; the progress of long loops is shown."""

import io
import logging
import math
import os
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camlab.attribution.decoding import decode_batches
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess
from camlab.storage.pictures import count_pixels, find_pictures, picture_files, read_picture
from camlab.storage.progress import duration, progress

NAMES = ["a b", "a=b", "it's", '"quoted"', "[1] {2} (3)", "é,ü ☃", "$x; #%", "50 % *", "back\\slash", "?", "-x"]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(path, "png")
    return path


# ---- finding


@pytest.mark.parametrize("name", NAMES)
def test_a_path_with_any_name_is_found(tmp_path, name):
    file = picture(tmp_path / name / f"{name}.png")
    picture(tmp_path / "1" / "other.png")
    for place in (file, tmp_path / name, tmp_path / name / "*.png", tmp_path / name / "**" / "*"):
        assert find_pictures(str(place)) == [file]


def test_a_folder_gives_all_pictures_below_it_by_name(tmp_path):
    names = ["2.PNG", "a/1.jpeg", "a/b/1.webp", "c.tif", "d.tiff", "e.bmp", "f.jpg"]
    files = [picture(tmp_path / name) for name in names]
    for name in (".hidden.png", "notes.txt", "g.npz"):
        picture(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    assert find_pictures(str(tmp_path)) == sorted(files)
    assert [file.name for file in picture_files(tmp_path / "a")] == ["1.jpeg"]


def test_masks_and_other_files_are_left_out_with_a_line(tmp_path, caplog):
    names = ["a.png", "a_mask.png", "b_mask.png", "c.JPG", "c_MASK.gif", "d.jfif", "x.heic", "y.txt", "z.TXT", "README"]
    for name in (*names, "masks/a.png", "below/e.gif", "below/masks/e.png", ".DS_Store", ".hidden/f.txt"):
        picture(tmp_path / name)
    with caplog.at_level(logging.INFO):
        assert [file.name for file in picture_files(tmp_path)] == ["a.png", "b_mask.png", "c.JPG", "d.jfif"]
        assert [file.name for file in find_pictures(str(tmp_path))] == [
            "a.png",
            "b_mask.png",
            "e.gif",
            "c.JPG",
            "d.jfif",
        ]
        assert find_pictures(str(tmp_path / "masks")) == [tmp_path / "masks" / "a.png"], (
            "if a folder of masks is asked for, they are pictures"
        )
    endings = "4 files by their endings (.heic: 1, .txt: 2, none: 1)"
    assert caplog.messages[0] == f"{tmp_path}: left out {endings} and 2 masks."
    assert "and 4 masks." in caplog.messages[1]
    assert len(caplog.messages) == 2


def test_patterns(tmp_path, monkeypatch):
    for name in ("x1.png", "x2.png", "y.png", "below/x3.png"):
        picture(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    found = {
        "photos/x*.png": ["x1", "x2"],
        "photos/x[13].png": ["x1"],
        "photos/**/x*.png": ["x3", "x1", "x2"],
        "*/y.png": ["y"],
        str(tmp_path / "*" / "?.png"): ["y"],
        "photos/../photos/x1.png": ["x1"],
    }
    assert {place: [file.stem for file in find_pictures(place)] for place in found} == found


def test_home_is_expanded(tmp_path):  # HOME is tmp_path here
    picture(tmp_path / "x.png")
    assert find_pictures("~/x.png") == find_pictures("~/*.png") == [tmp_path / "x.png"]


@pytest.mark.parametrize(
    ("place", "said"),
    [("nowhere.jpg", "no such file"), ("no/where/*.jpg", "no such file"), ("empty", "no pictures in that folder")],
)
def test_nothing_found(tmp_path, monkeypatch, place, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(UserError, match=said) as refused:
        find_pictures(place)
    assert str(refused.value).startswith(f"images={place}: ")


# ---- reading

SHADES = np.array([[0, 64], [128, 255]], np.uint8)
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [0, 0, 0], [9, 99, 199]]], np.uint8)


def grey(values: Any) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def palette() -> Image.Image:
    return Image.fromarray(COLOURS).quantize(6)


def see_through(mode: str) -> Image.Image:
    """A red pixel, a transparent blue one and, if the mode allows it, a half-transparent black one."""
    pixels = [(255, 0, 0, 255), (0, 0, 255, 0), (0, 0, 0, 128)]
    whole = Image.fromarray(np.array([pixels], np.uint8))
    return whole.convert(mode)


KINDS: dict[str, tuple[Image.Image, dict[str, Any], np.ndarray]] = {
    "rgb.png": (Image.fromarray(COLOURS), {}, COLOURS),
    "rgb.bmp": (Image.fromarray(COLOURS), {}, COLOURS),
    "rgb.tif": (Image.fromarray(COLOURS), {}, COLOURS),
    "lzw.tiff": (Image.fromarray(COLOURS), {"compression": "tiff_lzw"}, COLOURS),
    "lossless.webp": (Image.fromarray(COLOURS), {"lossless": True}, COLOURS),
    "grey.png": (Image.fromarray(SHADES), {}, grey(SHADES)),
    "grey.jpg": (Image.fromarray(np.full((8, 8), 77, np.uint8)), {}, grey(np.full((8, 8), 77))),
    "one bit.png": (Image.fromarray(SHADES > 64), {}, grey([[0, 0], [255, 255]])),
    "palette.png": (palette(), {}, COLOURS),
    "palette.bmp": (palette(), {}, COLOURS),
    "see-through palette.png": (
        Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P"),
        {"transparency": 1},
        grey([[0, 255]]),
    ),
    "rgba.png": (see_through("RGBA"), {}, np.array([[[255, 0, 0], [255, 255, 255], [127, 127, 127]]])),
    "rgba.webp": (
        see_through("RGBA"),
        {"lossless": True, "exact": True},
        np.array([[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]),
    ),
    "grey and alpha.png": (see_through("LA"), {}, grey([[76, 255, 127]])),
    "cmyk.tif": (Image.fromarray(COLOURS).convert("CMYK"), {}, COLOURS),
    "16 bit.png": (Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)), {}, grey([[0, 128, 255]])),
    "16 bit.tif": (Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)), {}, grey([[0, 128, 255]])),
    "32 bit.tif": (Image.fromarray(np.array([[0, 257, 65535]], np.int32)), {}, grey([[0, 1, 255]])),
    "float.tif": (Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), {}, grey([[0, 128, 255]])),
    "first frame.gif": (
        Image.fromarray(COLOURS),
        {"save_all": True, "append_images": [Image.new("RGB", (3, 2), "red")]},
        COLOURS,
    ),
    "photo.jfif": (Image.fromarray(np.full((8, 8), 77, np.uint8)), {"format": "jpeg"}, grey(np.full((8, 8), 77))),
    "10 bit.png": (Image.fromarray(np.array([[0, 512, 1000]], np.uint16)), {}, grey([[0, 128, 249]])),
    "12 bit.png": (Image.fromarray(np.array([[0, 2048, 4095]], np.uint16)), {}, grey([[0, 128, 255]])),
    "12 bit.tif": (Image.fromarray(np.array([[0, 2048, 4095]], np.uint16)), {}, grey([[0, 128, 255]])),
    "stated.tif": (Image.fromarray(np.array([[0, 900]], np.uint16)), {"tiffinfo": {281: 4095}}, grey([[0, 56]])),
    "14 bit.png": (Image.fromarray(np.array([[0, 8192, 16383]], np.uint16)), {}, grey([[0, 128, 255]])),
    "float of 12 bit.tif": (Image.fromarray(np.array([[0, 2048.5, 4095]], np.float32)), {}, grey([[0, 128, 255]])),
    "broken float.tif": (
        Image.fromarray(np.array([[-1, 0.5, math.nan, math.inf, 1]], np.float32)),
        {},
        grey([[0, 128, 0, 0, 255]]),
    ),
    "huge.tif": (Image.fromarray(np.array([[0, 1e20]], np.float32)), {}, grey([[0, 255]])),
    "dark.pgm": (Image.fromarray(np.array([[0, 1000]], np.uint16)), {}, grey([[0, 4]])),
    "black.png": (Image.fromarray(np.zeros((2, 3), np.uint16)), {}, grey(np.zeros((2, 3)))),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_becomes_8_bit_rgb(tmp_path, name):
    stored, options, expected = KINDS[name]
    stored.save(tmp_path / name, **options)
    read = read_picture(tmp_path / name)
    assert read.mode == "RGB"
    assert np.asarray(read).shape == expected.shape
    assert np.abs(np.asarray(read).astype(int) - expected).max() <= 1


def png_16(values: np.ndarray, bits: int | None = None, orientation: int = 1) -> bytes:
    """A PNG of 16 bits, H×W or H×W×3; if `bits` is given, its chunk sBIT states that many significant bits."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, *channels = values.shape
    rows = [b"\0" + row.astype(">u2").tobytes() for row in values]
    (exif := Image.Exif())[0x0112] = orientation
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2 if channels else 0, 0, 0, 0)),
            chunk(b"sBIT", bytes([bits] * (3 if channels else 1))) if bits is not None else b"",
            chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
            chunk(b"IDAT", zlib.compress(b"".join(rows))),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("values", "bits", "expected"),
    [
        ([0, 900, 4095], None, [0, 56, 255]),
        ([0, 450, 900], 12, [0, 28, 56]),  # a dark picture of 12 bits is not taken for one of 10
        ([0, 450, 900], None, [0, 112, 224]),
        ([0, 900, 65535], 12, [0, 4, 255]),  # scaled to 16 bits, as the standard asks
        ([0, 32768, 65535], None, [0, 128, 255]),
        ([0, 450, 900], 0, [0, 112, 224]),  # an invalid number of bits is ignored
        ([0, 450, 900], 255, [0, 112, 224]),
    ],
)
def test_the_depth_of_16_bit_pngs_is_stated_or_guessed(tmp_path, values, bits, expected, channels, orientation):
    stored, upright = np.array([values]), np.array([expected])
    if channels == 3:
        stored, upright = (np.stack([a, a[:, ::-1], a], axis=-1) for a in (stored, upright))
    (tmp_path / "x.png").write_bytes(png_16(stored, bits, orientation))
    read = np.asarray(read_picture(tmp_path / "x.png")).astype(int)
    upright = grey(upright) if channels == 1 else upright
    assert np.abs(read - (upright if orientation == 1 else np.rot90(upright, -1))).max() <= 1


STORED = {  # what a camera writes for an upright picture, by the value of its orientation tag
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(tmp_path, orientation, ending):
    upright = np.zeros((37, 91, 3), np.uint8)
    upright[:8, :16] = 255  # a mark at the top left
    (exif := Image.Exif())[0x0112] = orientation
    file = tmp_path / f"x.{ending}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(file, exif=exif, quality=95)
    read = np.asarray(read_picture(file))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 2


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6])
def test_a_damaged_picture_is_named(tmp_path, ending, kept):
    file = tmp_path / f"a b.{ending}"
    Image.effect_noise((200, 200), 90).convert("RGB").save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError) as refused:
        read_picture(file)
    assert str(refused.value).startswith(f"{file} is not a readable picture (")


def test_what_is_not_a_picture_is_named(tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    for name, kind in (("text.jpg", "readable picture"), ("folder.jpg", "file"), ("nothing.jpg", "file")):
        with pytest.raises(UserError, match=f"is not a {kind}"):
            read_picture(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # so that this picture counts as too large
    with pytest.raises(UserError, match="DecompressionBombError"):
        read_picture(picture(tmp_path / "large.png"))


def test_pixels_are_counted_without_decoding(tmp_path):
    assert count_pixels(picture(tmp_path / "x.png")) == math.prod(read_picture(tmp_path / "x.png").size)
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:60])
    assert count_pixels(tmp_path / "cut.png") == count_pixels(tmp_path / "x.png")
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    assert [count_pixels(tmp_path / name) for name in ("text.png", "pipe.png", "missing.png")] == [0, 0, 0]


# ---- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_lines_are_logged_but_none_for_the_end(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with caplog.at_level(logging.INFO):
        assert list(progress(iter(["four", "one", "more"]), 9, "Pictures", every_seconds=-1)) == ["four", "one", "more"]
    assert [record.message.partition(" of")[0] for record in caplog.records] == ["Pictures: 4", "Pictures: 7"]
    caplog.clear()
    assert list(progress("abc", 3, "Pictures")) == ["a", "b", "c"]
    assert not caplog.records, "a short loop must log nothing"


def test_a_terminal_gets_a_bar(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setattr("rich._console", None, raising=False)  # the global console may hold another stdout
    assert list(progress(iter(["four", "one", "more"]), 9, "Pictures")) == ["four", "one", "more"]
    assert "Pictures" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (600, "10 min"), (5400, "1.5 h")]
)
def test_duration(seconds, said):
    assert duration(seconds) == said


def test_names_of_files_cannot_write_to_the_terminal(tmp_path, caplog):
    """An escape sequence or a line end in a name is shown as an escape, in log lines and in messages."""
    caplog.set_level("INFO")
    (tmp_path / "notes.\x1b[31m\nSECOND").touch()
    (tmp_path / "bad\x1b[31m\nSECOND.png").touch()
    (bad,) = picture_files(tmp_path)
    broken: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        assert list(decode_batches([bad], 1, Preprocess(8), pool, broken)) == []
    left_out, skipped = caplog.messages
    assert r".\x1b[31m\nsecond: 1" in left_out
    assert skipped.startswith(f"Skipped: {tmp_path}/bad")
    assert r"bad\x1b[31m\nSECOND.png is not a readable picture" in skipped
    assert all(line.isprintable() for line in (left_out, skipped, *broken))
