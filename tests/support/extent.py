"""How much of what is long a run takes up: a part of it in `make test`, all of it in `make matrix`."""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

import pytest

T = TypeVar("T")

#: `MATRIX=full` runs everything and writes the tables of tests/README.md; `MATRIX=download` kills at those steps with
#: that word in their names; without it a part runs.
WANTED: Final = os.environ.get("MATRIX", "")
IS_FULL: Final = WANTED == "full"

#: A module or test of which `make test` runs a part only: `make matrix` finds it by this mark.
in_part: Final = pytest.mark.matrix


def part(items: Sequence[T], every: int) -> Sequence[T]:
    """Return every so many-th item from the first one on, and all of them in a complete run."""
    return items if IS_FULL else items[::every]


def tries(full: int, few: int) -> int:
    """Return how many cases made at random a run tries: `few`, or `full` in a complete run."""
    return full if IS_FULL else few
