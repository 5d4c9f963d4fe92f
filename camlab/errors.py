"""Errors shown to the user without a traceback, and the suggestions in their messages."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input. The message names what is wrong and the way out."""


class Interrupted(BaseException):
    """A signal stopped a run that can be resumed. The exit code is 128 plus the signal's number."""

    def __init__(self, signal_number: int, message: str = "Interrupted.") -> None:
        super().__init__(signal_number, message)
        self.signal_number, self.message = signal_number, message


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a mistyped one most resembles; None if it resembles none.

    Examples:
        >>> nearest("alexnt", ["alexnet", "vgg13"])
        'alexnet'
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`Did you mean …? `, or an empty text if no known word is near.

    Examples:
        >>> did_you_mean("alexnt", ["alexnet", "vgg13"], "arch=")
        'Did you mean arch=alexnet? '
    """
    near = nearest(word, known)
    return f"Did you mean {prefix}{near}? " if near else ""
