"""What a request's configuration and tools ask of its answer."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from gemini_batch_mcp.sandbox.schemas import Sampler, compile_schema

_MAX_CANDIDATES: Final = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request's configuration and tools ask for."""

    schema: Sampler | None = None
    is_json: bool = False
    is_enum: bool = False
    with_image: bool = False
    with_audio: bool = False
    with_thoughts: bool = False
    thinks: bool = True
    max_tokens: int = 0
    candidates: int = 1
    function_name: str = ""
    function_args: Sampler | None = None
    with_search: bool = False
    #: One candidate, one text, nothing else.
    is_plain: bool = True


#: Nearly every request of a batch asks for this.
PLAIN: Final = Plan()


@lru_cache(maxsize=256)
def read_plan(config: bytes, tools: bytes, tool_config: bytes) -> Plan:
    """Read what a batch repeats in every line; remembered, because it does."""
    generation = _camel_object(config)
    thinking = _camel_object_of(generation.get("thinkingConfig"))
    modalities = generation.get("responseModalities") or []
    mime_type = generation.get("responseMimeType", "")
    schema = generation.get("responseJsonSchema") or generation.get("responseSchema")
    name, args = _function(tools, tool_config)
    extras = Plan(
        schema=compile_schema(schema) if schema else None,
        is_json=mime_type == "application/json",
        is_enum=mime_type == "text/x.enum",
        with_image="IMAGE" in modalities,
        with_audio="AUDIO" in modalities,
        with_thoughts=bool(thinking.get("includeThoughts")),
        thinks=thinking.get("thinkingBudget") != 0,
        max_tokens=int(generation.get("maxOutputTokens") or 0),
        candidates=min(int(generation.get("candidateCount") or 1), _MAX_CANDIDATES),
        function_name=name,
        function_args=args,
        with_search=b"googleSearch" in tools or b"google_search" in tools,
    )
    is_plain = extras.candidates == 1 and not (
        name or extras.with_image or extras.with_audio or extras.with_thoughts or extras.with_search
    )
    return dataclasses.replace(extras, is_plain=is_plain)


def _function(tools: bytes, tool_config: bytes) -> tuple[str, Sampler | None]:
    """Return the function that is called, and what makes its arguments; an empty name when none is called."""
    calling = _camel_object_of(_camel_object(tool_config).get("functionCallingConfig"))
    if not tools or calling.get("mode") == "NONE":
        return "", None
    declared = [
        _camel_object_of(declaration)
        for tool in msgspec.json.decode(tools)
        for declaration in _camel_object_of(tool).get("functionDeclarations") or []
    ]
    allowed = calling.get("allowedFunctionNames") or [declaration["name"] for declaration in declared]
    called = next((declaration for declaration in declared if declaration["name"] in allowed), None)
    if called is None:
        return "", None
    parameters = called.get("parametersJsonSchema") or called.get("parameters")
    return str(called["name"]), compile_schema(parameters) if parameters else None


def _camel_object(text: bytes) -> dict[str, Any]:
    return _camel_object_of(msgspec.json.decode(text)) if text else {}


def _camel_object_of(value: object) -> dict[str, Any]:
    """Return an object with the names of its own members in lowerCamel."""
    if not isinstance(value, dict):
        return {}
    return {_camel(name): item for name, item in value.items()}


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)
