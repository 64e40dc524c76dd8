"""No reply is longer than an assistant can read, whatever rows, names and errors hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gemini_batch_mcp.assistant import views
from gemini_batch_mcp.assistant.replies import MAX_REPLY_CHARS, short
from gemini_batch_mcp.assistant.views import Answer
from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, line, spoken, write_lines
from support.extent import few
from support.services import create, generate_lines, raw, upload

pytestmark = pytest.mark.anyio

#: Text that is long, grows where it is escaped, and holds what no JSON does.
LONG = 'say "\\\n\u202e' * 400 + "\ud83d"


def _monster(annotation: Any, members: int) -> Any:
    """Return a value of a field that is as long as a row, a name or an error can make it."""
    name = str(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field: _monster(info.annotation, members) for field, info in annotation.model_fields.items()}
    if "datetime" in name:
        return None if "None" in name else "2026-11-29T00:00:00Z"
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return [_monster(annotation.__args__[0], 40) for _ in range(members)]
    if origin is dict:
        keys = [f"{number} {LONG}" for number in range(members)]
        return dict.fromkeys(keys, 1 if annotation.__args__[1] is int else LONG)
    for kind in getattr(annotation, "__args__", ()):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return _monster(kind, members)
    if annotation is bool:
        return False
    return 10**15 if "int" in name or "float" in name else LONG


ANSWERS = sorted(
    (view for view in vars(views).values() if isinstance(view, type) and issubclass(view, Answer)), key=repr
)


@few(4)
@pytest.mark.parametrize("answer", [view for view in ANSWERS if view is not Answer])
def test_an_answer_of_monstrous_parts_fits_and_says_what_to_do_next(answer: type[Answer]) -> None:
    parts = _monster(answer, 300)
    needed = {name: "reviews-abc123" for name in ("batch_id", "next_cursor", "advice", "state") if name in parts}
    if answer.page_of:
        # A page is made shorter by giving fewer of its members; of one alone there is no fewer.
        parts[answer.page_of] = parts[answer.page_of][:1]
    view = answer.model_validate({**parts, **needed}).fitted()
    assert len(view.text()) <= MAX_REPLY_CHARS
    structured = view.model_dump(mode="json")
    assert len(json.dumps(structured, ensure_ascii=False, separators=(",", ":"))) <= MAX_REPLY_CHARS
    assert {name: structured[name] for name in needed} == needed
    assert json.dumps(structured, ensure_ascii=False).encode("utf-8")
    assert set(structured) == {name for name, field in answer.model_fields.items() if not field.exclude}


async def test_all_of_very_many_long_names_are_listed_page_by_page(talk: Conversation, sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        file = await upload(http, generate_lines(1))
        for number in range(60):
            await create(http, file, displayName=f"{number:03} " + '"é' * 250)
    seen: list[str] = []
    cursor = ""
    while True:
        result = await talk.raw("list_jobs", limit=100, cursor=cursor)
        assert result.structured_content is not None
        for text in (spoken(result), json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":"))):
            assert len(text) <= MAX_REPLY_CHARS
        seen += [job["name"] for job in result.structured_content["jobs"]]
        if not (cursor := result.structured_content["next_cursor"]):
            break
    assert len(seen) == len(set(seen)) == 60


async def test_a_refusal_is_short_and_ends_with_what_to_do(talk: Conversation, data: Path) -> None:
    lines = [line(f"{number}{'k' * 400}", "x", nope=1) for number in range(300)]
    source = write_lines(data / "wrong.jsonl", lines)
    sentence = await talk.refusal("create_batch", source=source)
    assert len(sentence) <= MAX_REPLY_CHARS
    assert len(short("a" * 100_000 + " Call list_jobs.")) <= MAX_REPLY_CHARS
    assert short("a" * 100_000 + " Call list_jobs.").endswith("Call list_jobs.")
    assert short("half \ud83d") == "half <U+D83D>"
    for tool in ("check_status", "query_results"):
        more = {"sql": "SELECT '" + "y" * 30_000} if tool == "query_results" else {}
        assert len(await talk.refusal(tool, batch="z" * 100_000, **more)) < 1_000
