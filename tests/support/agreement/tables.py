"""Two hundred tables of labels, made by chance from one seed: what either side says of each row, as it is written."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

COUNT: Final = 200
_SEED: Final = 20261129


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows of expected and actual labels; None is no answer. `written` are other spellings that count as the same."""

    rows: tuple[tuple[str | None, str | None], ...]
    written: tuple[tuple[str | None, str | None], ...]

    @property
    def both(self) -> list[tuple[str, str]]:
        """The rows that have both, as labels."""
        return [(expected, actual) for expected, actual in self.rows if expected is not None and actual is not None]


def tables() -> Iterator[Labelled]:
    """Yield the tables: of one to six labels, one to sixty rows, from agreement by chance to complete agreement."""
    chance = random.Random(_SEED)
    for _ in range(COUNT):
        labels = [f"label {number}" for number in range(chance.randint(1, 6))]
        agreement = chance.random()
        gaps = chance.choice([0.0, 0.0, 0.2])
        rows: list[tuple[str | None, str | None]] = []
        for _ in range(chance.randint(1, 60)):
            expected = None if chance.random() < gaps else chance.choice(labels)
            actual = expected if chance.random() < agreement else chance.choice(labels)
            rows.append((expected, None if chance.random() < gaps else actual))
        written = [(_spelled(chance, expected), _spelled(chance, actual)) for expected, actual in rows]
        yield Labelled(tuple(rows), tuple(written))


def _spelled(chance: random.Random, label: str | None) -> str | None:
    number = chance.randint(0, 3)
    return None if label is None else (label, label.upper(), f" {label}", f"{label.title()} ")[number]
