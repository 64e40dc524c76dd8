"""What stands in a cell of an attached column: a path as people write it, a name at Google's, a link, or several."""

import json
import re
import unicodedata
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

_QUOTES: Final = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "`": "`"}
#: The name of a file at the Files API, as it is documented, in every spelling: alone, or as an address.
_UPLOADED: Final = re.compile(
    r"(?:(?:https://generativelanguage\.googleapis\.com)?/?(?:download/)?v1(?:alpha|beta)?/)?"
    r"(files/[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)(?::download)?(?:\?[^#\s]*)?"
)
_BUCKET: Final = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^\r\n]{1,1024}")
_YOUTUBE: Final = re.compile(
    r"https?://(?:(?:www\.|m\.)?youtube\.com/(?:watch\?|shorts/|live/|embed/)|youtu\.be/)[^\s]{1,200}"
)
#: What stands between several, the surest first: a comma may be part of a name.
_SEPARATORS: Final = ("\n", ";", "|", ",")


def plain(text: str) -> str:
    """Return a cell without padding, quotation marks, and `file://`."""
    text = text.strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    if text[:7].lower() == "file://":
        address = urlsplit(text)
        if address.netloc in ("", "localhost"):
            return url2pathname(address.path)
    return text


def spellings(path: str) -> tuple[str, ...]:
    """Return a path as it stands and in both forms of Unicode: systems write the same letters in one or the other."""
    return tuple(dict.fromkeys((path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))))


def remote(text: str) -> str:
    """Return what a cell names that is no file of this machine: `files/…`, `gs://…`, a YouTube link; empty for none."""
    if found := _UPLOADED.fullmatch(text):
        return found[1]
    return text if _BUCKET.fullmatch(text) or _YOUTUBE.fullmatch(text) else ""


def several(cell: str) -> tuple[str, ...]:
    """Return the entries of a cell that holds a list, be it JSON or entries between separators; empty for one entry."""
    text = cell.strip()
    if text.startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return tuple(item for item in items if item.strip())
    for separator in _SEPARATORS:
        entries = tuple(entry.strip() for entry in text.split(separator) if entry.strip())
        if len(entries) > 1:
            return entries
    return ()
