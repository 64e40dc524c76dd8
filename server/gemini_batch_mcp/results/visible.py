"""Answer text as an assistant may read it: characters that hide or reorder text are written out."""

import re
from typing import Final

#: Every character that takes no place, reorders its neighbours, or ends a line where no reader sees one: control
#: characters except tab and line feed, format characters (category Cf), surrogates, line and paragraph separators,
#: fillers, and the variation selectors, which can carry hidden bytes. U+FE0E and U+FE0F only choose between text and
#: emoji form and stay as they are.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
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
