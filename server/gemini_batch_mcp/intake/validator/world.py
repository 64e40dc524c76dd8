"""The world that a line is judged in: for which model, and what becomes of what nobody here knows.

Our table is closed, Gemini's is not: a member or a value of next month's is no slip. Unless the user wants it refused,
it is passed on and said; Gemini judges it when the job is created, at no cost.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gemini_batch_mcp.domain import InstalledTypes

#: Places in lists: the same member of another part is the same thing to tell.
_PLACE: Final = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class World:
    """How lines are judged. The default is closed: what our table does not have is wrong.

    `installed` is asked only when something is met that our table does not have; loading those types takes seconds.
    `model` answers the lines; without it nothing is said about what it takes together. `is_cloud` says that they go to
    Google Cloud, where each turn of a conversation needs its role, and caches cannot be used.
    """

    is_open: bool = False
    installed: Callable[[], InstalledTypes] = InstalledTypes
    model: str = ""
    is_cloud: bool = False


CLOSED: Final = World()
#: For lines that have been judged before.
OPEN: Final = World(is_open=True)


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """Something about lines that is said and counted. The lines stand between `before` and `after`."""

    before: str
    after: str

    @property
    def sentence(self) -> str:
        """What is said where it is about the order itself."""
        return f"{self.before}{self.after}"

    def warning(self, count: int, first: int, unit: str) -> str:
        """Return the warning for `count` lines (or other units), the first of which has the number `first`."""
        return f"{self.before} in {lines_named(count, first, unit)}{self.after}"


def lines_named(count: int, first: int, unit: str) -> str:
    """Return which lines something is about: `line 3`, or `12 lines (first: line 3)`."""
    return f"{unit} {first}" if count == 1 else f"{count:,} {unit}s (first: {unit} {first})"


def noted(path_and_what: str, after: str) -> Note:
    """Return a note about a place that may come in every line, at another place of a list in each."""
    return Note(_PLACE.sub("[]", path_and_what), after)


def unknown_member(path: str, owner: str) -> Note:
    """Return what is said of a member that is passed on."""
    return noted(f"`{path}`", f" is not a member of {owner} that is known here; {_PASSED_ON}")


def unknown_value(path: str, value: str) -> Note:
    """Return what is said of a value that is passed on."""
    return noted(f'`{path}`: "{value}"', f" is a value that is not known here; {_PASSED_ON}")


_PASSED_ON: Final = (
    "it is sent as it is, and Gemini judges it when the job is created. GEMINI_BATCH_UNKNOWN=refuse refuses such lines."
)
