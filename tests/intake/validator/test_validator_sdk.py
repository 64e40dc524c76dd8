"""The validator against google-genai: what its own types and converters write is right, and what is changed is not."""

import json
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.genai import types

from gemini_batch_mcp.intake.requests.lines import examine
from gemini_batch_mcp.intake.validator.decoders import NOT_TAKEN, Flavour, flavour_of, line_decoder
from gemini_batch_mcp.intake.validator.validate import check_line
from gemini_batch_mcp.intake.validator.wire_schema import Message, message, request_message
from support.extent import in_part
from support.requests import GENERATE_BODIES, Maker, bodies, caught

pytestmark = in_part

EMBED_BODIES = 40


def line_of(request: Any) -> bytes:
    return json.dumps({"key": "k", "request": request}, separators=(",", ":")).encode()


def test_the_bodies_cover_every_kind_of_part_tool_and_setting() -> None:
    text = "".join(bodies())

    kinds = request_message("generate").fields.keys() - {"continuationToken"}
    kinds |= message("Part").fields.keys() | message("Tool").fields.keys() | message("ToolConfig").fields.keys()
    # Not among the SDK's settings for a request: what only the Live API has, and the new response format.
    kinds |= message("GenerationConfig").fields.keys() - {
        "enableAffectiveDialog",
        "translationConfig",
        "responseFormat",
    }
    assert len(set(bodies())) == GENERATE_BODIES
    assert [kind for kind in sorted(kinds) if f'"{kind}"' not in text] == []


def test_everything_that_the_sdk_writes_is_accepted() -> None:
    refused = [
        (problem.message, problem.fix)
        for number, body in enumerate(bodies(), 1)
        for problem in check_line(line_of(json.loads(body)), number, "generate").problems
    ]

    assert refused == []


def test_everything_that_the_sdk_writes_is_taken_by_the_decoder_made_for_it() -> None:
    """Decoders may leave a line to the exact check; that most are taken is what makes checking fast."""
    taken = 0
    sample = bodies()[::6]
    for body in sample:
        request = json.loads(body)
        decode = line_decoder("generate", flavour_of(request, "generate")).decode
        try:
            taken += decode(line_of(request)).key == "k"
        except NOT_TAKEN:
            continue

    assert taken > 0.8 * len(sample)


def test_embeddings_that_the_sdk_writes_are_accepted() -> None:
    maker = Maker(seed=7)
    sent = types.EmbedContentBatch(
        contents=[types.Content(parts=[maker.model(types.Part, only=("text",))]) for _ in range(EMBED_BODIES)],
        config=types.EmbedContentConfig(task_type="CLUSTERING", title="t", output_dimensionality=256),
    )
    source = types.EmbeddingsBatchJobSource(inlined_requests=sent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK calls its own method experimental
        [body] = caught(lambda client: client.batches.create_embeddings(model="gemini-embedding-2", src=source))

    requests = [item["request"] for item in body["batch"]["inputConfig"]["requests"]["requests"]]

    assert len(requests) == EMBED_BODIES
    assert [check_line(line_of(request), 1, "embed").problems for request in requests] == [()] * EMBED_BODIES


Mutation = Callable[[dict[str, Any], random.Random], str]


def unknown_member(request: dict[str, Any], _: random.Random) -> str:
    request["requestOptions"] = {"timeout": 3}
    return "request.requestOptions"


def misspelled_contents(request: dict[str, Any], _: random.Random) -> str:
    request["contens"] = request.pop("contents")
    return "request.contens"


def contents_as_text(request: dict[str, Any], _: random.Random) -> str:
    request["contents"] = "hello"
    return "request.contents"


def no_turns(request: dict[str, Any], _: random.Random) -> str:
    request["contents"] = []
    return "request.contents"


def one_turn_without_its_list(request: dict[str, Any], _: random.Random) -> str:
    request["contents"] = request["contents"][0]
    return "request.contents"


def no_parts(request: dict[str, Any], _: random.Random) -> str:
    request["contents"][-1]["parts"] = []
    return f"request.contents[{len(request['contents']) - 1}].parts"


def empty_part(request: dict[str, Any], _: random.Random) -> str:
    request["contents"][0]["parts"].append({"thought": True})
    return f"request.contents[0].parts[{len(request['contents'][0]['parts']) - 1}]"


def two_kinds_in_a_part(request: dict[str, Any], _: random.Random) -> str:
    part = request["contents"][0]["parts"][0]
    part.update({"fileData": {"fileUri": "u"}} if "text" in part else {"text": "x"})
    return "request.contents[0].parts[0]"


def foreign_role(request: dict[str, Any], _: random.Random) -> str:
    request["contents"][0]["role"] = "assistant"
    return "request.contents[0].role"


def instruction_as_text(request: dict[str, Any], _: random.Random) -> str:
    request["systemInstruction"] = "Be brief."
    return "request.systemInstruction"


def thinking_outside(request: dict[str, Any], _: random.Random) -> str:
    request["thinkingConfig"] = {"thinkingLevel": "LOW"}
    return "request.thinkingConfig"


def word_for_a_number(request: dict[str, Any], _: random.Random) -> str:
    request.setdefault("generationConfig", {})["temperature"] = "hot"
    return "request.generationConfig.temperature"


def fraction_of_a_token(request: dict[str, Any], _: random.Random) -> str:
    request.setdefault("generationConfig", {})["maxOutputTokens"] = 10.5
    return "request.generationConfig.maxOutputTokens"


def seed_beyond_32_bits(request: dict[str, Any], _: random.Random) -> str:
    request.setdefault("generationConfig", {})["seed"] = 2**40
    return "request.generationConfig.seed"


def unknown_modality(request: dict[str, Any], _: random.Random) -> str:
    request.setdefault("generationConfig", {})["responseModalities"] = ["TEXT", "SMELL"]
    return "request.generationConfig.responseModalities[1]"


def tools_without_their_list(request: dict[str, Any], _: random.Random) -> str:
    request["tools"] = {"googleSearch": {}}
    return "request.tools"


def typed_members(value: Any, wanted: Message, path: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield (object, member, its path) for every member whose type the schema knows."""
    for name, member in value.items():
        field = wanted.spellings[name]
        yield value, name, f"{path}.{name}"
        if not field.is_message or member is None:
            continue
        inner = message(field.type)
        if field.shape == "list":
            for index, item in enumerate(member):
                yield from typed_members(item, inner, f"{path}.{name}[{index}]")
        elif field.shape == "map":
            for key, item in member.items():
                yield from typed_members(item, inner, f"{path}.{name}.{key}")
        else:
            yield from typed_members(member, inner, f"{path}.{name}")


def renamed_somewhere(request: dict[str, Any], chance: random.Random) -> str:
    owner, name, path = chance.choice(list(typed_members(request, request_message("generate"), "request")))
    owner[f"{name}Q"] = owner.pop(name)
    return f"{path}Q"


def wrong_kind_somewhere(request: dict[str, Any], chance: random.Random) -> str:
    places = [
        (owner, name, path)
        for owner, name, path in typed_members(request, request_message("generate"), "request")
        # Any JSON is right there.
        if not name.lower().replace("_", "").endswith(("jsonschema", "example", "default"))
    ]
    owner, name, path = chance.choice(places)
    owner[name] = [[]]
    return path


MUTATIONS: list[Mutation] = [
    unknown_member,
    misspelled_contents,
    contents_as_text,
    no_turns,
    one_turn_without_its_list,
    no_parts,
    empty_part,
    two_kinds_in_a_part,
    foreign_role,
    instruction_as_text,
    thinking_outside,
    word_for_a_number,
    fraction_of_a_token,
    seed_beyond_32_bits,
    unknown_modality,
    tools_without_their_list,
    renamed_somewhere,
    wrong_kind_somewhere,
]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_what_is_changed_is_refused_with_its_path(mutate: Mutation) -> None:
    chance = random.Random(11)
    missed = []
    for body in bodies():
        request = json.loads(body)
        path = mutate(request, chance)
        checked = check_line(line_of(request), 1, "generate")
        if not any(f"`{path}" in problem.message for problem in checked.problems):
            missed.append((path, checked.problems))

    assert missed == []


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_no_decoder_takes_what_the_exact_check_refuses(mutate: Mutation) -> None:
    chance = random.Random(13)
    plain = [Flavour("camel", frozenset(), True), Flavour("snake", frozenset(), False)]
    for body in bodies()[::20]:
        request = json.loads(body)
        flavours = [*plain, flavour_of(request, "generate")]
        mutate(request, chance)
        for flavour in flavours:
            with pytest.raises(NOT_TAKEN):
                line_decoder("generate", flavour).decode(line_of(request))


def test_only_these_changes_are_put_right_in_what_is_sent() -> None:
    mended = set()
    for mutate in MUTATIONS:
        request = json.loads(bodies()[0])
        mutate(request, random.Random(17))
        if examine(line_of(request), 1, "generate").slips:
            mended.add(mutate)

    assert mended <= {
        contents_as_text,
        instruction_as_text,
        thinking_outside,
        tools_without_their_list,
        one_turn_without_its_list,
    }
