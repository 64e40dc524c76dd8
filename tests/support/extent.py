"""How much of what is long a run takes up: a part in `make test`, more in `make long`, all of it in `make matrix`."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import pytest

T = TypeVar("T")
S = TypeVar("S")

_EXTENT: Final = os.environ.get("MATRIX", "")
#: `MATRIX=full` runs everything and writes the tables of tests/README.md; `MATRIX=download` kills at those steps with
#: that word in their names; `MATRIX=long` runs what is marked so, too; without it a part runs.
IS_FULL: Final = _EXTENT == "full"
IS_LONG: Final = _EXTENT != ""
WANTED: Final = _EXTENT if _EXTENT != "long" else ""

#: A module or test of which `make test` runs a part only: `make matrix` finds it by this mark.
in_part: Final = pytest.mark.matrix
#: A module, test or case that takes seconds, and whose kind shorter ones hold as well: not in `make test`.
long: Final = pytest.mark.long


def few(count: int, *, more: int | None = None) -> pytest.MarkDecorator:
    """Mark a test of which a run of a part tries so many cases, the first one and others spread over the rest.

    `more` are those of `make long`, if it is to try more of them.
    """
    return pytest.mark.few(count, more or count)


def part(items: Sequence[T], every: int) -> Sequence[T]:
    """Return every so many-th item from the first one on, and all of them in a complete run."""
    return items if IS_FULL else items[::every]


def pairs(first: Iterable[T], second: Iterable[S]) -> list[tuple[T, S]]:
    """Return each with each; in a run of a part half of them, among which each of either is."""
    seconds = list(second)
    return [
        (one, other)
        for row, one in enumerate(first)
        for place, other in enumerate(seconds)
        if IS_FULL or (row + place) % 2 == 0
    ]


def tries(full: int, few: int) -> int:
    """Return how many cases made at random a run tries: `few`, or `full` in a complete run."""
    return full if IS_FULL else few


def some(items: Sequence[T], count: int) -> list[Any]:
    """Return items as parameters of a test; those after the first so many are long."""
    return [
        item if number < count else pytest.param(*(item if isinstance(item, tuple) else (item,)), marks=long)
        for number, item in enumerate(items)
    ]
