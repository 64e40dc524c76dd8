"""Lines counted on a caller's gauge while they are checked, and what is read or unpacked before."""

from collections.abc import Sequence
from dataclasses import dataclass

from gemini_batch_mcp.batches.gauge import Doing, Gauge, Progress
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.validator.terms import Terms


@dataclass(frozen=True, slots=True)
class Counted:
    """An onlooker that another one looks through."""

    onlooker: Onlooker
    gauge: Gauge

    def begin(self) -> None:
        """Begin to count."""
        self.onlooker.begin()
        self.gauge.show(Progress(Doing.CHECKING))

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Count the lines of a piece."""
        self.onlooker.see(piece, lines, keys, before, terms)
        self.gauge.show(Progress(Doing.CHECKING, before + len(lines)))

    def read(self, done: int, total: int | None) -> None:
        """Say how many files of a folder have been read for their rows: for the second time."""
        self.gauge.show(Progress(Doing.READING, done, total, part=2))

    def unpacked(self, done_bytes: int, total_bytes: int) -> None:
        """Say how much of a packed source has been read."""
        self.gauge.show(Progress(Doing.UNPACKING, done_bytes, total_bytes))
