"""The share of an epoch's time that scoring heatmaps takes; too much is told once, with the way to score less."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from camlab.models.devices import settled_time

log = logging.getLogger(__name__)

MOST = 0.05  # of the rest of an epoch
_WORTH_SAVING = 0.5  # seconds an epoch


class ScoringTime:
    """Measures the time of scoring beside that of epochs. What is scored does not depend on it.

    Example:
        >>> time = ScoringTime()
        >>> time.begin_epoch(torch.device("cpu"))
        >>> with time.spent(torch.device("cpu")):
        ...     pass
        >>> time.end_epoch(torch.device("cpu"), "every_n_epochs=2")
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._seconds = 0.0
        self._is_told = False

    def begin_epoch(self, device: torch.device) -> None:
        """Begin to measure an epoch."""
        self._began, self._seconds = settled_time(device), 0.0

    @contextmanager
    def spent(self, device: torch.device, is_usual: bool = True) -> Iterator[None]:
        """Count the time of a block as scoring or, if not every epoch has it (`is_usual` false), not at all."""
        began = settled_time(device)
        yield
        seconds = settled_time(device) - began
        if is_usual:
            self._seconds += seconds
        elif self._began is not None:
            self._began += seconds

    def end_epoch(self, device: torch.device, ways_out: str) -> None:
        """Tell, once, that scoring has taken too much of the epoch that ends; `ways_out` says how to score less."""
        if self._began is None or self._is_told:
            return
        others = settled_time(device) - self._began - self._seconds
        if self._seconds > MOST * others:
            self._is_told = True
            share = 100 * self._seconds / max(others, 1e-9)
            advice = f" To score less: {ways_out}." if self._seconds >= _WORTH_SAVING else ""
            spent = f"{self._seconds:.1f} s" if self._seconds >= 0.1 else f"{1000 * self._seconds:.0f} ms"
            log.info("Scoring heatmaps adds %.0f %% (%s) to an epoch.%s", share, spent, advice)
