"""What ends a run and is no bug: each is told in a line or two, never with a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input. The message names what is wrong and the way out."""


class Interrupted(BaseException):
    """A signal ended a run, which can go on from where it was; the exit code is 128 and the signal's number."""

    def __init__(self, signal_number: int, message: str = "Interrupted.") -> None:
        super().__init__(signal_number, message)
        self.signal_number, self.message = signal_number, message


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`Did you mean …? `, or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {prefix}{near[0]}? " if near else ""
