"""A batch is deleted that others came of: what they keep and lose is said before and after, and it is so."""

from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest
from support.extent import long

pytestmark = pytest.mark.anyio

SCHEMA: Final = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
FAILS_ONCE: Final = "[[sandbox:error:14]] [[sandbox:once]]"


async def answered(talk: Conversation, sandbox: Sandbox, **order: Any) -> str:
    batch = (await talk.call("create_batch", **order))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    return str(batch)


async def rows(talk: Conversation, batch: str) -> list[Any]:
    found = await talk.call("query_results", batch=batch, sql="SELECT * FROM results ORDER BY row")
    return list(found["rows"])


@long
async def test_what_came_of_a_deleted_batch_stays_whole_and_what_it_cannot_do_any_more_is_told(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    (data / "reviews.csv").write_text("id,text\n1,good\n2,bad\n3,fine\n", encoding="utf-8")
    first = {"source": "reviews.csv", "prompt": "Label: {{text}}", "key_column": "id", "response_schema": SCHEMA}
    labels = await answered(talk, sandbox, **first, display_name="labels")
    step = await answered(talk, sandbox, source=labels, prompt=f"Reply to {{{{source_text}}}} {FAILS_ONCE}")
    other = await answered(talk, sandbox, like=labels, prompt="Mood of {{text}}?")
    (data / "more.csv").write_text("id,text\n1,good\n2,new\n", encoding="utf-8")
    taker = await answered(talk, sandbox, like=labels, source="more.csv")
    before = [await rows(talk, batch) for batch in (other, taker)]

    told = [
        f"{taker} keeps the answers to 1 row that it took from {labels}.",
        f"{step} has {labels} as its source: it keeps its rows and answers, but can't be ordered again.",
        f"{other} keeps the order that it took over from {labels}.",
    ]
    question = await talk.refusal("delete_batch", batch=labels)
    assert f"{' '.join(told)} This cannot be undone." in question
    gone = await talk.call("delete_batch", batch="labels", confirm=True)
    said = [f"{entry['name']} {entry['reason'].removeprefix('It ')}" for entry in gone["not_deleted"]]
    assert [one for one in said if not one.startswith("files/")] == told

    assert [await rows(talk, batch) for batch in (other, taker)] == before
    asked = (await talk.call("get_results", batch=step, view="order"))["order"]
    assert (asked["source"], asked["source_now"]) == (labels, "gone")
    # Its rows are its own: those that failed are sent again, with what stood beside them.
    assert (await talk.call("retry_failed", batch=step))["send_count"] == 3
    sandbox.finish(newest(sandbox))
    assert (await talk.call("get_results", batch=step))["summary"]["succeeded"] == 3
    assert [row[:2] for row in await rows(talk, step)] == [["1", "good"], ["2", "bad"], ["3", "fine"]]
    # An order that was taken over is whole.
    again = await talk.call("preview_batch", like=other)
    assert (again["standing"], f"As {other} in everything." in again["warnings"]) == (other, True)

    deleted = f"{labels} was deleted, and its answers with it: it can't be a source."
    assert deleted in await talk.refusal("preview_batch", like=step)
    assert deleted in await talk.refusal("preview_batch", source="labels", prompt="Again: {{label}}")
    for tool, arguments in (
        ("preview_batch", {"like": labels}),
        ("get_results", {"batch": labels}),
        ("compare_results", {"batch": other, "other": "labels"}),
        ("query_results", {"batch": other, "sql": "FROM results", "also": [labels]}),
    ):
        assert f"{labels} was deleted here." in await talk.refusal(tool, **arguments), tool


async def test_of_many_that_came_of_it_three_are_named_before_and_all_after(
    talk: Conversation, sandbox: Sandbox
) -> None:
    rows = [{"text": "one"}]
    batch = (await talk.call("create_batch", requests=rows, prompt="Say {{text}}."))["batch_id"]
    sandbox.finish(newest(sandbox))
    others = [(await talk.call("create_batch", like=batch, prompt=f"{n}: {{{{text}}}}"))["batch_id"] for n in range(4)]
    # What only looks like it in a text is none.
    await talk.call("create_batch", requests=[{"text": f'"like": "{batch}"'}], prompt=f'"like": "{batch}" {{{{text}}}}')
    question = await talk.refusal("delete_batch", batch=batch)
    assert question.count("keeps the order") == 3
    assert "1 more that came of it keeps what was taken over." in question
    gone = await talk.call("delete_batch", batch=batch, confirm=True)
    assert [entry["name"] for entry in gone["not_deleted"] if "order" in entry["reason"]] == others
