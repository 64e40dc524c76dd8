"""Answer lines as they come, and seeded mutations of them at every level: bytes, JSON, types, sizes, numbers, names."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

#: The schema that structured answers are ordered with.
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer"},
        "share": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "more": {"type": "object", "properties": {"step": {"type": "number", "multipleOf": 0.5}}},
    },
    "required": ["name"],
}

#: The same without what no decoder says.
TYPED_SCHEMA: Final[dict[str, Any]] = SCHEMA | {
    "properties": SCHEMA["properties"]
    | {
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object", "properties": {"step": {"type": "number"}}},
    }
}

_HALF: Final = "\ud83d"
_TEXTS: Final = (
    *("", "x", _HALF, "\udc00\ud800", "\x00", "\u2028", "\ufeff", "\u202e", "{{text}}", "NaN", "null", "true", "[]"),
    *(
        "```json\n{}\n```",
        "=1+1",
        "'; DROP TABLE results; --",
        "../../x",
        "\\ud800",
        "%s %n {}",
        "\U000e0041",
        "é" * 300,
    ),
    *("<script>", "key", "error", "1e999", "-0", "9" * 400, "STOP", "SAFETY", "MAX_TOKENS", "files/x", "a\nb\r\nc\td"),
)
_NUMBERS: Final = (
    *(0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *(float("inf"), float("-inf"), float("nan")),
)
_MIME_TYPES: Final = (
    *("audio/L16;rate=0000", "audio/L16;rate=999999", "audio/pcm", "AUDIO/L16 ; rate=24000", "audio/L16;rate=0001"),
    *("", ";", "/", "image/png", "image/\x00", "image/" + _HALF, "a" * 5000, "text/html", "application/x-sh", "../x"),
    *("audio/L16;rate=24000;rate=0", "audio/l16;codec=pcm;rate=99999", "image/svg+xml", " image/png "),
)
#: Limits are reached elsewhere.
_MOST_BYTES: Final = 2_000_000
_EMPTY: Final = ("null", "true", "false", "[]", "{}", "[null]", "[[]]", '{"": null}')
_RAW: Final = (
    *(b"null", b"-1", b"1e400", b"NaN", b"[]", b"{}", b'""', b'"\\ud800"', b"-", b"01", b".5", b"1e", b"tru", b"'a'"),
    *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\x1f", b"\n", b"\r", b"\xef\xbb\xbf"),
    *(b"\\", b'"', b"[" * 60, b"{" * 3, b"}", b"]", b",", b":", b'"key":"other",', b"//", b"/*", b"\\u", b"\\uD83D"),
    *(b'{"a":' * 300 + b"1" + b"}" * 300, b"[" * 3000 + b"]" * 3000, b"9" * 5000, b'"' + b"x" * 70_000 + b'"'),
)
_NAMES: Final = (
    *("key", "response", "error", "status", "candidates", "content", "parts", "text", "thought", "inlineData", "data"),
    *("mimeType", "functionCall", "finishReason", "promptFeedback", "usageMetadata", "modelVersion", "embedding", ""),
    *("values", "code", "message", _HALF, "\x00", "name", "count"),
)


def structured(number: int) -> str:
    """Return the JSON of a good answer to a row of that number."""
    value = {"name": f"Zoë {number} \U0001f600", "count": number, "share": number / 8, "tags": [f"t{number}", "\u2028"]}
    return json.dumps(value, ensure_ascii=number % 2 == 0, indent=2 if number % 3 == 0 else None)


def answer_line(key: str, *parts: dict[str, Any]) -> bytes:
    """Return an ordinary answer line that consists of these parts."""
    return _encoded(_answer(key, *parts))


def mutated(seed: int, key: str) -> bytes:
    """Return the line, or what was one, of the answer to `key`; the same for the same seed."""
    chance = random.Random(seed)
    value = chance.choice(_KINDS)(key, chance)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = chance.choice(_OF_JSON)(value, chance)
    line = _encoded(value)
    if chance.random() < 0.4:
        for _ in range(chance.choice((1, 1, 2, 4))):
            line = _bytes(line, chance)
    return line[:_MOST_BYTES]


def _answer(key: str, *parts: Any) -> dict[str, Any]:
    return {
        "key": key,
        "response": {
            "candidates": [{"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "thoughtsTokenCount": 1},
            "modelVersion": "gemini-3.8-flash",
            "responseId": "r",
        },
    }


def _text(key: str, chance: random.Random) -> Any:
    return _answer(key, {"text": chance.choice(_TEXTS)})


def _json(key: str, chance: random.Random) -> Any:
    value: Any = json.loads(structured(chance.randrange(1000)))
    for _ in range(chance.choice((0, 1, 2))):
        value = chance.choice(_OF_JSON)(value, chance)
    text = json.dumps(value, ensure_ascii=chance.random() < 0.6)
    if chance.random() < 0.3:
        text = _bytes(text.encode("utf-8", "surrogatepass"), chance).decode("utf-8", "replace")
    return _answer(key, {"text": text})


def _media(key: str, chance: random.Random) -> Any:
    data = chance.choice(
        ("iVBORw0KGgo=", "AAAA", "A", "", "!!!!", "\u00e9", _HALF, "A" * 4001, "UklGRgAAAABXQVZF", 5, None)
    )
    part = {"inlineData": {"mimeType": chance.choice(_MIME_TYPES), "data": data}}
    return _answer(key, *[part] * chance.choice((1, 1, 2, 30)), *([{"text": "seen"}] if chance.random() < 0.5 else []))


def _error(key: str, chance: random.Random) -> Any:
    message = chance.choice(_TEXTS)
    return {"key": key, chance.choice(("error", "status")): {"code": chance.choice(_NUMBERS), "message": message}}


def _blocked(key: str, chance: random.Random) -> Any:
    reason, text = chance.choice(_TEXTS), chance.choice(_TEXTS)
    return {"key": key, "response": {"promptFeedback": {"blockReason": reason, "blockReasonMessage": text}}}


def _vector(key: str, chance: random.Random) -> Any:
    values = [chance.choice(_NUMBERS) for _ in range(chance.choice((0, 1, 3, 768)))]
    return {"key": key, "response": {"embedding": {"values": values}, "tokenCount": chance.choice(_NUMBERS)}}


def _others(key: str, chance: random.Random) -> Any:
    name = chance.choice(("functionCall", "executableCode", "toolCall", "fileData", "audioTranscription"))
    return _answer(key, {"text": "think", "thought": chance.choice((True, "true", 1, None))}, {name: {"name": "f"}})


_KINDS: Final = (_text, _json, _json, _media, _media, _error, _blocked, _vector, _others)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return each place in a value: what holds it, and under which name or number."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        for step in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, step))
            if isinstance(holder[step], dict | list):
                waiting.append(holder[step])
    return found


def _changing(change: Callable[[Any, random.Random], Any]) -> Callable[[Any, random.Random], Any]:
    """Return a mutation that changes one place of a value."""

    def mutation(value: Any, chance: random.Random) -> Any:
        if not isinstance(value, dict | list) or not (places := _places(value)):
            return change(value, chance)
        holder, step = chance.choice(places)
        holder[step] = change(holder[step], chance)
        return value

    return mutation


def _renamed(value: Any, chance: random.Random) -> Any:
    places = [(holder, name) for holder, name in _places(value) if isinstance(holder, dict)] if value else []
    if places:
        holder, name = chance.choice(places)
        content = holder.pop(name) if chance.random() < 0.7 else holder[name]
        holder[chance.choice(_NAMES)] = content
    return value


def _deep(value: Any, chance: random.Random) -> Any:
    for _ in range(chance.choice((3, 90, 240))):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def _many(value: Any, chance: random.Random) -> Any:
    most = max(1, _MOST_BYTES // 10 // (1 + len(_encoded(value))))
    times = min(chance.choice((2, 100, 1000, 20_000)), most)
    if isinstance(value, list):
        return value * times
    return str(value) * times if isinstance(value, str) else [value] * times


_OF_JSON: Final[tuple[Callable[[Any, random.Random], Any], ...]] = (
    _changing(lambda value, chance: chance.choice(_TEXTS)),
    _changing(lambda value, chance: chance.choice(_NUMBERS)),
    _changing(lambda value, chance: json.loads(chance.choice(_EMPTY))),
    _changing(lambda value, chance: [value] if chance.random() < 0.5 else {chance.choice(_NAMES): value}),
    _changing(lambda value, chance: str(value)),
    _changing(lambda value, chance: f"{value}{chance.choice(_TEXTS)}" if isinstance(value, str) else value),
    _changing(lambda value, chance: value[:-1] if isinstance(value, list | str) else None),
    _changing(_deep),
    _changing(_many),
    _renamed,
)


def _bytes(line: bytes, chance: random.Random) -> bytes:
    line = line or b"{}"
    start = chance.randrange(len(line) + 1)
    end = min(len(line), start + chance.choice((0, 1, 2, 8, 40)))
    match chance.randrange(6):
        case 0:
            return line[:start] + chance.choice(_RAW) + line[end:]
        case 1:
            return line[:start] + bytes(chance.randrange(256) for _ in range(3)) + line[end:]
        case 2:
            return line[:start] + line[end:]
        case 3:
            return line[:start]
        case 4:
            return line[:end] + line[start:end] * 3 + line[end:]
        case _:
            return line[: start - 1] + bytes([line[start - 1] ^ (1 << chance.randrange(8))]) + line[start:]


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")
