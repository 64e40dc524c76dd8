"""Resources, prompts and completion, as clients of both protocols meet them."""

import json
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, PromptReference, ResourceTemplateReference

from gemini_batch_mcp.assistant.resources.batches import BATCH_URI
from gemini_batch_mcp.assistant.resources.models import MODEL_URI
from gemini_batch_mcp.assistant.resources.templates import TEMPLATE_URI
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, newest, request_file

pytestmark = pytest.mark.anyio


async def _json(talk: Conversation, uri: str) -> dict[str, Any]:
    read = await talk.client.read_resource(uri)
    (content,) = read.contents
    assert content.mime_type == "application/json"
    return dict(json.loads(content.text))  # type: ignore[union-attr]  # text, as its type says


async def _refusal(talk: Conversation, uri: str) -> str:
    with pytest.raises(MCPError) as refused:
        await talk.client.read_resource(uri)
    assert refused.value.error.code == INVALID_PARAMS
    return refused.value.error.message


async def test_a_batch_and_its_rows_are_resources_that_say_what_the_tools_say(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    async with converse(settings, sandbox, era) as talk:
        created = await talk.call("create_batch", source=request_file(data, 5), display_name="five rows")
        batch, job = created["batch_id"], created["jobs"][0]["name"]
        waiting = await _json(talk, f"gemini-batch://batches/{batch}")
        sandbox.finish(newest(sandbox))
        page = await _json(talk, f"gemini-batch://batches/{batch}/results?limit=2")
        rest = await _json(talk, f"gemini-batch://batches/{job}/results?limit=200&cursor={page['next_cursor']}")
        ended = await _json(talk, f"gemini-batch://batches/{job}")
        status = await talk.call("check_status", batch=batch)
        unknown = await _refusal(talk, "gemini-batch://batches/nothing-a1b2c3")
        too_many = await _refusal(talk, f"gemini-batch://batches/{batch}/results?limit=9999")

    assert waiting["done"] is False
    assert [row["key"] for row in page["rows"] + rest["rows"]] == ["k1", "k2", "k3", "k4", "k5"]
    assert {name: ended[name] for name in ("state", "counts", "rows")} == {
        name: status[name] for name in ("state", "counts", "rows")
    }
    assert "nothing-a1b2c3" in unknown
    assert too_many == "limit=9999 is not a number from 1 to 200."


async def test_models_are_listed_with_their_prices_and_dates(settings: Settings, sandbox: Sandbox, era: str) -> None:
    async with converse(settings, sandbox, era) as talk:
        listed = await _json(talk, "gemini-batch://models")
        one = await _json(talk, "gemini-batch://models/gemini-3-flash-preview")
        unknown = await _refusal(talk, "gemini-batch://models/gemini-0")
    async with converse(settings, None, era) as talk:
        offline = await _json(talk, "gemini-batch://models")

    assert listed["asked_gemini"]
    assert not offline["asked_gemini"]
    assert listed["models"][0]["name"] == settings.model
    assert one in listed["models"]
    assert one["usd_per_million_input_tokens"] > 0
    assert {model["task"] for model in listed["models"]} == {"generate", "embed"}
    assert {model["name"] for model in offline["models"]} >= {"gemini-3-flash-preview", "gemini-embedding-001"}
    assert "gemini-batch://models" in unknown
    assert len(json.dumps(listed)) < 20_000


@pytest.mark.parametrize(
    ("reference", "argument", "begun", "found"),
    [
        (ResourceTemplateReference(uri=TEMPLATE_URI), "name", "image-i", "image-input"),
        (ResourceTemplateReference(uri=MODEL_URI), "model", "gemini-3-f", "gemini-3-flash-preview"),
        (ResourceTemplateReference(uri=MODEL_URI), "model", "embedding-001", "gemini-embedding-001"),
    ],
)
async def test_names_are_completed(
    talk: Conversation, reference: ResourceTemplateReference, argument: str, begun: str, found: str
) -> None:
    answer = await talk.client.complete(reference, {"name": argument, "value": begun})
    assert answer.completion.values[0] == found


async def test_batch_ids_are_completed_for_resources_and_prompts(talk: Conversation, data: Path) -> None:
    batch = (await talk.call("create_batch", source=request_file(data, 2)))["batch_id"]
    for reference in (ResourceTemplateReference(uri=BATCH_URI), PromptReference(name="triage_failures")):
        answer = await talk.client.complete(reference, {"name": "batch", "value": batch[:4].upper()})
        assert answer.completion.values == [batch]


async def test_prompts_carry_what_the_task_needs(settings: Settings, sandbox: Sandbox, data: Path, era: str) -> None:
    async with converse(settings, sandbox, era) as talk:
        source = request_file(data, 4, mark=" [[sandbox:error]]")
        batch = (await talk.call("create_batch", source=source))["batch_id"]
        sandbox.finish(newest(sandbox))
        prompts = {prompt.name: prompt for prompt in (await talk.client.list_prompts()).prompts}

        async def said(name: str, **arguments: str) -> str:
            (message,) = (await talk.client.get_prompt(name, arguments)).messages
            assert message.role == "user"
            return message.content.text  # type: ignore[union-attr]  # text

        process = await said("process_file", path="shop {x}.csv", goal="its {mood}")
        triage = await said("triage_failures", batch=batch)
        improve = await said("improve_prompt", batch=batch)

    assert [argument.name for argument in prompts["process_file"].arguments or []] == ["path", "goal"]
    assert "source='shop {x}.csv'" in process
    assert "{{column}}" in process
    assert '"k2"' in triage
    assert "retry_failed" in triage
    assert source in improve
    assert '"k1"' in improve
    assert '"k2"' in improve


async def test_a_prompt_that_cannot_be_made_is_told_without_a_traceback(
    talk: Conversation, caplog: pytest.LogCaptureFixture
) -> None:
    slips = [
        ("triage_failure", {}, "process_file, triage_failures, improve_prompt"),
        ("triage_failures", {"batch": "nothing-a1b2c3"}, "nothing-a1b2c3"),
        ("triage_failures", {}, "batch"),
        ("process_file", {"path": "a.csv"}, "goal"),
    ]
    with caplog.at_level(logging.WARNING):
        for name, arguments, said in slips:
            with pytest.raises(MCPError) as refused:
                await talk.client.get_prompt(name, arguments)
            assert refused.value.error.code == INVALID_PARAMS
            assert said in refused.value.error.message
    assert not caplog.records


async def test_who_listens_to_a_batch_is_told_of_changes_and_of_nothing_else(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox, "auto") as talk:
        batch = (await talk.call("create_batch", source=request_file(data, 3)))["batch_id"]
        uri = f"gemini-batch://batches/{batch}"
        with anyio.fail_after(20):
            async with talk.client.listen(tools_list_changed=True, resource_subscriptions=[uri]) as news:
                assert news.honored.tools_list_changed is None
                for _ in range(3):
                    await talk.call("check_status", batch=batch)
                sandbox.finish(newest(sandbox))
                await talk.call("check_status", batch=batch)
                heard = [await anext(aiter(news))]
                await talk.call("get_results", batch=batch)
                heard.append(await anext(aiter(news)))
    assert {event.uri for event in heard} == {uri}  # type: ignore[union-attr]  # of resources only


async def test_nothing_is_advertised_that_is_never_sent(settings: Settings, sandbox: Sandbox, era: str) -> None:
    async with converse(settings, sandbox, era) as talk:
        capabilities = talk.client.server_capabilities
        templates = await talk.client.read_resource("gemini-batch://templates")
        models = await talk.client.read_resource("gemini-batch://models")
    assert capabilities is not None
    for capability in (capabilities.tools, capabilities.prompts, capabilities.resources):
        assert capability is not None
        assert not capability.list_changed
    assert capabilities.resources is not None
    assert bool(capabilities.resources.subscribe) == (era != "legacy")
    if era != "legacy":
        assert (templates.ttl_ms, templates.cache_scope) == (3_600_000, "public")
        assert (models.ttl_ms, models.cache_scope) == (3_600_000, "private")
