"""Answer text as an assistant may read it: characters that hide or reorder text are written out."""

import re
from typing import Final

from gemini_batch_mcp.domain import NOT_SENT
from gemini_batch_mcp.text import safe_text

#: Every character that takes no place, reorders its neighbours, or ends a line where no reader sees one: control
#: characters except tab and line feed, format characters (category Cf), surrogates, line and paragraph separators,
#: fillers, what is no character, and the variation selectors, which can carry hidden bytes. U+FE0E and U+FE0F stay
#: where they choose between the text and the emoji form of a symbol: one of them, right behind it.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0d\ufeff"
    "\uffa0\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
    "|(?<![\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u23ff\u24c2\u25a0-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff])(?<![#*0-9](?=\ufe0f\u20e3))[\ufe0e\ufe0f]"
)
_CRLF: Final = re.compile(r"\r\n?")


def visible(text: str) -> str:
    """Return `text` with every hidden or directional character written as `<U+202E>`.

    Tabs and line feeds stay; CRLF and a lone CR become a line feed, so that nothing can be overwritten on a terminal.
    """
    return _HIDDEN.sub(lambda match: f"<U+{ord(match[0]):04X}>", _CRLF.sub("\n", text))


def visible_cell(text: str, max_chars: int, *, full_length: int | None = None) -> str:
    """Return `visible(text)` in at most `max_chars` characters; a cut is marked and says how long the whole is.

    `full_length` is the length of the whole text in characters when `text` is only its beginning.
    """
    shown = visible(text)
    whole = len(text) if full_length is None else full_length
    if whole <= len(text) and len(shown) <= max_chars:
        return shown
    mark = f"… [cut: {whole:,} characters in all]"
    return shown[: max(max_chars - len(mark), 0)] + mark[:max_chars]


def error_of(code: int | None, message: str) -> str:
    """Return the error of a row, with the code that Gemini gave it."""
    return message if code is None or message.startswith(NOT_SENT) else f"code {code}: {message}"


def shown_error(code: int | None, message: str, max_chars: int) -> str:
    """Return the error of a row as one short line: no hidden characters, no keys, no links."""
    return safe_text(visible(error_of(code, message)), max_chars)
