"""What a check has found."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; where it is not ok, the finding ends with what mends it."""

    name: str
    ok: bool
    finding: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in the order in which they were made."""

    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        """True when nothing stands in the way of an order."""
        return all(check.ok for check in self.checks)
