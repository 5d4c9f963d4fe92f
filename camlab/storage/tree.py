"""Walk over the files in a folder and in its subfolders, through symbolic links to folders, each folder once."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Tree:
    """Folders that are walked over; a folder that several links lead to is met once.

    Attributes:
        again: Links that were not followed, because what they lead to was walked over already, or contains the link.
    """

    again: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def walk(self, top: str, hidden: bool = False) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder at or below a folder, and the names of its files, both in alphabetical order.

        Folders come before links, so that a link cannot take the place of the folder itself.

        Args:
            top: The folder; if it does not exist, there is nothing.
            hidden: Whether folders whose names begin with a dot are walked over, too.
        """
        starts = deque([top])
        while starts:
            start = starts.popleft()
            real = os.path.realpath(start)
            if real in self._seen or (start != top and _contains(real, os.path.realpath(top))):
                self.again.append(start)
                continue
            for folder, below, names in os.walk(start):
                if (real := os.path.realpath(folder)) in self._seen:
                    below.clear()
                    continue
                self._seen.add(real)
                below[:] = sorted(name for name in below if hidden or name[0] != ".")
                links = [name for name in below if os.path.islink(os.path.join(folder, name))]
                starts.extend(os.path.join(folder, name) for name in links)
                below[:] = [name for name in below if name not in links]
                yield folder, sorted(names)


def _contains(outer: str, inner: str) -> bool:
    """Whether a folder is, or contains, another.

    Example:
        >>> _contains("/a", "/a/b"), _contains("/a", "/ab")
        (True, False)
    """
    return os.path.commonpath([outer, inner]) == outer
