"""Data set of synthetic shapes, with masks of the objects."""

from typing import Any

import torch

from camlab.data.image_set import ImageSet
from camlab.data.module import ImageData
from camlab.data.shape_drawing import CLASS_NAMES, draw_shapes


class Shapes(ImageData):
    """Generated pictures of simple objects on textured backgrounds, 32×32 RGB, in ten classes, with masks.

    Args:
        train_size: Number of training images, including those that are held out for validation.
        test_size: Number of test images.
        draw_seed: Random seed of the images.
        **options: Options of `ImageData`.
    """

    def __init__(self, train_size: int = 6500, test_size: int = 1000, draw_seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.train_size = train_size
        self.test_size = test_size
        self.draw_seed = draw_seed

    def load(self) -> tuple[ImageSet, ImageSet]:
        return self._draw(self.train_size, 2 * self.draw_seed), self._draw(self.test_size, 2 * self.draw_seed + 1)

    def _draw(self, n: int, seed: int) -> ImageSet:
        images, labels, masks = draw_shapes(n, seed)
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), CLASS_NAMES, torch.from_numpy(masks))
