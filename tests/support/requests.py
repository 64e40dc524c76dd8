"""Requests made at random (seeded) out of google-genai's own types, and samples of them for an estimate."""

import enum
import json
import random
import types as python_types
import typing
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx2
import pydantic
from google import genai
from google.genai import types

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.intake.prices.survey import Limits, Surveyor
from gemini_batch_mcp.intake.validator.terms import terms_of
from support.extent import tries

#: Enough for every kind of part, tool and setting.
GENERATE_BODIES = tries(600, 150)

#: Members that the converters refuse for the Developer API, or that are no part of the wire form.
LEFT_OUT = {
    types.GenerateContentConfig: {
        "http_options",
        "should_return_http_response",
        "automatic_function_calling",
        "automatic_continuation",
        "routing_config",
        "model_selection_config",
        "audio_timestamp",
        "model_armor_config",
        "generation_output_config",
        "system_instruction",
        "response_schema",
        "tools",
        "response_modalities",
        "speech_config",
        "cached_content",
    },
    types.ImageConfig: {
        "person_generation",
        "prominent_people",
        "output_mime_type",
        "output_compression_quality",
        "image_output_options",
    },
    types.SafetySetting: {"method"},
    types.GoogleSearch: {"blocking_confidence", "exclude_domains"},
    types.GoogleMaps: {"grounding_types"},
    types.AuthConfig: {
        "api_key_config",
        "auth_type",
        "google_service_account_config",
        "http_basic_auth_config",
        "oauth_config",
        "oidc_config",
    },
    types.FunctionCall: {"partial_args", "will_continue"},
    types.FunctionCallingConfig: {"stream_function_call_arguments"},
    types.Schema: {"additional_properties", "defs", "ref"},
    types.Tool: {"retrieval", "enterprise_web_search", "parallel_ai_search", "exa_ai_search"},
}
#: Members that Google's reference calls required although the SDK's types do not.
REQUIRED = {
    types.Blob: {"mime_type", "data"},
    types.FunctionResponseBlob: {"mime_type", "data"},
    types.FileData: {"file_uri"},
    types.FunctionResponseFileData: {"file_uri"},
    types.FunctionCall: {"name"},
    types.FunctionResponse: {"name"},
    types.FunctionDeclaration: {"name"},
    types.SafetySetting: {"category", "threshold"},
}
PART_DATA = (
    "text",
    "inline_data",
    "file_data",
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
    "tool_call",
    "tool_response",
)
NUMBERS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (1, 40),
    "logprobs": (0, 20),
    "fps": (0, 24),
    "latitude": (-90, 90),
    "longitude": (-180, 180),
    "thinking_budget": (-1, 8192),
}


class Maker:
    """Makes random values of the SDK's types."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def model(self, kind: type[pydantic.BaseModel], depth: int = 0, only: tuple[str, ...] = ()) -> Any:
        members = {}
        one_of: set[str] = set()
        if kind is types.Part:
            one_of = set(PART_DATA) - {self.random.choice(PART_DATA) if not only else only[0]}
        if kind is types.FunctionResponsePart:
            one_of = {self.random.choice(("inline_data", "file_data"))}
        for name, field in kind.model_fields.items():
            if name in LEFT_OUT.get(kind, ()) or name in one_of:
                continue
            must = name in REQUIRED.get(kind, ()) or (kind is types.Part and name in PART_DATA)
            must = must or (kind is types.FunctionResponsePart and name in ("inline_data", "file_data"))
            if must or self.random.random() < (0.35 if depth < 4 else 0.1):
                members[field.alias or name] = self.value(field.annotation, name, depth + 1)
        return kind.model_validate(members)

    def value(self, annotation: Any, name: str, depth: int) -> Any:
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
        origin = typing.get_origin(annotation)
        if origin in (typing.Union, python_types.UnionType):
            return self.value(options[0], name, depth)
        if origin is list:
            return [self.value(options[0], name, depth) for _ in range(self.random.randint(1, 3))]
        if origin is dict and options[1] is Any:
            return self.free(2)
        if origin is dict:
            return {f"n{index}": self.value(options[1], name, depth) for index in range(self.random.randint(1, 3))}
        if annotation is Any:
            return self.free(3)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self.random.choice(list(annotation))
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            return self.model(annotation, depth)
        return self.scalar(annotation, name)

    def scalar(self, annotation: Any, name: str) -> Any:
        low, high = NUMBERS.get(name, (1, 500))
        if annotation is str and name.endswith(("_offset", "timeout")):
            return f"{self.random.randint(0, 90)}.{self.random.randint(0, 9)}s"
        scalars: dict[Any, Callable[[], Any]] = {
            str: lambda: self.random.choice(["x", "résumé", "日本語", "a\u2028b", "emoji 🙂", 'quote " and \\']),
            bool: lambda: self.random.random() < 0.5,
            int: lambda: self.random.randint(low, high),
            float: lambda: float(self.random.randint(1, 40)) if name == "top_k" else self.random.uniform(low, high),
            bytes: lambda: self.random.randbytes(self.random.randint(0, 9)),
            datetime: lambda: datetime(2026, 1, self.random.randint(1, 28), tzinfo=UTC),
        }
        return scalars[annotation]()

    def free(self, depth: int) -> dict[str, Any]:
        values: list[Any] = ["text", 1, 2.5, True, None, [1, "a", [None]], {}]
        if depth:
            values.append(self.free(depth - 1))
        return {f"member_{index}": self.random.choice(values) for index in range(self.random.randint(1, 4))}

    def request(self, part_kind: str) -> types.InlinedRequest:
        config = self.model(types.GenerateContentConfig)
        config.stop_sequences = ["END"] if self.random.random() < 0.3 else None
        config.system_instruction = self.random.choice([None, "Be brief.", types.Part(text="Be brief.")])
        config.response_schema = self.random.choice([None, self.model(types.Schema)])
        config.tools = [self.model(types.Tool) for _ in range(self.random.randint(0, 2))] or None
        config.response_modalities = self.random.choice([None, ["TEXT"], ["TEXT", "IMAGE"]])
        config.speech_config = self.random.choice([None, "Kore", self.model(types.SpeechConfig)])
        config.cached_content = self.random.choice([None, "cachedContents/abc"])
        contents = [
            types.Content(
                role=self.random.choice(["user", "model", None]),
                parts=[self.model(types.Part, only=(part_kind,)), self.model(types.Part)][: self.random.randint(1, 2)],
            )
            for _ in range(self.random.randint(1, 3))
        ]
        return types.InlinedRequest(model="gemini-3-flash-preview", contents=contents, config=config)


@cache
def bodies() -> tuple[str, ...]:
    """Requests as the SDK puts them on the wire, as JSON."""
    maker = Maker(seed=20261122)
    sent = [maker.request(PART_DATA[index % len(PART_DATA)]) for index in range(GENERATE_BODIES)]
    [body] = caught(lambda client: client.batches.create(model="gemini-3-flash-preview", src=sent))
    return tuple(json.dumps(item["request"]) for item in body["batch"]["inputConfig"]["requests"]["requests"])


def caught(call: Callable[[genai.Client], object]) -> list[Any]:
    """Run a call of the SDK without a network; return the bodies that it sent."""
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        return httpx2.Response(200, json={"name": "batches/x", "metadata": {"state": "BATCH_STATE_PENDING"}})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    options = types.HttpOptions(api_version="v1beta", base_url="http://sandbox", httpx_client=http)
    with http:
        call(genai.Client(api_key="k", http_options=options))
    return sent


FLASH = "gemini-3-flash-preview"


def ask(text: str = "Hello, how are you?", **config: Any) -> dict[str, Any]:
    request: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    return {**request, "generationConfig": config} if config else request


def with_part(part: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [part]}], **members}


def lines(requests: Iterable[JsonObject]) -> bytes:
    return b"".join(
        json.dumps({"key": f"row-{number}", "request": request}).encode() + b"\n"
        for number, request in enumerate(requests)
    )


def surveyed(*requests: JsonObject, model: str = "", task: Task = "generate", limits: Limits | None = None) -> Surveyor:
    """What a pass over these requests finds out."""
    surveyor = Surveyor(model, task, limits=limits)
    for number, request in enumerate(requests):
        line, key = json.dumps({"key": f"row-{number}", "request": request}).encode(), f'"row-{number}"'.encode()
        surveyor.see(line, (line,), key, number, terms_of(request))
    return surveyor
