"""Figures of a comparison as scikit-learn and statsmodels have them, on 200 tables; what counts as equal."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.answers._pairs import Found, Sides, compared_rows, crossed_labels
from gemini_batch_mcp.batches.answers.comparing import kappa, kappa_error, kappa_range, rows_needed, wilson
from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.results.query.queries import QueryEngine, Stop
from support.agreement.reference import FIGURES
from support.agreement.tables import tables
from support.answers import table_at
from support.extent import in_part, long, part
from support.loading import scratch


@pytest.fixture(scope="module")
def engine() -> Iterator[QueryEngine]:
    with QueryEngine() as engine:
        yield engine


@in_part
@pytest.mark.timeout(900)
@long
def test_shares_kappas_and_confusions_are_those_of_the_libraries(engine: QueryEngine, tmp_path: Path) -> None:
    """`make reference` compares the figures in the file with the libraries; see `support.agreement.reference`."""
    given = list(zip(tables(), json.loads(FIGURES.read_text(encoding="utf-8")), strict=True))
    assert len(given) == 200
    for table, figures in part(given, 8):
        rows = (f"({n}, 'k{n}', 'ok', {_literal(e)}, {_literal(a)})" for n, (e, a) in enumerate(table.written, start=1))
        select = f"SELECT * FROM (VALUES {', '.join(rows)}) t(row, key, status, expected, actual)"
        path = table_at(tmp_path / "t.parquet", select)
        found = _compared(engine, path, Column("actual", "VARCHAR"), Column("expected", "VARCHAR"))
        both = table.both
        equal = sum(one == other for one, other in both)
        assert (found.counted.compared, found.counted.equal) == (len(both), equal)
        assert len(found.differing) == len(both) - equal
        assert (kappa(found.counted) is None) == (figures["kappa"] is None)
        if figures["kappa"] is not None:
            assert kappa(found.counted) == pytest.approx(figures["kappa"], rel=1e-9, abs=1e-12)
            assert kappa_error(found.counted) == pytest.approx(figures["error"], rel=1e-6, abs=1e-7)
        if figures["bootstrap"] is not None:
            # One is a formula, the other chance: of few rows they differ, by 0.02 in the mean.
            assert kappa_range(found.counted) == pytest.approx(figures["bootstrap"], abs=0.1)
        interval = wilson(equal, len(both))
        assert interval == ((None, None) if not both else pytest.approx(figures["interval"], rel=1e-9, abs=1e-12))
        confusion = Counter({(e.strip().lower(), a.strip().lower()): n for e, a, n in found.pairs})
        labels = figures["labels"]
        assert [[confusion[e, a] for a in labels] for e in labels] == figures["confusion"]


def _literal(value: str | None) -> str:
    return "NULL" if value is None else f"'{value}'"


def _compared(
    engine: QueryEngine, table: Path, actual: Column, expected: Column, *, other: Path | None = None, limit: int = 200
) -> Found:
    folders = {"results": table} | ({} if other is None else {"other": other})
    sides = Sides(actual, expected, is_batch=other is not None)
    return compared_rows(engine, sides, folders, limit=limit, max_pairs=60, stop=Stop())


@pytest.mark.parametrize(
    ("equal", "compared", "low", "high"),
    # The worked example of Newcombe (Statistics in Medicine 17, 1998, table I), and the ends.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilsons(equal: int, compared: int, low: float, high: float) -> None:
    assert wilson(equal, compared) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("equal", "compared"), [(40, 50), (50, 50), (10, 20), (1, 1)])
def test_the_rows_that_are_missing_for_two_points_narrow_the_interval_to_that(equal: int, compared: int) -> None:
    rows = compared + rows_needed(equal, compared)
    low, high = wilson(round(equal / compared * rows), rows)
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(0.04, rel=0.02)
    assert rows_needed(equal * 3000, compared * 3000) == 0


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
        # Fields of answers that are lists are JSON; a column of right answers may hold them as text.
        ("""'["b", "A"]'::JSON""", """'["a","b"]'::JSON""", True),
        ("""'["b", "A"]'::JSON""", """'["a", "b"]'""", True),
        ("""'["b"]'::JSON""", "'B'", True),
        ("""'["b"]'::JSON""", """'["b'""", False),
        ("""'"Good"'::JSON""", "'good'", True),
        ("""'[1, 2]'::JSON""", "[2, 1]", True),
    ],
)
def test_what_counts_as_equal(engine: QueryEngine, tmp_path: Path, actual: str, expected: str, is_same: bool) -> None:
    table = table_at(
        tmp_path / "t.parquet",
        f"SELECT 1 AS row, 'k' AS key, 'ok' AS status, {actual} AS actual, {expected} AS expected",
    )
    kinds = dict(row[:2] for row in scratch().execute(f"DESCRIBE FROM '{table}'").fetchall())
    found = _compared(engine, table, Column("actual", kinds["actual"]), Column("expected", kinds["expected"]))
    assert (found.counted.compared, found.counted.equal) == (1, int(is_same))


@pytest.mark.parametrize(
    "others",
    [
        "ORDER BY n",
        "ORDER BY hash(n)",
        "WHERE n % 7 > 0 ORDER BY n",
        "WHERE n < 4999 ORDER BY n",
        "WHERE n > 1 ORDER BY n DESC",
    ],
    ids=["the same order", "another order", "some missing", "the last one missing", "backwards, the first one missing"],
)
def test_rows_of_two_batches_are_paired_by_key_whatever_their_order(
    engine: QueryEngine, tmp_path: Path, others: str
) -> None:
    """Against pairs found by a dictionary; rows in step are paired without looking their keys up."""
    status = "if(n % 11 = 0, 'error', 'ok') AS status"
    rows = f"SELECT n, 'k' || n AS key, {status}, 'label ' || {{}} AS label FROM range(5000) t(n)"
    one, other = rows.format("n % 4"), rows.format("if(n % 5 = 0, n % 3, n % 4)")
    numbered = "SELECT row_number() OVER () AS row, key, status, label FROM ({} {})"
    paths = [
        table_at(tmp_path / "one.parquet", numbered.format(one, "ORDER BY n")),
        table_at(tmp_path / "other.parquet", numbered.format(other, others)),
    ]
    read = [
        {key: label for key, status, label in found if status == "ok"}
        for found in (scratch().execute(f"SELECT key, status, label FROM '{path}'").fetchall() for path in paths)
    ]
    pairs = Counter((label, read[0][key]) for key, label in read[1].items() if key in read[0])
    column = Column("label", "VARCHAR")
    found = _compared(engine, paths[0], column, column, other=paths[1], limit=1000)
    assert Counter({(e, a): n for e, a, n in found.pairs}) == pairs
    assert found.counted.compared == pairs.total()
    assert found.counted.equal == sum(n for (e, a), n in pairs.items() if e == a)
    assert scratch().execute(f"SELECT count(*) FROM '{paths[1]}'").fetchall() == [(found.counted.total,)]
    unequal = [key for key, label in read[0].items() if label != read[1].get(key, label)]
    assert [key for _, key, *_ in found.differing] == unequal
    crossed = crossed_labels(
        engine,
        Sides(column, column, is_batch=True),
        {"results": paths[0], "other": paths[1]},
        max_labels=9,
        stop=Stop(),
    )
    places = {label: place for place, label in enumerate(crossed.labels)}
    assert crossed.counts == {(places[e], places[a]): n for (e, a), n in pairs.items()}


def test_embeddings_are_equal_from_a_cosine_of_0_99_on(engine: QueryEngine, tmp_path: Path) -> None:
    """Vectors at an angle to the first axis, three times as long: cos 8° is 0.9903, cos 9° is 0.9877."""
    vectors = "SELECT i + 1 AS row, 'k' || i AS key, 'ok' AS status, {}::FLOAT[] AS embedding FROM range(5) t(i)"
    axis = table_at(tmp_path / "axis.parquet", vectors.format("[1, 0]"))
    turned_by = "radians([0, 8, 9, 180][i + 1])"
    angles = f"CASE i WHEN 4 THEN [1, 0, 0] ELSE [3 * cos({turned_by}), 3 * sin({turned_by})] END"
    turned = table_at(tmp_path / "turned.parquet", vectors.format(f"({angles})"))
    column = Column("embedding", "FLOAT[]")
    found = _compared(engine, turned, column, column, other=axis)
    # Vectors of different sizes have no angle.
    assert (found.counted.total, found.counted.compared, found.counted.equal) == (5, 4, 2)
    assert [row[1:] for row in found.differing] == [
        ("k2", "cosine of 1", "cosine of 0.987688"),
        ("k3", "cosine of 1", "cosine of -1.0"),
    ]
    assert kappa(found.counted) is None and found.pairs == ()


def test_of_more_labels_than_are_shown_the_rarer_ones_stand_together(engine: QueryEngine, tmp_path: Path) -> None:
    rows = "SELECT i + 1 AS row, 'k' || i AS key, 'ok' AS status, 'Label ' || isqrt(i) AS actual, 'label 0' AS expected"
    table = table_at(tmp_path / "t.parquet", f"{rows.replace('isqrt(i)', 'floor(sqrt(i))::INT')} FROM range(100) t(i)")
    sides = Sides(Column("actual", "VARCHAR"), Column("expected", "VARCHAR"), is_batch=False)
    found = crossed_labels(engine, sides, {"results": table}, max_labels=4, stop=Stop())
    # The square roots of 0 to 99 are 9 nineteen times, 8 seventeen times, and so on.
    assert found.labels == ("label 0", "Label 9", "Label 8", "Label 7")
    assert found.counts == {(0, 0): 1, (0, 1): 19, (0, 2): 17, (0, 3): 15, (0, None): 48}
