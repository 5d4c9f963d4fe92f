"""Failures of callbacks that only watch a training: they are told, each kind once, and training continues."""

import logging
from collections.abc import Callable

from camlab.errors import UserError, first_line

log = logging.getLogger(__name__)


class Failures:
    """Runs actions that must not end a training, and logs each kind of failure once, whichever file it is about.

    Args:
        doing: What failed if the reason is not known, such as `drawing`.

    Example:
        >>> Failures("drawing").succeeds(lambda: None, "No heatmaps")
        True
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._told: set[str] = set()

    def succeeds(self, action: Callable[[], None], what: str) -> bool:
        """Whether an action succeeds; if not, a line that begins with `what` gives the reason."""
        try:
            action()
            return True
        except OSError as error:
            self.tell(f"{what}: {error}; training continues.", f"{type(error).__name__} {error.errno}")
        except UserError as error:
            self.tell(f"{what}: {first_line(error).rstrip('.')}; training continues.", first_line(error))
        except Exception as error:
            self.tell(f"{what}: {self._doing} failed; training continues.", repr(error), exc_info=True)
        return False

    def tell(self, line: str, reason: str, exc_info: bool = False) -> None:
        """Log a line, unless one of the same reason has been logged."""
        if reason not in self._told:
            self._told.add(reason)
            log.warning("%s", line, exc_info=exc_info)
