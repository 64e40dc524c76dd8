"""Random and half-sensible SQL: only answers and UsageErrors come out, the canary never does, nothing is written."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query.queries import QueryEngine
from support.answers import CANARY, ask, table_at
from support.extent import in_part, tries
from support.statements import ALLOWED, HARMLESS, REFUSED

pytestmark = in_part

_FUZZ = settings(max_examples=tries(100, 15), suppress_health_check=[HealthCheck.function_scoped_fixture])
_TEXT = (
    "SELECT FROM WHERE WITH AS RECURSIVE results labels_sf6epe ( ) , ; * ' \" -- /* */ key text row count(*) GROUP BY "
    "ORDER LIMIT UNION ALL JOIN ON USING COPY TO ATTACH SET PRAGMA read_csv('{place}/secret.csv') '{place}/secret.csv' "
    "duckdb_settings() range(10) unnest([1]) lambda x: x :: INT [ ] { } = <> || -> ->> NULL TRUE NOT IN EXISTS CASE "
    "WHEN THEN END OVER PARTITION VALUES (1) DESCRIBE SUMMARIZE PIVOT 1 2.5 $1 ? # . 'x' '{table}' glob('{place}/*') "
    "COLUMNS(*) EXCLUDE REPLACE QUALIFY WINDOW DISTINCT LATERAL FILTER INTERVAL DATE CAST TRY_CAST"
)
_WORDS = st.sampled_from(_TEXT.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    (place / "secret.csv").write_text(f"name\n{CANARY}\n", encoding="utf-8")
    (place / "batch").mkdir()
    table_at(place / "batch" / "results.parquet")
    return place


@pytest.fixture(scope="module")
def engine() -> Iterator[QueryEngine]:
    with QueryEngine() as engine:
        yield engine


def _assert_tame(place: Path, sql: str, *, engine: QueryEngine | None = None) -> None:
    table = place / "batch" / "results.parquet"
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    sql = sql.replace("{place}", str(place)).replace("{table}", str(table))
    try:
        if engine is None:
            said = str(ask(table, sql, limit=5, time_limit_seconds=0.5, also={"labels_sf6epe": table}))
        else:
            tables = {"results": table, "labels_sf6epe": table}
            answer = engine.query_tables(tables, sql, limit=5, time_limit_seconds=0.5)
            said = json.dumps([answer.columns, answer.rows], allow_nan=False)
    except UsageError as problem:
        said = str(problem)
        assert len(said) < 2500
        assert "engine ended" not in said
    assert CANARY not in said
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


@_FUZZ
@given(words=st.lists(_WORDS, max_size=25))
def test_words_in_any_order_are_tame(engine: QueryEngine, place: Path, words: list[str]) -> None:
    _assert_tame(place, " ".join(words), engine=engine)


@_FUZZ
@given(
    tail=st.lists(_WORDS, max_size=12), head=st.sampled_from(["SELECT", "FROM results", "WITH x AS (", "SELECT key,"])
)
def test_words_after_a_sensible_start_are_tame(engine: QueryEngine, place: Path, head: str, tail: list[str]) -> None:
    _assert_tame(place, " ".join([head, *tail]), engine=engine)


@_FUZZ
@given(sql=st.text(max_size=60))
def test_any_text_is_tame(engine: QueryEngine, place: Path, sql: str) -> None:
    _assert_tame(place, sql, engine=engine)


@_FUZZ
@given(expression=st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_as_a_value_comes_back_visible(place: Path, expression: str) -> None:
    if "\x00" not in expression:
        _assert_tame(place, "SELECT '" + expression.replace("'", "''") + "' FROM results")


def test_mutated_statements_are_tame(engine: QueryEngine, place: Path) -> None:
    """Pieces of allowed and of hostile statements, cut and joined at random places."""
    chance = random.Random(20261122)
    statements = [*ALLOWED, *REFUSED, *HARMLESS]
    for _ in range(tries(250, 20)):
        first, second = chance.choice(statements), chance.choice(statements)
        cut, rest = chance.randrange(len(first) + 1), chance.randrange(len(second) + 1)
        _assert_tame(
            place, first[:cut] + chance.choice(["", " ", "(", ") ", ", ", "; "]) + second[rest:], engine=engine
        )
