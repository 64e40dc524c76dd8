"""A few lines out of many, chosen while the file streams past, for what only a closer look tells.

The choice is a reservoir (Li's algorithm L): every line has the same chance, and lines that are passed over cost
nothing but being counted. It depends on line numbers alone, so the same lines give the same sample, however they come.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

Kept = TypeVar("Kept")

#: Lines in a sample, which is also the largest number of countTokens calls of one estimate.
SAMPLE_LINES: Final = 20


class Sampler(Generic[Kept]):
    """Told of the lines of one file. `keep` makes of a chosen line, and its number, what is kept of it."""

    def __init__(self, keep: Callable[[int, bytes], Kept], seed: int = 0) -> None:
        self._keep = keep
        self._random = random.Random(seed)  # noqa: S311 - no secret: the same file shall give the same sample
        self._next_row = 0
        self._weight = 1.0
        self._rows = 0
        #: By place in the reservoir, each with its number.
        self._chosen: dict[int, tuple[int, Kept]] = {}

    @property
    def lines(self) -> tuple[tuple[int, Kept], ...]:
        """What was kept so far, in the order of the numbers, which count from 1."""
        return tuple(sorted(self._chosen.values(), key=lambda chosen: chosen[0]))

    def feed(self, lines: Sequence[bytes]) -> None:
        """Take the next lines."""
        while self._next_row < self._rows + len(lines):
            self._choose(self._next_row, lines[self._next_row - self._rows])
        self._rows += len(lines)

    def _choose(self, row: int, line: bytes) -> None:
        """Keep a chosen line in place of another one, and choose the next."""
        slot = row if row < SAMPLE_LINES else self._random.randrange(SAMPLE_LINES)
        self._chosen[slot] = (row + 1, self._keep(row + 1, line))
        self._next_row = row + 1
        if self._next_row >= SAMPLE_LINES:
            self._weight *= math.exp(math.log(1.0 - self._random.random()) / SAMPLE_LINES)
            chance = math.log1p(-min(self._weight, 1.0 - 1e-12))
            self._next_row += math.floor(math.log(1.0 - self._random.random()) / chance) if chance else 1 << 62
