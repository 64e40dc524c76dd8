"""Orders whose wrong lines are left out: what is sent, what stands in the results, and what can still be done."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, line, newest, write_lines

pytestmark = pytest.mark.anyio

WRONG = [
    line("a", "one"),
    "this is no JSON",
    line("b", "two", generationConfg={}),
    line("a", "a again"),
    json.dumps({"request": {"contents": [{"parts": [{"text": "no key"}]}]}}),
    line("line-2", "as the second line would be called"),
    line("c", "three"),
    '{"key":"c","request":{"contents":[{"parts":[{"text":"cut',
]
RIGHT = ["a", "line-2", "c"]
LEFT_OUT = {"line-2-2": 2, "b": 3, "line-4": 4, "line-5": 5, "line-8": 8}


def _sent(talk: Conversation, batch: str) -> list[str]:
    path = talk.settings.home / "batches" / batch / "requests.jsonl"
    return [json.loads(row)["key"] for row in path.read_text(encoding="utf-8").splitlines()]


async def _rows(talk: Conversation, batch: str) -> dict[str, dict[str, Any]]:
    found = await talk.call("get_results", batch=batch, view="rows", limit=200)
    assert len({row["key"] for row in found["rows"]}) == len(found["rows"]), "no row doubled"
    return {row["key"]: row for row in found["rows"]}


@pytest.mark.both_eras
async def test_wrong_lines_are_left_out_counted_and_stand_as_failed_with_their_reason(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = write_lines(data / "mixed.jsonl", WRONG)
    refused = await talk.call("preview_batch", source=source)
    assert (refused["ok"], refused["problem_count"]) == (False, 5)
    mended = write_lines(data / "mended.jsonl", [*WRONG, json.dumps({"key": "m", "request": {"contents": "a text"}})])
    at_once = await talk.call("preview_batch", source=mended)
    assert at_once["problem_count"] == 5
    assert "contents was given as text in line 9; it is sent as a user turn." in at_once["warnings"]

    preview = await talk.call("preview_batch", source=source, skip_invalid=True)
    assert preview["ok"], preview
    assert (preview["request_count"], preview["send_count"], preview["skipped_count"]) == (8, 3, 5)
    assert {problem["key"]: problem["line"] for problem in preview["problems"]} == LEFT_OUT
    assert any("5 of 8 lines are wrong and not sent" in warning for warning in preview["warnings"])

    created = await talk.call("create_batch", source=source, skip_invalid=True)
    assert (created["request_count"], created["send_count"]) == (8, 3)
    assert any("5 of 8 lines are wrong and not sent" in warning for warning in created["warnings"])
    assert created["estimate"] == preview["estimate"]
    batch = created["batch_id"]
    assert _sent(talk, batch) == RIGHT
    waiting = await talk.call("check_status", batch=batch)
    assert waiting["counts"] == {"total": 8, "succeeded": 0, "failed": 5, "pending": 3}

    sandbox.finish(newest(sandbox))
    summary = (await talk.call("get_results", batch=batch))["summary"]
    assert (summary["expected"], summary["succeeded"], summary["failed"], summary["missing"]) == (8, 3, 5, 0)
    rows = await _rows(talk, batch)
    assert list(rows) == [*RIGHT, *LEFT_OUT]
    assert {key for key, row in rows.items() if row["status"] == "failed"} == set(LEFT_OUT)
    for key, number in LEFT_OUT.items():
        # Without the code, which is none of Gemini's.
        assert rows[key]["error"].startswith(f"Not sent, because line {number} is wrong: "), rows[key]
    saved = await talk.call("get_results", batch=batch, save_to="answers.csv")
    assert Path(saved["saved"]["path"]).read_text(encoding="utf-8").count(',failed,"Not sent, because line ') == 5
    assert "generationConfig" in rows["b"]["error"]
    assert "same as that of line 1" in rows["line-4"]["error"]
    assert "its key 'c' is another line's" in rows["line-8"]["error"]
    status = await talk.call("check_status", batch=batch)
    assert status["counts"] == {"total": 8, "succeeded": 3, "failed": 5, "pending": 0}
    assert status["rows"]["failed"] == 5
    listed = (await talk.call("list_jobs"))["jobs"][0]
    assert listed["counts"] == status["counts"]
    again = await talk.call("create_batch", source=source, skip_invalid=True)
    assert (again["batch_id"], again["reused"], again["send_count"]) == (batch, True, 3)
    standing = await talk.call("preview_batch", source=source, skip_invalid=True)
    assert (standing["standing"], standing["send_count"], standing["skipped_count"]) == (batch, 3, 5)
    assert "problems" in await talk.refusal("create_batch", source=source)
    assert sandbox.creates == 1


async def test_where_nothing_is_wrong_it_is_the_same_order_with_and_without(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    for name, first, then in (("one", True, False), ("two", False, True)):
        source = write_lines(data / f"{name}.jsonl", [line("a", name), line("b", name)])
        created = await talk.call("create_batch", source=source, skip_invalid=first)
        again = await talk.call("create_batch", source=source, skip_invalid=then)
        assert (again["batch_id"], again["reused"]) == (created["batch_id"], True)
        assert (created["request_count"], created["send_count"]) == (2, 2)
    assert sandbox.creates == 2


async def test_an_order_of_nothing_but_wrong_lines_is_refused(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    source = write_lines(data / "wrong.jsonl", ["{", "[]"])
    preview = await talk.call("preview_batch", source=source, skip_invalid=True)
    assert (preview["ok"], preview["problem_count"], preview["estimate"]) == (False, 2, None)
    refusal = await talk.refusal("create_batch", source=source, skip_invalid=True)
    assert "All 2 lines of wrong.jsonl are wrong" in refusal
    assert "cannot be read here" in await talk.refusal("create_batch", source="files/abc", skip_invalid=True)
    assert sandbox.creates == 0


async def test_a_retry_sends_what_was_sent_before_and_says_what_to_do_about_the_rest(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [line("a", "[[sandbox:error:13]] one"), "no JSON", line("b", "two")]
    batch = (await talk.call("create_batch", source=write_lines(data / "m.jsonl", rows), skip_invalid=True))["batch_id"]
    sandbox.finish(newest(sandbox))
    before = await _rows(talk, batch)
    again = await talk.call("retry_failed", batch=batch, include=["failed"])
    assert (again["request_count"], again["send_count"]) == (1, 1)
    assert any("1 row was left out" in warning and "order it again" in warning for warning in again["warnings"])
    sandbox.finish(newest(sandbox))
    after = await _rows(talk, batch)
    assert set(after) == set(before) == {"a", "b", "line-2"}
    assert after["line-2"] == before["line-2"]
    right = write_lines(data / "n.jsonl", ["no JSON", line("b", "only right ones are sent")])
    other = (await talk.call("create_batch", source=right, skip_invalid=True))["batch_id"]
    sandbox.finish(newest(sandbox))
    await _rows(talk, other)
    refusal = await talk.refusal("retry_failed", batch=other, include=["failed"])
    assert "cannot be resent" in refusal
    assert "correct the source" in refusal


async def test_items_and_converted_lines_are_left_out_alike(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    items = [{"key": "a", "prompt": "one"}, {"key": "a", "prompt": "two"}, {"prompt": "  "}, {"prompt": "three"}]
    created = await talk.call("create_batch", requests=items, skip_invalid=True)
    assert _sent(talk, created["batch_id"]) == ["a", "row-4"]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    lines = [
        json.dumps({"custom_id": "x", "method": "POST", "url": "/v1/chat/completions", "body": body}),
        json.dumps({"custom_id": "y", "method": "POST", "url": "/v1/moderations", "body": {"input": "hi"}}),
        json.dumps({"custom_id": "x", "method": "POST", "url": "/v1/chat/completions", "body": body}),
    ]
    other = await talk.call("create_batch", source=write_lines(data / "openai.jsonl", lines), skip_invalid=True)
    assert (other["request_count"], other["send_count"]) == (3, 1)
    for record in sandbox.create_records:
        sandbox.finish(record.name)
    rows = await _rows(talk, created["batch_id"])
    assert {key: row["status"] for key, row in rows.items()} == {
        "a": "ok",
        "row-4": "ok",
        "item-2": "failed",
        "row-3": "failed",
    }
    assert {key: row["status"] for key, row in (await _rows(talk, other["batch_id"])).items()} == {
        "x": "ok",
        "y": "failed",
        "line-3": "failed",
    }


async def test_rows_of_a_table_are_left_out_and_keep_their_columns(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = data / "reviews.csv"
    source.write_text("id,text,stars\n1,good,5\n,nameless,4\n2,bad,1\n1,twice,3\n3,fair,2\n", encoding="utf-8")
    order = {"source": str(source), "prompt": "Mood of {{text}}?", "key_column": "id", "skip_invalid": True}
    preview = await talk.call("preview_batch", **order)
    assert (preview["request_count"], preview["send_count"], preview["skipped_count"]) == (5, 3, 2)
    batch = (await talk.call("create_batch", **order))["batch_id"]
    assert _sent(talk, batch) == ["1", "2", "3"]
    sandbox.finish(newest(sandbox))
    rows = await _rows(talk, batch)
    assert list(rows) == ["1", "2", "3", "row-2", "row-4"]
    found = await talk.call(
        "query_results", batch=batch, sql="SELECT key, status, source_text, stars FROM results ORDER BY row"
    )
    assert [tuple(row) for row in found["rows"]] == [
        ("1", "ok", "good", "5"),
        ("2", "ok", "bad", "1"),
        ("3", "ok", "fair", "2"),
        ("row-2", "failed", "nameless", "4"),
        ("row-4", "failed", "twice", "3"),
    ]


async def test_rows_that_the_reader_of_a_table_refuses_are_left_out_and_all_others_keep_their_places(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    texts = ["1,good,5", "2,too,many,cells", '3,"over\r\ntwo lines, and ""quoted""",1', "few", "", "1,twice,2"]
    texts.append("6,fine,4")
    source = data / "ragged.csv"
    source.write_bytes(("id,text,stars\r\n" + "\r\n".join(texts)).encode())
    order: dict[str, Any] = {"source": str(source), "prompt": "Mood of {{text}}?", "key_column": "id"}
    plain = await talk.call("preview_batch", **order)
    assert (plain["ok"], plain["problem_count"]) == (False, 2)
    assert [problem["line"] for problem in plain["problems"]] == [3, 6]

    order["skip_invalid"] = True
    preview = await talk.call("preview_batch", **order)
    assert (preview["request_count"], preview["send_count"], preview["skipped_count"]) == (6, 3, 3), preview
    batch = (await talk.call("create_batch", **order))["batch_id"]
    assert _sent(talk, batch) == ["1", "3", "6"]
    sandbox.finish(newest(sandbox))
    rows = await _rows(talk, batch)
    assert list(rows) == ["1", "3", "6", "row-2", "row-4", "row-5"]
    assert "row 2 is wrong: The row has 4 cells; the header has 3." in rows["row-2"]["error"]
    assert "row 4 is wrong: The row has 1 cell; the header has 3." in rows["row-4"]["error"]
    sql = "SELECT key, source_text, stars FROM results ORDER BY row"
    found = (await talk.call("query_results", batch=batch, sql=sql))["rows"]
    assert [row[1:] for row in found[:3]] == [["good", "5"], ['over\ntwo lines, and "quoted"', "1"], ["fine", "4"]]
    assert found[5] == ["row-5", "twice", "2"]

    # Which rows a condition or a sample wants, nobody knows of one that cannot be read.
    assert not (await talk.call("preview_batch", **order, where="stars > 1"))["ok"]
    first = await talk.call("preview_batch", **order, limit_rows=2)
    assert (first["request_count"], first["send_count"]) == (2, 1)


async def test_rows_of_json_that_are_none_are_left_out_and_an_open_quote_is_refused_with_the_right_text(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = ['{"id":"1","text":"one"}', "no JSON", "", '{"id":"2","text":"two"', "[]", '{"id":"3","text":"three"}']
    (data / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    items = '[{"id":"1","text":"one"}, 7, {"id":"3","text":"three","more":1}]'
    (data / "rows.json").write_text(items, encoding="utf-8")
    order = {"prompt": "Mood of {{text}}?", "key_column": "id", "skip_invalid": True}
    for name, left_out in (("rows.jsonl", 3), ("rows.json", 1)):
        created = await talk.call("create_batch", source=name, **order)
        assert (created["request_count"], created["send_count"]) == (2 + left_out, 2), name
        assert _sent(talk, created["batch_id"]) == ["1", "3"]
        missing = [warning for warning in created["warnings"] if "Missing members" in warning]
        assert missing == (["Missing members are treated as empty: more in 1."] if name == "rows.json" else [])

    (data / "quotes.csv").write_text('id,text\n1,"He said "hi""\n2,fine\n3,too,many\n', encoding="utf-8")
    refused = await talk.call("preview_batch", source="quotes.csv", **order)
    assert (refused["ok"], refused["problem_count"]) == (False, 2)
    assert '"He said ""hi"""' in refused["problems"][0]["fix"].replace('\\"', '"'), refused["problems"][0]
    refusal = await talk.refusal("create_batch", source="quotes.csv", **order)
    assert "skip_invalid can't leave them out, because an open quote hides where a row ends" in refusal
    assert sandbox.creates == 2


async def test_a_row_whose_file_is_missing_is_left_out_and_the_others_are_sent_with_theirs(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    (data / "there.txt").write_text("a page", encoding="utf-8")
    source = data / "pages.csv"
    source.write_text("id,page\n1,there.txt\n2,gone.txt\n3,there.txt\n", encoding="utf-8")
    order = {"source": str(source), "prompt": "Sum up {{id}}", "attach": "page", "key_column": "id"}
    assert "gone.txt" in await talk.refusal("preview_batch", **order)
    created = await talk.call("create_batch", **order, skip_invalid=True)
    assert (created["request_count"], created["send_count"]) == (3, 2)
    sandbox.finish(newest(sandbox))
    rows = await _rows(talk, created["batch_id"])
    assert {key: row["status"] for key, row in rows.items()} == {"1": "ok", "3": "ok", "2": "failed"}
    assert "gone.txt" in rows["2"]["error"]
