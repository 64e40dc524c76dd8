"""Secrets by their values, cut out of whatever leaves or stays: messages, records, rows that were fetched.

A pattern knows only what keys looked like when it was written. The values are known: the key that is configured, a
second one beside it, passwords of proxies. Wherever text or bytes come in from the service, or go out to a client, a
terminal, a log or the ledger, they pass through here.

What the user wrote themselves stays as it is where it has to be found or sent again: their files, the order, the
request lines that are made of them. An answer that repeats a secret has stars in its place, whoever wrote it first.
"""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, quote_plus

#: Shorter values are no secrets: services on one's own machine are given "x" or "test", which are words of any text.
MIN_CHARS: Final = 8
_MASK: Final = "[secret]"

AnyText = TypeVar("AnyText", str, bytes)


def is_placeholder(value: str) -> bool:
    """Return whether a value names a variable that a host should have filled in: `${NAME}`, `$NAME`, `%NAME%`."""
    name = value[1:-1] if value[:1] == value[-1:] == "%" else value[1:] if value[:1] == "$" else ""
    return name.isidentifier() or (name.startswith("{") and name.endswith("}"))


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be seen. It never shows itself."""

    values: tuple[str, ...] = field(default=(), repr=False)
    #: Every way in which one of them may be written, the same as bytes, and of these what a stream is searched for:
    #: without base64, which takes six searches more (900 MB/s become 130).
    _forms: tuple[str, ...] = field(default=(), repr=False)
    _bytes: tuple[bytes, ...] = field(default=(), repr=False)
    _plain: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, values: Iterable[str]) -> Self:
        """Return the secrets among `values`, which are those that are long enough to be one."""
        values = (value for value in values if len(value) >= MIN_CHARS and not is_placeholder(value))
        kept = tuple(dict.fromkeys(values))
        # Longest first: one may be a part of another.
        plain = {form for value in kept for form in _written(value)}
        forms = sorted(plain.union(*map(_in_base64, kept)), key=len, reverse=True)
        return cls(
            kept,
            tuple(form for form in forms if len(form) >= MIN_CHARS),
            tuple(form.encode() for form in forms if len(form) >= MIN_CHARS),
            tuple(form.encode() for form in forms if form in plain),
        )

    def cut(self, text: str) -> str:
        """Return a text without them; two thirds of one, from its beginning or to its end, go as well."""
        for start, end in reversed(_merged(_found(text, self._forms))):
            text = f"{text[:start]}{_MASK}{text[end:]}"
        return text

    def cut_all(self, value: Any) -> Any:
        """Return a value of JSON with all of its texts cut, names of members included."""
        if not self._forms:
            return value
        match value:
            case str():
                return self.cut(value)
            case list() | tuple():
                return [self.cut_all(member) for member in value]
            case dict():
                return {self.cut_all(name): self.cut_all(member) for name, member in value.items()}
        return value

    def cut_bytes(self, data: bytes) -> bytes:
        """Return bytes with stars in their place, as many as there were bytes: lengths and places stay as they are."""
        return _starred(data, _merged(_found(data, self._bytes)))

    def cut_piece(self, piece: bytearray, filled_bytes: int, *, is_last: bool) -> int:
        """Do the same in place with a piece of a stream; returns how many of its first bytes belong to no other secret.

        The rest, which may be the beginning of one that is still coming, has to stand at the start of the next piece.
        Nothing is copied: measured at 1 GB, pieces that were joined and cut took half as much again as the search.
        """
        held_bytes = max(map(len, self._plain), default=1) - 1
        sure = filled_bytes if is_last else max(filled_bytes - held_bytes, 0)
        ranges = _merged(_found(piece, self._plain, filled_bytes))
        for start, end in ranges:
            if start < sure < end:
                sure = end
        for start, end in ranges:
            if end <= sure:
                piece[start:end] = b"*" * (end - start)
        return sure

    def __repr__(self) -> str:
        return f"Secrets({len(self.values)})"


def _written(value: str) -> set[str]:
    """Return a value as it may stand in a text, in JSON, in an address, in HTML, in a program."""
    escaped = json.dumps(value)[1:-1]
    percent = {quote(value, safe=""), quote(value), quote_plus(value)}
    forms = {
        value,
        escaped,
        escaped.replace("/", "\\/"),
        # As Google's servers write JSON.
        "".join(f"\\u{ord(letter):04x}" if letter in "<>&='" else json.dumps(letter)[1:-1] for letter in value),
        repr(value)[1:-1],
        html.escape(value),
        *percent,
        *(_lower_percent(form) for form in percent),
    }
    # And each as it stands in the JSON of a message that has it so. For most keys all of these are one.
    return forms | {json.dumps(form)[1:-1] for form in forms}


def _lower_percent(text: str) -> str:
    first, *others = text.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in others)])


def _in_base64(value: str) -> Iterator[str]:
    """Yield the letters that every text has that holds a value and was put into base64, wherever the value begins."""
    data = value.encode()
    for before in range(3):
        letters = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        # What its neighbours have a share in is left out.
        first, last = (before * 8 + 5) // 6, (before + len(data)) * 8 // 6
        yield letters[first:last]
        yield letters[first:last].replace("+", "-").replace("/", "_")


def _found(text: AnyText | bytearray, forms: Iterable[AnyText], length: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield where a form stands in the first `length` of a text, or two thirds of it from its beginning or to its end.

    All of these have its middle in common, which is looked for: that is one search for each form.
    """
    length = len(text) if length is None else length
    for form in forms:
        least = max(MIN_CHARS, (2 * len(form) + 2) // 3)
        first, last = len(form) - least, least
        middle: Any = form[first:last]
        at = text.find(middle, 0, length)
        while at >= 0:
            start, end = at, at + last - first
            before, behind = first, last
            while before and start and text[start - 1] == form[before - 1]:
                start, before = start - 1, before - 1
            while behind < len(form) and end < length and text[end] == form[behind]:
                end, behind = end + 1, behind + 1
            if end - start >= least:
                yield start, end
            at = text.find(middle, at + 1, length)


def _starred(data: bytes, ranges: Sequence[tuple[int, int]]) -> bytes:
    if not ranges:
        return data
    cut = bytearray(data)
    for start, end in ranges:
        cut[start:end] = b"*" * (end - start)
    return bytes(cut)


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
