"""The output of a command: closed, full, no longer read, or of few characters. Imports nothing heavy."""

import io
import logging
import os
import sys
from contextlib import suppress
from typing import Any

_READER_LEFT = 141  # what a shell gives for SIGPIPE


class _Output(io.TextIOWrapper):
    """Standard output that remembers when it could not be written.

    Attributes:
        lost: The first error; None as long as all is well.
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


def prepare_output() -> None:
    r"""Make the standard streams such that no output can end a command or damage its files.

    A stream that the caller has closed becomes the null device, so that no file gets its number. A character that the
    terminal does not have is printed as an escape such as `\xd7`. Log lines that cannot be written are left out.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest number that is free
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115  (open as long as the process runs)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = _Output(open(os.devnull, "wb"), "utf-8")  # noqa: SIM115
    elif sys.stdout is sys.__stdout__:  # a test and a notebook have streams of their own
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
    logging.raiseExceptions = False  # logging would print a traceback for each line


def print_error(message: str) -> None:
    """Print a line to standard error, if it can be printed."""
    with suppress(OSError):
        print(message, file=sys.stderr)


def end_output() -> int:
    """Write what is left of standard output, and throw it away if that fails; Python would complain at its end.

    Returns:
        Exit code of a command that is done: 0; 141 if the reader has left, as `head` does; 2 if the output could not be
        written for any other reason, which is printed.
    """
    with suppress(OSError):
        sys.stdout.flush()
    if (lost := getattr(sys.stdout, "lost", None)) is None:
        return 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(lost, BrokenPipeError):
        return _READER_LEFT
    print_error(f"Standard output: {lost.strerror}.")
    return 2


def is_of_output(error: BaseException) -> bool:
    """Whether an error came from printing to standard output."""
    return error is getattr(sys.stdout, "lost", None)
