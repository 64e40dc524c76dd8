"""A prompt and a schema that would keep a backtracking engine busy for hours: every call is answered, and says so."""

import time
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest

pytestmark = pytest.mark.anyio

#: Of the processor, for one call.
MOST_SECONDS = 8.0
SCHEMA = {
    "type": "object",
    "properties": {
        "nested": {"type": "string", "pattern": "^(([a-z ]|[a-z ]+)+)+$"},
        "ahead": {"type": "string", "pattern": "^(?=(.+)+x).*$"},
    },
    "required": ["nested", "ahead"],
}
UNCHECKED = (
    "`response_schema.properties.ahead.pattern` is not checked in the answers: lookaround, backreferences, and "
    "patterns that are too large cannot be checked in bounded time."
)


async def test_a_prompt_of_spaces_is_refused_at_once(talk: Conversation, data: Path) -> None:
    (data / "t.csv").write_text("id,text\n1,a\n", encoding="utf-8")
    for prompt in ("{{" + " " * 4000, "{{ " * 4000, "{{text}} {{" + " \t" * 4000 + "x"):
        start = time.process_time()
        refusal = await talk.refusal("preview_batch", source="t.csv", prompt=prompt)
        assert "without a column name and }} after it" in refusal
        assert time.process_time() - start < MOST_SECONDS


async def test_an_order_with_slow_patterns_is_priced_checked_and_read_and_says_what_is_not_checked(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    (data / "t.csv").write_text("text\n" + "a b\n" * 20, encoding="utf-8")
    order = {"source": "t.csv", "prompt": "{{text}}", "response_schema": SCHEMA}
    start = time.process_time()
    preview = await talk.call("preview_batch", **order)
    assert UNCHECKED in preview["warnings"]
    created = await talk.call("create_batch", **order)
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"], view="failures")
    assert UNCHECKED in results["warnings"]
    # The sandbox knows no patterns: its answers have brackets, which the first pattern does not allow.
    reason = "does not fit the response schema: nested does not match its pattern"
    assert {row["error"] for row in results["rows"]} == {reason}
    sql = "SELECT count(*) AS n FROM results WHERE regexp_matches(repeat('a', 100000) || '!', '^((a+)+|(a|aa)+)+$')"
    counted = await talk.call("query_results", batch=created["batch_id"], sql=sql)
    assert counted["rows"] == [[0]]
    assert time.process_time() - start < 4 * MOST_SECONDS
