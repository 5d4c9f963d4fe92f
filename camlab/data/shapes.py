"""The drawn set: one simple object per picture, on a textured ground, with the mask of where it is.

An object is a signed distance d(x, y), negative inside, in a frame where the object fills the unit circle. Its pixels are
anti-aliased from d, and its mask is what it covers at least half. Position, size, turn, colour and ground are drawn
without regard to the class: only the outline tells it.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

SIDE = 32  # pixels
RADIUS = (5.5, 8.0)  # of the circle around an object, in pixels
TURN = np.pi / 6  # most that an object is turned either way
GROUND_LEVELS = (0, 130)  # of each colour channel: objects are lighter than their grounds, in any hue
OBJECT_LEVELS = (90, 255)
RELIEF = 0.6  # how far the ground's second colour is from its first, as a share of the way to a random one
GRAIN = 5.0  # standard deviation of the noise on every pixel, in grey levels
COLOURS_TRIED = 4  # for an object; the one farthest from its ground is taken

SignedDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.8


def ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.73) - 0.23


def crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 0.97, 0.75 - np.hypot(x - 0.45, y))


def heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two discs on a square that stands on its corner; exact (Quilez, "2D distance functions")."""
    x, y = np.abs(x) / 1.6, (0.9 - y) / 1.6  # there, one unit high with its tip at the origin
    lobe = np.hypot(x - 0.25, y - 0.75) - np.sqrt(2) / 4
    along = np.maximum(x + y, 0) / 2
    tip = np.minimum(np.hypot(x, y - 1), np.hypot(x - along, y - along)) * np.sign(x - y)
    return 1.6 * np.where(x + y > 1, lobe, tip)


def polygon(*corners: tuple[float, float]) -> SignedDistance:
    """The distance to the nearest edge; inside is where a ray crosses the outline an odd number of times."""

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        nearest = np.full_like(x, np.inf)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in pairwise((*corners, corners[0])):
            ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
            along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            np.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2, out=nearest)
            if ey:
                inside ^= ((y < ay) != (y < by)) & (px < py * (ex / ey))
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    return distance


def spokes(*radii: float) -> list[tuple[float, float]]:
    """Corners at equal angles around the centre, the first one straight up."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return [(r * float(np.sin(a)), -r * float(np.cos(a))) for r, a in zip(radii, angles, strict=True)]


SHAPES: dict[str, SignedDistance] = {
    "disc": disc,
    "ring": ring,
    "square": polygon((-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)),
    "triangle": polygon(*spokes(1, 1, 1)),
    "cross": polygon(
        *((-0.28, -0.94), (0.28, -0.94), (0.28, -0.28), (0.94, -0.28), (0.94, 0.28), (0.28, 0.28)),
        *((0.28, 0.94), (-0.28, 0.94), (-0.28, 0.28), (-0.94, 0.28), (-0.94, -0.28), (-0.28, -0.28)),
    ),
    "star": polygon(*spokes(*(1, 0.42) * 5)),
    "crescent": crescent,
    "arrow": polygon((0, -1), (0.75, -0.1), (0.26, -0.1), (0.26, 0.95), (-0.26, 0.95), (-0.26, -0.1), (-0.75, -0.1)),
    "heart": heart,
    "bar": polygon((-0.95, -0.28), (0.95, -0.28), (0.95, 0.28), (-0.95, 0.28)),
}
CLASS_NAMES: tuple[str, ...] = tuple(SHAPES)


def draw_shapes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw n pictures; the same n and seed give the same ones.

    Returns:
        Images, uint8 RGB, N×3×32×32; labels, int64, N, as balanced as n allows, in shuffled order; masks, bool,
        N×32×32, of the pixels that the object covers at least half.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(CLASS_NAMES))
    coverage = _draw_objects(labels, rng)
    ground, colour = _draw_grounds(n, rng)
    images = ground + coverage[:, None] * (colour[:, :, None, None] - ground)
    images += np.float32(GRAIN) * rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(np.rint(images), 0, 255).astype(np.uint8), labels, coverage >= 0.5


def _draw_objects(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel the object covers, in [0, 1], N×H×W; each object lies inside its picture."""
    n = len(labels)
    radius = rng.uniform(*RADIUS, n)
    centre = rng.uniform(radius, SIDE - radius, (2, n))
    turn = rng.uniform(-TURN, TURN, n)
    pixel = np.arange(SIDE) + 0.5
    coverage = np.empty((n, SIDE, SIDE), np.float32)
    for k, signed_distance in enumerate(SHAPES.values()):
        of_class = labels == k
        r, t = (v[of_class, None, None] for v in (radius, turn))
        dx = (pixel - centre[0, of_class, None])[:, None, :] / r  # (n, 1, W)
        dy = (pixel - centre[1, of_class, None])[:, :, None] / r  # (n, H, 1)
        x, y = dx * np.cos(t) + dy * np.sin(t), dy * np.cos(t) - dx * np.sin(t)  # (n, H, W)
        coverage[of_class] = np.clip(0.5 - signed_distance(x, y) * r, 0, 1)
    return coverage


def _draw_grounds(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Textures between two colours, in grey levels, N×3×H×W, and a colour that stands out from both, N×3."""
    u = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    texture = np.full((n, SIDE, SIDE), 0.5, np.float32)
    for cells, strength in ((2, 0.5), (4, 0.35), (8, 0.25)):  # smooth noise: octaves of interpolated random grids
        knots = np.arange(cells + 1) / cells
        weights = np.clip(1 - cells * np.abs(u[:, None] - knots), 0, 1).astype(np.float32)  # (H, cells + 1)
        grid = rng.uniform(-strength, strength, (n, cells + 1, cells + 1)).astype(np.float32)
        texture += weights @ grid @ weights.T
    angle, waves, phase = (rng.uniform(0, top, (n, 1, 1)) for top in (np.pi, 6, 2 * np.pi))
    strength = rng.uniform(0, 0.5, (n, 1, 1)) * (rng.random((n, 1, 1)) < 0.6)
    across = (u * np.cos(angle) + u[:, None] * np.sin(angle)).astype(np.float32)
    texture += (strength * np.sin(2 * np.pi * waves * across + phase)).astype(np.float32)

    first, other = rng.uniform(*GROUND_LEVELS, (2, n, 3))
    second = first + RELIEF * (other - first)
    tried = rng.uniform(*OBJECT_LEVELS, (COLOURS_TRIED, n, 3))
    contrast = np.minimum(*(np.linalg.norm(tried - ground, axis=-1) for ground in (first, second)))
    colour = tried[contrast.argmax(0), np.arange(n)]
    first, second, colour = (c.astype(np.float32) for c in (first, second, colour))
    ground = first[:, :, None, None] + np.clip(texture, 0, 1)[:, None] * (second - first)[:, :, None, None]
    return ground, colour
