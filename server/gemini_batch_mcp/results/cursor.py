"""Cursors: where a page ended, as text that the next call brings back."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from gemini_batch_mcp.errors import UsageError

_NEXT_STEP: Final = "Leave cursor empty to start at the first row."
_MAX_CURSOR_CHARS: Final = 200


class _Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    query: str
    row: int


def cursor_after(row: int, *, identity: str, view: str, keys: Sequence[str]) -> str:
    """Return the cursor of a page that ended at `row` (from 1) of one view of one batch's table."""
    place = msgspec.json.encode(_Place(_digest(identity, view, keys), row))
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def row_before(cursor: str, *, identity: str, view: str, keys: Sequence[str]) -> int:
    """Return the row that `cursor` stands behind, 0 for an empty one.

    Raises:
        UsageError: the cursor is damaged, or belongs to another batch, view or choice of keys.
    """
    if not cursor:
        return 0
    shown = cursor if len(cursor) <= 40 else cursor[:40] + "…"
    try:
        if len(cursor) > _MAX_CURSOR_CHARS:
            raise ValueError("longer than any cursor")
        place = msgspec.json.decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", True), type=_Place)
        if place.row < 1:
            raise ValueError("no such row")
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise UsageError(f"{shown!r} is no cursor of this server.", _NEXT_STEP) from None
    if place.query != _digest(identity, view, keys):
        raise UsageError(f"The cursor {shown!r} belongs to another batch, view or choice of keys.", _NEXT_STEP)
    return place.row


def _digest(identity: str, view: str, keys: Sequence[str]) -> str:
    """Tell queries apart. Nothing is protected by this: a forged cursor reads rows that its maker may read anyway."""
    content = msgspec.json.encode([identity, view, sorted(set(keys))])
    return hashlib.blake2b(content, digest_size=6).hexdigest()
