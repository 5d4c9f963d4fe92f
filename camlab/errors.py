"""Errors that are shown to the user in one or two lines, without a traceback."""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_NOT_PLAIN = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: control, surrogate, line and paragraph separators


class UserError(ValueError):
    r"""A mistake in the user's input. The message says what is wrong and how to correct it.

    Args:
        *lines: One line of the message, or two. Names of files and other quoted text may contain any characters: in
            the message, each line is `plain` text.

    Example:
        >>> print(UserError("a\nb.png is not a file.", "Give another."))
        a\nb.png is not a file.
        Give another.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(map(plain, self.args))


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


def plain(text: str) -> str:
    r"""Convert text of any origin to one line that can be drawn, printed and written anywhere.

    Control characters, line ends, and the surrogates that stand for undecodable bytes become escapes.

    Example:
        >>> print(plain("a\tb"), plain("caf\udce9"))
        a\tb caf\udce9
    """
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in _NOT_PLAIN else c for c in text)


def plain_texts(value: Any) -> Any:
    r"""Copy nested dictionaries and lists, and convert every text in them with `plain`.

    Example:
        >>> plain_texts({"root": ["caf\udce9", 0.5]})
        {'root': ['caf\\udce9', 0.5]}
    """
    if isinstance(value, Mapping):
        return {key: plain_texts(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_texts(child) for child in value]
    return plain(value) if isinstance(value, str) else value


def cut(text: str, most: int = 40) -> str:
    """Shorten a text to at most `most` characters. The middle is left out, because names often differ at their ends.

    The result is `plain` text.

    Example:
        >>> cut("a very long name of a class", 11)
        'a ver…class'
    """
    whole = plain(text)
    if len(whole) <= most:
        return whole
    end = (most - 1) // 2
    return f"{whole[: most - 1 - end]}…{whole[len(whole) - end :]}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Join names for a message: the first `most` of them, each cut to a readable length.

    Example:
        >>> listed(("cat", "dog", "frog"), most=2)
        'cat, dog, … (3 in all)'
    """
    rest = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(cut, names[:most])) + rest


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
        >>> did_you_mean("vgg", ["vgg13", "vgg16", "vgg16"], most=2)  # a name that two libraries have
        'Did you mean vgg16 or vgg13? '
        >>> did_you_mean("zebra", ["alexnet", "vgg16"])
        ''
    """
    near = [prefix + match for match in difflib.get_close_matches(word, dict.fromkeys(known), n=most)]
    if not near:
        return ""
    return f"Did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}? "
