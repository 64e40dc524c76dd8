"""Answers to single requests. They follow from the request alone, fit its schema, and say that no model made them."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from gemini_batch_mcp.sandbox.config import RowFault
from gemini_batch_mcp.sandbox.media import SILENCE, png
from gemini_batch_mcp.sandbox.plans import PLAIN, Plan, read_plan
from gemini_batch_mcp.sandbox.schemas import Dice
from gemini_batch_mcp.sandbox.tokens import text_tokens

#: A prompt is echoed whole up to this many characters, else its beginning and its end.
_ECHO_CHARACTERS: Final = 200
_ECHO_HEAD: Final = 80
_IMAGE_TOKENS: Final = 1290
_CALL_TOKENS: Final = 16
_LONG_CHARACTERS: Final = 10_000
_encode = msgspec.json.encode


class _Part(msgspec.Struct, gc=False):
    text: str = ""


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] = []


class _Request(msgspec.Struct, gc=False):
    """The members of a GenerateContentRequest that decide the answer, in both spellings."""

    contents: list[_Content] = []
    config: msgspec.Raw = msgspec.field(name="generationConfig", default=msgspec.Raw())
    snake_config: msgspec.Raw = msgspec.field(name="generation_config", default=msgspec.Raw())
    system: msgspec.Raw = msgspec.field(name="systemInstruction", default=msgspec.Raw())
    snake_system: msgspec.Raw = msgspec.field(name="system_instruction", default=msgspec.Raw())
    tools: msgspec.Raw = msgspec.Raw()
    tool_config: msgspec.Raw = msgspec.field(name="toolConfig", default=msgspec.Raw())
    snake_tool_config: msgspec.Raw = msgspec.field(name="tool_config", default=msgspec.Raw())


_decode_request = msgspec.json.Decoder(_Request).decode


_PLAIN_RESPONSE: Final = (
    b'{"candidates":[{"content":{"parts":[{"text":%b}],"role":"model"},"finishReason":"%b","index":0}],'
    b'"usageMetadata":{"promptTokenCount":%d,"candidatesTokenCount":%d,"totalTokenCount":%d,'
    b'"promptTokensDetails":[{"modality":"TEXT","tokenCount":%d}]%b},"modelVersion":%b,"responseId":"%016x"}'
)


class GenerateAnswers:
    """Answers under one model's name."""

    def __init__(self, model: str) -> None:
        self._version = _encode(model)

    def response(self, request: bytes, fault: RowFault | None = None, number: int = 0) -> bytes:
        """Return a GenerateContentResponse as JSON; `number` is what the fault's marker gave.

        Faults that concern the line, not the response, change nothing.
        """
        decoded = _decode_request(request)
        prompt = "\n".join([part.text for content in decoded.contents for part in content.parts])
        seed = int.from_bytes(hashlib.blake2b(request, digest_size=8).digest())
        config = bytes(decoded.config or decoded.snake_config)
        tools = bytes(decoded.tools)
        plan = PLAIN
        if config or tools:
            plan = read_plan(config, tools, bytes(decoded.tool_config or decoded.snake_tool_config))
        system = bytes(decoded.system or decoded.snake_system)
        prompt_tokens = text_tokens(prompt) + (_system_tokens(system) if system else 0)
        thoughts = seed % 64 + 16 if plan.thinks else 0
        length = (number or _LONG_CHARACTERS) if fault is RowFault.LONG else 0
        if plan.is_plain and (fault is None or length):
            return self._plain(_text(plan, prompt, seed, length), prompt_tokens, thoughts, seed)
        usage = _Usage(prompt_tokens, thoughts)
        if fault is not None and fault in _REFUSALS:
            return self._refused(fault, usage, seed)
        if fault is RowFault.MAX_TOKENS:
            usage.thoughts = plan.max_tokens or 512
            return self._whole(b'{"content":{"role":"model"},"finishReason":"MAX_TOKENS","index":0}', usage, seed)
        candidates = []
        for index in range(plan.candidates):
            answer = _text(plan, prompt, seed + index, length)
            candidates.append(_candidate(plan, answer, seed + index, index, usage, fault))
        return self._whole(b",".join(candidates), usage, seed)

    def _plain(self, answer: tuple[str, int, bytes], prompt_tokens: int, thoughts: int, seed: int) -> bytes:
        """Return one candidate of one text: the same as below in one step, for speed."""
        text, tokens, finish = answer
        return _PLAIN_RESPONSE % (
            _encode(text),
            finish,
            prompt_tokens,
            tokens,
            prompt_tokens + tokens + thoughts,
            prompt_tokens,
            b',"thoughtsTokenCount":%d' % thoughts if thoughts else b"",
            self._version,
            seed,
        )

    def _whole(self, candidates: bytes, usage: "_Usage", seed: int) -> bytes:
        return b'{"candidates":[%b],"usageMetadata":%b,"modelVersion":%b,"responseId":"%b"}' % (
            candidates,
            usage.to_json(),
            self._version,
            b"%016x" % seed,
        )

    def _refused(self, fault: RowFault, usage: "_Usage", seed: int) -> bytes:
        usage.thoughts = 0
        match fault:
            case RowFault.BLOCKED:
                feedback = b'"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},'
                return b'{%b"usageMetadata":%b,"modelVersion":%b}' % (feedback, usage.to_json(), self._version)
            case RowFault.NO_CANDIDATES:
                return b'{"usageMetadata":%b,"modelVersion":%b}' % (usage.to_json(), self._version)
            case RowFault.SAFETY:
                rating = b'{"category":"HARM_CATEGORY_HARASSMENT","probability":"HIGH","blocked":true}'
                candidate = b'{"finishReason":"SAFETY","index":0,"safetyRatings":[%b]}' % rating
                return self._whole(candidate, usage, seed)
            case _:
                return self._whole(b'{"content":{"role":"model"},"finishReason":"STOP","index":0}', usage, seed)


#: Faults after which there is no text at all.
_REFUSALS: Final = frozenset({RowFault.BLOCKED, RowFault.NO_CANDIDATES, RowFault.SAFETY, RowFault.EMPTY})


class _Usage:
    """Token counts of one response, in the making."""

    __slots__ = ("answer", "prompt", "thoughts")

    def __init__(self, prompt: int, thoughts: int) -> None:
        self.prompt = prompt
        self.thoughts = thoughts
        self.answer = 0

    def to_json(self) -> bytes:
        answer = b'"candidatesTokenCount":%d,' % self.answer if self.answer else b""
        thoughts = b',"thoughtsTokenCount":%d' % self.thoughts if self.thoughts else b""
        return (
            b'{"promptTokenCount":%d,%b"totalTokenCount":%d,'
            b'"promptTokensDetails":[{"modality":"TEXT","tokenCount":%d}]%b}'
            % (self.prompt, answer, self.prompt + self.answer + self.thoughts, self.prompt, thoughts)
        )


def _candidate(
    plan: Plan, answer: tuple[str, int, bytes], seed: int, index: int, usage: _Usage, fault: RowFault | None
) -> bytes:
    parts: list[bytes] = []
    text, tokens, finish = answer
    if plan.with_thoughts:
        parts.append(b'{"text":"[sandbox] No model has thought about this.","thought":true}')
    if plan.function_name:
        call = {"name": plan.function_name, "args": plan.function_args(Dice(seed)) if plan.function_args else {}}
        parts.append(b'{"functionCall":%b}' % _encode(call))
        usage.answer += _CALL_TOKENS
        finish = b"STOP"
    else:
        if fault is RowFault.CUT_TEXT:
            text, finish = text[: len(text) // 2], b"MAX_TOKENS"
        elif fault in _ODD_TEXTS:
            text = _ODD_TEXTS[fault](text)
        usage.answer += text_tokens(text) if fault else tokens
        parts.append(b'{"text":%b}' % _json_text(text, fault))
    if plan.with_image:
        parts.append(b'{"inlineData":{"mimeType":"image/png","data":"%b"}}' % base64.b64encode(png(seed)))
        usage.answer += _IMAGE_TOKENS
    if plan.with_audio:
        parts = [b'{"inlineData":{"mimeType":"audio/L16;codec=pcm;rate=24000","data":"%b"}}' % SILENCE]
    grounding = b""
    if plan.with_search:
        grounding = b',"groundingMetadata":{"webSearchQueries":["[sandbox] nothing was searched"]}'
    return b'{"content":{"parts":[%b],"role":"model"},"finishReason":"%b","index":%d%b}' % (
        b",".join(parts),
        finish,
        index,
        grounding,
    )


def _text(plan: Plan, prompt: str, seed: int, length: int) -> tuple[str, int, bytes]:
    """Return the answer's text, its tokens and why it ends; `length` 0 is whatever comes."""
    if plan.schema is not None:
        value = plan.schema(Dice(seed))
        text = str(value) if plan.is_enum else _encode(value).decode()
    else:
        text = f"[sandbox] No model answered. Request {seed:016x}: {_echo(prompt)}"
        if plan.is_json:
            text = _encode({"sandbox": text}).decode()
    if length:
        text = text.ljust(length, ".")[:length]
    tokens = text_tokens(text)
    if 0 < plan.max_tokens < tokens:
        text = _cut(text, plan.max_tokens)
        return text, text_tokens(text), b"MAX_TOKENS"
    return text, tokens, b"STOP"


def _echo(prompt: str) -> str:
    if len(prompt) <= _ECHO_CHARACTERS:
        return prompt
    return f"{prompt[:_ECHO_HEAD]} … {prompt[_ECHO_HEAD - _ECHO_CHARACTERS :]}"


def _cut(text: str, max_tokens: int) -> str:
    while text_tokens(text) > max_tokens:
        text = text[: len(text) * max_tokens // (text_tokens(text) + 1)]
    return text


_ODD_TEXTS: Final[Mapping[RowFault | None, Callable[[str], str]]] = {
    RowFault.SURROGATE: lambda text: f"{text} \ud83d",
    RowFault.SEPARATOR: lambda text: f"{text}\u2028line\u2029paragraph\u0085next",
}


def _json_text(text: str, fault: RowFault | None) -> bytes:
    if fault is RowFault.SURROGATE:
        return _encode(text[:-1])[:-1] + b'\\ud83d"'
    return _encode(text)


@lru_cache(maxsize=256)
def _system_tokens(system: bytes) -> int:
    content = msgspec.json.decode(system, type=_Content)
    return sum(text_tokens(part.text) for part in content.parts)
