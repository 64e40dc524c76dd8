"""countTokens: one call with the whole request in it, through the SDK's client, and its failures as ours."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.errors import AccessDenied, NotFound, Rejected, Unavailable, UsageError
from gemini_batch_mcp.gemini.wire import request_to_count
from support.gateways import KEY, MODEL, Script, answer, failing, open_gateway, sample

pytestmark = pytest.mark.anyio

HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello."}]}]}


async def sent(directory: Path, *requests: JsonObject, task: Task = "generate") -> Any:
    """Return the body of the one call that counts these requests."""
    script = Script(answer(sample("72")))
    gateway = open_gateway(directory, script)
    assert await gateway.count_tokens(model=MODEL, requests=requests, task=task) == 5
    await gateway.aclose()
    (request,) = script.requests
    assert request.method == "POST"
    assert request.url.path == f"/v1beta/models/{MODEL}:countTokens"
    assert request.headers["x-goog-api-key"] == KEY
    return json.loads(request.content)


async def test_one_request_goes_out_whole_as_in_the_wire_sample(tmp_path: Path) -> None:
    wanted = sample("71")["generateContentRequest"]
    request = {name: value for name, value in wanted.items() if name != "model"}
    body = await sent(tmp_path, request)
    assert body["generateContentRequest"] == {**request, "model": f"models/{MODEL}"}
    # An empty list is an absent one in proto JSON.
    assert body["contents"] == []
    assert set(body) == {"contents", "generateContentRequest"}


async def test_members_that_the_sdk_does_not_know_and_snake_case_survive(tmp_path: Path) -> None:
    request = {
        "contents": [{"parts": [{"text": "Hi", "new_member": {"deep_one": 1}}]}],
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "generation_config": {"max_output_tokens": 5},
        "tools": [{"google_search": {}}],
        "model": "models/another",
    }
    body = await sent(tmp_path, request)
    assert body["generateContentRequest"] == {**request, "model": f"models/{MODEL}"}


async def test_an_embedding_is_counted_by_its_content(tmp_path: Path) -> None:
    body = await sent(tmp_path, {"content": {"parts": [{"text": "A text."}]}, "outputDimensionality": 8}, task="embed")
    assert body["generateContentRequest"] == {
        "model": f"models/{MODEL}",
        "contents": [{"parts": [{"text": "A text."}]}],
    }


async def test_several_requests_are_counted_as_the_contents_of_one(tmp_path: Path) -> None:
    with_system = {**HELLO, "systemInstruction": {"parts": [{"text": "Be brief."}]}, "tools": [{"googleSearch": {}}]}
    body = await sent(tmp_path, HELLO, with_system)
    assert body["generateContentRequest"]["contents"] == [
        {"role": "user", "parts": [{"text": "Hello."}]},
        {"role": "user", "parts": [{"text": "Be brief."}]},
        {"role": "user", "parts": [{"text": '[{"googleSearch": {}}]'}]},
        {"role": "user", "parts": [{"text": "Hello."}]},
    ]
    assert "systemInstruction" not in body["generateContentRequest"]


async def test_no_wrong_member_breaks_the_folding() -> None:
    folded = request_to_count("models/m", [{"system_instruction": "x", "contents": {"parts": []}}, {}], "generate")
    assert folded == {"model": "models/m", "contents": [{"role": "user", "parts": []}, {"parts": []}]}


async def test_a_count_is_repeated_and_announced(tmp_path: Path) -> None:
    steps: list[str] = []
    script = Script(failing(503), answer({"totalTokens": 7}))
    gateway = open_gateway(tmp_path, script, hook=steps.append)
    assert await gateway.count_tokens(model=f"models/{MODEL}", requests=[HELLO], task="generate") == 7
    assert steps == ["count_tokens:before", "count_tokens:before", "count_tokens:after"]
    await gateway.aclose()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (failing(400), Rejected),
        (failing(403), AccessDenied),
        (failing(404), NotFound),
        (failing(500), Unavailable),
        (answer({}), Unavailable),
        (answer({"totalTokens": "many"}), Unavailable),
    ],
)
async def test_failures_are_those_of_every_read(tmp_path: Path, reply: Any, error: type[Exception]) -> None:
    gateway = open_gateway(tmp_path, Script(reply))
    with pytest.raises(error, match=f"count tokens for models/{MODEL}"):
        await gateway.count_tokens(model=MODEL, requests=[HELLO], task="generate")
    await gateway.aclose()


async def test_a_name_that_is_no_model_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    script = Script(answer(sample("72")))
    gateway = open_gateway(tmp_path, script)
    with pytest.raises(UsageError, match="not a Gemini model name"):
        await gateway.count_tokens(model="../files", requests=[HELLO], task="generate")
    assert script.requests == []
    await gateway.aclose()
