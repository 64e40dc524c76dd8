"""Answers laid against a column of the source that has few values: of all such columns the one they vary with most."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The middle half of numbers, and their mean."""

    low: float
    median: float
    high: float
    mean: float


@dataclass(frozen=True, slots=True)
class Group:
    """The rows with one value of the source's column: how many have each answer, or how their numbers spread."""

    value: str
    rows: int
    counts: tuple[int, ...] = ()
    quartiles: Quartiles | None = None


@dataclass(frozen=True, slots=True)
class Crossing:
    """Answers by a column of the source. `heads` name the answers that are counted, empty for numbers.

    `strength` is how much the answers vary with the column, from 0 to 1: Cramér's V without its bias (Bergsma, 2013),
    for numbers the root of the part of their variance that lies between the groups.
    """

    column: str
    heads: tuple[str, ...]
    groups: tuple[Group, ...]
    strength: float


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of the temporary table `codes`: what each number in it stands for; 0 is no value."""

    name: str
    place: str
    words: tuple[str, ...]


def by_values(
    connection: "DuckDBPyConnection", relation: str, heads: Sequence[str], columns: Sequence[Coded], *, is_shared: bool
) -> Crossing | None:
    """Return the crossing of the column `answer` of a relation, a number into `heads`, with the best of `columns`.

    `is_shared` says that a row has one answer; otherwise it may have several, or none, and counts once for each.
    """
    best: Crossing | None = None
    for column in columns:
        found = connection.execute(
            f"SELECT {column.place}, answer, count(*) FROM {relation} WHERE answer IS NOT NULL GROUP BY ALL"
        ).fetchall()
        counts = Counter({(group, answer): rows for group, answer, rows in found})
        strength = cramers_v(counts)
        if best is None or strength > best.strength:
            sizes = Counter[int]()
            for (group, _), rows in counts.items():
                sizes[group] += rows
            if not is_shared:
                sizes = Counter(dict(_sizes(connection, column)))
            groups = [
                Group(column.words[group], sizes[group], tuple(counts[group, place] for place in range(len(heads))))
                for group in _in_order(column, sizes)
            ]
            best = Crossing(column.name, tuple(heads), tuple(groups), strength)
    return best


def by_numbers(connection: "DuckDBPyConnection", place: str, columns: Sequence[Coded]) -> Crossing | None:
    """Return the crossing of a column of numbers in `codes` with the best of `columns`."""
    best, most = None, -1.0
    for column in columns:
        found = connection.execute(
            f"""SELECT count({place}), coalesce(avg({place} / 2) * 2, 0), coalesce(var_pop({place}), 0) FROM codes
                WHERE {place} IS NOT NULL GROUP BY {column.place}"""
        ).fetchall()
        if (strength := correlation_ratio(found)) > most:
            best, most = column, strength
    if best is None:
        return None
    found = connection.execute(
        f"""SELECT {best.place}, count({place}), quantile_cont({place}, [0.25, 0.5, 0.75]), avg({place} / 2) * 2
            FROM codes WHERE {place} IS NOT NULL GROUP BY ALL"""
    ).fetchall()
    measured = {group: (rows, Quartiles(low, median, high, mean)) for group, rows, (low, median, high), mean in found}
    groups = [
        Group(best.words[group], measured[group][0], quartiles=measured[group][1])
        for group in _in_order(best, measured)
    ]
    return Crossing(best.name, (), tuple(groups), most)


def cramers_v(counts: Mapping[tuple[int, int], int]) -> float:
    """Return how strongly two classifications go together, corrected for what chance alone would show."""
    total = sum(counts.values())
    first, second = Counter[int](), Counter[int]()
    for (one, other), rows in counts.items():
        first[one] += rows
        second[other] += rows
    if total < 2 or min(len(first), len(second)) < 2:
        return 0.0
    squares = sum(rows * rows / (first[one] * second[other]) for (one, other), rows in counts.items())
    height, width = len(first), len(second)
    square = max(squares - 1 - (height - 1) * (width - 1) / (total - 1), 0.0)
    height_left = height - (height - 1) ** 2 / (total - 1)
    width_left = width - (width - 1) ** 2 / (total - 1)
    least = min(height_left, width_left) - 1
    return min(math.sqrt(square / least), 1.0) if least > 0 else 0.0


def correlation_ratio(groups: Sequence[tuple[int, float, float]]) -> float:
    """Return the root of the part of a variance that lies between groups of such sizes, means and variances."""
    total = sum(rows for rows, _, _ in groups)
    if total < 2 or len(groups) < 2:
        return 0.0
    mean = sum(rows * part for rows, part, _ in groups) / total
    between = sum(rows * (part - mean) ** 2 for rows, part, _ in groups)
    within = sum(rows * variance for rows, _, variance in groups)
    whole = between + within
    return math.sqrt(between / whole) if 0 < whole < math.inf else 0.0


def _sizes(connection: "DuckDBPyConnection", column: Coded) -> list[tuple[int, int]]:
    return connection.execute(f"SELECT {column.place}, count(*) FROM codes GROUP BY ALL").fetchall()


def _in_order(column: Coded, found: Mapping[int, object]) -> list[int]:
    """Return the groups that occur, in the order of their words; rows without a value come last."""
    return sorted((group for group in found if found[group]), key=lambda group: (group == 0, column.words[group]))
