"""Conditions over rows: what people write chooses rows, and attacks are refused by the same walls as whole queries."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import duckdb
import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query._condition import STORED, Condition, choose
from gemini_batch_mcp.results.query._database import locked_database
from gemini_batch_mcp.results.query.queries import QueryEngine
from support.answers import CANARY
from support.extent import in_part, part
from support.statements import REFUSED

ROWS: Final = """
    SELECT * FROM (VALUES (1, '1', '4.5', '007', 'DE', 'true', '491'), (2, '2', '', '008', 'FR', 'false', '492'),
                          (3, '10', '30', '009', 'DE', '', '33')) rows(n, stars, price, id, country, is_new, phone)
"""
#: How an attack can be put where a condition belongs.
WAYS: Final[tuple[Callable[[str], str], ...]] = (
    str,
    lambda attack: f"({attack})",
    lambda attack: f"EXISTS ({attack})",
    lambda attack: f"country IN ({attack})",
    lambda attack: f"true); {attack}; --",
    lambda attack: f"true) UNION ALL ({attack}",
    lambda attack: f"true /* */) AND (SELECT true FROM ({attack}) AS x",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conditions") / "rows.parquet"
    duckdb.execute(f"COPY ({ROWS}) TO '{path}' (FORMAT parquet)")
    (path.parent / "secret.csv").write_text(f"name\n{CANARY}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def engine() -> Iterator[QueryEngine]:
    with QueryEngine() as engine:
        yield engine


def _rows(engine: QueryEngine, table: Path, where: str, *, is_text: bool = True) -> list[int]:
    chosen = engine.choose_rows(table, where, number="n", is_text=is_text)
    rows = [n for n in range(1, chosen.total + 1) if chosen.bits[(n - 1) >> 3] & (0x80 >> ((n - 1) & 7))]
    assert chosen.count == len(rows)
    return rows


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("country = 'DE'", [1, 3]),
        ("stars > 1.5", [2, 3]),
        ("stars >= 2 AND NOT is_new", [2]),
        ("price IS NULL -- no price", [2]),
        ("price > 4 OR id = '008'", [1, 2, 3]),
        ("id LIKE '00%' AND phone LIKE '49%'", [1, 2]),
        ("price = (SELECT max(price) FROM results)", [3]),
        ("lower(country) IN ('fr', 'it')", [2]),
        ("true", [1, 2, 3]),
        ("stars = 5", []),
    ],
)
def test_what_people_write_chooses_rows(engine: QueryEngine, table: Path, where: str, rows: list[int]) -> None:
    assert _rows(engine, table, where) == rows


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("contry = 'DE'", "Did you mean country? The columns are stars, price, id, country, is_new, phone."),
        ("country = 'DE' LIMIT 1", "cannot be parsed"),
        ("true) LIMIT (1", "more than one condition"),
        ("true) GROUP BY (country", "more than one condition"),
        ("true) ORDER BY (country", "more than one condition"),
        ("true) UNION ALL (SELECT 1", "more than one condition"),
        ("", "is not a condition"),
        ("-- nothing", "is not a condition"),
        ("country > 5", "an explicit cast is required"),
        ("random() < 0.5", "gives another answer at another time"),
        ("current_date > DATE '2020-01-01'", "gives another answer at another time"),
        ("country IN (SELECT uuid() FROM results)", "gives another answer at another time"),
        ("count(*) > 1", "`where` cannot be used"),
        ("country = $1", "contains a parameter"),
        ("getenv('HOME') = 'x'", "The function getenv is not available"),
        ("EXISTS (SELECT * FROM 'secret.csv')", "There is no table secret.csv"),
        (f'EXISTS (SELECT * FROM "{STORED}")', "There is no table"),
        ("repeat(country, 1000000000) = ''", ""),
    ],
)
def test_what_is_no_condition_is_refused_with_its_reason(
    engine: QueryEngine, table: Path, where: str, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        engine.choose_rows(table, where, number="n", is_text=True, time_limit_seconds=5.0)
    text = str(refused.value)
    assert said.lower() in text.lower()
    assert CANARY not in text


@in_part
def test_the_attacks_on_queries_choose_nothing_in_whatever_way_they_are_put(table: Path) -> None:
    """All of them on both walls in this process; `test_escapes` tries the same walls from outside."""
    chosen: list[str] = []
    with locked_database({STORED: table}, 512 << 20) as connection:
        for attack in part(REFUSED, 3):
            for put in WAYS:
                condition = Condition({"results": str(table)}, put(attack), "n", True, 5.0, 512 << 20)
                try:
                    choose(connection, condition)
                except UsageError as error:
                    assert CANARY not in str(error)
                except duckdb.Error:
                    continue
                else:
                    chosen.append(condition.where)
    # What is no statement at all is an empty list in one of the ways.
    assert all(re.fullmatch(r"country IN \(\s*(/\*.*\*/)?\s*\)", where) for where in chosen)
