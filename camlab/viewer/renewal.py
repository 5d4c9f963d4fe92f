"""Renew the page of a run while it is under way, as often as costs little."""

import time
from pathlib import Path

from camlab.viewer.html import write_into

SHARE = 0.02  # of the time gone by, which writing may take


class PageRenewal:
    """Writes the page of a run again and again, for at most two hundredths of the time that has gone by.

    Args:
        folder: Folder of the run, or the folder that holds `epoch_NNNN/`. It gets `heatmaps.html`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began = time.monotonic()
        self._spent = self._last = 0.0

    def renew(self) -> bool:
        """Write the page if there is time for it, and return whether that was done.

        It is taken to last as long as the last time; the first time is tried after five seconds.
        """
        gone = time.monotonic() - self._began
        if self._spent + (self._last or 5 * SHARE) > SHARE * gone:
            return False
        self.finish()
        return True

    def finish(self) -> None:
        """Write the page, whatever time it takes; a failure is logged only."""
        began = time.monotonic()
        write_into(self.folder)
        self._last = time.monotonic() - began
        self._spent += self._last
