"""Colours, overlays, boxes and thumbnails, compared with values derived by hand."""

import cv2
import matplotlib
import numpy as np
import pytest
import torch

from camlab import maps
from camlab.drawing import render
from camlab.drawing.colormaps import COLORMAPS

BLUE, GREEN, RED = [0, 0, 128], [126, 255, 130], [128, 0, 0]  # OpenCV's JET at 0, 127 and 255, as RGB


def test_a_picture_is_written_to_a_path_given_as_text(tmp_path):
    render.write_image(f"{tmp_path}/x.png", np.zeros((2, 3, 3), np.uint8))
    assert (tmp_path / "x.png").is_file()


def test_jet_by_hand():
    heat = np.array([[0.0, 1.0], [127 / 255, 0.0]])
    assert render.colorize(heat).tolist() == [[BLUE, RED], [GREEN, BLUE]]


def test_heat_outside_the_range_is_clipped_not_wrapped():
    assert render.colorize(np.array([[1.5, -0.5]])).tolist() == [[RED, BLUE]]


def test_overlay_by_hand():
    image = np.array([[[255, 255, 255], [0, 0, 0]], [[100, 100, 100], [10, 20, 30]]], np.uint8)
    heat = np.array([[1.0, 1.0], [0.0, 0.0]])
    # half of the image plus half of the JET colour; OpenCV rounds halves to the nearest even number
    assert render.overlay(image, heat).tolist() == [[[192, 128, 128], [64, 0, 0]], [[50, 50, 114], [5, 10, 79]]]
    assert np.array_equal(render.overlay(image, heat, alpha=0.0), image)
    assert np.array_equal(render.overlay(image, heat, alpha=1.0), render.colorize(heat))


def test_a_fully_hot_map_is_red_whatever_the_image():
    for value in (0, 1, 255):
        image = np.full((4, 4, 3), value, np.uint8)
        red, green, blue = render.overlay(image, np.ones((4, 4)))[0, 0].astype(int)
        assert red > green
        assert red > blue


def test_a_batch_is_drawn_like_its_images():
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    heat = np.random.default_rng(1).random((3, 5, 7))
    one_by_one = np.stack([render.overlay(i, h) for i, h in zip(images, heat, strict=True)])
    assert np.array_equal(render.overlay(images, heat), one_by_one)


def test_overlay_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="size"):
        render.overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="uint8"):
        render.overlay(np.zeros((4, 4, 3)), np.zeros((4, 4)))


def test_enlarge_repeats_pixels():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = render.enlarge(image, 5)
    assert large.shape == (6, 6, 3)
    assert np.array_equal(large[::3, ::3], image)
    assert render.enlarge(image, 2) is not None
    assert render.enlarge(image, 1).shape == image.shape


def test_files_hold_rgb_whatever_their_names(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    folder = tmp_path / "a b=c, é"
    folder.mkdir()
    render.write_image(folder / "sheet.png", image)
    read = cv2.imdecode(np.fromfile(folder / "sheet.png", np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(read, image), "channels must be written and read in the same order"


@pytest.mark.parametrize("name", COLORMAPS)
def test_colour_tables_are_those_of_matplotlib(name):
    table = render.colorize(np.linspace(0, 1, 256, dtype=np.float32)[None], name)[0].astype(int)
    assert len(np.unique(table, axis=0)) > 200
    if name in ("viridis", "cividis", "magma", "inferno", "plasma"):
        expected = matplotlib.colormaps[name](np.arange(256))[:, :3] * 255
        assert np.abs(table - expected).max() <= 2
        light = table @ [0.299, 0.587, 0.114]
        assert (np.diff(light) > -1).all(), "in grey print, too, lighter must mean hotter"


def test_an_unknown_colour_table():
    with pytest.raises(ValueError, match="choose from jet, viridis"):
        render.colorize(np.zeros((1, 1)), "rainbow")


def test_the_unseen_is_grey_and_light():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    faded = render.fade(image)
    assert (np.ptp(faded, axis=2) == 0).all()
    assert faded.min() >= 165
    assert np.corrcoef(faded[..., 0].ravel(), (image @ [0.299, 0.587, 0.114]).ravel())[0, 1] > 0.99


def test_the_largest_region_is_boxed_by_hand():
    heat = np.zeros((6, 8))
    heat[0, 7] = 1.0  # the maximum, alone
    heat[2:5, 1:3] = 0.18  # the largest region above 15 %
    heat[5, 3] = 0.16  # belongs to that region, which it touches at a corner
    heat[1, 5:7] = 0.5  # touches the maximum's corner: the largest region above 20 %
    assert render.largest_box(heat, 0.15) == (1, 2, 4, 6)
    assert render.largest_box(heat, 0.20) == (5, 0, 8, 2)
    assert render.largest_box(heat, 0.6) == (7, 0, 8, 1)
    assert render.largest_box(100 * heat, 0.2) == render.largest_box(heat, 0.2), "a share of the maximum"


def counted_box(heat: np.ndarray, share: float) -> list[tuple[int, int, int, int]]:
    """The boxes of the largest regions, found by counting every pixel."""
    hot = (heat > share * heat.max()).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    most = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    return [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area == most]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (7, 5), (16, 16), (40, 60)])
def test_the_largest_region_is_the_one_with_most_pixels(shape):
    generator = np.random.default_rng(0)
    for share in np.linspace(0.05, 0.95, 200):  # in noise: nested regions, single pixels, one large region
        heat = generator.random(shape)
        assert render.largest_box(heat, share) in counted_box(heat, share)


def test_a_ring_counts_without_its_hole():
    heat = np.zeros((20, 30))
    heat[2:12, 2:12] = 1
    heat[3:11, 3:11] = 0  # 36 pixels are left
    heat[6, 6] = 1  # a region in the hole
    heat[4:11, 20:26] = 1  # 42 pixels
    assert render.largest_box(heat, 0.2) == (20, 4, 26, 11)
    heat[4:11, 20] = 0  # 35
    assert render.largest_box(heat, 0.2) == (2, 2, 12, 12)


@pytest.mark.parametrize(("coarse", "size"), [((13, 13), (375, 500)), ((2, 7), (9, 64)), ((14, 14), (224, 224))])
def test_a_map_is_resized_as_the_product_does_it_on_tensors(coarse, size):
    heat = torch.rand(coarse, generator=torch.Generator().manual_seed(0))
    expected = maps.upsample(heat[None], size)[0].numpy()
    np.testing.assert_allclose(render.resize(heat.numpy(), size), expected, atol=1e-6)


def test_boxes_at_the_limits():
    assert render.largest_box(np.zeros((3, 3)), 0.2) is None
    assert render.largest_box(np.ones((3, 5)), 0.2) == (0, 0, 5, 3)
    assert render.largest_box(np.array([[0.2, 1.0]]), 0.2) == (1, 0, 2, 1), "a cell at the threshold is outside"
    assert render.largest_box(np.ones((3, 5), np.float32), 1.0) is None


def test_a_box_is_drawn_on_a_copy_white_with_black_edges():
    image = np.full((30, 40, 3), 100, np.uint8)
    drawn = render.draw_box(image, (10, 5, 30, 25))
    assert (image == 100).all()
    white = np.argwhere((drawn == 255).all(axis=2))
    assert (white.min(axis=0).tolist(), white.max(axis=0).tolist()) == ([5, 10], [24, 29])
    assert len(white) == 2 * (20 + 18)
    assert (drawn[[4, 25], 10:30] == 0).all(), "black outside the white line"
    assert (drawn[7:23, [11, 28]] == 0).all(), "black inside the white line"
    assert (drawn[8:22, 13:27] == 100).all()
    assert (drawn[:, :7] == 100).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (400, 2), (600, 900)])
def test_a_box_around_everything_can_be_drawn(height, width):
    drawn = render.draw_box(np.zeros((height, width, 3), np.uint8), (0, 0, width, height))
    assert drawn.shape == (height, width, 3)
    assert (drawn[0] == 255).all()
    assert (drawn[-1] == 255).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((37, 91), (182, 448)),
        ((448, 224), (224, 112)),
        ((224, 300), (224, 300)),
        ((1, 1), (224, 224)),
        ((2000, 3), (224, 1)),
        ((100, 400), (112, 448)),
        ((2, 500), (2, 448)),
        ((40, 5000), (4, 448)),
    ],
)
def test_thumbnails_keep_the_shape(size, expected):
    small = render.thumbnail(np.full((*size, 3), 9, np.uint8), 224)
    assert small.shape == (*expected, 3)
    assert (small == 9).all(), "a thumbnail must have no border"


def test_a_thumbnail_of_a_tiny_picture_shows_its_pixels():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    assert np.array_equal(render.thumbnail(image, 6), image.repeat(3, axis=0).repeat(3, axis=1))
