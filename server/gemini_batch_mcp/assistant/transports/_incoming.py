"""Messages that the SDK cannot read, answered: it drops them, or refuses them without saying to which call.

JSON knows numbers without end, any depth, and half a surrogate pair (`"\\ud83d"`, as JavaScript writes a text that was
cut in the middle of a character). The SDK's reader takes none of these, and a client that gets no answer waits for one.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from gemini_batch_mcp.text import plain_text

#: A message longer than this is not read to its end. Requests in bulk come as files.
MAX_MESSAGE_BYTES: Final = 32 << 20
#: What the SDK's reader takes, measured with the pydantic-core that it uses.
_MAX_LEVELS: Final = 200
_MAX_DIGITS: Final = 4300
#: Names on the way to what is wrong, and characters of each.
_SHOWN_STEPS: Final = 6
_SHOWN_STEP_CHARS: Final = 40

#: A string (to the end of the text where it is not closed), a run of brackets, or what stands between them.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]++|[\]}]++|[:,]|[^\s"\[\]{}:,]++', re.DOTALL)
_DIGITS: Final = re.compile(rf"\d{{{_MAX_DIGITS + 1}}}")
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be handed on, and what its sender is answered with; None where nobody waits.

    `instead` is handed on in the place of an answer to a question of ours, which waits for one. `is_json` says that
    the SDK can at least tell that it is no message, which it does over HTTP.
    """

    answer: JSONRPCResponse | JSONRPCError | None = None
    instead: JSONRPCError | None = None
    is_json: bool = False


def read_message(line: bytes) -> JSONRPCMessage | Refused:
    """Return the message of a line, or why there is none."""
    text = line.decode("utf-8", "replace")
    if len(line) > MAX_MESSAGE_BYTES:
        envelope, said = _Envelope.of(text), f"the message is longer than {MAX_MESSAGE_BYTES >> 20} MiB: give a file"
        return Refused(_error(INVALID_REQUEST, f"Invalid Request: {said}.", envelope.id))
    try:
        message = jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError as error:
        is_json = error.errors(include_input=False, include_url=False)[0]["type"] != "json_invalid"
        return replace(_refused(text), is_json=is_json) if text.strip() else Refused(is_json=True)
    # A request whose id is none passes for a notification, which nobody answers.
    return _refused(text) if isinstance(message, JSONRPCNotification) and '"id"' in text else message


def _refused(text: str) -> Refused:
    """Return what becomes of a message that cannot be read."""
    envelope = _Envelope.of(text)
    try:
        reason = _too_much(text, envelope) or _half_pair(json.loads(text))
    except ValueError as error:
        place = f" ({error.msg}, character {error.pos + 1:,})" if isinstance(error, json.JSONDecodeError) else ""
        return Refused(_error(PARSE_ERROR, f"Parse error: the message is not valid JSON{place}.", envelope.id))
    if envelope.is_reply:
        # Answering it would end a call of the client that has the same number.
        return Refused(instead=_error(PARSE_ERROR, reason or "It is not a response.", envelope.id))
    if reason and envelope.method == "tools/call" and envelope.id is not None:
        # As the answer of the tool, which an assistant reads; errors of the protocol often reach no one.
        result = {"content": [{"type": "text", "text": reason}], "isError": True}
        kind = {"resultType": "complete"} if envelope.is_modern else {}
        return Refused(JSONRPCResponse(jsonrpc="2.0", id=envelope.id, result=result | kind))
    if not envelope.has_id and envelope.method is not None:
        # A notification; nobody waits for an answer to one.
        return Refused()
    said = reason or "it is not a JSON-RPC 2.0 request with a string or integer id, a method and an object"
    return Refused(_error(INVALID_REQUEST, f"Invalid Request: {said.rstrip('.')}.", envelope.id))


def _error(code: int, message: str, request_id: RequestId | None) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=message))


def _too_much(text: str, envelope: "_Envelope") -> str:
    """Return what there is too much of in a message, empty for nothing."""
    if envelope.levels > _MAX_LEVELS:
        return (
            f"The call is nested {envelope.levels:,} levels deep, and at most {_MAX_LEVELS} can be read: nothing was "
            "done. Send it with fewer levels."
        )
    if _DIGITS.search(text):
        return f"The call has a number of more than {_MAX_DIGITS:,} digits: nothing was done. Send it as text."
    return ""


def _half_pair(message: Any) -> str:
    """Return where a message has half of a surrogate pair, empty where it has none."""
    for path, value in _walked(message):
        if found := _HALF_PAIR.search(value):
            place = ".".join(plain_text(step, _SHOWN_STEP_CHARS) for step in path[:_SHOWN_STEPS])
            return (
                f"{place or 'The call'} contains half of a surrogate pair, \\u{ord(found[0]):04x}, which is half a "
                "character: nothing was done. Send both halves, or neither."
            )
    return ""


def _walked(message: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every text of a message, names of members included, with the way to it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), message)]
    while waiting:
        path, value = waiting.pop()
        match value:
            case str():
                yield path, value
            case list():
                waiting += [((*path, str(number)), member) for number, member in enumerate(value)]
            case dict():
                # Arguments by their own names: the envelope is not what an assistant wrote.
                inside = () if path in ((), ("params",), ("arguments",)) else path
                for name, member in value.items():
                    yield (*inside, name), name
                    waiting.append(((*inside, name), member))


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What can be told of a message without reading it: one pass over its text, whatever is wrong with that."""

    id: RequestId | None
    has_id: bool
    method: str | None
    is_reply: bool
    is_modern: bool
    levels: int

    @classmethod
    def of(cls, text: str) -> "_Envelope":
        members: dict[str, str] = {}
        depth, levels, name, before = 0, 0, "", ""
        for token in _TOKEN.finditer(text):
            found = token[0]
            if found == ":":
                name = before
            elif depth == 1 and name:
                # The first of a name given twice, as with a reader that stops where it is wrong.
                members.setdefault(name, found)
                name = ""
            if found[0] in "[{":
                depth += len(found)
                levels = max(levels, depth)
            elif found[0] in "]}":
                depth -= len(found)
            before = found
        return cls(
            id=_request_id(members.get('"id"', "")),
            has_id='"id"' in members,
            method=_string(members.get('"method"', "")),
            is_reply='"method"' not in members and ('"result"' in members or '"error"' in members),
            is_modern=any(f'"{version}"' in text for version in MODERN_PROTOCOL_VERSIONS),
            levels=levels,
        )


def _string(token: str) -> str | None:
    try:
        value = json.loads(token)
    except ValueError:
        return None
    return value if isinstance(value, str) and not _HALF_PAIR.search(value) else None


def _request_id(token: str) -> RequestId | None:
    """Return the id that a token is; None for what is none, and for one that no answer could carry."""
    if re.fullmatch(r"-?\d{1,300}", token):
        return int(token)
    return _string(token)
