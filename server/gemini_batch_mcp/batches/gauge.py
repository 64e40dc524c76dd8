"""How far work is: a gauge that the work moves, and that whoever waits for it reads. Tools and terminals read the same.

A call has one gauge. Work that several calls wait for moves that of the call which started it; the others follow it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from gemini_batch_mcp.errors import NotReady


class Doing(StrEnum):
    """What is being done, as a person is told it."""

    STARTING = "Working"
    READING = "Reading"
    COPYING = "Copying"
    UNPACKING = "Unpacking"
    CHECKING = "Checking"
    ATTACHING = "Uploading attached files"
    UPLOADING = "Uploading"
    WAITING = "Waiting for Gemini"
    ENDED = "Ended at Gemini"
    DOWNLOADING = "Downloading answers"
    COLLECTING = "Collecting"
    ASKING = "Waiting for the user's answer"

    @property
    def unit(self) -> str:
        """What is counted; empty where nothing is."""
        return _UNITS.get(self, "")


#: What this machine does by itself: it goes on in the background when its call is ended.
_LOCAL = frozenset({Doing.READING, Doing.COPYING, Doing.UNPACKING, Doing.CHECKING, Doing.COLLECTING})
_UNITS = {
    Doing.READING: "files",
    Doing.COPYING: "bytes",
    Doing.UNPACKING: "bytes",
    Doing.CHECKING: "lines",
    Doing.ATTACHING: "bytes",
    Doing.UPLOADING: "bytes",
    Doing.WAITING: "rows",
    Doing.ENDED: "rows",
    Doing.DOWNLOADING: "bytes",
    Doing.COLLECTING: "rows",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage is. `total` is None where nobody knows it; `part` tells files apart that come one by one."""

    doing: Doing
    done: int = 0
    total: int | None = None
    note: str = ""
    part: int = 1

    @property
    def is_local(self) -> bool:
        """True while this machine is at work by itself, and Gemini is not waited for."""
        return self.doing in _LOCAL and self.done != self.total

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        if not (unit := self.doing.unit):
            return f"{self.doing}{note}"
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{self.doing}: {self.done:,}{of} {unit}{note}"


@dataclass(eq=False, slots=True)
class Gauge:
    """The latest progress of each stage. Moved from any thread; read at any time."""

    _shown: dict[tuple[Doing, int], Progress] = field(default_factory=dict)
    _followed: list["Gauge"] = field(default_factory=list)

    def show(self, progress: Progress) -> None:
        """Say how far a stage is; it is the one at work now."""
        place = (progress.doing, progress.part)
        if next(reversed(self._shown), None) != place:
            # Replaced as a whole: another thread may be reading.
            self._shown = {known: shown for known, shown in self._shown.items() if known != place} | {place: progress}
        else:
            self._shown[place] = progress

    def readings(self) -> tuple[Progress, ...]:
        """Return the latest progress of every stage so far, the one at work last."""
        followed = (reading for gauge in tuple(self._followed) for reading in gauge.readings())
        return (*tuple(self._shown.values()), *followed)

    def reached(self) -> str:
        """Return how far the stage at work is, in brackets to stand behind a word; empty where nothing is known."""
        readings = self.readings()
        return f" ({readings[-1]})" if readings else ""

    def stopped(self, what: str, seconds: float) -> NotReady:
        """Return what to say of a call that took too long, `what` by name: what was at work, and what to do next."""
        readings = self.readings()
        if readings and readings[-1].is_local:
            return NotReady(
                f"{what} took {seconds:.0f} seconds and was stopped while this machine was at work{self.reached()}.",
                "The work continues in the background: make the same call again in half a minute.",
            )
        return NotReady(
            f"{what} took {seconds:.0f} seconds and was stopped{self.reached()}; Gemini may be slow to answer, or "
            "this machine busy.",
            "Whatever was submitted or under way continues: call list_jobs or check_status.",
        )

    @contextmanager
    def following(self, other: "Gauge") -> Iterator[None]:
        """Read the other gauge, too, while its work is waited for."""
        if other is self:
            yield
            return
        self._followed.append(other)
        try:
            yield
        finally:
            self._followed.remove(other)
            for reading in other.readings():
                self.show(reading)
