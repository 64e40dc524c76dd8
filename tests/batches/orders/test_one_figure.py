"""One figure for one order: the same from preview, question, create and ledger, and no bill passes its upper one."""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.text import dollars
from support.conversation import Conversation, converse, desk_of, line, newest, request_file, write_lines
from support.extent import IS_FULL, in_part, part, some, tries
from support.sources import pdf

pytestmark = [pytest.mark.anyio, in_part]

SCHEMA = {"type": "object", "properties": {f"mood_{n}": {"type": "string"} for n in range(30)}}
PNG = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 60).decode()}}
FIGURES = (
    "input_tokens",
    "output_tokens_max",
    "cost_usd_low",
    "cost_usd_likely",
    "cost_usd_high",
    "priced_on",
    "basis",
)
CAP = {"maxOutputTokens": 300}


def _table(data: Path, rows: int = 60, text: str = "The kettle boils fast") -> str:
    path = data / "t.csv"
    path.write_text("id,text\n" + "".join(f"{n},{text} {n}\n" for n in range(rows)), encoding="utf-8")
    return str(path)


def _files(data: Path, name: str, content: Callable[[int], bytes], count: int = 12) -> None:
    for number in range(count):
        (data / f"{number}{name}").write_bytes(content(number))


def _ready(data: Path, *requests: dict[str, Any], rows: int = 30) -> str:
    texts = [json.dumps({"key": f"k{n}", "request": requests[n % len(requests)]}) for n in range(rows)]
    return write_lines(data / "ready.jsonl", texts)


def _asked(text: str, **members: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": text}]}], **members}


def _schema(data: Path) -> dict[str, Any]:
    return {"source": _table(data), "prompt": "Mood of {{text}}?", "response_schema": SCHEMA, "generation_config": CAP}


def _no_schema(data: Path) -> dict[str, Any]:
    return {"source": _table(data), "prompt": "Mood of {{text}}?"}


def _system(data: Path) -> dict[str, Any]:
    return {**_no_schema(data), "system_instruction": "Be brief. " * 80, "generation_config": CAP}


def _images(data: Path) -> dict[str, Any]:
    _files(data, ".png", lambda n: b"\x89PNG\r\n\x1a\n" + bytes(60) + b"%d" % n)
    return {"source": "*.png", "attach": "path", "prompt": "What is in {{name}}?", "generation_config": CAP}


def _pdfs(data: Path) -> dict[str, Any]:
    _files(data, ".pdf", lambda n: pdf(1 + 30 * (n == 7)))
    return {"source": "*.pdf", "attach": "path", "prompt": "Sum of {{name}}?", "generation_config": CAP}


def _numbers(data: Path) -> dict[str, Any]:
    path = Path(_ready(data, *[_asked("Hello", generationConfig={"maxOutputTokens": "@"})] * 4, rows=200))
    spellings = ["1e3", "1E+03", "1000", "1000.0", '"1000"']
    rows = path.read_text(encoding="utf-8").splitlines()
    return {
        "source": write_lines(path, [row.replace('"@"', spellings[n % 5]) for n, row in enumerate(rows)]),
    }


def _snake(data: Path) -> dict[str, Any]:
    return {"source": _ready(data, _asked("x", generation_config={"max_output_tokens": 50, "candidate_count": 3}))}


def _labelled(data: Path) -> dict[str, Any]:
    return {"source": _ready(data, _asked('"maxOutputTokens": 1', labels={"maxOutputTokens": "1"}))}


def _inline_images(data: Path) -> dict[str, Any]:
    request = {"contents": [{"parts": [PNG, {"text": "What?"}]}], "generationConfig": CAP}
    return {"source": _ready(data, request, rows=90)}


def _openai(data: Path) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 40}
    rows = [{"custom_id": f"k{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(40)]
    return {"source": write_lines(data / "openai.jsonl", [json.dumps(row) for row in rows])}


def _embeddings(data: Path) -> dict[str, Any]:
    return {"source": _table(data), "prompt": "{{text}}", "task": "embed", "model": "gemini-embedding-001"}


def _long_rows(data: Path) -> dict[str, Any]:
    rows = [_asked("word " * 50_000 * (n % 7 == 0) + "x", generationConfig=CAP) for n in range(21)]
    return {"source": _ready(data, *rows, rows=21), "model": "gemini-3.1-pro-preview"}


def _many_rows(data: Path) -> dict[str, Any]:
    return {
        "source": _table(data, tries(300_000, 3_000)),
        "prompt": "{{text}}?",
        "generation_config": {"maxOutputTokens": 20},
    }


def _one_row(data: Path) -> dict[str, Any]:
    return {"source": _table(data, 1), "prompt": "{{text}}?"}


def _listed(data: Path) -> dict[str, Any]:
    return {"requests": [{"prompt": f"Row {n}"} for n in range(5)], "generation_config": CAP}


def _mended(data: Path) -> dict[str, Any]:
    return {"source": write_lines(data / "bom.jsonl", ["\ufeff" + line("a", "x"), "", line("b", contents="text")])}


def _pilot(data: Path) -> dict[str, Any]:
    return {**_no_schema(data), "limit_rows": 7}


def _digits(data: Path) -> dict[str, Any]:
    return {"source": _table(data, 200, "1234567890 " * 10), "prompt": "Sum: {{text}}", "generation_config": CAP}


def _chinese(data: Path) -> dict[str, Any]:
    return {"source": _table(data, 40, "这个水壶烧得很快 привет"), "prompt": "{{text}}?", "generation_config": CAP}


def _tools(data: Path) -> dict[str, Any]:
    tools = [{"functionDeclarations": [{"name": "look_up", "description": "Looks a word up. " * 20}]}]
    return {"source": _ready(data, _asked("Look it up", tools=tools, generationConfig=CAP))}


ORDERS = [
    _schema,
    _no_schema,
    _system,
    _images,
    _pdfs,
    _numbers,
    _snake,
    _labelled,
    _inline_images,
    _openai,
    _embeddings,
    _long_rows,
    _many_rows,
    _one_row,
    _listed,
    _mended,
    _pilot,
    _digits,
    _chinese,
    _tools,
]


#: Each of them with Gemini's own counts, and without; a part: every other one with them, and of the rest some without.
OFFLINE = ORDERS if IS_FULL else ORDERS[1::4]
ASKED = [(order, True) for order in part(ORDERS, 2)] + [(order, False) for order in OFFLINE]


@pytest.mark.parametrize(
    ("order", "is_asked"),
    some(ASKED, 8),
    ids=[f"{order.__name__.strip('_')}-{'counted' if is_asked else 'offline'}" for order, is_asked in ASKED],
)
async def test_preview_question_create_and_ledger_say_one_figure_and_the_bill_is_inside(
    settings: Settings, sandbox: Sandbox, data: Path, order: Callable[[Path], dict[str, Any]], is_asked: bool
) -> None:
    arguments = order(data)
    questions: list[str] = []

    async def person(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        questions.append(params.message)
        return ElicitResult(action="accept", content={"submit": True})

    if not is_asked:
        sandbox.fail_next("countTokens", status=403, times=1000)
    asking = replace(settings, confirm_above_usd=0.0)
    async with Client(build_server(asking, transport=sandbox.transport), elicitation_callback=person) as client:
        talk = Conversation(client, asking)
        preview = await talk.call("preview_batch", **arguments)
        created = await talk.call("create_batch", **arguments)
        again = await talk.call("preview_batch", **arguments)
        seen = await talk.raw("check_status", batch=created["batch_id"])
        sandbox.finish(newest(sandbox))
        usage = (await talk.call("get_results", batch=created["batch_id"]))["usage"]
    async with desk_of(asking, sandbox) as desk:
        status = await desk.status(created["batch_id"])

    estimate = preview["estimate"]
    assert created["estimate"] == again["estimate"] == (seen.structured_content or {})["estimate"] == estimate
    low, high = dollars(estimate["cost_usd_low"]), dollars(estimate["cost_usd_high"])
    said = f"{low} to {high}"
    if (likely := estimate["cost_usd_likely"]) is not None:
        # Embeddings whose input Gemini has counted: they have no output.
        assert arguments["task"] == "embed"
        said = f"likely {dollars(likely)} (up to "
        assert f"at most {high}." in str(seen.content)
        assert usage["cost_usd"] == pytest.approx(likely, rel=0.1, abs=1e-5)
    assert f"estimated at {said}" in str(seen.content)
    assert (preview["standing"], again["standing"]) == ("", created["batch_id"])
    assert {name: getattr(status.batch.estimate, name) for name in FIGURES} == estimate
    assert len(questions) == 1
    assert dollars(estimate["cost_usd_high"]) in questions[0]
    assert ("countTokens on" in estimate["basis"]) == is_asked
    assert estimate["cost_usd_low"] <= usage["cost_usd"] + 1e-6
    assert usage["cost_usd"] <= estimate["cost_usd_high"]
    if is_asked:
        assert usage["input_tokens"] == pytest.approx(estimate["input_tokens"], rel=0.1, abs=3)


TEXTS = (
    "The kettle boils fast and stays cool. ",
    "1234567890 ",
    "привет, как дела? ",
    "这个水壶烧得很快。",
    "🙂🙃 ",
    '{"a": [1, 2, {"b": null}]} ',
    "x",
    '\t\n\\" ',
)
MODELS = ("gemini-3-flash-preview", "gemini-3.1-pro-preview", "gemini-2.5-flash", "gemini-3.1-flash-image")


def _random_request(choose: random.Random) -> dict[str, Any]:
    text = choose.choice(TEXTS) * choose.choice((1, 3, 30, 300))
    if choose.random() < 0.2:
        text += "[[sandbox:max_tokens]]"
    parts: list[dict[str, Any]] = [{"text": text}]
    if choose.random() < 0.2:
        parts.append(PNG)
    if choose.random() < 0.1:
        document = base64.b64encode(pdf(choose.randint(1, 40))).decode()
        parts.append({"inlineData": {"mimeType": "application/pdf", "data": document}})
    request: dict[str, Any] = {"contents": [{"parts": parts}]}
    config: dict[str, Any] = {}
    if choose.random() < 0.7:
        config[choose.choice(("maxOutputTokens", "max_output_tokens"))] = choose.choice((1, 20, 300.0, "500"))
    if choose.random() < 0.3:
        config[choose.choice(("candidateCount", "candidate_count"))] = choose.randint(1, 4)
    if choose.random() < 0.3:
        config |= {"responseMimeType": "application/json", "responseSchema": {"type": "STRING", "description": text}}
    if choose.random() < 0.2:
        request["tools"] = [{"function_declarations": [{"name": "look_up", "description": text}]}]
    if choose.random() < 0.3:
        request["system_instruction"] = {"parts": [{"text": choose.choice(TEXTS) * 20}]}
    if config:
        request[choose.choice(("generationConfig", "generation_config"))] = config
    return request


@pytest.mark.parametrize("seed", range(tries(400, 4)))
async def test_no_bill_passes_its_upper_figure(settings: Settings, sandbox: Sandbox, data: Path, seed: int) -> None:
    choose = random.Random(seed)
    kinds = [_random_request(choose) for _ in range(choose.choice((1, 3, 12)))]
    rows = choose.choice((1, 15, 60, 150))
    source = _ready(data, *[choose.choice(kinds) for _ in range(rows)], rows=rows)
    if seed % 3 == 0:
        sandbox.fail_next("countTokens", status=403, times=1000)
    allowed = 0.0
    async with converse(settings, sandbox) as talk:
        batch = await talk.call("create_batch", source=source, model=choose.choice(MODELS), confirm=True)
        allowed += batch["estimate"]["cost_usd_high"]
        for _ in range(2):
            sandbox.finish(newest(sandbox))
            usage = (await talk.call("get_results", batch=batch["batch_id"]))["usage"]
            # Both are of six decimals, of which sums have more.
            assert usage["cost_usd"] <= round(allowed, 6)
            arguments = {
                "batch": batch["batch_id"],
                "include": ["truncated"],
                "model": choose.choice(("", *MODELS[:2])),
            }
            again = await talk.raw("retry_failed", **arguments, confirm=True)
            if again.is_error or again.structured_content is None:
                break
            allowed += again.structured_content["estimate"]["cost_usd_high"]


async def test_long_files_among_many_short_ones_are_all_part_of_the_figure(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """The plan knows the pages of every file, and not only those of twenty rows."""
    for number in range(200):
        (data / f"{number:03}.pdf").write_bytes(pdf(400 if number % 67 == 50 else 1))
    order = {
        "source": "*.pdf",
        "attach": "path",
        "prompt": "Sum of {{name}}?",
        "generation_config": {"maxOutputTokens": 1},
    }
    pages = 3 * 400 + 197
    for settings_ in (settings, replace(settings, max_file_bytes=5000)):
        async with converse(settings_, sandbox) as talk:
            estimate = (await talk.call("preview_batch", **order))["estimate"]
        assert estimate["cost_usd_high"] >= pages * 560 * 0.25e-6
        assert estimate["input_tokens"] == pytest.approx(pages * 560, rel=0.1)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (_asked("Who won?", tools=[{"googleSearch": {}}]), "Line 1 uses googleSearch, which Gemini bills separately"),
        (_asked("Sum?", cachedContent="cachedContents/x"), "Line 1 uses cachedContent"),
    ],
)
async def test_what_nothing_bounds_is_said_and_refused_under_a_cap(
    settings: Settings, sandbox: Sandbox, data: Path, request_: dict[str, Any], said: str
) -> None:
    source = _ready(data, request_, rows=1)
    async with converse(settings, sandbox) as talk:
        assert said in str((await talk.call("preview_batch", source=source))["warnings"])
    async with converse(replace(settings, max_cost_usd=1000.0), sandbox) as talk:
        refusal = await talk.refusal("create_batch", source=source, confirm=True)
    assert said in refusal
    assert "Leave it out" in refusal
    assert sandbox.creates == 0
    assert not any(request.route == "files.start" for request in sandbox.requests)


async def test_files_that_are_only_named_are_said_with_their_count_and_first_line(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    named = {"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/talk.mp3", "mimeType": "audio/mpeg"}}]}]}
    source = write_lines(
        data / "named.jsonl",
        [line(f"k{n}") for n in range(30)] + [json.dumps({"key": f"f{n}", "request": named}) for n in range(4)],
    )
    async with converse(settings, sandbox) as talk:
        warnings = (await talk.call("preview_batch", source=source))["warnings"]
    assert any(said.startswith("4 lines (first: 31) name files that can't be inspected here") for said in warnings)


async def test_what_was_previewed_is_neither_read_nor_counted_again(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data, 50)
    async with converse(settings, sandbox) as talk:
        estimate = (await talk.call("preview_batch", source=source))["estimate"]
    asked = sum(request.route == "countTokens" for request in sandbox.requests)
    # Another process, in which Gemini would count otherwise.
    sandbox.fail_next("countTokens", status=500, times=1000)
    async with converse(settings, sandbox) as talk:
        assert (await talk.call("create_batch", source=source))["estimate"] == estimate
    assert asked == 20
    assert sum(request.route == "countTokens" for request in sandbox.requests) == asked
