"""Arguments as hosts send them mean what clean ones mean, and names that are nearly ours are told: for every tool."""

import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, newest, spoken
from support.extent import IS_LONG, in_part, part

pytestmark = pytest.mark.anyio

#: What hosts were seen to add, and what else nobody here knows.
ADDED = {
    "wait_for_previous": True,
    "toolCallId": "call_1",
    "sessionId": "s-1",
    "action": "sendMessage",
    "chatInput": "classify them",
    "requestId": 7,
    "_meta": {"x": 1},
    "zebra": "striped",
}


@dataclass(frozen=True)
class Calls:
    """One conversation about a batch that has ended, and a call of each tool that can be made again and again."""

    talk: Conversation
    clean: list[tuple[str, dict[str, Any]]]
    schemas: dict[str, dict[str, Any]]

    async def answer(self, tool: str, arguments: dict[str, Any]) -> tuple[bool, str, Any]:
        result = await self.talk.client.call_tool(tool, arguments)
        return bool(result.is_error), spoken(result), result.structured_content


@pytest.fixture
async def calls(settings: Settings, sandbox: Sandbox, data: Path, era: str) -> AsyncIterator[Calls]:
    reviews = ["id,review,7", "1,Lovely,a", "2,Gone [[sandbox:error:13]],b", "3,Dull,c"]
    (data / "reviews.csv").write_text("\n".join(reviews) + "\n", encoding="utf-8")
    order: dict[str, Any] = {
        "source": "reviews.csv",
        "prompt": "Classify: {{review}}",
        "system_instruction": "In one word.",
        "response_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
        "generation_config": {"maxOutputTokens": 50},
        "key_column": "id",
        "model": "gemini-3-flash-preview",
        "task": "generate",
        "delivery": "inline",
        "display_name": "2026",
        "limit_rows": 2,
    }
    async with converse(settings, sandbox, era) as talk:
        batch = (await talk.call("create_batch", **order))["batch_id"]
        sandbox.finish(newest(sandbox))
        chosen = {"where": "id < 3", "encoding": "utf-8", "skip_invalid": True, "reuse": "never", "sample_rows": 1}
        sql, keys = "SELECT key, status FROM results ORDER BY key", ["1"]
        rows = [{"id": "1", "review": "Fine"}]
        clean: list[tuple[str, dict[str, Any]]] = [
            ("preview_batch", {**order, "limit_rows": 1}),
            ("preview_batch", {"like": batch, **chosen}),
            ("preview_batch", {"requests": rows, "prompt": "Classify: {{review}}", "key_column": "id"}),
            ("create_batch", {**order, "confirm": False, "resubmit": False}),
            ("check_status", {"batch": batch, "wait_seconds": 2}),
            ("get_results", {"batch": batch, "view": "rows", "limit": 1, "keys": keys, "save_to": "out.csv"}),
            ("get_results", {"batch": batch, "save_to": "sql.csv", "format": "csv", "sql": sql, "also": [batch]}),
            ("query_results", {"batch": batch, "sql": sql, "limit": 1, "also": [batch]}),
            ("compare_results", {"batch": batch, "other": "review", "field": "word", "limit": 1}),
            ("list_jobs", {"state": "ended", "search": "2026", "model": "gemini-3-flash-preview", "limit": 1}),
            ("cancel_batch", {"batch": batch, "confirm": False}),
            ("retry_failed", {"batch": batch, "include": ["truncated", "empty"], "confirm": False}),
            ("delete_batch", {"batch": batch, "confirm": False}),
        ]
        schemas = {tool.name: tool.input_schema for tool in (await talk.client.list_tools()).tools}
        # An argument that comes one day has to be sent in every way, too; that of create_batch is preview_batch's.
        sent = {(tool, name) for tool, arguments in clean for name in arguments}
        known = {(tool, name) for tool, schema in schemas.items() for name in schema["properties"]}
        known -= {("create_batch", name) for _, name in known if ("preview_batch", name) in sent}
        assert {name for _, name in known - sent} <= {"cursor", "attach", "model"}
        yield Calls(talk, clean, schemas)


def ways(value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """The ways in which hosts send a value that means this one."""
    if "enum" in schema:
        yield from (value.upper(), value.title(), f" {value} ", [value])
        return
    match value:
        case bool():
            yield from (str(value), str(value).lower(), str(value).upper(), "yes" if value else "no", int(value))
        case int():
            yield from (str(value), f" {value} ", float(value), f"{value}.0")
        case str():
            yield [value]
            if value.isdigit():
                yield from (int(value), float(value))
        case dict():
            yield from (json.dumps(value), json.dumps(value, indent=2), json.dumps(json.dumps(value)), [value])
        case list():
            yield from (json.dumps(value), json.dumps(json.dumps(value)) if "enum" in schema else [*value, None])
            if len(value) == 1:
                yield value[0]
            if "enum" in schema["items"]:
                yield from ([entry.upper() for entry in value], ",".join(value), ", ".join(value).title())
            elif all(isinstance(entry, dict) for entry in value):
                yield [json.dumps(entry) for entry in value]
            elif all(entry.isdigit() for entry in value):
                yield [int(entry) for entry in value]


@in_part
async def test_arguments_as_hosts_send_them_mean_what_clean_ones_mean(calls: Calls, sandbox: Sandbox) -> None:
    creates, dice = sandbox.creates, random.Random(20261128)
    for tool, clean in calls.clean if IS_LONG else calls.clean[::2]:
        known = calls.schemas[tool]["properties"]
        expected = await calls.answer(tool, clean)
        absent = [name for name in known if name not in clean]
        mangled = [{**clean, **ADDED}, {"arguments": clean, "wait_for_previous": True}]
        mangled += [{name: json.dumps(clean)} for name in ("args", "kwargs", "tool_input", "parameters")]
        mangled += part(
            [{**clean, name: value} for name in clean for value in ways(clean[name], known[name])], 3 if IS_LONG else 6
        )
        mangled += [{**clean, **dict.fromkeys(absent, nothing)} for nothing in (None, "")]
        coded = [name for name in absent if name in ("cursor", "encoding", "model", "state")]
        mangled += [{**clean, **dict.fromkeys(coded, nothing)} for nothing in ("null", "None", " undefined ")]
        for _ in range(2):
            all_at_once = {name: dice.choice(list(ways(value, known[name]))) for name, value in clean.items()}
            mangled.append({**all_at_once, **{name: dice.choice([None, ""]) for name in absent}, **ADDED})
        for arguments in mangled:
            assert await calls.answer(tool, arguments) == expected, (tool, arguments)
    assert sandbox.creates == creates


def slips(name: str) -> Iterator[str]:
    """Ways to miss a name."""
    head, *tail = name.split("_")
    yield from (f"{name}s", f"{name}_value", name[:1] + name[2:], name[:-2] + name[-1] + name[-2])
    if tail:
        yield from (head + "".join(map(str.title, tail)), name.replace("_", "-"), name.replace("_", ""), name.upper())


async def test_a_name_that_is_nearly_ours_is_refused_with_the_right_one(calls: Calls) -> None:
    for tool, clean in dict(calls.clean).items():
        for name in calls.schemas[tool]["properties"]:
            for slip in {*slips(name)} - {name}:
                rest = {other: value for other, value in clean.items() if other != name}
                sentence = await calls.talk.refusal(tool, **{**rest, slip: clean.get(name, "x")})
                assert f"{tool} has no argument {slip!r}. Did you mean {name}?" in sentence


async def test_a_yes_is_a_yes_however_it_is_written(settings: Settings, sandbox: Sandbox, era: str) -> None:
    items = '[{"key": 7, "prompt": "One"}, {"key": "", "prompt": "Two"}, {"key": null, "prompt": "3"}]'
    async with converse(replace(settings, confirm_above_usd=0.0), sandbox, era) as talk:
        for number, yes in enumerate(("true", "True", "YES", 1, [True]), 1):
            order = {"requests": items, "generation_config": {"maxOutputTokens": number}}
            await talk.refusal("create_batch", **order)
            await talk.call("create_batch", **order, confirm=yes)
        sample = (await talk.call("preview_batch", **order))["sample"]
    assert [line["key"] for line in sample] == ["7", "row-2"]
    assert sandbox.creates == 5


TOLD: list[tuple[str, dict[str, Any], str]] = [
    ("check_status", {"batch": None}, "batch is missing: Batch id"),
    ("check_status", {"bundle": "x"}, "Ignored: 'bundle'."),
    ("check_status", {"arguments": "x"}, "Ignored: 'arguments'."),
    ("check_status", {"arguments": {"batchs": "x"}}, "has no argument 'batchs'. Did you mean batch?"),
    ("check_status", {"arguments": [{"batch": "x"}]}, "batch is missing"),
    ("check_status", {"batch": "x", "wait": 3}, "has no argument 'wait'. Did you mean wait_seconds?"),
    ("check_status", {"batch": "x", "wait_seconds": "soon"}, "wait_seconds is 'soon'; give a number from 0 to 50."),
    ("get_results", {"batch": "x", "limit": 500}, "limit is 500; give a number from 1 to 200."),
    ("get_results", {"batch": "x", "limit": True}, "limit is true; give a whole number from 1 to 200."),
    ("get_results", {"batch": "x", "limit": 2.5}, "limit is 2.5; give a whole number"),
    ("get_results", {"batch": "x", "view": "row"}, "view is 'row'; did you mean rows? Give one of summary, rows"),
    ("get_results", {"batch": "x", "output_path": "x.csv"}, "Did you mean save_to?"),
    ("query_results", {"batch": "x", "sql": "SELECT 1", "save_to": "a.csv"}, "It is an argument of get_results."),
    ("create_batch", {"temperature": 0.2, "prompt": "x"}, "'temperature'. Put it in generation_config."),
    (
        "create_batch",
        {"source": "rows.csv", "dry_run": True},
        "has no argument 'dry_run'. This tool acts. preview_batch",
    ),
    ("retry_failed", {"batch": "x", "dryRun": True}, "has no argument 'dryRun'. This tool acts."),
    ("create_batch", {"source": "rows.csv", "max_rows": 5}, "Did you mean limit_rows?"),
    ("preview_batch", {"source": "rows.csv", "filter": "stars < 3"}, "Did you mean where?"),
    ("create_batch", {"source": "rows.csv", "pilot": 20}, "Did you mean sample_rows?"),
    ("create_batch", {"path": "rows.csv"}, "Did you mean source?"),
    ("create_batch", {"system_prompt": "Be brief."}, "Did you mean system_instruction?"),
    ("create_batch", {"response_schema": "{'type': 1}"}, "response_schema is \"{'type': 1}\"; give an object, or"),
    ("create_batch", {"response_schema": "[1, 2]"}, "give an object, such as"),
    (
        "create_batch",
        {"requests": "Classify this"},
        "requests is 'Classify this'; give a list, or the JSON text of one.",
    ),
    ("create_batch", {"requests": ["One"]}, "requests has 'One'; give an object, or the JSON text of one."),
    ("create_batch", {"requests": '[{"a": }]'}, "(the JSON breaks off at character 8)"),
    ("compare_results", {"batch": "x", "expected": "label"}, "has no argument 'expected'. Did you mean other?"),
    ("create_batch", {"requests": "[" * 100_000}, "nested too deeply to be read as JSON"),
    ("create_batch", {"confirm": "maybe"}, "confirm is 'maybe'; give true or false."),
    ("retry_failed", {"batch": "x", "include": ["faild"]}, "include has 'faild'; did you mean failed?"),
    ("list_jobs", {"state": "stopped"}, "'stopped' isn't a state. Give one of active, ended, JOB_STATE_"),
]


async def test_what_has_no_one_meaning_is_told_with_what_has(talk: Conversation) -> None:
    for tool, arguments, words in TOLD:
        sentence = await talk.refusal(tool, **arguments)
        assert words in sentence, sentence


async def test_states_go_by_their_names_in_any_letter_case(talk: Conversation) -> None:
    for state in ("ACTIVE", "Ended", "running", "job_state_succeeded", "JOB_STATE_FAILED"):
        assert (await talk.call("list_jobs", state=state))["jobs"] == []
