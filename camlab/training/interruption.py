"""Ctrl-C and SIGTERM while a run is under way: nothing is cut in two."""

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

from camlab.errors import Interrupted

log = logging.getLogger(__name__)


class Interruption:
    """A context in which SIGINT and SIGTERM raise `Interrupted`; in the middle of training only where it is safe.

    A second SIGINT leaves at once. Signals reach the main thread only; elsewhere nothing changes.

    Attributes:
        number: of the signal that came; None before.
        deferred: it is noted only; whoever set this looks at `number` and raises.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        return self

    def __exit__(self, *exception: object) -> None:
        self._install(self._before)

    def listen(self) -> None:
        """Take the signals, also from a library that took them in the meantime."""
        self._install(dict.fromkeys((signal.SIGINT, signal.SIGTERM), self._note))

    def _install(self, handlers: dict[int, Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            os._exit(128 + number)
        self.number = number
        if not self.deferred:
            raise Interrupted(number)
        log.info("Stopping at the next safe point; Ctrl-C once more leaves at once.")
