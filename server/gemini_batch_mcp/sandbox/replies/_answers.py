"""Answers to single requests. They follow from the request alone, fit its schema, and say that no model made them."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Set
from functools import lru_cache
from typing import Any, Final

import msgspec

from gemini_batch_mcp.intake.prices.tokens import media_counts
from gemini_batch_mcp.intake.validator.terms import terms_of
from gemini_batch_mcp.sandbox.config import RowFault
from gemini_batch_mcp.sandbox.replies._media import SILENCE, WAV, png
from gemini_batch_mcp.sandbox.replies._plans import NO_EXTRAS, PLAIN, Extra, Plan, read_plan, usual_modalities
from gemini_batch_mcp.sandbox.replies._schemas import Dice
from gemini_batch_mcp.sandbox.replies.tokens import text_tokens

#: A prompt is echoed whole up to this many characters, else its beginning and its end.
_ECHO_CHARACTERS: Final = 200
_ECHO_HEAD: Final = 80
_IMAGE_TOKENS: Final = 1290
_AUDIO_TOKENS: Final = 25
_CALL_TOKENS: Final = 16
_SEARCH_TOKENS: Final = 40
_CACHED_TOKENS: Final = 2_048
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
    cached: str = msgspec.field(name="cachedContent", default="")
    snake_cached: str = msgspec.field(name="cached_content", default="")
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
        self._model = model
        self._version = _encode(model)
        self._usual = usual_modalities(model)

    def response(
        self,
        request: bytes,
        fault: RowFault | None = None,
        number: int = 0,
        extras: Set[Extra] = NO_EXTRAS,
        echo_key: str = "",
    ) -> bytes:
        """Return a GenerateContentResponse as JSON; `number` is what the marker of the fault, or of the choice, gave.

        A text answer ends with `echo_key` when there is one. Faults that concern the line, not the response, change
        nothing.
        """
        decoded = _decode_request(request)
        prompt = "\n".join([part.text for content in decoded.contents for part in content.parts])
        seed = int.from_bytes(hashlib.blake2b(request, digest_size=8).digest())
        config = bytes(decoded.config or decoded.snake_config)
        tools = bytes(decoded.tools)
        plan = PLAIN
        if config or tools or self._usual or extras:
            tool_config = bytes(decoded.tool_config or decoded.snake_tool_config)
            plan = read_plan(config, tools, tool_config, self._usual, extras)
        system = bytes(decoded.system or decoded.snake_system)
        prompt_tokens = text_tokens(prompt) + (_system_tokens(system) if system else 0)
        if tools:
            prompt_tokens += _tool_tokens(tools)
        if b"inlineData" in request or b"inline_data" in request:
            prompt_tokens += self._media_tokens(request)
        thoughts = seed % 64 + 16 if plan.thinks else 0
        length = (number or _LONG_CHARACTERS) if fault is RowFault.LONG else 0
        choice = number if fault is None else 0
        cached = _CACHED_TOKENS if decoded.cached or decoded.snake_cached else 0
        if plan.is_plain and not cached and (fault is None or length):
            text = _text(plan, prompt, seed, length, echo_key, choice)
            return self._plain(text, prompt_tokens, thoughts, seed, plan.max_tokens)
        usage = _Usage(prompt_tokens + cached, thoughts, cached, _SEARCH_TOKENS if plan.with_search else 0)
        if fault is not None and fault in _REFUSALS:
            return self._refused(fault, usage, seed)
        if fault is RowFault.MAX_TOKENS:
            usage.thoughts = plan.max_tokens or 512
            return self._whole(b'{"content":{"role":"model"},"finishReason":"MAX_TOKENS","index":0}', usage, seed)
        candidates = []
        for index in range(plan.candidates):
            answer = _text(plan, prompt, seed + index, length, echo_key, choice)
            candidates.append(_candidate(plan, answer, seed + index, index, usage, fault))
        usage.keep_to(plan.max_tokens * plan.candidates)
        return self._whole(b",".join(candidates), usage, seed)

    def _media_tokens(self, request: bytes) -> int:
        """Return what the media inside a request count; those that it only names are not looked at."""
        terms = terms_of(msgspec.json.decode(request))
        inside = terms._replace(media=tuple(media for media in terms.media if media.data is not None))
        return media_counts(inside._replace(has_cache=False), model=self._model)[0].total

    def _plain(
        self, answer: tuple[str, int, bytes], prompt_tokens: int, thoughts: int, seed: int, max_tokens: int
    ) -> bytes:
        """Return one candidate of one text: the same as below in one step, for speed."""
        text, tokens, finish = answer
        if max_tokens:
            # Gemini counts thinking into the limit.
            thoughts = min(thoughts, max(0, max_tokens - tokens))
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
            case RowFault.EMPTY:
                return self._whole(b'{"content":{"role":"model"},"finishReason":"STOP","index":0}', usage, seed)
            case _:
                return self._whole(b'{"finishReason":"%b","index":0}' % _STOPPED[fault], usage, seed)


#: Why there is no content, other than safety.
_STOPPED: Final[Mapping[RowFault, bytes]] = {
    RowFault.RECITATION: b"RECITATION",
    RowFault.PROHIBITED: b"PROHIBITED_CONTENT",
    RowFault.MALFORMED_CALL: b"MALFORMED_FUNCTION_CALL",
}
#: Faults after which there is no text at all.
_REFUSALS: Final = frozenset(
    {RowFault.BLOCKED, RowFault.NO_CANDIDATES, RowFault.SAFETY, RowFault.EMPTY, *_STOPPED.keys()}
)


class _Usage:
    """Token counts of one response, in the making. `prompt` holds the cached ones too, as Gemini counts them."""

    __slots__ = ("answer", "cached", "media", "prompt", "thoughts", "tool")

    def __init__(self, prompt: int, thoughts: int, cached: int = 0, tool: int = 0) -> None:
        self.prompt = prompt
        self.thoughts = thoughts
        self.cached = cached
        self.tool = tool
        self.answer = 0
        #: How many of `answer` are of a picture or a sound.
        self.media: dict[str, int] = {}

    def add_media(self, modality: str, tokens: int) -> None:
        self.answer += tokens
        self.media[modality] = self.media.get(modality, 0) + tokens

    def keep_to(self, limit: int) -> None:
        """Count no more output than a request allows (0: anything): Gemini counts thinking and pictures into it."""
        if limit:
            self.answer = min(self.answer, limit)
            self.thoughts = min(self.thoughts, limit - self.answer)
            self.media = {modality: min(tokens, limit) for modality, tokens in self.media.items()}

    def to_json(self) -> bytes:
        members: dict[str, Any] = {"promptTokenCount": self.prompt}
        if self.answer:
            members["candidatesTokenCount"] = self.answer
        members["totalTokenCount"] = self.prompt + self.answer + self.thoughts + self.tool
        members["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": self.prompt}]
        if self.cached:
            members["cachedContentTokenCount"] = self.cached
            members["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": self.cached}]
        if self.tool:
            members["toolUsePromptTokenCount"] = self.tool
        if self.media:
            members["candidatesTokensDetails"] = [
                {"modality": modality, "tokenCount": tokens} for modality, tokens in self.media.items()
            ]
        if self.thoughts:
            members["thoughtsTokenCount"] = self.thoughts
        return _encode(members)


_FILE_PART: Final = b'{"fileData":{"mimeType":"text/plain","fileUri":"https://example.com/sandbox.txt"}}'
_CODE_PARTS: Final = (
    b'{"executableCode":{"language":"PYTHON","code":"# [sandbox] no model wrote this\\nprint(1)"}}',
    b'{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"[sandbox] nothing was run"}}',
)
#: Members of a candidate beside its content.
_MEMBERS: Final[Mapping[Extra, bytes]] = {
    Extra.GROUNDING: b',"groundingMetadata":{"webSearchQueries":["[sandbox] nothing was searched"],"groundingChunks":['
    b'{"web":{"uri":"https://example.com/source","title":"[sandbox] no source"}}]},'
    b'"urlContextMetadata":{"urlMetadata":[{"retrievedUrl":"https://example.com/page","urlRetrievalStatus":"URL_RETRIEVAL_STATUS_ERROR"}]}',
    Extra.CITATIONS: b',"citationMetadata":{"citationSources":[{"startIndex":0,"endIndex":9,'
    b'"uri":"https://example.com/quoted","license":"MIT"}]}',
    Extra.RATINGS: b',"safetyRatings":[{"category":"HARM_CATEGORY_HARASSMENT","probability":"NEGLIGIBLE"},'
    b'{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","probability":"MEDIUM"}]',
}


def _candidate(
    plan: Plan, answer: tuple[str, int, bytes], seed: int, index: int, usage: _Usage, fault: RowFault | None
) -> bytes:
    parts: list[bytes] = []
    text, tokens, finish = answer
    signature = b""
    if plan.with_thoughts:
        parts.append(b'{"text":"[sandbox] No model has thought about this.","thought":true}')
        signature = b',"thoughtSignature":"%b"' % base64.b64encode(b"[sandbox] %016x" % seed)
    if plan.function_name:
        call = {"name": plan.function_name, "args": plan.function_args(Dice(seed)) if plan.function_args else {}}
        parts.append(b'{"functionCall":%b%b}' % (_encode(call), signature))
        usage.answer += _CALL_TOKENS
        finish = b"STOP"
    elif Extra.FILE in plan.beside:
        parts.append(_FILE_PART)
        finish = b"STOP"
    elif not plan.with_audio:
        if Extra.CODE in plan.beside:
            parts += _CODE_PARTS
        if fault is RowFault.CUT_TEXT:
            text, finish = text[: len(text) // 2], b"MAX_TOKENS"
        elif fault in _ODD_TEXTS:
            text = _ODD_TEXTS[fault](text)
        usage.answer += text_tokens(text) if fault else tokens
        parts.append(b'{"text":%b%b}' % (_json_text(text, fault), signature))
    if plan.with_image:
        parts.append(b'{"inlineData":{"mimeType":"image/png","data":"%b"}}' % base64.b64encode(png(seed)))
        usage.add_media("IMAGE", _IMAGE_TOKENS)
    if plan.with_audio:
        kind, data = (b"audio/wav", WAV) if plan.with_wav else (b"audio/L16;codec=pcm;rate=24000", SILENCE)
        parts.append(b'{"inlineData":{"mimeType":"%b","data":"%b"}}' % (kind, data))
        usage.add_media("AUDIO", _AUDIO_TOKENS)
    beside = b"".join(member for extra, member in _MEMBERS.items() if extra in plan.beside)
    if plan.with_search and Extra.GROUNDING not in plan.beside:
        beside += b',"groundingMetadata":{"webSearchQueries":["[sandbox] nothing was searched"]}'
    return b'{"content":{"parts":[%b],"role":"model"},"finishReason":"%b","index":%d%b}' % (
        b",".join(parts),
        finish,
        index,
        beside,
    )


def _text(plan: Plan, prompt: str, seed: int, length: int, echo_key: str, choice: int) -> tuple[str, int, bytes]:
    """Return the answer's text, its tokens and why it ends; `length` and `choice` 0 are whatever comes."""
    if plan.schema is not None:
        value = plan.schema(Dice(seed, choice))
        text = str(value) if plan.is_enum else _encode(value).decode()
    else:
        text = f"[sandbox] No model answered. Request {seed:016x}: {_echo(prompt)}"
        if length:
            text = text.ljust(length, ".")[:length]
        if echo_key:
            text = f"{text} key={_encode(echo_key).decode()}"
        if plan.is_json:
            text = _encode({"sandbox": text}).decode()
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


def _misfit(text: str) -> str:
    """Return a JSON text whose value, or whose first member, has another type; what is no JSON becomes other text."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return "[sandbox] misfit"
    if isinstance(value, dict) and value:
        name, member = next(iter(value.items()))
        return _encode({**value, name: _other_type(member)}).decode()
    return _encode(_other_type(value)).decode()


def _other_type(value: object) -> object:
    return {"sandbox": "misfit"} if isinstance(value, list) else ["[sandbox] misfit"]


_ODD_TEXTS: Final[Mapping[RowFault | None, Callable[[str], str]]] = {
    RowFault.SURROGATE: lambda text: f"{text} \ud83d",
    RowFault.SEPARATOR: lambda text: f"{text}\u2028line\u2029paragraph\u0085next",
    RowFault.MISFIT: _misfit,
    RowFault.WRAPPED: lambda text: f"[sandbox] Here is the JSON:\n```json\n{text}\n```\nAnything else?",
    RowFault.CUT_JSON: lambda text: text[: len(text) // 2],
}


def _json_text(text: str, fault: RowFault | None) -> bytes:
    if fault is RowFault.SURROGATE:
        return _encode(text[:-1])[:-1] + b'\\ud83d"'
    return _encode(text)


@lru_cache(maxsize=256)
def _tool_tokens(tools: bytes) -> int:
    return text_tokens(_encode(msgspec.json.decode(tools)).decode())


@lru_cache(maxsize=256)
def _system_tokens(system: bytes) -> int:
    content = msgspec.json.decode(system, type=_Content)
    return sum(text_tokens(part.text) for part in content.parts)
