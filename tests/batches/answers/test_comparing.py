"""Figures of a comparison against the formulas themselves, in exact fractions, on 200 tables made by chance."""

import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.answers.comparing import compared_rows, pairs_of, wilson
from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.results.query.queries import QueryEngine, Stop
from support.answers import table_at
from support.loading import scratch


@pytest.fixture(scope="module")
def engine() -> Iterator[QueryEngine]:
    with QueryEngine() as engine:
        yield engine


def test_shares_and_kappas_are_those_of_the_formulas(engine: QueryEngine, tmp_path: Path) -> None:
    chance = random.Random(20261129)
    for number in range(200):
        labels = [f"label {n}" for n in range(chance.randint(1, 6))]
        rows = [
            (chance.choice([*labels, None]), chance.choice([*labels, None]) if chance.random() < 0.5 else "label 0")
            for _ in range(chance.randint(1, 60))
        ]
        values = ", ".join(f"({n}, 'k{n}', 'ok', {_literal(a)}, {_literal(e)})" for n, (a, e) in enumerate(rows))
        table = table_at(
            tmp_path / f"{number}.parquet",
            f"SELECT * FROM (VALUES {values}) t(row, key, status, actual, expected)",
        )
        pairs = pairs_of(Column("actual", "VARCHAR"), Column("expected", "VARCHAR"), is_batch=False)
        (total, compared, equal, by_chance), found, differing, _ = compared_rows(
            engine, pairs, {"results": table}, limit=200, offset=0, stop=Stop()
        )
        both = [(a, e) for a, e in rows if a is not None and e is not None]
        assert (total, compared, equal) == (len(rows), len(both), sum(a == e for a, e in both))
        assert {(e, a): n for e, a, n in found} == Counter((e, a) for a, e in both)
        assert len(differing) == compared - equal
        if both:
            actual, expected = Counter(a for a, _ in both), Counter(e for _, e in both)
            product = sum(Fraction(actual[label] * expected[label], len(both) ** 2) for label in labels)
            assert by_chance == pytest.approx(float(product), rel=1e-12)


def _literal(value: str | None) -> str:
    return "NULL" if value is None else f"'{value}'"


@pytest.mark.parametrize(
    ("equal", "compared", "low", "high"),
    # The worked example of Newcombe (Statistics in Medicine 17, 1998, table I), and the ends.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilsons(equal: int, compared: int, low: float, high: float) -> None:
    assert wilson(equal, compared) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("actual", "expected", "is_same"),
    [
        ("' Good '", "'good'", True),
        ("'good'", "'bad'", False),
        ("4", "'4.0'", True),
        ("0.1 + 0.2", "0.3::DOUBLE", True),
        ("1.0001::DOUBLE", "1::DOUBLE", False),
        ("4", "'four'", False),
        ("['b', 'A']", "['a', 'b', 'b']", True),
        ("['a']", "['a', 'c']", False),
        ("true", "'True'", True),
    ],
)
def test_what_counts_as_equal(engine: QueryEngine, tmp_path: Path, actual: str, expected: str, is_same: bool) -> None:
    table = table_at(
        tmp_path / "t.parquet",
        f"SELECT 1 AS row, 'k' AS key, 'ok' AS status, {actual} AS actual, {expected} AS expected",
    )
    kinds = dict(row[:2] for row in scratch().execute(f"DESCRIBE FROM '{table}'").fetchall())
    pairs = pairs_of(Column("actual", kinds["actual"]), Column("expected", kinds["expected"]), is_batch=False)
    counts, *_ = compared_rows(engine, pairs, {"results": table}, limit=5, offset=0, stop=Stop())
    assert counts[1:3] == (1, int(is_same))
