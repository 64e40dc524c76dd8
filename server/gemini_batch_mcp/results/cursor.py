"""Cursors: where a page ended, as text that the next call brings back."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from gemini_batch_mcp.errors import UsageError

_NEXT_STEP: Final = "Leave cursor out to start at the first row."
_MAX_CURSOR_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reading has come: behind `row`, among the rows that came with the builds after `since`, up to `until`.

    A table of a batch that is under way grows in the middle. A reading goes on with the rows that were there when it
    began, and comes to the new ones afterwards: it shows every row once. A new reading begins with all rows.
    """

    row: int = 0
    since: int = 0
    until: int = 1


class _Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    query: str
    row: int
    since: int = 0
    until: int = 1


def cursor_at(position: Position, *, identity: str, view: str, keys: Sequence[str]) -> str:
    """Return the cursor of a page that ended at a position in one view of one batch's table."""
    content: list[str | int] = [_digest(identity, view, keys), position.row]
    if (position.since, position.until) != (0, 1):
        content += [position.since, position.until]
    return base64.urlsafe_b64encode(msgspec.json.encode(content)).decode().rstrip("=")


def position_of(cursor: str, *, identity: str, view: str, keys: Sequence[str]) -> Position | None:
    """Return the position that a cursor stands for, None for an empty one.

    Raises:
        UsageError: the cursor is damaged, or belongs to another batch, view or choice of keys.
    """
    if not cursor:
        return None
    shown = cursor if len(cursor) <= 40 else cursor[:40] + "…"
    try:
        if len(cursor) > _MAX_CURSOR_CHARS:
            raise ValueError("longer than any cursor")
        place = msgspec.json.decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", True), type=_Place)
        if place.row < 0 or not 0 <= place.since < place.until:
            raise ValueError("no such place")
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise UsageError(f"{shown!r} is not a cursor of this server.", _NEXT_STEP) from None
    if place.query != _digest(identity, view, keys):
        raise UsageError(f"The cursor {shown!r} belongs to another batch, view or choice of keys.", _NEXT_STEP)
    return Position(place.row, place.since, place.until)


def _digest(identity: str, view: str, keys: Sequence[str]) -> str:
    """Tell queries apart. Nothing is protected by this: a forged cursor reads rows that its maker may read anyway."""
    content = msgspec.json.encode([identity, view, sorted(set(keys))])
    return hashlib.blake2b(content, digest_size=6).hexdigest()
