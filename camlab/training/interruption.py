"""Handle Ctrl-C and SIGTERM, so that a run ends at a safe point."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from camlab.errors import Interrupted

log = logging.getLogger(__name__)


class Interruption:
    """A context in which SIGINT and SIGTERM raise `Interrupted`, during training only at safe points.

    A second SIGINT ends the process at once. Signals reach the main thread only; in other threads the context does
    nothing.

    Attributes:
        number: Number of the signal that has arrived; None if none has.
        deferred: Whether a signal is only recorded. Code that sets this must check `number` and raise `Interrupted`.
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
        """Handle the signals, even if a library has installed its own handlers in the meantime."""
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
        again = " Press Ctrl-C again to end the process at once." if number == signal.SIGINT else ""
        log.info("Stopping at the next safe point.%s", again)


@contextmanager
def interruptible(where: str) -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM end a run with a line that says how to continue it.

    Args:
        where: What to add to the same command, such as ` with out=FOLDER`.

    Raises:
        Interrupted: A signal has ended the run.
    """
    try:
        with Interruption() as interruption:
            yield interruption
    except Interrupted as stop:
        raise Interrupted(stop.signal_number, f"Interrupted. To continue, give the same command{where}") from None
