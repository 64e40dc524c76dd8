"""One row answered now: the request as it is, in exactly one attempt, and what is known when no answer comes."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.errors import (
    AccessDenied,
    GeminiError,
    OutcomeUnknown,
    QuotaExhausted,
    Rejected,
    Unavailable,
)
from support.gateways import KEY, MODEL, Handler, Reply, Script, answer, failing, open_gateway

pytestmark = pytest.mark.anyio

ANSWER = {"candidates": [{"content": {"parts": [{"text": "good", "thoughtSignature": "c2ln"}]}}], "newMember": 1}
HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello."}]}]}


async def called(
    directory: Path, request: JsonObject, reply: Reply | Handler, *, task: Task = "generate"
) -> tuple[JsonObject, list[httpx2.Request]]:
    """Return the reply of one call, and all requests that left for it."""
    script = Script(reply)
    gateway = open_gateway(directory, script)
    try:
        return await gateway.call(model=MODEL, request=request, task=task, tier="flex"), script.requests
    finally:
        await gateway.aclose()


async def test_a_request_goes_out_as_it_is_at_its_tier_and_the_reply_comes_back_as_it_is(tmp_path: Path) -> None:
    request: dict[str, Any] = {
        "contents": [{"parts": [{"text": "Hi", "new_member": {"deep_one": 1}}]}],
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"max_output_tokens": 5},
        "tools": [{"functionDeclarations": [{"name": "f"}]}],
    }
    of_the_line = {"model": "models/another", "service_tier": "priority"}
    reply, (sent,) = await called(tmp_path, request | of_the_line, answer(ANSWER))

    assert reply == ANSWER
    assert (sent.method, sent.url.path) == ("POST", f"/v1beta/models/{MODEL}:generateContent")
    assert sent.headers["x-goog-api-key"] == KEY
    assert json.loads(sent.content) == request | {"serviceTier": "flex"}
    assert sent.extensions["timeout"]["read"] >= 900


async def test_an_embedding_is_one_of_a_list_of_one(tmp_path: Path) -> None:
    request = {"content": {"parts": [{"text": "A text."}]}, "outputDimensionality": 8}
    wanted = {"embeddings": [{"values": [0.5, 0.5]}], "usageMetadata": {"promptTokenCount": 3}}
    reply, (sent,) = await called(tmp_path, request, answer(wanted), task="embed")

    assert reply == wanted
    assert sent.url.path == f"/v1beta/models/{MODEL}:batchEmbedContents"
    assert json.loads(sent.content) == {"requests": [request | {"model": f"models/{MODEL}"}]}


@pytest.mark.parametrize(
    "reply",
    [
        {"candidates": [{"finishReason": "CONTINUATION", "continuationToken": "bW9yZQ=="}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {}}}]}}]},
        {"candidates": "no list"},
    ],
)
async def test_whatever_an_answer_is_no_second_request_follows_it(tmp_path: Path, reply: JsonObject) -> None:
    found, requests = await called(tmp_path, HELLO, answer(reply))
    assert found == reply
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "seconds"),
    [
        (failing(503, retry_after="7"), Unavailable, 7.0),
        (failing(429, retry_after="3"), QuotaExhausted, 3.0),
        (httpx2.ConnectError("no way there"), Unavailable, None),
        (failing(400), Rejected, None),
        (failing(403), AccessDenied, None),
        (failing(500), OutcomeUnknown, None),
        (failing(504), OutcomeUnknown, None),
        (httpx2.ReadError("cut"), OutcomeUnknown, None),
        (httpx2.ReadTimeout("late"), OutcomeUnknown, None),
        (answer(["no object"]), OutcomeUnknown, None),
        (lambda request: httpx2.Response(200, text="<html>Sign in</html>"), OutcomeUnknown, None),
    ],
)
async def test_a_call_that_fails_says_whether_it_may_have_been_answered_and_is_not_repeated(
    tmp_path: Path, reply: Reply | Handler, kind: type[GeminiError], seconds: float | None
) -> None:
    script = Script(reply)
    gateway = open_gateway(tmp_path, script)
    with pytest.raises(GeminiError) as found:
        await gateway.call(model=MODEL, request=HELLO, task="generate", tier="flex")
    await gateway.aclose()

    assert type(found.value) is kind
    assert getattr(found.value, "retry_after_seconds", None) == seconds
    assert len(script.requests) == 1
