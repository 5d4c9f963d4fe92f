"""Draw pictures of simple objects on textured backgrounds, and the masks of the objects, with NumPy only.

Each class is a function of coordinates (u, v) in the frame of the object: the signed distance to the outline, negative
inside. The object lies within 1.2 units of the origin. Size, position, rotation and colours have the same distribution
for all classes, so only the outline distinguishes the classes.
"""

from collections.abc import Callable

import numpy as np

SIDE = 32  # side length of a picture, in pixels
_SCALE = (4.8, 7.0)  # smallest and largest length of one unit, in pixels
_TURN = 0.4  # largest rotation in either direction, in radians
_CONTRAST = 75  # smallest difference in brightness between object and background, on a scale from 0 to 255

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.9


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.85) - 0.22


def _hourglass(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(0.72 * (np.abs(u) - 0.95 * np.abs(v)) - 0.08, np.abs(v) - 0.8)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    slanted = 0.866 * np.abs(u) + 0.5 * v
    return np.maximum(slanted, -v) - 0.6


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.maximum(long - 1.1, short - 0.3)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.7 * (np.hypot(u, v) - 0.8 - 0.4 * np.cos(5 * np.arctan2(v, u)))


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(u, v) - 1.05, 0.85 - np.hypot(u - 0.55, v))


def _bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u) - 1.15, np.abs(v) - 0.27)


def _chevron(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(0.7 * np.abs(v + np.abs(u) - 0.45) - 0.25, np.abs(u) - 0.85)


def _pair(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(np.abs(u) - 0.75, v) - 0.42


SHAPES: dict[str, Distance] = {
    "disc": _disc,
    "ring": _ring,
    "hourglass": _hourglass,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "bar": _bar,
    "chevron": _chevron,
    "pair": _pair,
}
CLASS_NAMES = tuple(SHAPES)


def draw_shapes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw n pictures with balanced classes in random order. The same n and seed give the same arrays.

    Returns:
        images: Pictures, uint8 RGB, n×3×32×32.
        labels: Indices into `CLASS_NAMES`, int64, n.
        masks: True where the object covers at least half of the pixel, bool, n×32×32.

    Example:
        >>> images, labels, masks = draw_shapes(10, seed=0)
        >>> images.shape, sorted(labels.tolist()), masks.shape
        ((10, 3, 32, 32), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], (10, 32, 32))
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(CLASS_NAMES))
    coverage = _coverage(labels, rng)
    ground, brightness = _grounds(n, rng)
    colour = _contrasting_colours(brightness, rng)
    blend = coverage[:, None] * colour + (1 - coverage[:, None]) * ground
    blend += 4 * rng.standard_normal(blend.shape, dtype=np.float32)
    images = np.clip(np.rint(blend), 0, 255).astype(np.uint8)
    return images, labels.astype(np.int64), coverage >= 0.5


def _coverage(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of each pixel that the object covers, from 0 to 1, n×32×32. No object touches the border."""
    n = len(labels)
    scale = _column(rng.uniform(*_SCALE, n))
    turn = _column(rng.uniform(-_TURN, _TURN, n))
    margin = 1.2 * scale + 0.5
    centre_y, centre_x = (margin + (SIDE - 2 * margin) * _column(rng.random(n)) for _ in range(2))
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5
    dy, dx = (y - centre_y) / scale, (x - centre_x) / scale
    u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    distance = np.empty((n, SIDE, SIDE), np.float32)
    for label, shape in enumerate(SHAPES.values()):
        own = labels == label
        distance[own] = shape(u[own], v[own])
    return np.clip(0.5 - distance * scale, 0, 1)


def _grounds(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Textured backgrounds, n×3×32×32 (a colour, patches of two sizes and stripes), and their brightness, n."""
    brightness = rng.uniform(45, 210, n)
    base = brightness[:, None] + rng.normal(0, 18, (n, 3))
    patches = _smooth(rng.normal(0, 14, (n, 3, 4, 4))) + _smooth(rng.normal(0, 9, (n, 3, 9, 9)))
    angle, pitch, phase, strength = (
        _column(rng.uniform(low, high, n)) for low, high in ((0, np.pi), (3, 9), (0, 2 * np.pi), (0, 16))
    )
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    stripes = strength * np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / pitch + phase)
    return base[..., None, None].astype(np.float32) + patches + stripes[:, None], brightness


def _contrasting_colours(brightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour for each object, clearly brighter or darker than its background, n×3×1×1."""
    n = len(brightness)
    step = rng.uniform(_CONTRAST, 130, n) * rng.choice([-1, 1], n)
    step = np.where((brightness + step > 250) | (brightness + step < 5), -step, step)
    tint = rng.normal(0, 30, (n, 3))
    tint -= tint.mean(axis=1, keepdims=True)
    return ((brightness + step)[:, None] + tint)[..., None, None].astype(np.float32)


def _smooth(grid: np.ndarray) -> np.ndarray:
    """Interpolate values, …×g×g, bilinearly to the size of a picture, …×32×32."""
    places, knots = np.linspace(0, grid.shape[-1] - 1, SIDE), np.arange(grid.shape[-1])
    weights = np.maximum(0, 1 - np.abs(places[:, None] - knots)).astype(np.float32)
    return weights @ grid.astype(np.float32) @ weights.T


def _column(values: np.ndarray) -> np.ndarray:
    """Reshape one value per picture, n, to n×1×1, so that it applies to all pixels."""
    return values.astype(np.float32)[:, None, None]
