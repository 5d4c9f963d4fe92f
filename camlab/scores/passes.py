"""Passes of changed images through a network: the probability of one class per image, in batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from camlab.attribution.classes import choose, one_per_image
from camlab.attribution.classifier import Classifier, Output
from camlab.attribution.hooks import passing, unwrapped
from camlab.attribution.network_input import check_images, check_logits, check_model, check_values
from camlab.errors import UserError
from camlab.scores import noise
from camlab.scores.checked import check_whole
from camlab.scores.imputers import Fill, Imputer, imputer_of

Target = int | Tensor | Sequence[int] | None


class Passes:
    """A network and a batch of images, whose probabilities are computed once for any number of maps and scores.

    The network is in eval mode while it runs, without gradients and compiled graphs; it and the states of random number
    generators are left as they were found, also if several threads score the same network.

    Args:
        model: Any classifier that `camlab.heatmaps` takes.
        images: The network's input, N×C×H×W, on the network's device.
        target: The class: None for the predicted one, an index for all images, or one index per image.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.
        seed: Random seed of ties and of noise.
        numbers: Numbers of the images in their set, N: an image's random numbers depend on the seed and on its number
            alone, so that a set is scored alike in batches of any size. None stands for 0 to N - 1.
        batch_size: Number of images in a pass.

    Attributes:
        logits: The logits of the unchanged images, float32 N×M.
        class_idx: The class of each image, N.
        intact: Its probability for the unchanged images, N: a softmax, or a sigmoid if there is one logit.

    Raises:
        UserError: There are no images, the network cannot take them, or they or the logits are not finite; a class does
            not exist.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> Passes(network, torch.rand(5, 3, 8, 8), target=1).intact.shape
        torch.Size([5])
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        target: Target = None,
        output: Output | None = None,
        seed: int = 0,
        numbers: Tensor | None = None,
        batch_size: int = 64,
    ) -> None:
        check_model(model)
        check_images(images)
        check_values(images)
        check_whole(seed, "seed")
        check_whole(batch_size, "batch_size", least=1)
        if len(images) == 0:
            raise UserError("images: there are none to score.")
        self.images, self.seed, self.batch_size = images, seed, batch_size
        self.numbers = noise.image_numbers(len(images), numbers, images.device)
        self._classifier = Classifier(unwrapped(model), output)
        self._fills: dict[Imputer, Fill] = {}
        self._emptied: dict[Imputer, Tensor] = {}
        with self._running():
            logits = torch.cat([self._classifier.logits(some) for some in images.split(batch_size)]).float()
        check_logits(logits)
        self.logits = logits
        classes = None if target is None else one_per_image(target, images)
        self.class_idx = choose(logits, classes, 1)[:, 0]
        self.intact = _probabilities(logits, self.class_idx)

    @property
    def predicted(self) -> Tensor:
        """Predicted classes of the unchanged images, N; of one logit, 1 if it is positive and else 0."""
        return (self.logits[:, 0] > 0).long() if self.logits.shape[1] == 1 else self.logits.argmax(dim=1)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    def probabilities(self, rows_J: Tensor, changed: Callable[[Tensor], Tensor]) -> Tensor:
        """Probability of each image's class for changed images.

        Args:
            rows_J: Index of the image that each of J changed images comes from.
            changed: Function that makes changed images from their numbers in 0 to J - 1: b → b×C×H×W.

        Returns:
            One probability for each changed image, J.

        Raises:
            UserError: A logit is not finite.
        """
        parts = []
        with self._running():
            for jobs in torch.arange(len(rows_J), device=rows_J.device).split(self.batch_size):
                logits = self._classifier.logits(changed(jobs)).float()
                parts.append(_probabilities(logits, self.class_idx[rows_J[jobs]]))
        found = torch.cat(parts) if parts else self.intact[:0]
        check_logits(found[:, None])  # a probability is NaN if a logit is NaN or infinite
        return found

    def fill(self, imputer: str | Imputer) -> Fill:
        """Return the function that fills in removed pixels of these images; it is prepared once."""
        which = imputer_of(imputer)
        if which not in self._fills:
            with torch.no_grad():
                self._fills[which] = which(self.images, self.seed, self.numbers)
        return self._fills[which]

    def emptied(self, imputer: str | Imputer) -> Tensor:
        """Probability of each image's class when every pixel has been removed, N; it is computed once."""
        which = imputer_of(imputer)
        if which not in self._emptied:
            fill, rows = self.fill(which), torch.arange(len(self.images), device=self.images.device)

            def everything(jobs: Tensor) -> Tensor:
                return fill(jobs, torch.ones(len(jobs), *self.size, dtype=torch.bool, device=jobs.device))

            self._emptied[which] = self.probabilities(rows, everything)
        return self._emptied[which]

    @contextmanager
    def _running(self) -> Iterator[None]:
        with passing(self._classifier.network, self.images.device), torch.no_grad():
            yield


def _probabilities(logits_NM: Tensor, class_idx_N: Tensor) -> Tensor:
    if logits_NM.shape[1] == 1:
        return logits_NM[:, 0].sigmoid()
    return logits_NM.softmax(dim=1).gather(1, class_idx_N[:, None])[:, 0]
