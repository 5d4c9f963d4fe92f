"""Errors that are shown to the user in one or two lines, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input. The message says what is wrong and how to correct it."""


class Interrupted(BaseException):
    """A signal ended a run, which can be resumed. The exit code is 128 plus the signal's number.

    Attributes:
        signal_number: Number of the signal, e.g. 15 for SIGTERM.
        message: Text for the user.
    """

    def __init__(self, signal_number: int, message: str = "Interrupted.") -> None:
        super().__init__(signal_number, message)
        self.signal_number, self.message = signal_number, message


def first_line(error: BaseException) -> str:
    """First line of an error's message, or the name of its type if there is no message.

    Example:
        >>> first_line(ValueError("No such layer.")), first_line(KeyboardInterrupt())
        ('No such layer.', 'KeyboardInterrupt')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def did_you_mean(word: str, known: Iterable[str], prefix: str = "", most: int = 1) -> str:
    """Suggest known words that are spelled like a given word.

    Args:
        word: What the user wrote.
        known: Words that would have been right.
        prefix: Text put before each suggestion, e.g. `arch=`.
        most: Largest number of suggestions.

    Returns:
        A question with a space after it, or an empty text if no known word is similar.

    Example:
        >>> did_you_mean("alexnt", ["alexnet", "vgg16"], prefix="arch=")
        'Did you mean arch=alexnet? '
        >>> did_you_mean("vgg", ["alexnet", "vgg13", "vgg16"], most=2)
        'Did you mean vgg16 or vgg13? '
        >>> did_you_mean("zebra", ["alexnet", "vgg16"])
        ''
    """
    near = [prefix + match for match in difflib.get_close_matches(word, list(known), n=most)]
    if not near:
        return ""
    return f"Did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}? "
