"""The matrices' figures as tables in tests/README.md: written by a complete run, checked by every run."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

README: Final = Path(__file__).parent.parent / "README.md"
_HEAD: Final = "| {title} | tried | survived | creates | rows |\n| --- | ---: | ---: | ---: | ---: |\n"


@dataclass
class Tally:
    """Cases of one kind. Creates and rows are summed over them: as found, and as they should be."""

    tried: int = 0
    survived: int = 0
    creates: int = 0
    wanted_creates: int = 0
    rows: int = 0
    wanted_rows: int = 0

    def add(self, *, survived: bool, creates: tuple[int, int], rows: tuple[int, int]) -> None:
        """Count one case; pairs are what was found and what should have been."""
        self.tried += 1
        self.survived += survived
        self.creates += creates[0]
        self.wanted_creates += creates[1]
        self.rows += rows[0]
        self.wanted_rows += rows[1]

    def line(self, name: str) -> str:
        """Return the line of the table."""
        creates = f"{self.creates:,} of {self.wanted_creates:,}"
        return f"| {name} | {self.tried} | {self.survived} | {creates} | {self.rows:,} of {self.wanted_rows:,} |\n"


def table(title: str, tallies: Mapping[str, Tally]) -> str:
    """Return a table with one line for each kind of case, and the sum."""
    total = Tally()
    for tally in tallies.values():
        for name in vars(total):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    lines = "".join(tally.line(f"`{name}`") for name, tally in sorted(tallies.items()))
    return _HEAD.format(title=title) + lines + total.line("together")


def write_section(name: str, text: str) -> None:
    """Put a text between the markers of a section of tests/README.md."""
    readme = README.read_text(encoding="utf-8")
    begin, end = _markers(name)
    head, _, rest = readme.partition(begin)
    _, found, tail = rest.partition(end)
    assert found, f"tests/README.md has no section {name!r}."
    README.write_text(f"{head}{begin}\n{text}{end}{tail}", encoding="utf-8")


def missing_and_stale(section: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return which names a section's table lacks, and which it has that are no longer known."""
    begin, end = _markers(section)
    text = README.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    written = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    known = set(names)
    return sorted(known - written), sorted(written - known)


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: written by make matrix -->", f"<!-- end of {name} -->"
