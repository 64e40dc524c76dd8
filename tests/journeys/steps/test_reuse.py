"""Pay once per request: repeated rows are sent once, answered ones not at all, and every row has its answer."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest
from support.extent import long

pytestmark = pytest.mark.anyio

SCHEMA: Final = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
ORDER: Final[dict[str, Any]] = {"prompt": "Label: {{text}}", "response_schema": SCHEMA, "key_column": "id"}


def table(path: Path, texts: Sequence[str]) -> str:
    """Write a table of texts; row n has the id n."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *((f"r{number}", text) for number, text in enumerate(texts, 1))])
    return str(path)


def sent_texts(sandbox: Sandbox) -> list[str]:
    """What has come to the service as requests, in all its jobs: the last text of each."""
    found: list[str] = []
    for record in sandbox.create_records:
        job = sandbox.state.job(record.name)
        assert job is not None
        for line in sandbox.state.file_path(job.input_file).read_bytes().splitlines():
            request = json.loads(line)["request"]
            content = request["contents"][-1] if "contents" in request else request["content"]
            found.append(content["parts"][-1].get("text", ""))
    return found


async def answered(talk: Conversation, sandbox: Sandbox, **order: Any) -> dict[str, Any]:
    """Place an order, have it answered, and collect it."""
    created = await talk.call("create_batch", **order)
    if created["send_count"]:
        sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=created["batch_id"])
    return created


async def rows(talk: Conversation, batch: str, columns: str = "key, status, text, answered_by, cost_usd") -> list[Any]:
    answer = await talk.call("query_results", batch=batch, sql=f"SELECT {columns} FROM results ORDER BY row")
    return list(answer["rows"])


@pytest.mark.both_eras
async def test_repeats_are_sent_once_and_what_is_answered_is_not_sent_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = table(data / "june.csv", ["good", "bad", "good", "fine", "good"])
    preview = await talk.call("preview_batch", source=first, **ORDER)
    counts = ("request_count", "send_count", "reused_count", "identical_count", "skipped_count")
    assert [preview[name] for name in counts] == [5, 3, 0, 2, 0]
    # Nothing tells yet how long an answer is.
    assert any(warning.startswith("Rows that are not sent save at least $") for warning in preview["warnings"])
    june = await answered(talk, sandbox, source=first, **ORDER)
    assert june["estimate"] == preview["estimate"]
    assert (june["request_count"], june["send_count"], june["reused_count"]) == (5, 3, 0)
    assert Counter(sent_texts(sandbox)) == Counter(f"Label: {text}" for text in ("good", "bad", "fine"))

    found = await rows(talk, june["batch_id"])
    assert [row[0] for row in found] == ["r1", "r2", "r3", "r4", "r5"]
    assert all(row[1] == "ok" and row[3] == "" for row in found)
    assert found[0][2] == found[2][2] == found[4][2] != found[1][2]
    assert [row[4] == 0 for row in found] == [False, False, True, False, True]
    summary = await talk.call("get_results", batch=june["batch_id"])
    assert summary["integrity_ok"]
    assert (summary["summary"]["expected"], summary["summary"]["succeeded"]) == (5, 5)
    assert summary["usage"]["cost_usd"] == pytest.approx(sum(row[4] for row in found), abs=1e-6)

    second = table(data / "july.csv", ["new", "good", "bad", "newer", "new", "bad"])
    preview = await talk.call("preview_batch", source=second, **ORDER)
    assert [preview[name] for name in counts] == [6, 2, 3, 1, 0]
    saving = " ".join(preview["warnings"])
    assert "Rows that are not sent save at least $" in saving
    assert f"3 were answered in {june['batch_id']}" in saving
    july = await talk.call("create_batch", source=second, **ORDER)
    assert (july["request_count"], july["send_count"], july["reused_count"]) == (6, 2, 3)
    batch = july["batch_id"]
    waiting = await talk.call("check_status", batch=batch)
    assert waiting["counts"] == {"total": 6, "succeeded": 3, "failed": 0, "pending": 3}
    sandbox.finish(newest(sandbox))
    result = await talk.call("get_results", batch=batch, view="rows")
    assert result["integrity_ok"], result
    assert Counter(sent_texts(sandbox)) == Counter(f"Label: {text}" for text in ("good", "bad", "fine", "new", "newer"))
    again = await rows(talk, batch)
    by = june["batch_id"]
    assert [(row[0], row[3]) for row in again] == [
        ("r1", ""),
        ("r2", by),
        ("r3", by),
        ("r4", ""),
        ("r5", ""),
        ("r6", by),
    ]
    assert (again[1][2], again[2][2]) == (found[0][2], found[1][2])
    assert [row[4] == 0 for row in again] == [False, True, True, False, True, True]
    assert result["usage"]["cost_usd"] == pytest.approx(sum(row[4] for row in again), abs=1e-6)
    status = await talk.call("check_status", batch=batch)
    assert status["counts"] == {"total": 6, "succeeded": 6, "failed": 0, "pending": 0}
    assert status["state"] == "JOB_STATE_SUCCEEDED"


async def test_an_order_that_is_answered_needs_no_job_and_no_consent(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = await answered(talk, sandbox, source=table(data / "a.csv", ["one", "two", "three"]), **ORDER)
    creates = sandbox.creates
    created = await talk.call("create_batch", source=table(data / "b.csv", ["two", "one", "two"]), **ORDER)
    assert (created["state"], created["jobs"], created["send_count"], created["reused_count"]) == (
        "JOB_STATE_SUCCEEDED",
        [],
        0,
        3,
    )
    assert sandbox.creates == creates
    status = await talk.call("check_status", batch=created["batch_id"])
    assert (status["done"], status["results_ready"], status["rows"]["ok"]) == (True, True, 3)
    found = await rows(talk, created["batch_id"])
    assert [(row[0], row[1], row[3]) for row in found] == [(f"r{n}", "ok", first["batch_id"]) for n in (1, 2, 3)]
    # The same answers took no tokens here, which says nothing of how they differ.
    many = [f"text {number}" for number in range(30)]
    await answered(talk, sandbox, source=table(data / "many.csv", many), **ORDER)
    again = await talk.call("create_batch", source=table(data / "again.csv", many[::-1]), **ORDER)
    assert again["reused_count"] == 30
    result = await talk.call("get_results", batch=again["batch_id"])
    assert not any("chance" in warning for warning in result["warnings"])


@long
async def test_calls_made_at_once_keep_their_answers_beside_taken_ones(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    await answered(talk, sandbox, source=table(data / "a.csv", ["one", "two"]), **ORDER)
    made = await talk.call("create_batch", source=table(data / "b.csv", ["two", "new"]), **ORDER, delivery="now")
    batch = made["batch_id"]
    assert (made["send_count"], made["reused_count"]) == (1, 1)
    while not (await talk.call("check_status", batch=batch, wait_seconds=5))["done"]:
        pass
    await talk.call("get_results", batch=batch)
    before = await rows(talk, batch)
    assert [row[1] for row in before] == ["ok", "ok"]
    # Made again from what is kept, once its job counts as collected.
    (talk.settings.home / "batches" / batch / "results.json").unlink()
    await talk.call("get_results", batch=batch)
    assert await rows(talk, batch) == before
    nothing = await talk.call("create_batch", source=table(data / "c.csv", ["two", "one"]), **ORDER, delivery="now")
    assert (nothing["state"], nothing["send_count"], nothing["jobs"]) == ("JOB_STATE_SUCCEEDED", 0, [])


async def test_a_row_that_repeats_a_failed_one_fails_and_is_retried_with_it(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    fails = "slow [[sandbox:error:14]] [[sandbox:once]]"
    batch = (await answered(talk, sandbox, source=table(data / "a.csv", ["ok", fails, fails, "ok"]), **ORDER))[
        "batch_id"
    ]
    assert [row[1] for row in await rows(talk, batch)] == ["ok", "failed", "failed", "ok"]
    # What failed is not taken by others.
    other = await talk.call("preview_batch", source=table(data / "b.csv", [fails, "ok"]), **ORDER)
    assert (other["send_count"], other["reused_count"]) == (1, 1)

    again = await talk.call("retry_failed", batch=batch)
    assert (again["request_count"], again["send_count"]) == (1, 1)
    sandbox.finish(newest(sandbox))
    summary = (await talk.call("get_results", batch=batch))["summary"]
    assert (summary["expected"], summary["succeeded"], summary["duplicate"], summary["unexpected"]) == (4, 4, 0, 0)
    found = await rows(talk, batch, "key, status, text, attempt, len(history), cost_usd")
    assert [row[1] for row in found] == ["ok"] * 4
    assert found[1][2:5] == found[2][2:5]
    assert (found[1][3], found[1][4]) == (2, 2)
    assert found[2][5] == 0 < found[1][5]


async def test_rows_that_another_batch_is_being_asked_are_told_of_before_they_are_paid_twice(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    done = await answered(talk, sandbox, source=table(data / "a.csv", ["one", "two"]), **ORDER)
    going = await talk.call("create_batch", source=table(data / "b.csv", ["two", "three", "four", "three"]), **ORDER)
    order = {"source": table(data / "c.csv", ["one", "three", "five", "four", "three"]), **ORDER}
    told = (
        f"2 of 3 rows are being answered in {going['batch_id']} already. Ordered once its results are read, such rows "
        "are not sent."
    )
    assert told in (await talk.call("preview_batch", **order))["warnings"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=going["batch_id"])
    after = await talk.call("preview_batch", **order)
    assert (after["send_count"], after["reused_count"]) == (1, 4)
    assert not any("being answered" in warning for warning in after["warnings"])
    # Who orders all the same is told as well.
    other = await talk.call("create_batch", source=table(data / "d.csv", ["six"]), **ORDER)
    created = await talk.call("create_batch", source=table(data / "e.csv", ["six", "seven", "one"]), **ORDER)
    assert f"1 of 2 rows is being answered in {other['batch_id']} already." in " ".join(created["warnings"])
    assert (created["send_count"], created["reused_count"]) == (2, 1)
    assert done["batch_id"] in " ".join(created["warnings"])


@long
async def test_answers_that_were_taken_stay_when_their_batch_is_deleted(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = (await answered(talk, sandbox, source=table(data / "a.csv", ["one", "two"]), **ORDER))["batch_id"]
    second = (await answered(talk, sandbox, source=table(data / "b.csv", ["two", "three"]), **ORDER))["batch_id"]
    before = await rows(talk, second)
    question = await talk.refusal("delete_batch", batch=first)
    assert f"{second} keeps the answers to 1 row that it took from {first}" in question
    gone = await talk.call("delete_batch", batch=first, confirm=True)
    assert gone["deleted"]["local"]
    assert any(
        entry["name"] == second and "keeps the answers to 1 row" in entry["reason"] for entry in gone["not_deleted"]
    )
    # The table is made again from what is kept.
    for left in (talk.settings.home / "batches" / second).glob("results*"):
        left.unlink() if left.is_file() else [part.unlink() for part in left.iterdir()]
    await talk.call("get_results", batch=second)
    assert await rows(talk, second) == before
    # What it took it can give, and the one that answered is still named; what nobody has any more is sent.
    third = await answered(talk, sandbox, source=table(data / "c.csv", ["one", "two", "three"]), **ORDER)
    assert (third["send_count"], third["reused_count"]) == (1, 2)
    assert [row[3] for row in await rows(talk, third["batch_id"])] == ["", first, second]


@long
async def test_what_is_taken_for_granted_depends_on_the_order(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    """`auto` with a schema and for embeddings; `always` and `never` hold for any, and make another only then."""
    source = table(data / "a.csv", ["same", "same", "other"])
    plain = {"source": source, "prompt": "Say: {{text}}", "key_column": "id"}
    counts = ("send_count", "reused_count", "identical_count")

    async def seen(**order: Any) -> list[int]:
        preview = await talk.call("preview_batch", **order)
        return [preview[name] for name in counts]

    assert await seen(**plain) == await seen(**plain, reuse="never") == [3, 0, 0]
    assert await seen(**plain, reuse="always") == [2, 0, 1]
    assert await seen(source=source, **ORDER, reuse="never") == [3, 0, 0]
    assert await seen(source=source, **ORDER, reuse="always") == [2, 0, 1]
    embedding = {"source": source, "prompt": "{{text}}", "task": "embed", "model": "gemini-embedding-001"}
    assert await seen(**embedding) == [2, 0, 1]

    free = await answered(talk, sandbox, **plain)
    again = await talk.call("create_batch", **plain, reuse="always")
    assert (again["batch_id"], again["reused"]) == (free["batch_id"], True), "it costs nothing more"
    fixed = await answered(talk, sandbox, source=source, **ORDER)
    assert (await talk.call("create_batch", source=source, **ORDER, reuse="always"))["batch_id"] == fixed["batch_id"]
    whole = await answered(talk, sandbox, source=source, **ORDER, reuse="never")
    assert (whole["send_count"], whole["batch_id"] != fixed["batch_id"]) == (3, True)
    # The same order is the same batch, although all of it could be taken by now.
    assert (await talk.call("create_batch", source=source, **ORDER))["batch_id"] == fixed["batch_id"]
    once_more = await answered(talk, sandbox, source=source, **ORDER, resubmit=True)
    assert (once_more["send_count"], once_more["reused_count"]) == (2, 0), "paid once more, and each request once"

    # A free text was answered by an order that did not ask for it; `like` takes the wish over.
    asked = await talk.call(
        "preview_batch", source=table(data / "b.csv", ["same", "new"]), prompt="Say: {{text}}", reuse="always"
    )
    assert [asked[name] for name in counts] == [1, 1, 0]
    like = await talk.call("preview_batch", like=whole["batch_id"], limit_rows=2)
    assert [like[name] for name in counts] == [2, 0, 0]

    vectors = await answered(talk, sandbox, **embedding)
    found = await rows(talk, vectors["batch_id"], "key, status, list_sum(embedding), cost_usd")
    assert found[0][2] == found[1][2] != found[2][2]
    assert await seen(**{**embedding, "source": table(data / "c.csv", ["other", "more"])}) == [1, 1, 0]


async def test_another_model_schema_prompt_or_setting_shares_nothing(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    await answered(talk, sandbox, source=table(data / "a.csv", ["one", "two"]), **ORDER)
    source = table(data / "b.csv", ["two", "one"])
    other_schema = {**SCHEMA, "properties": {"label": {"type": "string"}, "why": {"type": "string"}}}
    for changed in (
        {"model": "gemini-2.5-flash"},
        {"response_schema": other_schema},
        {"prompt": "Label it: {{text}}"},
        {"system_instruction": "Be brief."},
        {"generation_config": {"temperature": 0.5}},
    ):
        preview = await talk.call("preview_batch", source=source, **{**ORDER, **changed})
        assert (preview["send_count"], preview["reused_count"]) == (2, 0), changed
    same = await talk.call("preview_batch", source=source, **ORDER)
    assert (same["send_count"], same["reused_count"]) == (0, 2)


async def test_answers_of_a_retry_that_asked_another_model_are_not_given_away(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    fails = "slow [[sandbox:error:14]] [[sandbox:once]]"
    batch = (await answered(talk, sandbox, source=table(data / "a.csv", [fails, "two"]), **ORDER))["batch_id"]
    await talk.call("retry_failed", batch=batch, model="gemini-2.5-flash")
    sandbox.finish(newest(sandbox))
    assert [row[1] for row in await rows(talk, batch)] == ["ok", "ok"]
    preview = await talk.call("preview_batch", source=table(data / "b.csv", ["two", fails]), **ORDER)
    assert (preview["send_count"], preview["reused_count"]) == (1, 1)


async def test_ready_lines_are_compared_as_what_they_say(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    """However they are written, and under whatever key; of lines without a schema only where that is wanted."""

    def ready(key: str, text: str) -> dict[str, Any]:
        config = {"responseMimeType": "application/json", "responseSchema": SCHEMA}
        return {"key": key, "request": {"contents": [{"parts": [{"text": text}]}], "generationConfig": config}}

    spaced, compact = data / "spaced.jsonl", data / "compact.jsonl"
    spaced.write_text("".join(f"{json.dumps(ready(f's{n}', t))}\n" for n, t in enumerate(["café", "b", "café"])))
    dense = [
        json.dumps(ready(f"c{n}", t), separators=(",", ":"), ensure_ascii=False) for n, t in enumerate(["café", "c"])
    ]
    compact.write_text("".join(f"{entry}\n" for entry in dense), encoding="utf-8")
    first = await answered(talk, sandbox, source=str(spaced))
    assert (first["request_count"], first["send_count"]) == (3, 2)
    second = await answered(talk, sandbox, source=str(compact))
    assert (second["send_count"], second["reused_count"]) == (1, 1)
    assert [row[:2] for row in await rows(talk, second["batch_id"])] == [["c0", "ok"], ["c1", "ok"]]
    plain = data / "plain.jsonl"
    lines = [{"key": f"p{n}", "request": {"contents": [{"parts": [{"text": "same"}]}]}} for n in range(2)]
    plain.write_text("".join(f"{json.dumps(entry)}\n" for entry in lines))
    assert (await talk.call("preview_batch", source=str(plain)))["send_count"] == 2
    assert (await talk.call("preview_batch", source=str(plain), reuse="always"))["send_count"] == 1
    assert "no rows of it can be left out" in await talk.refusal("create_batch", source="files/abc", reuse="always")


async def test_a_file_with_another_content_under_the_same_path_shares_nothing(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    """Nor is a file sent again whose row is answered."""

    def photos(*colours: int) -> str:
        for number, colour in enumerate(colours, 1):
            picture = b"\x89PNG\r\n\x1a\n" + bytes([colour]) * 600_000
            (data / f"{number}.png").write_bytes(picture)
        source = data / "photos.csv"
        source.write_text("id,file\n" + "".join(f"p{n},{n}.png\n" for n in range(1, len(colours) + 1)))
        return str(source)

    order = {"prompt": "What is it?", "response_schema": SCHEMA, "key_column": "id", "attach": "file"}
    first = await answered(talk, sandbox, source=photos(1, 2), **order)
    assert (first["send_count"], first["reused_count"]) == (2, 0)
    uploads = sum(request.route == "upload_start" for request in sandbox.requests)
    second = await answered(talk, sandbox, source=photos(2, 3, 1), **order)
    assert (second["send_count"], second["reused_count"]) == (1, 2)
    assert [row[1] for row in await rows(talk, second["batch_id"])] == ["ok"] * 3
    new = sum(request.route == "upload_start" for request in sandbox.requests) - uploads
    assert new <= 2, "the lines, and the one new picture where it is not inside them"


async def test_it_goes_with_conditions_and_with_lines_that_are_left_out(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    await answered(talk, sandbox, source=table(data / "a.csv", ["one", "two"]), **ORDER)
    wrong = data / "b.csv"
    wrong.write_text("id,text\nx1,two\nx2,three\nx2,again\nx3,three\nx4,one\n")
    order = {**ORDER, "source": str(wrong), "skip_invalid": True, "where": "text <> 'one'"}
    preview = await talk.call("preview_batch", **order)
    names = ("request_count", "send_count", "reused_count", "identical_count", "skipped_count")
    assert [preview[name] for name in names] == [4, 1, 1, 1, 1]
    created = await answered(talk, sandbox, **order)
    assert (created["request_count"], created["send_count"], created["reused_count"]) == (4, 1, 1)
    found = await rows(talk, created["batch_id"])
    assert [row[1] for row in found] == ["ok", "ok", "ok", "failed"]
    assert [row[0] for row in found][:3] == ["x1", "x2", "x3"]
    facts = (await talk.call("get_results", batch=created["batch_id"], view="order"))["order"]
    assert (facts["rows"], facts["rows_not_sent"]) == (4, {"answered_before": 1, "identical": 1})
    saved = await talk.call("get_results", batch=created["batch_id"], save_to="out.jsonl")
    lines = [json.loads(entry) for entry in Path(saved["saved"]["path"]).read_text().splitlines()]
    assert [entry["answered_by"] != "" for entry in lines] == [True, False, False, False]
    assert lines[0]["response"]["candidates"]
