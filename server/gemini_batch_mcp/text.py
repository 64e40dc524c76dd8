"""Words from outside, made fit to stand inside our own text."""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

#: Terminal control sequences, which would leave "[31m" behind if only their first character went.
_TERMINAL_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
#: Invisible characters that Unicode does not class as control or format: fillers and variation selectors.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_DROPPED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})

_URL: Final = re.compile(r"(?i)\b[a-z][a-z0-9+.\-]{1,15}://[^\s\"'<>]*")
#: Google API keys as they look (the older and the newer kind), wherever they stand.
_KEY: Final = re.compile(r"\bAIza[0-9A-Za-z_\-]{6,}|\bAQ\.[0-9A-Za-z_\-]{10,}")
#: Credentials as they are passed: `key=…`, `x-goog-api-key: …`, `upload_id=…`, `Bearer …`.
_CREDENTIAL: Final = re.compile(
    r"(?i)\b(?:(?:key|upload_id|access_token)=|(?:x-goog-api-key|api[_-]?key)\s*[=:]\s*|bearer\s+)[^\s&\"',;)]+"
)
#: Of keys without a row, how many are named, and how much of each is shown.
_SHOWN_KEYS: Final = 10
_SHOWN_KEY_CHARS: Final = 80


def plain_text(text: str, limit: int = 300) -> str:
    """Return `text` on one line without invisible or directional characters, at most `limit` characters long.

    Removed are control, format (bidirectional and zero-width included), surrogate, private and unassigned
    characters and terminal sequences; runs of white space become one space. A cut is marked with "…".
    """
    # Enough of a long text to fill the limit; the rest is never looked at, so a huge text costs nothing.
    window = _TERMINAL_SEQUENCE.sub("", text[: 8 * limit + 256])
    if not (window.isascii() and window.isprintable()):
        window = "".join(_shown(character) for character in _INVISIBLE.sub("", window))
    line = " ".join(window.split())
    return line if len(line) <= limit else line[: max(limit - 1, 0)].rstrip() + "…"


def safe_text(text: str, limit: int = 300) -> str:
    """Return `text` as `plain_text` does, with keys, links and upload ids taken out as well."""
    line = plain_text(text, 8 * limit + 256)
    line = _URL.sub("[link]", line)
    line = _KEY.sub("[key]", line)
    line = _CREDENTIAL.sub("[secret]", line)
    return plain_text(line, limit)


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    return "" if unicodedata.category(character) in _DROPPED_CATEGORIES else character


def dollars(amount: float) -> str:
    """Return an amount as people write it: two decimals, below a dollar four, below a hundredth of a cent two digits.

    Charges are rounded to a millionth of a dollar; what is less than that is said to be.
    """
    if amount >= 1 or amount == 0:
        return f"${amount:,.2f}"
    if amount >= 0.0001:
        return f"${amount:.4f}"
    if amount < 0.000001:
        return "under $0.000001"
    return f"${amount:.{1 - math.floor(math.log10(amount))}f}".rstrip("0")


def count(number: int, noun: str = "", plural: str = "") -> str:
    """Return a number with its thousands set apart, and with the noun in the right number."""
    if not noun:
        return f"{number:,}"
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def absent_keys(keys: Sequence[str], like: str) -> str:
    """Say which keys no row has, and how those look that there are: silence would pass for an answer."""
    shown = ", ".join(repr(key[:_SHOWN_KEY_CHARS]) for key in keys[:_SHOWN_KEYS])
    example = f" Keys here are like {like[:_SHOWN_KEY_CHARS]!r}." if like else ""
    return f"No row has the key {shown}.{example}"


def share(part: int, whole: int, noun: str, one: str = "", many: str = "", *, plural: str = "") -> str:
    """Return how many of how many, each in the right number: `1 of 3 rows is`, `2 of 3 rows are`, `1 of 1 row`."""
    verb = one if part == 1 else many
    return f"{part:,} of {count(whole, noun, plural)}{f' {verb}' if verb else ''}"


def duration(seconds: int) -> str:
    """Return how long something takes as people say it: in whole seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
