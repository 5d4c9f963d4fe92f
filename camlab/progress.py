"""How far a long loop is: a bar on a terminal, a line every so often where there is none."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import track

log = logging.getLogger(__name__)

T = TypeVar("T")


def progress(batches: Iterable[T], images: int, batch_size: int, what: str, every_seconds: float = 30.0) -> Iterator[T]:
    """Hand batches on and show how far it is: a bar on a terminal, else a line every so often."""
    if sys.stdout.isatty():
        yield from track(batches, what, total=-(-images // batch_size))
        return
    began = last_line = time.monotonic()
    for i, batch in enumerate(batches):
        yield batch
        now, done = time.monotonic(), min((i + 1) * batch_size, images)
        if now - last_line > every_seconds and done < images:
            last_line, left = now, (now - began) * (images - done) / done
            log.info("%s: %d of %d images, %s to go", what, done, images, duration(left))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as one says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
