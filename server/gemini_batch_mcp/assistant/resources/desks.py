"""The desks that a server has open: for what the SDK calls without saying for which connection."""

from collections.abc import Iterator
from contextlib import contextmanager

from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.errors import ConfigurationError


class OpenDesks:
    """The desks of one server's open lifespans: one a process, and on stdio one a connection."""

    def __init__(self) -> None:
        self._open: list[LazyDesk] = []

    @contextmanager
    def holding(self, desk: LazyDesk) -> Iterator[None]:
        """Count a desk among the open ones for as long as the context lasts."""
        self._open.append(desk)
        try:
            yield
        finally:
            self._open.remove(desk)

    def newest(self) -> LazyDesk:
        """Return the desk that was opened last; all of a server's desks have the same settings.

        Raises:
            ConfigurationError: none is open; the server is being shut down.
        """
        if not self._open:
            raise ConfigurationError("The server is shutting down.", "Connect again.")
        return self._open[-1]
