"""What every tool promises, checked on the list that a client gets."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.genai._mcp_utils import mcp_to_gemini_tools

from gemini_batch_mcp.assistant.definitions import made_definitions
from gemini_batch_mcp.intake.tables.kinds import FILES
from gemini_batch_mcp.intake.templates import TEMPLATES
from gemini_batch_mcp.intake.unpacked import PACKED
from support.conversation import Conversation
from support.npm import count_tokens

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
NAMES = [
    "preview_batch",
    "create_batch",
    "check_status",
    "get_results",
    "query_results",
    "compare_results",
    "list_jobs",
    "cancel_batch",
    "retry_failed",
    "delete_batch",
]
READ_ONLY = {"preview_batch", "check_status", "query_results", "compare_results", "list_jobs"}
DESTRUCTIVE = {"cancel_batch", "delete_batch"}
#: Each call of these may be the one that pays, or another row that is sent.
NOT_IDEMPOTENT = {"create_batch", "retry_failed"}


async def _tools(talk: Conversation) -> list[Any]:
    return list((await talk.client.list_tools()).tools)


async def test_the_tools_are_these_in_this_order(talk: Conversation) -> None:
    assert [tool.name for tool in await _tools(talk)] == NAMES


async def test_clients_are_told_what_the_functions_say(talk: Conversation) -> None:
    assert await _tools(talk) == made_definitions()


async def test_every_tool_has_a_title_four_hints_and_a_short_description(talk: Conversation) -> None:
    for tool in await _tools(talk):
        assert tool.title
        assert 40 <= len(tool.description) <= 500, tool.name
        hints = tool.annotations
        assert hints.read_only_hint is (tool.name in READ_ONLY)
        assert hints.destructive_hint is (tool.name in DESTRUCTIVE)
        assert hints.idempotent_hint is (tool.name not in NOT_IDEMPOTENT)
        assert hints.open_world_hint is True


async def test_every_parameter_is_described_and_has_no_union(talk: Conversation) -> None:
    for tool in await _tools(talk):
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{tool.name}.{name}"
        text = json.dumps(tool.input_schema)
        assert not re.search(r'"(anyOf|oneOf|allOf|title|additionalProperties)":|"type":\s*\[', text), tool.name


async def test_google_s_own_sdk_can_offer_every_tool_to_a_model(talk: Conversation) -> None:
    """What `tools=[session]` does with the list; it fails on `additionalProperties`, wherever it stands."""
    tools = await _tools(talk)
    declarations = [declared for tool in mcp_to_gemini_tools(tools) for declared in tool.function_declarations or ()]
    assert [declared.name for declared in declarations] == NAMES
    for tool, declared in zip(tools, declarations, strict=True):
        assert declared.parameters is not None
        assert set(declared.parameters.properties or ()) == set(tool.input_schema["properties"])


async def test_every_tool_publishes_the_shape_of_its_result_and_no_prose(talk: Conversation) -> None:
    for tool in await _tools(talk):
        assert tool.output_schema["type"] == "object"
        members = tool.output_schema["properties"]
        assert all(member for member in members.values()), tool.name
        # What may be null says so in words: some hosts know one type for a member, and no unions.
        assert all(
            member.keys() == {"description"} and member["description"].endswith(" or null")
            for member in members.values()
            if "type" not in member
        )
        text = json.dumps([member for member in members.values() if "type" in member])
        unpublished = r'"(\$ref|\$defs|anyOf|title|description|default|required|additionalProperties)":|"type":\s*\['
        assert not re.search(unpublished, text), tool.name


async def test_texts_for_assistants_do_not_shout(talk: Conversation) -> None:
    for tool in await _tools(talk):
        texts = json.dumps(tool.input_schema) + tool.description
        assert not re.search(r"\b(IMPORTANT|MUST|CRITICAL|ALWAYS|NEVER)\b|!", texts)


@pytest.mark.npm
async def test_all_definitions_stay_below_3_400_tokens(talk: Conversation) -> None:
    """o200k_base, output schemas included, as the wire carries them."""
    definitions = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in await _tools(talk)]
    assert count_tokens(json.dumps(definitions, separators=(",", ":"))) < 3400


async def test_a_read_only_server_lists_only_what_changes_nothing(settings: Any, sandbox: Any, era: str) -> None:
    from dataclasses import replace

    from support.conversation import converse

    async with converse(replace(settings, read_only=True), sandbox, era) as talk:
        assert {tool.name for tool in await _tools(talk)} == READ_ONLY
        assert "Unknown tool" in await talk.refusal("create_batch", source="x.jsonl")


async def test_the_instructions_fit_and_begin_with_what_the_server_is_for(talk: Conversation) -> None:
    instructions = talk.client.instructions or ""
    assert len(instructions.encode()) < 2048, "clients cut them at 2 KB"
    assert "Gemini Batch API" in instructions.split(".")[0]


async def test_templates_are_listed_read_and_completed(talk: Conversation, sandbox: Any) -> None:
    index = await talk.client.read_resource("gemini-batch://templates")
    entries = json.loads(index.contents[0].text)["templates"]  # type: ignore[union-attr]  # this one is text
    assert [entry["name"] for entry in entries] == [template.name for template in TEMPLATES]
    for entry in entries:
        template = (await talk.client.read_resource(entry["uri"])).contents[0]
        assert template.mime_type == "application/jsonl"
        for row in template.text.splitlines():  # type: ignore[union-attr]  # this one is text
            assert json.loads(row)["request"]


async def test_an_unknown_template_is_named_with_those_there_are(talk: Conversation) -> None:
    with pytest.raises(Exception, match="Templates: text, chat"):
        await talk.client.read_resource("gemini-batch://templates/nothing")


async def test_template_names_are_completed(talk: Conversation) -> None:
    from mcp_types import ResourceTemplateReference

    reference = ResourceTemplateReference(type="ref/resource", uri="gemini-batch://templates/{name}")
    completed = await talk.client.complete(reference, {"name": "name", "value": "image"})
    assert completed.completion.values == ["image-input", "image-generation"]


async def test_every_kind_of_source_is_named_where_a_source_is_chosen(talk: Conversation) -> None:
    """One ending for each kind; what goes by two names is told by the first, and packed files by one word for all."""
    wanted = {kind: suffix for suffix, kind in reversed(FILES.items())}.values()
    described = {
        tool.name: tool.input_schema["properties"]["source"]["description"]
        for tool in await _tools(talk)
        if "source" in tool.input_schema["properties"]
    }
    guide = GUIDE.read_text(encoding="utf-8").partition("**Sources.**")[2].partition("\n\n")[0]

    assert described.keys() == {"preview_batch", "create_batch"}
    for text in (*described.values(), guide):
        assert "packed" in text
        assert set(re.findall(r"\.[a-z0-9]+\b", text)) - FILES.keys() <= {*PACKED}
        assert set(re.findall(r"\.[a-z0-9]+\b", text)) >= {*wanted}
