"""The generated shapes are reproducible and balanced, and only the outline of an object reveals its class."""

import numpy as np
import pytest

from camlab.data.shape_drawing import CLASS_NAMES, SHAPES, draw_shapes

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return draw_shapes(2000, seed=0)


def test_types_and_sizes(drawn: Drawn) -> None:
    images, labels, masks = drawn
    assert (images.shape, images.dtype) == ((2000, 3, 32, 32), np.uint8)
    assert (labels.shape, labels.dtype) == ((2000,), np.int64)
    assert (masks.shape, masks.dtype) == ((2000, 32, 32), np.bool_)
    assert len(CLASS_NAMES) == 10


def test_the_seed_decides() -> None:
    first, again, other = draw_shapes(50, 3), draw_shapes(50, 3), draw_shapes(50, 4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("n", [1, 7, 25])
def test_classes_are_balanced_and_shuffled(n: int, drawn: Drawn) -> None:
    counts = np.bincount(draw_shapes(n, 0)[1], minlength=10)
    assert counts.sum() == n
    assert np.ptp(counts) <= 1
    labels = drawn[1]
    assert (np.bincount(labels) == 200).all()
    assert not np.array_equal(labels[:10], np.arange(10))


def test_objects_are_small_and_inside(drawn: Drawn) -> None:
    masks = drawn[2]
    assert 0.05 < masks.mean() <= 0.12
    area = masks.sum(axis=(1, 2))
    assert area.min() >= 15  # pixels
    assert area.max() < 0.3 * 32 * 32


@pytest.mark.parametrize("shape", SHAPES.values(), ids=CLASS_NAMES)
def test_outlines_stay_within_the_margin(shape) -> None:
    """No part of an outline is farther than 1.2 units from the centre; the placement of objects relies on this."""
    x, y = np.meshgrid(*[np.linspace(-1.5, 1.5, 121)] * 2)
    assert (shape(x, y)[np.hypot(x, y) > 1.2] > 0).all()
    assert (shape(x, y) < 0).any()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=CLASS_NAMES)
def test_edges_are_soft(shape) -> None:
    """The slope of the distance at the outline is about one, so that the anti-aliased edge is about a pixel wide."""
    step = 3 / 240
    x, y = np.meshgrid(*[np.linspace(-1.5, 1.5, 241)] * 2)
    distance = shape(x, y)
    slope = np.hypot(*np.gradient(distance, step))[np.abs(distance) < 0.1]
    assert 0.6 < np.median(slope) < 1.7
    assert slope.max() < 3


def test_positions_are_spread_evenly(drawn: Drawn) -> None:
    masks = drawn[2]
    pixel = np.arange(32) + 0.5
    area = masks.sum(axis=(1, 2))
    for axis in (1, 2):
        centre = (masks.sum(axis=axis) @ pixel) / area
        assert abs(centre.mean() - 16) < 0.5
        assert centre.std() > 4.5
        assert centre.min() < 8
        assert centre.max() > 24


def test_colours_do_not_tell_the_class(drawn: Drawn) -> None:
    images, labels, masks = drawn
    for where in (masks, ~masks):
        colour = (images * where[:, None]).sum(axis=(2, 3)) / where.sum(axis=(1, 2))[:, None]  # N×3
        means = np.stack([colour[labels == k].mean(axis=0) for k in range(10)])
        error = colour.std(axis=0) / np.sqrt(200)  # standard error of a class's mean
        assert (np.abs(means - colour.mean(axis=0)) < 4.5 * error).all()


def test_objects_stand_out(drawn: Drawn) -> None:
    images, _, masks = drawn
    inside, outside = (
        (images * where[:, None]).sum(axis=(2, 3)) / where.sum(axis=(1, 2))[:, None] for where in (masks, ~masks)
    )
    assert np.linalg.norm(inside - outside, axis=1).min() > 30  # grey levels
