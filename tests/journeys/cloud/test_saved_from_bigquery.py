"""Results that stay in BigQuery, saved here: the very files that a batch of the same rows on this machine gives."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import duckdb
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.cloud.places import on_cloud, table
from support.conversation import Conversation, converse, newest
from support.extent import long

pytestmark = pytest.mark.anyio

#: Of every kind of column that is the same in a Parquet file and in BigQuery.
_ROWS = """SELECT 'r' || n AS id,
    CASE n % 3 WHEN 0 THEN '=1+' WHEN 1 THEN 'fine, "so" ' ELSE 'naïve 🙂 ' END || n AS review,
    n::BIGINT AS whole, CASE WHEN n = 2 THEN 'nan'::DOUBLE ELSE n / 3.0 END AS part, n % 2 = 0 AS yes,
    DATE '2026-11-29' + n::INTEGER AS day, TIME '20:00:00.5' AS clock, TIMESTAMP '2026-11-29 20:00:00.25' AS moment,
    TIMESTAMP '2026-11-29 20:00:00.25' AT TIME ZONE 'UTC' AS instant,
    (n + 0.1)::DECIMAL(38, 9) AS exact, 'y\\x41\\xFE'::BLOB AS bytes, [n, n + 1]::BIGINT[] AS several,
    {'a': 'x' || n, 'b': [n::BIGINT]} AS nested, CASE WHEN n <> 3 THEN 'x' END AS gap
    FROM range({count}) AS t(n)"""
_SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"type": "string"},
        "stars": {"type": "integer"},
        "sure": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["mood", "stars"],
}


@pytest.fixture
async def talk(settings: Settings, sandbox: Sandbox) -> AsyncIterator[Conversation]:
    with on_cloud(settings, sandbox) as settings:
        async with converse(settings, None) as conversation:
            yield conversation


async def answered(talk: Conversation, sandbox: Sandbox, source: str, **order: Any) -> str:
    """Order, and have it answered; returns the batch."""
    wanted = {"source": source, "prompt": "Judge: {{review}}", "key_column": "id", **order}
    await talk.call("preview_batch", **wanted)
    batch = (await talk.call("create_batch", **wanted, confirm=True))["batch_id"]
    sandbox.finish(newest(sandbox))
    return str(batch)


async def both(talk: Conversation, sandbox: Sandbox, data: Path, rows: str, **order: Any) -> tuple[str, str]:
    """Order the same rows from a file and from BigQuery; returns both batches."""
    duckdb.connect().execute(f"COPY ({rows}) TO '{data / 'rows.parquet'}'")
    here = await answered(talk, sandbox, str(data / "rows.parquet"), **order)
    return here, await answered(talk, sandbox, table(sandbox, "rows", rows), **order)


def content(path: Path) -> Any:
    """What a file holds: of Parquet columns with their types, and rows; of a workbook its sheets."""
    if path.suffix == ".parquet":
        database = duckdb.connect()
        columns = database.execute(f"DESCRIBE FROM '{path}'").fetchall()
        texts = f"SELECT COLUMNS(*)::VARCHAR FROM '{path}' ORDER BY key"
        return [column[:2] for column in columns], database.execute(texts).fetchall()
    if path.suffix == ".xlsx":
        with ZipFile(path) as book:
            return [(name, book.read(name)) for name in book.namelist() if "docProps/core" not in name]
    return path.read_bytes()


@long
@pytest.mark.parametrize("schema", [_SCHEMA, {}], ids=["fields", "text"])
async def test_a_table_in_bigquery_is_saved_as_a_file_of_the_same_rows_is(
    talk: Conversation, sandbox: Sandbox, data: Path, schema: dict[str, Any]
) -> None:
    here, there = await both(talk, sandbox, data, _ROWS.replace("{count}", "7"), response_schema=schema)
    for ending in ("parquet", "xlsx", "csv"):
        saved = []
        for batch, name in ((here, "here"), (there, "there")):
            found = await talk.call("get_results", batch=batch, save_to=str(data / f"{name}.{ending}"))
            assert (found["saved"]["rows"], found["saved"]["format"]) == (7, ending)
            saved.append(content(data / f"{name}.{ending}"))
        assert saved[0] == saved[1], ending
    again = await talk.call("get_results", batch=there, save_to=str(data / "there.parquet"))
    assert again["saved"]["path"] == str(data / "there.parquet")


@long
async def test_what_a_statement_selects_in_bigquery_is_saved_in_every_format_vectors_too(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = "SELECT 'r' || n AS id, 'fine' AS review, [n + 0.5, 1.0]::DOUBLE[] AS point FROM range(3) AS t(n)"
    here, there = await both(talk, sandbox, data, rows)
    sql = "SELECT key, status, CAST(attempt AS INT64) AS attempt, {} AS embedding FROM results ORDER BY key"
    for ending in ("npy", "parquet", "xlsx", "csv"):
        for batch, name, point in ((here, "here", "point::DOUBLE[]"), (there, "there", "point")):
            await talk.call("get_results", batch=batch, sql=sql.format(point), save_to=str(data / f"{name}.{ending}"))
        assert content(data / f"here.{ending}") == content(data / f"there.{ending}"), ending
    assert content(data / "here.keys.jsonl") == content(data / "there.keys.jsonl")
    before = len(sandbox.cloud.bigquery.statements)
    assert "no embeddings" in await talk.refusal("get_results", batch=there, save_to=str(data / "all.npy"))
    assert "also" in await talk.refusal(
        "get_results", batch=there, sql=sql.format("1"), also=[here], save_to=str(data / "a.csv")
    )
    assert len(sandbox.cloud.bigquery.statements) == before
    some = await talk.call("get_results", batch=there, keys=["r1"], save_to=str(data / "some.parquet"))
    assert some["saved"]["rows"] == 1


@long
async def test_a_statement_over_bigquery_is_saved_with_the_types_that_it_has_there(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = _ROWS.replace("{count}", "7")
    batch = await answered(talk, sandbox, table(sandbox, "rows", rows), response_schema=_SCHEMA)
    database, path = duckdb.connect(), data / "rows"
    query = "SELECT * FROM results ORDER BY key"
    found = await talk.call("get_results", batch=batch, sql=query, save_to=str(path), format="parquet")
    assert found["saved"]["path"] == str(path)
    there = {name: kind for name, kind, *_ in database.execute(f"DESCRIBE FROM read_parquet('{path}')").fetchall()}
    assert {name: there[name] for name in ("id", "whole", "part", "yes", "day", "clock", "moment", "instant")} == {
        **{"id": "VARCHAR", "whole": "BIGINT", "part": "DOUBLE", "yes": "BOOLEAN", "day": "DATE", "clock": "TIME"},
        **{"moment": "TIMESTAMP", "instant": "TIMESTAMP WITH TIME ZONE"},
    }
    assert (there["exact"], there["bytes"], there["several"]) == ("DECIMAL(38,9)", "BLOB", "BIGINT[]")
    assert (there["nested"], there["stars"], there["sure"]) == ("STRUCT(a VARCHAR, b BIGINT[])", "BIGINT", "DOUBLE")
    texts = "SELECT COLUMNS(*)::VARCHAR FROM ({}) ORDER BY id"
    columns = "id, review, whole, part, yes, day, clock, moment, instant, exact, bytes, several, nested, gap"
    saved = database.execute(texts.format(f"SELECT {columns} FROM read_parquet('{path}')")).fetchall()
    assert saved == database.execute(texts.format(f"SELECT {columns} FROM ({rows})")).fetchall()
    for ending in ("parquet", "csv", "xlsx", "jsonl"):
        none = await talk.call(
            "get_results", batch=batch, sql="SELECT key FROM results WHERE key = ''", save_to=str(data / f"n.{ending}")
        )
        assert none["saved"]["rows"] == 0


@long
async def test_rows_that_were_sent_again_are_saved_from_bigquery_with_how_each_attempt_ended(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = """SELECT 'r' || n AS id, n || CASE n WHEN 1 THEN ' [[sandbox:error:8]]'
        WHEN 2 THEN ' [[sandbox:error:3]]' ELSE '' END AS review
        FROM range(5) AS t(n)"""
    batches = await both(talk, sandbox, data, rows, response_schema=_SCHEMA)
    for batch in batches:
        assert (await talk.call("get_results", batch=batch))["summary"]["succeeded"] == 3
        await talk.call("retry_failed", batch=batch)
        sandbox.finish(newest(sandbox))
    for ending in ("parquet", "xlsx", "csv"):
        for batch in batches:
            await talk.call("get_results", batch=batch, save_to=str(data / f"{batch}.{ending}"))
        here, there = (content(data / f"{batch}.{ending}") for batch in batches)
        assert here == there, ending


@long
async def test_a_table_in_bigquery_that_is_long_is_saved_whole_and_in_order(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    wide = "SELECT printf('r%05d', n) AS id, 'x' AS review, repeat('é', 10000) AS wide FROM range(8000) AS t(n)"
    batch = await answered(talk, sandbox, table(sandbox, "wide", wide))
    found = await talk.call("get_results", batch=batch, save_to=str(data / "wide.parquet"))
    assert found["saved"]["rows"] == 8000
    keys = duckdb.connect().execute(f"SELECT key, length(wide) FROM '{data / 'wide.parquet'}'").fetchall()
    assert keys == [(f"r{number:05}", 10_000) for number in range(8000)]
