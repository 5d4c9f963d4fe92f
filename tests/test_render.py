"""Pictures: hand-derived colours, nothing stretched, nothing wrapped."""

import cv2
import numpy as np
import pytest

from camlab import render

BLUE, GREEN, RED = [0, 0, 128], [126, 255, 130], [128, 0, 0]  # OpenCV's JET at 0, 127 and 255, as RGB


def test_jet_by_hand():
    heat = np.array([[0.0, 1.0], [127 / 255, 0.0]])
    assert render.colorize(heat).tolist() == [[BLUE, RED], [GREEN, BLUE]]


def test_heat_outside_the_range_is_clipped_not_wrapped():
    assert render.colorize(np.array([[1.5, -0.5]])).tolist() == [[RED, BLUE]]


def test_overlay_by_hand():
    image = np.array([[[255, 255, 255], [0, 0, 0]], [[100, 100, 100], [10, 20, 30]]], np.uint8)
    heat = np.array([[1.0, 1.0], [0.0, 0.0]])
    # halves of image and JET, to the nearest even where a half remains, as OpenCV rounds
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


def test_panels_and_sheets(tmp_path):
    tile = np.full((32, 32, 3), 7, np.uint8)
    small = render.panel([("image", tile), ("CAM", tile)], "true cat, predicted dog 53 %")
    large = render.panel([("image", tile)] * 3, "é ☃")
    assert small.dtype == np.uint8
    assert (small == 7).all(axis=2).sum() == 2 * 160 * 160, "both tiles, five times as large, unharmed"
    sheet = render.contact_sheet([small, large, small], columns=2)
    assert sheet.shape[1] >= 2 * large.shape[1]
    folder = tmp_path / "a b=c, é"
    folder.mkdir()
    render.write_image(folder / "sheet.png", sheet)
    read = cv2.imdecode(np.fromfile(folder / "sheet.png", np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(read, sheet), "RGB comes back as RGB"
