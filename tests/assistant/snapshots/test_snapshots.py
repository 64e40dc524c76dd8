"""What every tool says, kept whole: its definition and its typical texts, one file a tool, compared word by word.

`make snapshots` writes the files anew after a text was changed on purpose; read the difference before it is committed.
"""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.assistant.tools import TOOLS
from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest, spoken
from support.texts.snapshots import compare, masked

pytestmark = pytest.mark.anyio

_SNAPSHOTS: Final = Path(__file__).parent
_FINISH: Final = "Gemini finishes"
_ORDER: Final[dict[str, Any]] = {
    "source": "reviews.csv",
    "prompt": "Classify: {{review}}",
    "key_column": "id",
    "generation_config": {"maxOutputTokens": 50},
}
_ORDERED: Final = ("create_batch", _ORDER)
_COUNT: Final = "SELECT status, count(*) AS n FROM results GROUP BY 1 ORDER BY 1"

#: What is done for each tool, in this order, in one conversation; what the tool itself says is kept. `{}` as the batch
#: is the one that was ordered.
_STEPS: Final[dict[str, tuple[Any, ...]]] = {
    "preview_batch": (
        ("preview_batch", _ORDER),
        ("preview_batch", _ORDER | {"prompt": "Classify: {{reviw}}"}),
        ("preview_batch", _ORDER | {"source": "nowhere.csv"}),
        ("preview_batch", {"source": "reviews.csv"}),
        ("preview_batch", {"promt": "x"}),
        _ORDERED,
        ("preview_batch", _ORDER),
    ),
    "create_batch": (
        _ORDERED,
        _ORDERED,
        ("create_batch", _ORDER | {"model": "gemini-3-flesh-preview"}),
        ("create_batch", _ORDER | {"model": "gemini-2.0-flash"}),
        ("create_batch", {}),
    ),
    "check_status": (
        ("check_status", {"batch": "nothing-abc123"}),
        _ORDERED,
        ("check_status", {"batch": "{}"}),
        _FINISH,
        ("check_status", {"batch": "{}"}),
        ("get_results", {"batch": "{}"}),
        ("check_status", {"batch": "{}"}),
    ),
    "get_results": (
        _ORDERED,
        ("get_results", {"batch": "{}"}),
        _FINISH,
        ("get_results", {"batch": "{}"}),
        ("get_results", {"batch": "{}", "view": "rows", "limit": 2}),
        ("get_results", {"batch": "{}", "view": "failures"}),
        ("get_results", {"batch": "{}", "view": "row"}),
        ("get_results", {"batch": "{}", "cursor": "x"}),
        ("get_results", {"batch": "{}", "save_to": "answers.csv"}),
    ),
    "query_results": (
        _ORDERED,
        ("query_results", {"batch": "{}", "sql": _COUNT}),
        _FINISH,
        ("query_results", {"batch": "{}", "sql": _COUNT}),
        ("query_results", {"batch": "{}", "sql": "SELECT stats FROM results"}),
        ("query_results", {"batch": "{}", "sql": "DROP TABLE results"}),
        ("query_results", {"batch": "{}", "sql": "SELECT key FROM results", "limit": 1}),
    ),
    "compare_results": (
        _ORDERED,
        ("compare_results", {"batch": "{}", "other": "review"}),
        _FINISH,
        ("compare_results", {"batch": "{}", "other": "review", "limit": 1}),
        ("compare_results", {"batch": "{}", "other": "review", "field": "stars"}),
        ("compare_results", {"batch": "{}", "other": "nothing-abc123"}),
    ),
    "list_jobs": (
        ("list_jobs", {}),
        ("list_jobs", {"state": "runing"}),
        _ORDERED,
        ("list_jobs", {}),
        ("create_batch", _ORDER | {"resubmit": True, "display_name": "Once more"}),
        ("list_jobs", {"limit": 1}),
        ("list_jobs", {"cursor": "x"}),
    ),
    "cancel_batch": (
        _ORDERED,
        ("cancel_batch", {"batch": "{}"}),
        _FINISH,
        ("cancel_batch", {"batch": "{}"}),
    ),
    "retry_failed": (
        _ORDERED,
        ("retry_failed", {"batch": "{}"}),
        _FINISH,
        ("retry_failed", {"batch": "{}", "include": ["ok"]}),
        ("retry_failed", {"batch": "{}", "include": ["blocked"]}),
        ("retry_failed", {"batch": "{}"}),
    ),
    "delete_batch": (
        _ORDERED,
        _FINISH,
        ("delete_batch", {"batch": "{}"}),
        ("delete_batch", {"batch": "{}", "confirm": True}),
        ("delete_batch", {"batch": "{}", "confirm": True}),
    ),
}


def _defined(talked: Any) -> str:
    arguments = [
        f"  {name}: {json.dumps(schema, ensure_ascii=False)}"
        for name, schema in talked.input_schema["properties"].items()
    ]
    return "\n".join([talked.title, talked.description, *arguments])


@pytest.mark.parametrize("tool", [spec.function.__name__ for spec in TOOLS])
async def test_a_tool_says_what_its_snapshot_holds(tool: str, talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    rows = ["id,review", "r1,Boils fast", "r2,Broken [[sandbox:error:13]]", "r3,As expected"]
    (data / "reviews.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert tool in _STEPS, f"Add what {tool} typically says to _STEPS in {Path(__file__).name}."
    (defined,) = [entry for entry in (await talk.client.list_tools()).tools if entry.name == tool]
    said, batch = [_defined(defined)], ""
    for step in _STEPS[tool]:
        if step == _FINISH:
            sandbox.finish(newest(sandbox))
            await talk.call("check_status", batch=batch)
            continue
        name, arguments = step
        given = {key: value.format(batch) if key == "batch" else value for key, value in arguments.items()}
        result = await talk.raw(name, **given)
        if name == "create_batch" and not result.is_error and not batch:
            batch = str((result.structured_content or {})["batch_id"])
        if name == tool:
            call = json.dumps(given, ensure_ascii=False)
            said.append(f"> {call}{' (refused)' if result.is_error else ''}\n{spoken(result)}")
    compare(_SNAPSHOTS / f"{tool}.txt", masked("\n\n".join(said) + "\n", data))


def test_every_snapshot_belongs_to_a_tool() -> None:
    assert {path.stem for path in _SNAPSHOTS.glob("*.txt")} == {spec.function.__name__ for spec in TOOLS}
