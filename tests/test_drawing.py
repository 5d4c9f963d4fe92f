"""Text, layout, tiles, legends, the scaling of maps, and the file of raw maps."""

import dataclasses
import os
import string
from pathlib import Path

import numpy as np
import pytest
import torch

from camlab import maps
from camlab.attribution.results import PictureResult, Source
from camlab.drawing import layout, sheets, text, tiles
from camlab.drawing.maps_file import FORMAT, read_maps, write_maps
from camlab.drawing.result_writer import overlay_name
from camlab.drawing.scaling import scale
from camlab.drawing.sheets import Legend
from camlab.drawing.tiles import Panel, Style
from camlab.errors import UserError

CLASSES = ("cat", "dog", "deer")
LAYERS = {"cam": ("fc",), "layer_cam": ("a", "b")}


def result(number: int = 0, label: int | None = None, classes: tuple[int, ...] = (1,), name: str = "") -> PictureResult:
    generator = torch.Generator().manual_seed(number)
    shapes = {"cam": [(4, 4)], "layer_cam": [(6, 6), (3, 3)]}
    signed = {
        method: [torch.randn((len(classes), *shape), generator=generator) for shape in layers]
        for method, layers in shapes.items()
    }
    source = Source(Path(f"{number:02d}.png"), name, number, (30, 20), (5.0, 0.0, 25.0, 20.0))
    return PictureResult(source, classes, torch.tensor([0.2, 0.5, 0.3]), signed, label, torch.randn(3, 4, 4))


# ---- text


@pytest.mark.parametrize("letter", [*"ßéñčšøłŁğİΩжЯאع≥", "→", "×"])
def test_letters_of_many_languages_are_drawn(letter):
    missing = text.line("\uffff", 40)
    drawn = text.line(letter, 40)
    assert (drawn < 128).any()
    assert not np.array_equal(drawn, missing)
    assert not np.array_equal(drawn, text.line("?", 40))


def test_long_text_is_cut_with_an_ellipsis_and_stays_inside():
    long = " ".join(string.ascii_letters for _ in range(10))
    for width in (1, 12, 128, 300):
        drawn = text.line(long, width)
        assert drawn.shape == (text.line_height(), width, 3)
    assert (drawn < 128).any()
    assert not np.array_equal(drawn, text.line(long[:20], 300))
    assert text.text_width("a fitting line") < 300
    assert text.paragraph(long, 300).shape[0] >= 3 * text.line_height()


@pytest.mark.parametrize("odd", ["", "\n", "a\nb\tc", "\udcff.png", "\x00\x07", "e\u0301", "👩‍🚀", "a" * 20_000])
def test_any_text_can_be_drawn(odd):
    assert text.line(odd, 200).shape == (text.line_height(), 200, 3)
    assert text.paragraph(odd, 200).shape[1] == 200


def test_formulas_are_not_typeset():
    assert not np.array_equal(text.line("$x^2$", 100), text.line("x2", 100))


# ---- layout


def white(height: int, width: int, value: int = 7) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def with_caption(drawn: np.ndarray, words: str = "predicted dog") -> Panel:
    return Panel(text.paragraph(words, drawn.shape[1]), drawn)


def test_images_flow_like_words():
    page = layout.flow([white(10, 40), white(20, 50), white(5, 30)], width=100, gap=4)
    assert page.shape == (20 + 4 + 5, 40 + 4 + 50, 3)
    assert (page == 7).all(axis=2).sum() == 10 * 40 + 20 * 50 + 5 * 30
    assert (page[:10, :40] == 7).all()
    assert (page[:20, 44:] == 7).all()
    assert (page[24:, :30] == 7).all()
    assert layout.flow([white(3, 500)], width=100, gap=4).shape == (3, 500, 3), "a wider image is alone on its line"


def test_one_wide_picture_does_not_set_the_width_of_the_others():
    """Of a sheet with 28 panels, one of them three times as wide as the others, less than a quarter is blank."""
    panels = [with_caption(white(260, 500)) for _ in range(27)]
    panels.insert(5, with_caption(white(260, 1500)))
    sheet = sheets.contact_sheet(panels, Legend("x", {"cam": ["fc"]}, Style()))
    used = sum(panel.image.shape[0] * panel.image.shape[1] for panel in panels)
    assert used / (sheet.shape[0] * sheet.shape[1]) > 0.75


def test_lines_of_many_tiles_are_of_nearly_one_length():
    seven = [white(10, 100)] * 7
    page = layout.flow(seven, layout.even_width(seven, 550, 4), 4)
    assert page.shape == (2 * 10 + 4, 4 * 100 + 3 * 4, 3), "lines of 4 and 3 tiles, not of 5 and 2"
    assert layout.flow(seven[:3], layout.even_width(seven[:3], 550, 4), 4).shape == (10, 3 * 100 + 2 * 4, 3)
    assert layout.even_width(seven[:1], 50, 4) == 100


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 40])
def test_a_sheet_shows_every_panel(count):
    panels = [with_caption(white(100 + k, 150 + 20 * k, value=9)) for k in range(count)]
    sheet = sheets.contact_sheet(panels, Legend("x", {"cam": ["fc"]}, Style(boxes=False)))
    used = sum(panel.tiles.shape[0] * panel.tiles.shape[1] for panel in panels)
    assert used <= (sheet == 9).all(axis=2).sum() <= used + 50


def test_tiles_in_a_line_begin_at_the_same_height_under_captions_of_any_length():
    captions = ("short", "some more words " * 5, *["short"] * 10)
    panels = [with_caption(white(90, 200, value=9), words) for words in captions]
    assert panels[1].caption.shape[0] > 2 * panels[0].caption.shape[0]
    sheet = sheets.contact_sheet(panels, Legend("x", {"cam": ["fc"]}, Style(boxes=False)))
    across = (sheet == 9).all(axis=2).sum(axis=1) // 200  # tiles that each row of pixels crosses
    assert across.max() > 1, "several panels are in a line"
    assert set(across) == {0, across.max()}, "a row of pixels crosses all tiles of a line, or none"


# ---- tiles and legends


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({"name": "a.jpg"}, "a.jpg: predicted dog (50 %), then deer (30 %)"),
        ({"label": 0}, "true cat, predicted dog (50 %), then deer (30 %)"),
        ({"label": 0, "name": "a.jpg"}, "a.jpg: true cat, predicted dog (50 %), then deer (30 %)"),
        ({}, "predicted dog (50 %), then deer (30 %)"),
    ],
)
def test_captions_name_the_two_most_probable_classes(of, expected):
    assert tiles.caption(result(**of), CLASSES) == expected.replace(" %", "\u00a0%"), "a number keeps its unit"


def test_a_caption_of_a_certain_class():
    sure = PictureResult(result().source, (1,), torch.tensor([0.001, 0.999, 0.0]), {})
    asked = dataclasses.replace(sure, class_idx=(2,))
    assert tiles.caption(asked, CLASSES).endswith(f"; {CLASSES[2]} (<1\u00a0%)"), "the class that was asked for"
    assert tiles.caption(sure, CLASSES) == "predicted dog (100\u00a0%), then cat (<1\u00a0%)"


@pytest.mark.parametrize(
    ("of", "probabilities", "expected"),
    [
        ({}, [0.6, 0.73, 0.12], "yes: dog (73 %), cat (60 %); next: deer (12 %)"),
        ({"true_classes": (0, 1)}, [0.6, 0.73, 0.12], "true cat, dog; yes: dog (73 %), cat (60 %); next: deer (12 %)"),
        ({"true_classes": ()}, [0.4, 0.3, 0.12], "true none; yes: none; next: cat (40 %)"),
        ({"class_idx": (2,)}, [0.6, 0.3, 0.12], "yes: cat (60 %); next: dog (30 %); deer (12 %)"),
        ({}, [0.9, 0.8, 0.7], "yes: cat (90 %), dog (80 %), deer (70 %)"),
        ({}, [0.9, 0.8, 0.7, 0.6, 0.51], "yes: cat (90 %), dog (80 %), deer (70 %), … (5 in all)"),
    ],
)
def test_captions_tell_which_of_several_classes_a_picture_has(of, probabilities, expected):
    several = {"probabilities": torch.tensor(probabilities), "class_idx": (0,), "one_by_one": True}
    one = dataclasses.replace(result(), **{**several, **of})
    assert tiles.caption(one, (*CLASSES, "cow", "ant")) == expected.replace(" %", "\u00a0%")
    drawn = tiles.panel(white(20, 30), one, [], (*CLASSES, "cow", "ant"))
    assert (drawn.caption < 255).any()


def test_each_class_is_drawn_once():
    one = result(label=1, classes=(1, 1))
    (heat,) = scale([one], "per_image").heat
    drawn = tiles.draw_overlays(white(20, 30), one, heat, CLASSES, Style())
    assert [(each.method, each.rank) for each in drawn] == [("cam", 0), ("layer_cam", 0)]
    assert all(each.image.shape == (20, 30, 3) for each in drawn)
    two = result(label=0, classes=(1, 0))
    (heat,) = scale([two], "per_image").heat
    assert len(tiles.draw_overlays(white(20, 30), two, heat, CLASSES, Style())) == 4


def test_a_long_answer_goes_on_in_another_line_and_is_not_cut():
    names = tuple(f"a class of a name with many words {i}" for i in range(3))
    one = result()
    narrow = tiles.panel(white(20, 30), one, [], names)
    short = tiles.panel(white(20, 30), one, [], CLASSES)
    assert narrow.caption.shape[0] >= short.caption.shape[0] + 2 * text.line_height(), "at least two more lines"
    assert narrow.image.shape[1] == short.image.shape[1]


@pytest.mark.parametrize(("side", "boxed"), [(17, False), (40, True)])
def test_a_box_hides_no_small_picture(side, boxed):
    signed = torch.zeros(1, 4, 4)
    signed[0, 1:3, 1:3] = 1
    source = Source(Path("a.png"), "a", 0, (side, side), (0.0, 0.0, side, side))
    one = PictureResult(source, (1,), torch.tensor([0.2, 0.5, 0.3]), {"cam": [signed]})
    (heat,) = scale([one], "per_image").heat
    (drawn,) = tiles.draw_overlays(white(side, side), one, heat, CLASSES, Style())
    (plain,) = tiles.draw_overlays(white(side, side), one, heat, CLASSES, Style(boxes=False))
    assert drawn.box is not None, "the box must be found even if it is not drawn"
    assert (not np.array_equal(drawn.image, plain.image)) == boxed


def test_a_map_without_evidence_is_labelled():
    none = result()
    none = PictureResult(none.source, (1,), none.probabilities, {"cam": [-torch.ones(1, 4, 4)]})
    (heat,) = scale([none], "shared").heat
    (drawn,) = tiles.draw_overlays(white(20, 30), none, heat, CLASSES, Style())
    assert (drawn.has_evidence, drawn.box) == (False, None)
    panel = tiles.panel(white(20, 30), none, [drawn], CLASSES)
    titled = tiles.titled(drawn.image, "CAM", "dog: no evidence")
    assert np.array_equal(panel.image[-titled.shape[0] :, -titled.shape[1] :], titled)


@pytest.mark.parametrize("size", [(1, 1), (1, 65_500), (65_500, 1), (2, 5000)])
def test_tiles_of_any_shape_have_room_for_their_titles(size):
    tile = tiles.titled(white(*size), "Grad-CAM", "golden retriever")
    assert tile.shape[1] >= text.text_width("golden retriever")
    assert tile.shape[0] <= tiles.TILE_HEIGHT + 2 * text.line_height()


@pytest.mark.parametrize(
    ("legend", "said"),
    [
        (Legend("t", LAYERS, Style("per_image")), "Evidence for the class, each map divided by its own maximum"),
        (
            Legend("t", LAYERS, Style("raw"), {"cam": 12.34, "layer_cam": 0.00123}, counterfactual=True),
            "Evidence against the class in units of its score: 0 to 12.3 (CAM), 0 to 0.00123 (LayerCAM)",
        ),
        (Legend("t", LAYERS, Style()), "Box around the largest region above 20 % (CAM) or 15 % (LayerCAM) of the map's maximum"),
        (Legend("t", LAYERS, Style()), "CAM at fc; LayerCAM at the mean of a and b"),
        (Legend("t", LAYERS, Style(), is_cut=True), "Not seen by the network, which reads the square in the middle"),
    ],
)  # fmt: skip
def test_legends_say_what_is_drawn(legend, said):
    drawn, words = sheets.draw_legend(legend, 2000), text.line(said, text.text_width(said))
    height, width, _ = words.shape
    left = drawn.shape[1] - (2000 - sheets._ICON_COLUMN)
    rows = [drawn[y : y + height, left : left + width] for y in range(drawn.shape[0] - height + 1)]
    assert any(np.array_equal(row, words) for row in rows)


# ---- scales


@pytest.mark.parametrize("mode", ["per_image", "shared", "raw"])
def test_scales_are_those_of_the_maps(mode):
    results = [result(k, classes=(1, 0)) for k in range(3)]
    scaled = scale(results, mode)
    for method in LAYERS:
        layers = [torch.cat([one.maps[method][i] for one in results]) for i in range(len(LAYERS[method]))]
        fused = maps.fuse(layers, mode)
        expected = maps.normalize(fused, "shared" if mode == "raw" else mode)
        heat = np.concatenate([own[method] for own in scaled.heat])
        np.testing.assert_array_equal(heat, expected)
        assert heat.max() == 1
        assert scaled.peaks[method] == pytest.approx(float(fused.max()))
    if mode == "per_image":
        alone = [scale([one], mode).heat[0] for one in results]
        for own, other in zip(alone, scaled.heat, strict=True):
            assert all(np.array_equal(own[method], other[method]) for method in LAYERS)


# ---- the file of raw maps


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_maps_come_back(tmp_path, dtype):
    results = [result(k, label=k, classes=(1, 0), name="é \udcff") for k in range(3)]
    results[0].maps["cam"][0][0, 0, 0] = 1e30  # more than float16 holds
    write_maps(tmp_path / "maps.npz", results, CLASSES, LAYERS, Path("..", "pictures"), dtype, epoch=4)
    read = read_maps(tmp_path / "maps.npz")
    assert os.listdir(tmp_path) == ["maps.npz"], "no temporary file may be left"
    assert read.files == ["00.png", "01.png", "02.png"]
    assert read.folder == tmp_path.parent / "pictures"
    assert read.names == ["é \udcff"] * 3
    assert read.sizes.tolist() == [[30, 20]] * 3
    assert read.visible.tolist() == [[5, 0, 25, 20]] * 3
    assert (read.class_names, read.layers, read.epoch) == (list(CLASSES), LAYERS, 4)
    assert (read.class_idx.tolist(), read.labels.tolist()) == ([[1, 0]] * 3, [0, 1, 2])
    np.testing.assert_allclose(read.probabilities, [[0.2, 0.5, 0.3]] * 3, rtol=1e-6)
    for method, layers in read.maps.items():
        for i, part in enumerate(layers):
            assert part.dtype == dtype
            expected = torch.stack([one.maps[method][i] for one in results]).clamp(max=float(np.finfo(dtype).max))
            np.testing.assert_allclose(part, expected, rtol=1e-3)
    assert read.cam_of_all_classes.shape == (3, 3, 4, 4)


def test_what_is_not_known_is_left_out(tmp_path):
    one = result()
    one = PictureResult(one.source, one.class_idx, one.probabilities, one.maps)
    write_maps(tmp_path / "maps.npz", [one], CLASSES, LAYERS, tmp_path)
    read = read_maps(tmp_path / "maps.npz")
    assert (read.labels, read.epoch, read.cam_of_all_classes, read.folder) == (None, None, None, tmp_path)
    assert {"labels", "epoch", "cam_of_all_classes"}.isdisjoint(np.load(tmp_path / "maps.npz"))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "maps.npz"
    write_maps(path, [result()], CLASSES, LAYERS, tmp_path)
    whole = path.read_bytes()
    np.savez_compressed(path, format="camlab-maps 2")
    with pytest.raises(UserError, match=f"has the format camlab-maps 2; this version of camlab reads {FORMAT}"):
        read_maps(path)
    for content in (b"", b"text", whole[: len(whole) // 2], whole.replace(b"class_names", b"class_nemes")):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a file of raw maps"):
            read_maps(path)
    np.savez_compressed(path, cam=np.zeros(3))
    with pytest.raises(UserError, match="is not a file of raw maps"):
        read_maps(path)
    with pytest.raises(FileNotFoundError):
        read_maps(tmp_path / "none.npz")


def test_a_reader_never_finds_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "maps.npz"
    write_maps(path, [result()], CLASSES, LAYERS, tmp_path, epoch=1)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_maps(path, [result()], CLASSES, LAYERS, tmp_path, epoch=2)
    assert read_maps(path).epoch == 1


# ---- names of overlays


def test_overlay_names_are_short_and_unique():
    for stem in ("𝒳" * 60, "é" * 200, "a" * 250, "\udcff" * 100):
        names = {
            overlay_name(n, stem, m, r, "魚" * 200)
            for n in (0, 123_456)
            for m in ("cam", "grad_cam_plus_plus")
            for r in (0, 99)
        }
        assert len(names) == 8
        assert max(len(os.fsencode(name)) for name in names) <= 143


def test_tiles_of_each_class_stand_in_lines_of_their_own_where_one_line_is_too_short():
    one = result()
    overlays = [
        tiles.Overlay(method, rank, CLASSES[rank], white(20, 30), None, True)
        for rank in range(2)
        for method in ("cam", "grad_cam", "layer_cam", "hires_cam")
    ]
    few = tiles.panel(white(20, 30), one, overlays[:1], CLASSES)
    one_class = tiles.panel(white(20, 30), one, overlays[:4], CLASSES)
    both = tiles.panel(white(20, 30), one, overlays, CLASSES)
    assert few.image.shape[0] == one_class.image.shape[0], "one line"
    assert both.tiles.shape[1] == one_class.tiles.shape[1], "the second class below the first"
    assert both.tiles.shape[0] > 1.8 * one_class.tiles.shape[0]


@pytest.mark.parametrize(
    ("size", "visible", "rows", "columns"),
    [
        ((300, 100), (0, 0, 300, 100), slice(0, 100), slice(0, 300)),
        ((2000, 60), (970, 0, 1030, 60), slice(0, 60), slice(910, 1090)),
        ((40, 900), (0, 430, 40, 470), slice(390, 510), slice(0, 40)),
        ((900, 40), (0, 0, 40, 40), slice(0, 40), slice(0, 120)),
        ((900, 40), (0, 0, 900, 40), slice(0, 40), slice(0, 900)),
    ],
)
def test_of_a_long_picture_the_part_around_what_is_seen_is_shown(size, visible, rows, columns):
    source = Source(Path("a.png"), "a", 0, size, visible)
    assert tiles._window(source) == (rows, columns)


def test_letters_that_the_font_lacks_are_told_once(caplog, monkeypatch):
    monkeypatch.setattr(text, "_has_warned", False)
    for words in ("Großer Fisch, Ζωή", "犬の写真", "猫の写真"):
        text.line.__wrapped__(words, 200)
    assert [record.getMessage() for record in caplog.records] == [
        "Pictures show empty boxes for letters that their font lacks, as in: 犬の写真"
    ]
