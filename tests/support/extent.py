"""How much of what is long a run takes up: a part of it in `make test`, all of it in `make matrix`."""

import os
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import pytest

T = TypeVar("T")
S = TypeVar("S")

#: `MATRIX=full` runs everything and writes the tables of tests/README.md; `MATRIX=download` kills at those steps with
#: that word in their names; without it a part runs.
WANTED: Final = os.environ.get("MATRIX", "")
IS_FULL: Final = WANTED == "full"

#: A module or test of which `make test` runs a part only: `make matrix` finds it by this mark.
in_part: Final = pytest.mark.matrix


def few(count: int) -> pytest.MarkDecorator:
    """Mark a test of which a run of a part tries so many cases, the first one and others spread over the rest."""
    return pytest.mark.few(count)


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
