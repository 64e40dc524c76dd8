"""What a request's configuration, tools and markers ask of its answer."""

import dataclasses
from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec

from gemini_batch_mcp.sandbox.replies._schemas import Sampler, compile_schema

_MAX_CANDIDATES: Final = 8
#: Of an answer, whatever the request allows: no model gives more.
_MOST_TOKENS: Final = 65_536


class Extra(StrEnum):
    """What a marker `[[sandbox:…]]` in a request's text adds to the answer; several may stand in one request."""

    #: A PNG of one pixel as `inlineData`.
    IMAGE = "image"
    #: A WAV file of a hundredth of a second as `inlineData`, instead of text.
    AUDIO = "audio"
    #: A part with `"thought": true`, a `thoughtSignature`, and `thoughtsTokenCount`.
    THOUGHTS = "thoughts"
    #: `executableCode` and a `codeExecutionResult` in front of the text, as with the tool `codeExecution`.
    CODE = "code"
    #: A file by its address (`fileData`) instead of text.
    FILE = "file"
    #: `groundingMetadata` with one source, and `urlContextMetadata` with one page.
    GROUNDING = "grounding"
    #: `citationMetadata` with one source.
    CITATIONS = "citations"
    #: `safetyRatings` of two categories.
    RATINGS = "ratings"
    #: The row's key at the end of the answer's text, in quotes as JSON writes it: `key="row-1"`.
    ECHO_KEY = "echo_key"
    #: An output line with its key in front of the response.
    KEY_FIRST = "key_first"
    #: Of each `enum` the value at this place, counted from 1: `[[sandbox:choice:2]]`.
    CHOICE = "choice"


NO_EXTRAS: Final[frozenset[Extra]] = frozenset()
_BESIDE: Final = frozenset({Extra.CODE, Extra.FILE, Extra.GROUNDING, Extra.CITATIONS, Extra.RATINGS})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request's configuration and tools ask for."""

    schema: Sampler | None = None
    is_json: bool = False
    is_enum: bool = False
    with_image: bool = False
    with_audio: bool = False
    with_wav: bool = False
    with_thoughts: bool = False
    thinks: bool = True
    max_tokens: int = 0
    candidates: int = 1
    function_name: str = ""
    function_args: Sampler | None = None
    with_search: bool = False
    #: What else a marker has added.
    beside: frozenset[Extra] = NO_EXTRAS
    #: One candidate, one text, nothing else.
    is_plain: bool = True


#: Nearly every request of a batch asks for this.
PLAIN: Final = Plan()


def usual_modalities(model: str) -> tuple[str, ...]:
    """Return what a model answers with when the request names no modalities; told by the model's name."""
    words = model.split("-")
    if "image" in words or "banana" in words:
        return ("TEXT", "IMAGE")
    return ("AUDIO",) if "tts" in words else ()


@lru_cache(maxsize=256)
def read_plan(
    config: bytes, tools: bytes, tool_config: bytes, usual: tuple[str, ...] = (), extras: Set[Extra] = NO_EXTRAS
) -> Plan:
    """Read what a batch repeats in every line; remembered, because it does. `usual` are the model's modalities."""
    generation = _camel_object(config)
    thinking = _camel_object_of(generation.get("thinkingConfig"))
    modalities = generation.get("responseModalities") or usual
    mime_type = generation.get("responseMimeType", "")
    schema = generation.get("responseJsonSchema") or generation.get("responseSchema")
    name, args = _function(tools, tool_config)
    beside = frozenset(extras & _BESIDE)
    if b"codeExecution" in tools or b"code_execution" in tools:
        beside |= {Extra.CODE}
    plan = Plan(
        schema=compile_schema(schema) if schema else None,
        is_json=mime_type == "application/json",
        is_enum=mime_type == "text/x.enum",
        with_image="IMAGE" in modalities or Extra.IMAGE in extras,
        with_audio="AUDIO" in modalities or Extra.AUDIO in extras,
        with_wav=Extra.AUDIO in extras,
        with_thoughts=bool(thinking.get("includeThoughts")) or Extra.THOUGHTS in extras,
        thinks=thinking.get("thinkingBudget") != 0 or Extra.THOUGHTS in extras,
        max_tokens=min(int(generation.get("maxOutputTokens") or 0), _MOST_TOKENS),
        candidates=min(int(generation.get("candidateCount") or 1), _MAX_CANDIDATES),
        function_name=name,
        function_args=args,
        with_search=b"googleSearch" in tools or b"google_search" in tools,
        beside=beside,
    )
    is_plain = plan.candidates == 1 and not (
        name or plan.with_image or plan.with_audio or plan.with_thoughts or plan.with_search or beside
    )
    return dataclasses.replace(plan, is_plain=is_plain)


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
