"""Printing to standard streams that may be closed, full, no longer read, or not UTF-8. Imports nothing heavy."""

import io
import logging
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from camlab.errors import plain

_READER_LEFT = 141  # the exit code that a shell reports for SIGPIPE


class _Output(io.TextIOWrapper):
    """Standard output that remembers the first error in writing to it.

    Attributes:
        lost: The first error; None if there was none.
    """

    lost: OSError | None = None

    def write(self, text: str) -> int:
        return self._noting(super().write, text)

    def flush(self) -> None:
        self._noting(super().flush)

    def _noting(self, action: Any, *arguments: str) -> Any:
        try:
            return action(*arguments)
        except OSError as error:
            self.lost = self.lost or error
            raise


class PlainFormatter(logging.Formatter):
    """Formats log lines as plain text: names from foreign files can neither colour nor clear the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).expandtabs(4)  # Hydra begins its lines about jobs with one
        return "\n".join(map(plain, text.split("\n")))


def prepare_output() -> None:
    r"""Prepare the standard streams so that output problems can neither end a command nor damage its files.

    A stream that the caller has closed becomes the null device, so that no file opened later gets its descriptor. A
    character that the stream's encoding lacks is printed as an escape such as `\xd7`. Log lines that cannot be written
    are left out.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # os.open returns the lowest free number
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115  (open as long as the process runs)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = _Output(open(os.devnull, "wb"), "utf-8")  # noqa: SIM115
    elif sys.stdout is sys.__stdout__:  # tests and notebooks have streams of their own, which stay
        kind: Any = sys.__stdout__
        sys.stdout = _Output(
            kind.buffer,
            kind.encoding,
            "backslashreplace",
            line_buffering=kind.line_buffering,
            write_through=kind.write_through,
        )
    with suppress(AttributeError):
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.raiseExceptions = False  # else logging prints a traceback for each line that it cannot write


def print_error(message: str) -> None:
    """Print a message to standard error; it is left out if it cannot be printed."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def end_output() -> int:
    """Flush standard output. If that fails, discard the rest, since Python would report it again when it exits.

    Returns:
        Exit code for a command that has finished: 0; 141 if the reader has ended, as `head` does; 2 if the output could
        not be written for another reason, which is printed.
    """
    with suppress(OSError):
        sys.stdout.flush()
    if (lost := getattr(sys.stdout, "lost", None)) is None:
        return 0
    _discard(sys.stdout)
    if isinstance(lost, BrokenPipeError):
        return _READER_LEFT
    print_error(f"Standard output: {lost.strerror}.")
    return 2


def _discard(stream: TextIO) -> None:
    """Let what is left of a stream go to the null device, since Python would fail to write it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_of_output(error: BaseException) -> bool:
    """Whether an error came from printing to standard output."""
    return error is getattr(sys.stdout, "lost", None)
