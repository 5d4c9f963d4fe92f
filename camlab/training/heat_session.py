"""The scoring of one training's heatmaps: the images, the figures that are logged, and what is told."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from camlab.errors import UserError
from camlab.runs.watchers import HEAT
from camlab.scores import pointing_game_chance, score_of
from camlab.training.failures import Failures
from camlab.training.heat_history import HeatHistory
from camlab.training.heat_values import HeatScorer, HeatValues

log = logging.getLogger(__name__)


class HeatSession:
    """Scores the same images again and again, and knows what has been told about them.

    Args:
        scorer: Scores the maps of the images.
        names: Names of the scores; those that cannot be had are told and left out.
        failures: Tells what fails.
        state: What a checkpoint holds of the same training; None if it starts from the beginning.

    Attributes:
        names: Names of the scores that can be had.
        history: What the next scoring is compared with.

    Raises:
        UserError: The network cannot take the images.
    """

    def __init__(
        self, scorer: HeatScorer, names: Sequence[str], failures: Failures, state: Mapping[str, Any] | None = None
    ) -> None:
        self.scorer, self._failures = scorer, failures
        reasons = scorer.left_out(names)
        self.names = tuple(name for name in names if name not in reasons)
        self.history, self._identity = HeatHistory(), _identity(scorer)
        self._found: HeatValues | None = None
        if state is not None:
            failures.succeeds(lambda: self._restore(state), "Scores of heatmaps in the checkpoint are not used")
        else:
            _tell_left_out(reasons)

    def score(self, names: Sequence[str]) -> dict[str, float]:
        """Score the maps, and return what is to be logged: means by metric, and chance levels at their first time.

        Args:
            names: Names of scores, of which those are computed that can be had.

        Raises:
            UserError: The maps cannot be computed.
        """
        found = self.scorer.score([name for name in names if name in self.names], self.history.previous)
        for name, reason in found.failed.items():
            self._failures.tell(f"No {HEAT}{name}: {reason}; training continues.", f"{name}: {reason}")
        figures: dict[str, float] = {}
        for name, values in found.values.items():
            if values.isnan().all():
                if name != "drift":  # which has no value while all maps are of other classes than before
                    self._failures.tell(f"No {HEAT}{name}: no image has one; training continues.", f"{name}: none")
                continue
            figures[f"{HEAT}{name}"] = float(values.nanmean())
            if name not in self.history.named and (chance := self._chance(name, values)) is not None:
                figures[f"{HEAT}{name}_chance"] = chance
            self.history.named.add(name)
        self.history.previous = self._found = found
        return figures

    def compare(self, epochs_done: int, accuracy: float | None) -> None:
        """Tell which scores of the last scoring have fallen beyond the noise while the accuracy rose.

        Args:
            epochs_done: Epochs done.
            accuracy: Accuracy, 0 to 1; None if it is not known, so that nothing can be told.
        """
        found, self._found = self._found, None
        if found is not None and accuracy is not None:
            for fall in self.history.compare(found, epochs_done, accuracy):
                log.info("%s", fall)

    def accuracy(self) -> float | None:
        """Accuracy on the images of the last scoring, 0 to 1; None if their true classes are not known."""
        labels = self.scorer.images.labels
        if labels is None or self._found is None:
            return None
        return float((self._found.predicted == labels.cpu()).float().mean())

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.history.state(self._identity)

    def _restore(self, state: Mapping[str, Any]) -> None:
        try:
            self.history = HeatHistory.restored(state, self._identity)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError("they are damaged") from error

    def _chance(self, name: str, values: Tensor) -> float | None:
        """Chance level of a score, of the images that it could score."""
        if not callable(chance := score_of(name).chance):
            return chance
        assert self.scorer.images.masks is not None
        assert name == "pointing_game"
        of_images = pointing_game_chance(self.scorer.images.masks, self.scorer.tolerance).cpu()
        return float(of_images[~values.isnan()].mean())


def _identity(scorer: HeatScorer) -> str:
    """Hash of the images that are scored; their labels count, because they decide the classes of the maps."""
    digest = hashlib.sha256()
    for tensor in (scorer.images.inputs, scorer.images.labels):
        if tensor is not None:
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _tell_left_out(reasons: Mapping[str, str]) -> None:
    for reason in dict.fromkeys(reasons.values()):
        names = ", ".join(name for name, own in reasons.items() if own == reason)
        log.info("Not among the scores of heatmaps: %s (%s).", names, reason)
