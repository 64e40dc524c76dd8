"""What follows on two batches: their answers joined, compared, and what they have cost, as an assistant asks for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest, spoken
from support.extent import long

pytestmark = pytest.mark.anyio

LABELS = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}


def reviews(data: Path, count: int = 12) -> str:
    """A table of reviews, with the label that a person gave each."""
    rows = [f"r{number},p{number % 3},{'good' if number % 2 else 'bad'},text {number}" for number in range(count)]
    (data / "reviews.csv").write_text("\n".join(["id,product,truth,text", *rows]) + "\n", encoding="utf-8")
    return "reviews.csv"


async def answered(talk: Conversation, sandbox: Sandbox, data: Path, **order: Any) -> str:
    """Order the reviews, and let the batch end; returns its id."""
    order = {
        "source": order.get("source") or reviews(data),
        "prompt": "Mood? {{text}}",
        "key_column": "id",
        "response_schema": LABELS,
    } | order
    created = await talk.call("create_batch", **order)
    sandbox.finish(newest(sandbox))
    return str(created["batch_id"])


@pytest.mark.both_eras
async def test_the_answers_of_two_batches_are_joined_in_one_question(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = await answered(talk, sandbox, data)
    second = await answered(talk, sandbox, data, prompt="Mood, again? {{text}}", display_name="second look")
    table = second.replace("-", "_")
    joined = f"SELECT count(*), count(DISTINCT other.text) FROM results JOIN {table} AS other USING (key)"
    for also in ([second], ["second look"], [second, "second look"], second):
        found = await talk.call("query_results", batch=first, sql=joined, also=also)
        assert found["rows"][0][0] == 12
    refused = await talk.refusal("query_results", batch=first, sql="SELECT * FROM second_look", also=["second look"])
    assert f"The tables are results, {table}." in refused
    assert "label" in await talk.refusal("query_results", batch=first, sql="SELECT labl FROM results", also=[second])

    running = await talk.call("create_batch", requests=[{"prompt": "one"}])
    refused = await talk.refusal("query_results", batch=first, sql=joined, also=[second, running["batch_id"]])
    assert f"{running['batch_id']} has no results" in refused
    assert "nowhere" in await talk.refusal("query_results", batch=first, sql=joined, also=["nowhere"])
    assert "at most 10" in await talk.refusal("query_results", batch=first, sql=joined, also=[second] * 11)


@long
async def test_what_a_statement_selects_is_saved_as_its_file_says(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = await answered(talk, sandbox, data)
    second = await answered(talk, sandbox, data, prompt="Mood, again? {{text}}")
    other = second.replace("-", "_")
    sql = f"""SELECT id, product, results.label AS first, o.label AS second, sum(results.row) OVER () AS total, id,
        0.1::FLOAT AS x, now() AS at, [now()] AS ats
        FROM results JOIN {other} AS o USING (id, product) WHERE results.row <= 3 ORDER BY results.row"""
    wish = {"batch": first, "sql": sql, "also": [second]}
    saved = (await talk.call("get_results", **wish, save_to="five.csv"))["saved"]
    assert (saved["rows"], saved["format"]) == (3, "csv")
    lines = (data / "five.csv").read_text().splitlines()
    assert lines[0] == "id,product,first,second,total,id_2,x,at,ats"
    assert [row.split(",")[:2] for row in lines[1:]] == [["r0", "p0"], ["r1", "p1"], ["r2", "p2"]]
    for format in ("jsonl", "parquet", "xlsx"):
        saved = (await talk.call("get_results", **wish, save_to=f"five.{format}"))["saved"]
        assert (saved["rows"], Path(saved["path"]).name) == (3, f"five.{format}")
    row = json.loads((data / "five.jsonl").read_text().splitlines()[0])
    assert (row["total"], row["x"], row["id_2"], len(row["ats"])) == (6, 0.1, "r0", 1)

    # The same path again holds what is wanted now, whatever it held before.
    whole = await talk.call("get_results", batch=first, save_to="five.csv")
    assert (whole["saved"]["rows"], whole["saved"]["path"]) == (12, str(data / "five.csv"))
    some = await talk.call("get_results", batch=first, save_to="five.csv", keys=["r3", "r5"])
    assert (some["saved"]["rows"], some["rows"]) == (2, [])
    assert (data / "five.csv").read_text().splitlines()[0] == "id,product,truth,source_text,label,status,error"

    for arguments, words in (
        ({"save_to": "x.csv", "sql": "COPY results TO 'y.csv'"}, "refused"),
        ({"save_to": "x.csv", "sql": "SELECT * FROM 'selected://rows'"}, "There is no table"),
        ({"save_to": "x.csv", "sql": "SELECT nope FROM results"}, "no column nope"),
        ({"save_to": "x.csv", "sql": "SELECT 'x'::INTEGER FROM results"}, "TRY_CAST"),
        ({"save_to": "x.csv", "sql": "FROM results", "keys": ["r1"]}, "can't be combined with sql"),
        ({"save_to": "x.csv", "also": [second]}, "sql is empty"),
        ({"sql": "FROM results"}, "save_to is empty"),
        ({"save_to": "x.npy", "sql": "FROM results"}, "no column embedding"),
        ({"save_to": "x.npy"}, "no embeddings"),
    ):
        assert words in await talk.refusal("get_results", batch=first, **arguments)
    assert not list(data.glob("[xy].*")) and not list(data.glob(".*"))


async def test_vectors_are_saved_as_a_matrix_that_numpy_opens(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    order = {"task": "embed", "model": "gemini-embedding-001", "response_schema": {}}
    batch = await answered(talk, sandbox, data, prompt="{{text}}", **order)
    result = await talk.raw("get_results", batch=batch, save_to="v.npy")
    links = [block.name for block in result.content if block.type == "resource_link"]
    assert links == ["v.npy", "v.keys.jsonl"]
    head = (data / "v.npy").read_bytes()[:128]
    assert head.startswith(b"\x93NUMPY") and b"(12, " in head
    assert [json.loads(key) for key in (data / "v.keys.jsonl").read_text().splitlines()] == [f"r{n}" for n in range(12)]
    assert "v.keys.jsonl" in spoken(result)
    told = await talk.call("get_results", batch=batch, save_to="v.csv")
    assert any("vector_row" in warning for warning in told["warnings"])
    assert (data / "v.csv").read_text().splitlines()[2].startswith("r1,p1,good,text 1,1,ok")
    assert (data / "v.vectors.npy").read_bytes() == (data / "v.npy").read_bytes()
    near = "SELECT key, embedding FROM results WHERE product = 'p1' ORDER BY row"
    assert (await talk.call("get_results", batch=batch, save_to="p1.npy", sql=near))["saved"]["rows"] == 4


@pytest.mark.both_eras
async def test_answers_are_compared_with_right_ones_and_with_another_batchs(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = await answered(talk, sandbox, data)
    second = await answered(talk, sandbox, data, prompt="Mood, again? {{text}}", display_name="second look")
    found = await talk.call("compare_results", batch=first, other="truth")
    rows = (await talk.call("query_results", batch=first, sql="SELECT label, truth, key FROM results"))["rows"]
    assert (found["field"], found["compared"], found["equal"]) == ("label", 12, sum(a == e for a, e, _ in rows))
    assert {row["key"] for row in found["rows"]} == {key for a, e, key in rows if a != e}
    assert found["share_low"] <= found["share"] <= found["share_high"]
    assert sum(pair["rows"] for pair in found["table"]) == 12

    seen: list[str] = []
    page: dict[str, Any] = {"next_cursor": ""}
    while not seen or page["next_cursor"]:
        page = await talk.call("compare_results", batch=first, other="truth", limit=2, cursor=page["next_cursor"])
        seen += [row["key"] for row in page["rows"]]
    assert seen == [row["key"] for row in found["rows"]]

    same = await talk.call("compare_results", batch=first, other=first)
    assert (same["share"], same["kappa"], same["rows"]) == (1.0, 1.0, [])
    assert (await talk.call("compare_results", batch=first, other="second look"))["compared"] == 12
    assert (await talk.call("compare_results", batch=second, other=first, field="text"))["field"] == "text"
    assert "no answer field 'nope'" in await talk.refusal("compare_results", batch=first, other="truth", field="nope")
    for other, meant in (
        ("nowhere", "Its columns: id, product, truth, source_text."),
        ("Thruth", "Did you mean truth?"),
    ):
        refused = await talk.refusal("compare_results", batch=first, other=other)
        assert f"{other} is neither a batch nor a column of the source of {first}." in refused
        assert meant in refused and f"like='{first}'" in refused
    assert "cursor" in await talk.refusal("compare_results", batch=first, other="truth", cursor="x")
    cursor = (await talk.call("compare_results", batch=first, other="truth", limit=1))["next_cursor"]
    refused = await talk.refusal("compare_results", batch=first, other=second, cursor=cursor)
    assert "belongs to another comparison" in refused


async def test_rows_without_a_label_are_left_out_unless_answers_are_blank_as_well(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    reviews(data, 30)
    lines = (data / "reviews.csv").read_text().splitlines()
    few = [
        line if place < 6 else line.replace(",good,", ",,").replace(",bad,", ", ,") for place, line in enumerate(lines)
    ]
    (data / "few.csv").write_text("\n".join(few), encoding="utf-8")
    batch = await answered(talk, sandbox, data, source="few.csv")
    found = await talk.call("compare_results", batch=batch, other="truth")
    labelled = "SELECT count(*), count(*) FILTER (label = truth) FROM results WHERE trim(truth) <> ''"
    assert [found["compared"], found["equal"]] == (await talk.call("query_results", batch=batch, sql=labelled))["rows"][
        0
    ]
    assert (found["compared"], found["left_out"]) == (5, 25)
    assert sum(pair["rows"] for pair in found["table"]) == 5 and all(pair["expected"] for pair in found["table"])
    assert "25 rows have no answer or no label" in spoken(await talk.raw("compare_results", batch=batch, other="truth"))

    # Where nothing was found in a text, that is an answer, and a blank cell says the same.
    nothing = {"type": "object", "properties": {"label": {"type": "string", "maxLength": 0}}, "required": ["label"]}
    batch = await answered(talk, sandbox, data, source="few.csv", response_schema=nothing)
    found = await talk.call("compare_results", batch=batch, other="truth")
    assert (found["compared"], found["equal"], found["left_out"]) == (30, 25, 0)


async def test_only_what_a_batch_answered_is_compared_never_a_column_that_came_along(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    """The field has the name of the column with right answers; a later step carries the first one's answers along."""
    (data / "labelled.csv").write_text("id,label,text\n" + "".join(f"r{n},right,t{n}\n" for n in range(4)))
    first = await answered(talk, sandbox, data, source="labelled.csv")
    for field in ("", "label", "answer_label"):
        compared = await talk.call("compare_results", batch=first, other="label", field=field)
        assert (compared["field"], compared["compared"], compared["equal"]) == ("answer_label", 4, 0)
        assert {pair["expected"] for pair in compared["table"]} == {"right"}
    later = await talk.call("create_batch", source=first, prompt="Apologise: {{source_text}}")
    sandbox.finish(newest(sandbox))
    refused = await talk.refusal("compare_results", batch=first, other=later["batch_id"])
    assert "has no answer field 'answer_label'" in refused
    assert f"{later['batch_id']} has status, text" in refused
    assert "Compare one of each with field='answer_label=text'" in refused
    refused = await talk.refusal("compare_results", batch=later["batch_id"], other=first, field="label")
    assert "that is a column of its source" in refused


async def test_a_page_that_was_begun_before_a_retry_never_goes_on_with_other_rows(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [f"r{n},{'good' if n % 2 else 'bad'},{'[[sandbox:error:13]]' if n == 3 else ''} text {n}" for n in range(16)]
    (data / "reviews.csv").write_text("\n".join(["id,truth,text", *rows]) + "\n", encoding="utf-8")
    batch = await answered(talk, sandbox, data, source="reviews.csv")
    compared = await talk.call("compare_results", batch=batch, other="truth", limit=1)
    page = await talk.call("get_results", batch=batch, view="rows", limit=5)
    again = await talk.call("compare_results", batch=batch, other="truth", limit=1, cursor=compared["next_cursor"])
    assert again["rows"] and again["rows"] != compared["rows"]

    await talk.call("retry_failed", batch=batch, confirm=True)
    sandbox.finish(newest(sandbox))
    cursor = compared["next_cursor"]
    refused = await talk.refusal("compare_results", batch=batch, other="truth", limit=1, cursor=cursor)
    assert f"The answers have changed since the page that gave the cursor '{cursor}'" in refused
    # Rows of get_results stand in the order of the source, and are found by their numbers whatever is built since.
    rest = await talk.call("get_results", batch=batch, view="rows", limit=20, cursor=page["next_cursor"])
    assert [row["key"] for row in page["rows"] + rest["rows"]] == [f"r{n}" for n in range(16)]


@long
async def test_fields_of_two_names_are_compared_and_free_text_row_by_row(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = await answered(talk, sandbox, data)
    moods = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    second = await answered(talk, sandbox, data, prompt="The mood of {{text}}?", response_schema=moods)
    refused = await talk.refusal("compare_results", batch=first, other=second)
    assert f"{second} has no answer field 'label'" in refused
    assert f"{first} has status, text, label" in refused and f"{second} has status, text, mood" in refused
    assert "field='label=mood'" in refused
    found = await talk.call("compare_results", batch=first, other=second, field="label=mood", limit=1)
    assert (found["compared"], found["field"]) == (12, "label")
    assert sum(pair["rows"] for pair in found["table"]) == 12
    if found["next_cursor"]:
        asked = {"batch": first, "other": second, "field": "label=mood", "cursor": found["next_cursor"]}
        assert (await talk.call("compare_results", **asked))["compared"] == 12

    source = reviews(data, 30)
    order = {"source": source, "response_schema": {}}
    free = [await answered(talk, sandbox, data, prompt=f"{word} {{{{text}}}}", **order) for word in ("A", "B")]
    result = await talk.raw("compare_results", batch=free[0], other=free[1], limit=5)
    assert (result.structured_content or {})["table"] == []
    assert "Values are mostly unique" in spoken(result) and len(spoken(result)) < 2000
    assert len((result.structured_content or {})["rows"]) == 5
