"""The response schema that request lines ask for themselves, where all of them ask for the same one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import JsonObject

#: With what the name of a schema ends in a request, whichever it is. Inside a text the quotation mark is escaped.
_END: Final = b'chema"'
#: The name in front of a schema. Nothing that it has taken is given back.
_NAME: Final = re.compile(
    rb'"(?:responseSchema|responseJsonSchema|response_schema|response_json_schema|jsonSchema)"\s*+:\s*+$'
)
_NAME_BYTES: Final = 64
_ENUM: Final = "text/x.enum"


class _TextFormat(msgspec.Struct):
    schema: msgspec.Raw = msgspec.field(name="jsonSchema", default=msgspec.Raw())
    mime_type: Any = msgspec.field(name="mimeType", default=None)


class _Format(msgspec.Struct):
    text: _TextFormat | None = None


class _Config(msgspec.Struct):
    camel: msgspec.Raw = msgspec.field(name="responseSchema", default=msgspec.Raw())
    camel_json: msgspec.Raw = msgspec.field(name="responseJsonSchema", default=msgspec.Raw())
    snake: msgspec.Raw = msgspec.field(name="response_schema", default=msgspec.Raw())
    snake_json: msgspec.Raw = msgspec.field(name="response_json_schema", default=msgspec.Raw())
    mime_type: Any = msgspec.field(name="responseMimeType", default=None)
    snake_mime_type: Any = msgspec.field(name="response_mime_type", default=None)
    format: _Format | None = msgspec.field(name="responseFormat", default=None)


class _Request(msgspec.Struct):
    config: _Config | None = msgspec.field(name="generationConfig", default=None)
    snake_config: _Config | None = msgspec.field(name="generation_config", default=None)


class _Line(msgspec.Struct):
    request: _Request | None = None


_decode: Final = msgspec.json.Decoder(_Line).decode


class AskedSchema:
    """Looks at every line of a pass. `lines_are_alike`: they are rendered in one way, so that the first one tells."""

    def __init__(self, *, lines_are_alike: bool = False) -> None:
        self._lines_are_alike = lines_are_alike
        #: What the first line asks for, nothing where it asks for none.
        self._first: bytes | None = None
        self._value: Any = None
        #: The schema with its name in front of it, as the lines have it.
        self._written = b""
        #: Lines that ask for the same as the first one, and others.
        self._differs = False

    def see(self, piece: bytes, lines: Sequence[bytes]) -> None:
        """Look at the lines of a piece."""
        if self._differs or not lines:
            return
        if self._first is None:
            self._first, self._written = _asked(lines[0])
            self._value = msgspec.json.decode(self._first) if self._first else None
        if self._lines_are_alike:
            return
        if not self._first:
            self._differs = _END in piece and any(_asked(line)[0] for line in lines)
        elif piece.count(self._written) != len(lines):
            self._differs = not all(self._is_same(_asked(line)[0]) for line in lines)

    def schema(self) -> JsonObject:
        """Return the schema that every line asks for, nothing where none does or they differ."""
        return self._value if isinstance(self._value, Mapping) and not self._differs else {}

    def warnings(self) -> tuple[str, ...]:
        """Say where answers get no columns although lines ask for a form."""
        if not self._differs:
            return ()
        return (
            "The lines don't all ask for the same response schema, so answers are not checked against one and have no "
            "columns for their fields; text holds the whole answers.",
        )

    def _is_same(self, other: bytes) -> bool:
        return other == self._first or (bool(other) and msgspec.json.decode(other) == self._value)


def _asked(line: bytes) -> tuple[bytes, bytes]:
    """Return the schema that a line asks for as it is written there, and with its name; nothing for none."""
    if _END not in line:
        return b"", b""
    try:
        request = _decode(line).request
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b"", b""
    config = request and (request.config or request.snake_config)
    if not config:
        return b"", b""
    text = config.format.text if config.format is not None and config.format.text is not None else _TextFormat()
    if _ENUM in (config.mime_type, config.snake_mime_type, text.mime_type):
        return b"", b""
    found = (config.camel, config.camel_json, config.snake, config.snake_json, text.schema)
    schema = next((bytes(raw) for raw in found if raw and bytes(raw) not in (b"null", b"{}")), b"")
    start = line.find(schema) if schema else 0
    name = _NAME.search(line[max(0, start - _NAME_BYTES) : start])
    return schema, (name[0] if name is not None else b"\n") + schema
