"""What fields hold and vary with, against the same figures counted in Python from the same rows."""

import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.results.profile.crossing import correlation_ratio, cramers_v
from gemini_batch_mcp.results.profile.fields import MAX_FIELDS, MAX_VALUES, Answers, read_answers
from gemini_batch_mcp.results.profile.retries import read_retries
from gemini_batch_mcp.results.profile.spread import bar_width
from support.answers import table_at
from support.loading import scratch

ROWS = 600


def _rows() -> Iterator[dict[str, Any]]:
    chance = random.Random(14)
    for number in range(ROWS):
        country = chance.choice(["DE", "FR", "US"])
        mood = "good" if country == "DE" and chance.random() < 0.9 else chance.choice(["good", "bad", "so so"])
        yield {
            "country": country,
            "shop": f"shop {number}",
            # Names that a query might take for its own.
            "v": chance.choice(["1", "2"]),
            "key": f"k{number}",
            "status": "failed" if number % 10 == 9 else "ok",
            "mood": None if number % 50 == 0 else mood,
            "stars": chance.randint(1, 5),
            "price": round(chance.expovariate(0.1), 2) + (100 if country == "US" else 0),
            "sure": chance.random() < 0.7,
            "why": "because " * chance.randint(1, 30) + str(number),
            "city": f"city {chance.randint(1, 40)}",
            "tags": json.dumps(chance.sample(["price", "size", "colour"], chance.randint(0, 3))),
            "parts": json.dumps([f"part {chance.random()}" for _ in range(number % 4)]),
            "whole": json.dumps({"a": [number]}),
        }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of rows of every kind of field."""
    directory = tmp_path_factory.mktemp("fields")
    (directory / "rows.json").write_text("\n".join(map(json.dumps, _rows())), encoding="utf-8")
    types = {"stars": "BIGINT", "price": "DOUBLE", "sure": "BOOLEAN"} | dict.fromkeys(
        ("tags", "parts", "whole"), "JSON"
    )
    names = list(next(_rows()))
    columns = ", ".join(
        f"{name}: '{'VARCHAR' if types.get(name) == 'JSON' else types.get(name, 'VARCHAR')}'" for name in names
    )
    made = {name: f"{name}::{types.get(name, 'VARCHAR')} AS {name}" for name in names}
    source, fields = [made[name] for name in names[:5]], [made[name] for name in names[5:]]
    return table_at(
        directory / "table.parquet",
        f"""SELECT {", ".join(source)}, 'x' AS "text", '{{}}'::JSON AS json, {", ".join(fields)},
            'STOP' AS finish_reason
            FROM read_json('{directory / "rows.json"}', columns = {{{columns}}})""",
    )


@pytest.fixture(scope="module")
def answers(table: Path) -> Answers:
    """What is found in it."""
    with scratch() as connection:
        return read_answers(connection, table)


GOOD = [row for row in _rows() if row["status"] == "ok"]


def test_values_are_counted_and_laid_against_the_column_they_vary_with(answers: Answers) -> None:
    fields = {field.name: field for field in answers.fields}
    assert list(fields) == ["mood", "stars", "price", "sure", "why", "city", "tags", "parts", "whole"]
    assert (answers.rows, answers.groupings, answers.left_out) == (len(GOOD), ("country", "v"), ())

    mood = fields["mood"]
    counts = Counter(row["mood"] for row in GOOD)
    assert mood.filled == len(GOOD) - counts.pop(None)
    assert [(value.name, value.rows) for value in mood.values] == counts.most_common()
    crossing = mood.crossing
    assert crossing is not None and crossing.column == "country" and crossing.heads == tuple(dict(counts.most_common()))
    found = {group.value: dict(zip(crossing.heads, group.counts, strict=True)) for group in crossing.groups}
    both = Counter((row["country"], row["mood"]) for row in GOOD if row["mood"])
    assert found == {country: {head: both[country, head] for head in crossing.heads} for country in ("DE", "FR", "US")}
    assert [value.name for value in fields["stars"].values] == ["1", "2", "3", "4", "5"]
    assert {value.name for value in fields["sure"].values} == {"true", "false"}
    city = fields["city"]
    assert (len(city.values), city.different, city.others) == (MAX_VALUES, 40, 40 - MAX_VALUES)
    assert city.other_rows + sum(value.rows for value in city.values) == len(GOOD)


def test_numbers_and_lengths_are_spread(answers: Answers) -> None:
    fields = {field.name: field for field in answers.fields}
    for name, measure in (("price", lambda row: row["price"]), ("why", lambda row: len(row["why"]))):
        numbers = sorted(measure(row) for row in GOOD)
        spread = fields[name].spread
        assert spread is not None
        low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
        found = (spread.rows, spread.mean, spread.smallest, spread.low, spread.median, spread.high, spread.largest)
        assert found == pytest.approx(
            (len(GOOD), statistics.fmean(numbers), numbers[0], low, median, high, numbers[-1])
        )
        assert sum(bar.rows for bar in spread.bars) == len(GOOD)
        assert 10 <= len(spread.bars) <= 26
        for bar in spread.bars[1:-1]:
            assert bar.rows == sum(bar.start <= number < bar.end for number in numbers)
    crossing = fields["price"].crossing
    assert crossing is not None and crossing.column == "country"
    for group in crossing.groups:
        prices = [row["price"] for row in GOOD if row["country"] == group.value]
        assert group.rows == len(prices) and group.quartiles is not None
        assert group.quartiles.median == pytest.approx(statistics.median(prices))
    assert fields["why"].crossing is None, "lengths that do not vary with a column are not laid against it"
    assert fields["whole"].kind == "lengths"


def test_lists_are_counted_by_entry_or_by_how_many_they_have(answers: Answers) -> None:
    fields = {field.name: field for field in answers.fields}
    counts = Counter(tag for row in GOOD for tag in json.loads(row["tags"]))
    assert {value.name: value.rows for value in fields["tags"].values} == counts
    crossing = fields["tags"].crossing
    assert crossing is not None
    sizes = Counter(row[crossing.column] for row in GOOD)
    both = Counter((row[crossing.column], tag) for row in GOOD for tag in json.loads(row["tags"]))
    for group in crossing.groups:
        assert group.rows == sizes[group.value]
        assert dict(zip(crossing.heads, group.counts, strict=True)) == {
            tag: both[group.value, tag] for tag in crossing.heads
        }
    parts = fields["parts"].spread
    assert parts is not None and (parts.smallest, parts.largest) == (0, 3)


@pytest.mark.parametrize(
    ("select", "kind", "bars"),
    [
        ("1e308 * (i % 2 * 2 - 1) + i * 1e300", "numbers", 0),
        ("CASE WHEN i = 0 THEN 1e15 ELSE i / 7 END", "numbers", None),
        ("CASE WHEN i = 0 THEN 'NaN'::DOUBLE ELSE i END", "numbers", None),
        ("i * 4000000000000000::HUGEINT", "numbers", None),
        ("-i / 1000", "numbers", None),
        ("repeat('x', 100000) || i", "lengths", 2),
        ("''", "values", None),
        ("CASE WHEN i < 3 THEN NULL ELSE 'only' END", "values", None),
    ],
)
def test_fields_that_hold_anything_are_told(tmp_path: Path, select: str, kind: str, bars: int | None) -> None:
    path = table_at(
        tmp_path / "t.parquet",
        f"""SELECT 'g' || (i % 2) AS g, 'k' AS key, 'ok' AS status, '' AS "text", '{{}}'::JSON AS json,
            {select} AS found, 'STOP' AS finish_reason FROM range(100) r(i)""",
    )
    with scratch() as connection:
        (field,) = read_answers(connection, path).fields
    assert field.kind == kind
    if field.spread is not None:
        assert bars is None or len(field.spread.bars) == bars
        assert len(field.spread.bars) <= 26
        assert sum(bar.rows for bar in field.spread.bars) in (0, field.spread.rows)
        assert math.isfinite(field.spread.mean)


def test_what_is_looked_at_is_bounded_and_a_table_without_fields_has_its_texts(tmp_path: Path) -> None:
    many = ", ".join(f"i % {n + 2} AS f{n}" for n in range(30))
    mine = ", ".join(f"'g' || (i % 3) AS s{n}" for n in range(30))
    path = table_at(
        tmp_path / "wide.parquet",
        f"""SELECT {mine}, 'k' AS key, 'ok' AS status, 'yes' AS "text", NULL::JSON AS json, {many}, '' AS finish_reason
            FROM range(60) r(i)""",
    )
    plain = table_at(
        tmp_path / "plain.parquet",
        """SELECT 'k' AS key, 'ok' AS status, (['yes', 'no'])[1 + i % 2] AS "text", NULL::JSON AS json,
                  '' AS finish_reason
           FROM range(60) r(i)""",
    )
    with scratch() as connection:
        found = read_answers(connection, path)
        (text,) = read_answers(connection.cursor(), plain).fields
    assert (len(found.fields), len(found.left_out), len(found.groupings)) == (MAX_FIELDS, 10, 12)
    assert [(value.name, value.rows) for value in text.values] == [("no", 30), ("yes", 30)]


def test_strengths_are_those_of_the_formulas() -> None:
    """Worked by hand: a table without any relation, one with a perfect one, and groups whose means alone differ."""
    assert cramers_v({(0, 0): 10, (0, 1): 10, (1, 0): 10, (1, 1): 10}) == 0
    assert cramers_v({(0, 0): 50, (1, 1): 50}) == pytest.approx(1.0)
    assert cramers_v({(0, 0): 5}) == 0
    # phi squared is 0.36; without its bias 0.36 - 1/99 over a least side of 2 - 1/99, less 1.
    assert cramers_v({(0, 0): 40, (0, 1): 10, (1, 0): 10, (1, 1): 40}) == pytest.approx(
        ((0.36 - 1 / 99) / (1 - 1 / 99)) ** 0.5
    )
    assert correlation_ratio([(2, 1.0, 0.0), (2, 3.0, 0.0)]) == 1.0
    assert correlation_ratio([(2, 2.0, 1.0), (2, 2.0, 1.0)]) == 0.0
    assert correlation_ratio([(2, 1.0, 1.0), (2, 3.0, 1.0)]) == pytest.approx(0.5**0.5)


def test_widths_of_bars_are_round_numbers() -> None:
    spans = (24, 25, 100, 0.5, 1.0, 0.0, 3e-7)
    assert [bar_width(span, is_whole=False) for span in spans] == pytest.approx([1, 2, 5, 0.05, 0.05, 1, 2e-8])
    assert [bar_width(span, is_whole=True) for span in (0, 5, 24, 25)] == [1, 1, 1, 2]
    assert bar_width(math.inf, is_whole=False) is None


def test_what_was_sent_again_is_counted_by_how_it_ended_before_and_after(tmp_path: Path) -> None:
    entry = "struct_pack(attempt := {}, status := '{}', error_code := 0, error_message := '', finish_reason := '')"
    histories = [
        ("ok", [(1, "failed"), (2, "ok")]),
        ("ok", [(1, "failed"), (2, "missing"), (3, "ok")]),
        ("blocked", [(1, "truncated"), (2, "blocked")]),
        # Two answers to one attempt are none.
        ("ok", [(1, "ok"), (1, "ok")]),
        ("ok", []),
    ]
    rows = [
        f"({n}, '{status}', [{', '.join(entry.format(*one) for one in made)}])" if made else f"({n}, '{status}', NULL)"
        for n, (status, made) in enumerate(histories)
    ]
    path = table_at(tmp_path / "t.parquet", f"SELECT * FROM (VALUES {', '.join(rows)}) t(row, status, history)")
    with scratch() as connection:
        found = read_retries(connection, path)
        assert found is not None
        assert found.rows == 3
        assert found.changes == {("failed", "ok"): 2, ("truncated", "blocked"): 1}
        assert [(one.number, one.rows, one.ok) for one in found.attempts] == [(2, 3, 1), (3, 1, 1)]
        path = table_at(
            tmp_path / "none.parquet", f"SELECT * FROM (VALUES {', '.join(rows[3:])}) t(row, status, history)"
        )
        assert read_retries(connection, path) is None
