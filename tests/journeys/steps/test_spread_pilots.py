"""Pilots of rows spread over a source: the same rows whatever the prompt and wherever they stand, of every kind."""

import json
import random
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, sent
from support.extent import long

pytestmark = pytest.mark.anyio

ROWS = 400
PROMPT = "Mood of {{text}}?"


def rows(data: Path, name: str, numbers: list[int]) -> str:
    path = data / name
    values = [(f"r{number:04}", f"review {number}, {'long ' * (number % 7)}") for number in numbers]
    if path.suffix == ".csv":
        path.write_text("id,text\n" + "".join(f'{key},"{text}"\n' for key, text in values), encoding="utf-8")
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"id": key, "text": text}) for key, text in values]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        with duckdb.connect() as connection:
            connection.execute("CREATE TABLE t (id VARCHAR, text VARCHAR)")
            connection.executemany("INSERT INTO t VALUES (?, ?)", values)
            connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")
    return name


def ready(data: Path, name: str, numbers: list[int]) -> str:
    lines = [json.dumps({"key": f"r{n:04}", "request": {"contents": [{"parts": [{"text": f"{n}"}]}]}}) for n in numbers]
    (data / name).write_text("\n\n".join(lines), encoding="utf-8")
    return name


def converted(data: Path, name: str, numbers: list[int]) -> str:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    lines = [{"custom_id": f"r{n:04}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in numbers]
    (data / name).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return name


async def pilot(talk: Conversation, **order: Any) -> list[str]:
    """The keys of the rows that an order sends, in their order."""
    created = await talk.call("create_batch", **order)
    return [line["key"] for line in sent(talk, created["batch_id"])]


@long
async def test_a_pilot_takes_rows_from_all_over_a_source_and_the_same_ones_each_time(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    in_order = list(range(ROWS))
    mixed = random.Random(3).sample(in_order, ROWS)
    table: dict[str, Any] = {"prompt": PROMPT, "key_column": "id", "sample_rows": 40}
    first = await talk.call("preview_batch", source=rows(data, "a.csv", in_order), **table)
    assert first["request_count"] == 40
    assert "`sample_rows` took 40 of 400 rows of a.csv, spread over all of it." in first["warnings"]

    keys = await pilot(talk, source="a.csv", **table)
    assert keys == sorted(keys)
    # Of each quarter some: forty by chance miss one in 1 of 25,000 sources.
    assert {int(key[1:]) * 4 // ROWS for key in keys} == {0, 1, 2, 3}
    for name in ("b.csv", "b.jsonl", "b.parquet"):
        again = await pilot(talk, source=rows(data, name, mixed), **table | {"prompt": f"{PROMPT} ({name})"})
        assert sorted(again) == keys
        assert again != keys
    # More of them are more rows, not others; and without a column of keys the cells decide.
    assert set(keys) < set(await pilot(talk, source="a.csv", **table | {"sample_rows": 80}))
    by_cells = {
        name: await talk.call("preview_batch", source=name, prompt=PROMPT, where="id < 'r0300'", sample_rows=2)
        for name in ("a.csv", "b.csv")
    }
    asked = [
        sorted(row["request"]["contents"][0]["parts"][0]["text"] for row in preview["sample"])
        for preview in by_cells.values()
    ]
    assert asked[0] == asked[1]
    assert "`sample_rows` took 2 of 300 rows of a.csv, spread over all of it." in by_cells["a.csv"]["warnings"]

    for make in (ready, converted):
        one, other = make(data, "c.jsonl", in_order), make(data, "d.jsonl", mixed)
        lines = await pilot(talk, source=one, sample_rows=20)
        assert len(lines) == 20
        assert len({int(key[1:]) * 4 // ROWS for key in lines}) > 2
        assert sorted(await pilot(talk, source=other, sample_rows=20)) == lines

    (data / "docs").mkdir()
    for number in range(30):
        (data / "docs" / f"{number:02}.txt").write_text(f"Text {number}.", encoding="utf-8")
    seen = await talk.call("preview_batch", source="docs", prompt="Sum up {{text}}", sample_rows=5)
    assert seen["request_count"] == 5
    assert "`sample_rows` took 5 of 30 files of docs, spread over all of it." in seen["warnings"]

    # A batch is a source as well, and its pilot taken over.
    created = await talk.call("create_batch", source="a.csv", **table)
    sandbox.finish(created["jobs"][0]["name"])
    await talk.call("get_results", batch=created["batch_id"])
    step = await talk.call("create_batch", source=created["batch_id"], prompt="Shorten {{text}}", sample_rows=3)
    assert step["request_count"] == 3
    assert {line["key"] for line in sent(talk, step["batch_id"])} < set(keys)
    like = await talk.call("preview_batch", like=created["batch_id"], model="gemini-2.5-flash")
    assert "sample_rows=40 is taken over; give sample_rows=0 for all rows." in like["warnings"]
    for all_rows in ({"sample_rows": 0}, {"limit_rows": 0}, {"limit_rows": 1_000_000_000}, {"limit_rows": 1000}):
        whole = await talk.call("preview_batch", like=created["batch_id"], **all_rows)
        assert whole["request_count"] == ROWS
    whole = await talk.call("preview_batch", like=created["batch_id"], sample_rows=0)
    assert f"As {created['batch_id']}, but with another sample_rows (none instead of 40)." in whole["warnings"]
    everything = {"like": created["batch_id"], "prompt": "", "limit_rows": 0, "sample_rows": 0, "requests": []}
    assert (await talk.call("preview_batch", **everything))["request_count"] == 40, "a host that sends all arguments"


async def test_a_spread_refuses_what_it_cannot_go_with_and_names_lines_by_their_places(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = rows(data, "a.csv", list(range(20)))
    both = await talk.refusal("preview_batch", source=source, prompt=PROMPT, limit_rows=5, sample_rows=5)
    assert "limit_rows=5 takes the first rows and sample_rows=5 rows spread over all" in both
    listed = await talk.refusal("preview_batch", requests=[{"prompt": "x"}], sample_rows=5)
    assert "A list of requests does not go with sample_rows" in listed
    assert "Did you mean id?" in await talk.refusal(
        "preview_batch", source=source, prompt=PROMPT, key_column="idd", sample_rows=5
    )
    wrong = ["", '{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}', "", '{"key":"b"}']
    (data / "w.jsonl").write_text("\n".join(wrong), encoding="utf-8")
    preview = await talk.call("preview_batch", source="w.jsonl", sample_rows=9)
    assert [problem["line"] for problem in preview["problems"]] == [4]
