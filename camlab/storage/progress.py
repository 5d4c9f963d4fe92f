"""Progress of a long loop: a bar on a terminal, log lines at intervals elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.progress import Progress

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Sized)


def progress(
    batches: Iterable[T], images: int, what: str, every_seconds: float = 30.0, unit: str = "images"
) -> Iterator[T]:
    """Yield batches and show how many images are done: a bar on a terminal, log lines at intervals elsewhere.

    Args:
        batches: Batches of images.
        images: Number of images in all of them.
        what: Name of the work, shown to the user.
        every_seconds: Interval between two log lines, in seconds.
        unit: What is counted, in the plural.
    """
    if sys.stdout.isatty():
        with Progress() as bar:
            task = bar.add_task(what, total=images)
            for batch in batches:
                yield batch
                bar.advance(task, len(batch))
        return
    began = last_line = time.monotonic()
    done = 0
    for batch in batches:
        yield batch
        now, done = time.monotonic(), done + len(batch)
        if now - last_line > every_seconds and done < images:
            last_line, left = now, (now - began) * (images - done) / done
            log.info("%s: %d of %d %s, %s to go", what, done, images, unit, duration(left))


def duration(seconds: float) -> str:
    """A duration as text, in seconds, minutes or hours, depending on its length.

    Args:
        seconds: The duration.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
