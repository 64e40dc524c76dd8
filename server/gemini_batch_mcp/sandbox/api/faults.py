"""Faults that wait for the next requests of a route: refusals, delays, cuts, short bodies, and what is left out."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gemini_batch_mcp.errors import UsageError

#: Every route by the name that faults and the record of requests use.
ROUTES: Final = (
    "files.start",
    "files.chunk",
    "files.finalize",
    "files.query",
    "files.cancel",
    "files.get",
    "files.list",
    "files.delete",
    "files.download",
    "batches.create",
    "batches.get",
    "batches.list",
    "batches.cancel",
    "batches.delete",
    "batches.update",
    "models.list",
    "models.get",
    "countTokens",
    "generateContent",
    "embedContent",
    # Google Cloud's
    "jobs.create",
    "jobs.get",
    "jobs.list",
    "jobs.cancel",
    "jobs.delete",
    "publishers.list",
    "publishers.countTokens",
    "buckets.get",
    "buckets.permissions",
    "objects.insert",
    "objects.chunk",
    "objects.get",
    "objects.media",
    "objects.list",
    "objects.delete",
    "queries.insert",
    "queries.get",
    "queries.results",
    "tables.get",
    "tables.patch",
    "tables.delete",
)

When = Literal["before", "after"]


@dataclass(slots=True)
class Fault:
    """What happens to `times` requests of a route, after `skip` of them have passed.

    `status` refuses, `cut` closes the connection, `short_body` ends the body early but well-formed, `page` answers with
    that HTML as a captive portal does, `without` leaves members of these names out of a JSON reply; with none of them
    the request is only delayed. `when` is before or after the effect. `at_byte` counts bytes of the request's body
    (before) or of the response's (after); a short body with `at_line` ends so many bytes behind so many lines.
    """

    route: str
    status: int = 0
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay_seconds: float = 0.0
    cut: bool = False
    short_body: bool = False
    page: str = ""
    without: tuple[str, ...] = ()
    when: When = "before"
    at_byte: int | None = None
    at_line: int | None = None
    times: int = 1
    skip: int = 0

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise UsageError(f"There is no sandbox route {self.route!r}.", f"Routes: {', '.join(ROUTES)}.")
        if self.when not in ("before", "after"):
            raise UsageError(f"A fault cannot come {self.when!r}.", "Give before or after.")


class FaultQueue:
    """The faults that have not happened yet, in the order in which they were queued."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Queue a fault behind the others of its route."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Drop every fault that has not happened."""
        with self._lock:
            self._faults.clear()

    @property
    def waiting(self) -> tuple[Fault, ...]:
        """The faults that have not happened yet."""
        with self._lock:
            return tuple(self._faults)

    def take(self, route: str) -> Fault | None:
        """Return what happens to this request of `route`, None when nothing does."""
        with self._lock:
            fault = next((fault for fault in self._faults if fault.route == route), None)
            if fault is None:
                return None
            if fault.skip > 0:
                fault.skip -= 1
                return None
            fault.times -= 1
            if fault.times <= 0:
                self._faults.remove(fault)
            return fault
