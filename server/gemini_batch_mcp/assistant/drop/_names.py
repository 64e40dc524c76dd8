"""Names that files are handed over under, made fit for every file system, and for a path that an assistant writes."""

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Final

#: What Windows forbids in names, and what would make a path, a pattern or a sheet (`book.xlsx#Sheet`) of one.
_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*#\[\]]+')
#: How browsers write what would end a name in their header.
_ESCAPED: Final = re.compile(r"%(?:22|0[AaDd])")
#: Names that are devices on Windows, whatever their ending.
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\.|$)", re.IGNORECASE)
#: Control, format (bidirectional and zero-width), surrogates, private and unassigned: nobody sees them.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
#: File systems take 255 bytes; some of them are for a number where the name is taken.
_MAX_BYTES: Final = 200
_MAX_ENDING_BYTES: Final = 24


def clean_name(given: str) -> str:
    """Return the name under which a file of that name is kept: one component, visible, not hidden, never empty.

    Directories in front are dropped, letters are in their composed form (NFC), and what is forbidden becomes `_`.
    """
    last = re.split(r"[/\\]", _ESCAPED.sub("_", given))[-1]
    composed = unicodedata.normalize("NFC", last)
    seen = "".join(" " if character.isspace() else character for character in composed if _is_seen(character))
    # In front: hidden files, options, homes, and the locks of Word and Excel; behind: what Windows cuts off.
    name = " ".join(_FORBIDDEN.sub("_", seen).split()).lstrip(".~$- ").rstrip(". ")
    if _DEVICE.match(name):
        name = f"_{name}"
    return _short(name) or "file"


def _is_seen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) not in _UNSEEN


def _short(name: str) -> str:
    ending = PurePosixPath(name).suffix if name else ""
    if len(ending.encode()) > _MAX_ENDING_BYTES:
        ending = ""
    stem = name.removesuffix(ending).encode()[: _MAX_BYTES - len(ending.encode())]
    return stem.decode(errors="ignore").rstrip(". ") + ending
