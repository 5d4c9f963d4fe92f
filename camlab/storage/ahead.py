"""Work that threads do ahead of the loop that uses its results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Iterator[R]:
    """Apply a function to items in threads, and yield the results in the items' order.

    Unlike `Executor.map`, it keeps only a few results in memory. If the loop that uses the results ends early, the
    remaining items are left out.

    Args:
        work: The function. Its exceptions are raised in the loop.
        items: The items.
        threads: Number of threads.
        ahead: Number of results that are prepared, or are being prepared, before they are needed; at least 1.

    Example:
        >>> list(map_ahead(str.upper, ["a", "b", "c"], threads=2, ahead=2))
        ['A', 'B', 'C']
    """
    coming: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                if len(coming) >= ahead:
                    yield coming.popleft().result()
                coming.append(pool.submit(work, item))
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
