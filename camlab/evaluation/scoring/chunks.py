"""Chunks of pictures that are scored together, with what all methods share: input, classes, masks, unchanged passes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.network_input import network_dtype
from camlab.evaluation.scoring.picture_set import PictureSet
from camlab.models.preprocess import Preprocess
from camlab.scores import Passes
from camlab.scores.boxes import mask_boxes

_KEPT_BYTES = 1 << 30  # of prepared pictures: if all of them take less, each is prepared only once


@dataclass(frozen=True)
class Chunk:
    """Pictures that are scored together.

    Attributes:
        passes: The network with its input; the class is the predicted one.
        true: The true classes, or the predicted ones where they are unknown, N.
        runner_up: The class with the highest score besides the true one, N; None if there is one logit.
        masks: Masks, bool, N×H×W; None if no picture has one.
        boxes: Boxes of the objects, N×B×4; None if there are no masks.
    """

    passes: Passes
    true: Tensor
    runner_up: Tensor | None
    masks: Tensor | None
    boxes: Tensor | None

    @property
    def classes(self) -> Tensor:
        """The true class and the runner-up, N×R: wherever the prediction is wrong, the runner-up is what it says."""
        return self.true[:, None] if self.runner_up is None else torch.stack([self.true, self.runner_up], dim=1)


class Chunks:
    """The pictures in chunks; each is prepared when it is needed.

    Args:
        network: The network, in eval mode, on `device`.
        pictures: The pictures.
        preprocess: Preparation of the network's input.
        batch_size: Number of pictures in a chunk, and in a pass.
        seed: Seed of ties and noise.
        device: Device of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        pictures: PictureSet,
        preprocess: Preprocess,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.network, self.pictures, self.device = network, pictures, device
        self.batch_size, self.seed = batch_size, seed
        self._preprocess = preprocess
        each = 3 * preprocess.image_size**2 * 4 * 3  # bytes of a picture, and of what two imputers fill it with
        keeps_all = len(pictures) * each < _KEPT_BYTES
        self.get: Callable[[range], Chunk] = functools.lru_cache(None if keeps_all else 1)(self._make)

    def __iter__(self) -> Iterator[range]:
        for start in range(0, len(self.pictures), self.batch_size):
            yield range(start, min(start + self.batch_size, len(self.pictures)))

    def images(self, which: Sequence[int]) -> Tensor:
        """The network's input for some of the pictures, in the network's own number format."""
        squares = self.pictures.images[list(which)].to(self.device)
        return self._preprocess(squares).to(network_dtype(self.network))

    def _make(self, which: range) -> Chunk:
        rows, of = list(which), self.pictures
        numbers = of.numbers[rows].to(self.device)
        passes = Passes(self.network, self.images(rows), seed=self.seed, numbers=numbers, batch_size=self.batch_size)
        true = passes.class_idx if of.labels is None else of.labels[rows].to(self.device)
        others = passes.logits.scatter(1, true[:, None], -torch.inf)
        masks = None if of.masks is None else of.masks[rows].to(self.device)
        boxes = None if masks is None else mask_boxes(masks)[:, None]
        boxes = boxes if of.boxes is None else of.boxes[rows].to(self.device)
        return Chunk(passes, true, others.argmax(dim=1) if others.shape[1] > 1 else None, masks, boxes)
