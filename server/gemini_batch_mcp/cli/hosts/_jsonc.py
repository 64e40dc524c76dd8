"""JSON with comments, edited in place: one member set, added or removed, and no other character of the file changed.

Hosts take comments and commas before a closing bracket, people align what they write by hand, and a host's own file
may hold megabytes. So the text is never written anew: comments are blanked out in a copy, places are found in the copy
with the standard library's reader, and the change is cut into the text itself.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

_SPACE: Final = " \t\r\n"
_DECODER: Final = json.JSONDecoder(strict=False)


class NotReadable(ValueError):
    """The text is not JSON, comments allowed; the message says where and why."""


@dataclass(frozen=True, slots=True)
class _Span:
    """A member or element: where its text begins (of a member: its name) and ends, and where its value begins."""

    name: str
    start: int
    value: int
    end: int


def parsed(text: str) -> Any:
    """Return what a text says, {} for one with nothing in it.

    Raises:
        NotReadable: it is not JSON, even without its comments.
    """
    # Most files have no comments, and to look for them in 4 MB takes half a second.
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    blank = _blanked(text)
    if not blank.strip(_SPACE + "\ufeff"):
        return {}
    try:
        return json.loads(blank.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise NotReadable(str(error)) from None


def with_member(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with the value at this path of names, in place of another or as the last of its object.

    Raises:
        NotReadable: the text is not JSON, or something on the way is not an object.
    """
    if not _blanked(text).strip(_SPACE + "\ufeff"):
        return _nested(path, value, "  ") + "\n"
    return _Edit(text).set(path, value)


def with_members(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with the value at this path, where an object is there only its members that differ.

    Raises:
        NotReadable: as `with_member`.
    """
    there = parsed(text)
    for name in path:
        there = there.get(name) if isinstance(there, dict) else None
    if not isinstance(there, dict) or not isinstance(value, dict):
        return with_member(text, path, value)
    for name in there:
        if name not in value:
            text = without_member(text, [*path, name])
    for name, member in value.items():
        if name not in there or there[name] != member:
            text = with_members(text, [*path, name], member)
    return text


def with_member_of(text: str, source: str, path: Sequence[str]) -> str:
    """Return the text with the member at this path as another text has it, letter by letter.

    Raises:
        NotReadable: one of them is not JSON, or has no such member.
    """
    edit, other = _Edit(text), _Edit(source)
    found, wanted = edit.find(path), other.find(path)
    if found is None or wanted is None:
        raise NotReadable(f"{'.'.join(path)} is not there")
    return text[: found.value] + source[wanted.value : wanted.end] + text[found.end :]


def with_element(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with one more element at the end of the list at this path; the list is made where there is none.

    Raises:
        NotReadable: the text is not JSON, or the path does not lead to a list.
    """
    edit = _Edit(text)
    found = edit.find(path)
    if found is None:
        return with_member(text, path, [value])
    return edit.append(found, value)


def without_member(text: str, path: Sequence[str]) -> str:
    """Return the text without the member at this path, and as it is where there is none.

    Raises:
        NotReadable: the text is not JSON.
    """
    edit = _Edit(text)
    holder, found = edit.find(path[:-1]), edit.find(path)
    return text if holder is None or found is None else edit.cut(holder, found)


def without_element(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text without the elements of a list that equal the value.

    Raises:
        NotReadable: the text is not JSON.
    """
    edit = _Edit(text)
    holder = edit.find(path)
    if holder is None or edit.blank[holder.value] != "[":
        return text
    for element in edit.parts(holder.value):
        if json.loads(edit.blank[element.value : element.end]) == value:
            return without_element(edit.cut(holder, element), path, value)
    return text


class _Edit:
    """A text, its blanked copy, and the changes that can be made to it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.blank = _blanked(text)
        self._newline = "\r\n" if "\r\n" in text else "\n"
        parsed(text)

    def find(self, path: Sequence[str]) -> _Span | None:
        """Return where the value at a path stands; of a name that is given twice, the last, as readers take it."""
        start = self._skip(0)
        span = _Span("", start, start, self._end(start))
        for number, name in enumerate(path):
            if self.blank[span.value] != "{":
                place = ".".join(path[:number]) or "the whole file"
                raise NotReadable(f"{place} is not an object")
            named = [part for part in self.parts(span.value) if part.name == name]
            if not named:
                return None
            span = named[-1]
        return span

    def parts(self, start: int) -> Iterator[_Span]:
        """Yield the members of the object, or the elements of the list, that opens here."""
        is_object = self.blank[start] == "{"
        at = self._skip(start + 1)
        while self.blank[at] not in "}]":
            begin, name = at, ""
            if is_object:
                name, at = _DECODER.raw_decode(self.blank, at)
                at = self._skip(self._skip(at) + 1)  # the colon
            end = self._end(at)
            yield _Span(name, begin, at, end)
            at = self._skip(end)
            if self.blank[at] == ",":
                at = self._skip(at + 1)

    def set(self, path: Sequence[str], value: Any) -> str:
        """Put a value in the place of another, or at the end of the deepest object on the path that is there."""
        found = self.find(path)
        if found is not None:
            if json.loads(self.blank[found.value : found.end]) == value:
                return self._text
            compact = json.dumps(value, ensure_ascii=False)
            written = _written(value, self._indent(found), self._unit()) if self._has_own_line(found) else compact
            return self._text[: found.value] + self._lines(written) + self._text[found.end :]
        known = next(depth for depth in reversed(range(len(path))) if self.find(path[:depth]) is not None)
        holder = self.find(path[:known])
        assert holder is not None
        for name in reversed(path[known + 1 :]):
            value = {name: value}
        return self.append(holder, value, path[known])

    def append(self, holder: _Span, value: Any, name: str = "") -> str:
        """Put a member or an element after the last one, with the indent and on a line as the others have."""
        if self.blank[holder.value] != ("{" if name else "["):
            raise NotReadable(f"{holder.name or 'the whole file'} is not {'an object' if name else 'a list'}")
        parts = list(self.parts(holder.value))
        label = f"{json.dumps(name, ensure_ascii=False)}: " if name else ""
        if not parts and "\n" not in self._text.strip(_SPACE):
            written = label + json.dumps(value, ensure_ascii=False)
            return self._text[: holder.value + 1] + written + self._text[holder.end - 1 :]
        if not parts:
            outer = self._indent(holder)
            inner = outer + self._unit()
            closing = holder.end - 1
            rest = self._text[holder.value + 1 : closing]
            # A comment in an object that is otherwise empty stays where it is, above the first member.
            kept = rest.rstrip(_SPACE) if rest.strip(_SPACE) else ""
            body = f"{kept}\n{inner}{label}{_written(value, inner, self._unit())}\n{outer}"
            return self._text[: holder.value + 1] + self._lines(body) + self._text[closing:]
        last = parts[-1]
        written = label + _written(value, self._indent(last), self._unit())
        if not self._has_own_line(last):
            return (
                self._text[: last.end] + ", " + label + json.dumps(value, ensure_ascii=False) + self._text[last.end :]
            )
        comma = self._trailing_comma(last, holder)
        end = self._line_end(comma + 1 if comma >= 0 else last.end, holder.end - 1)
        head, tail = self._text[: last.end], self._text[end:]
        between = self._text[last.end : end]
        written = f"\n{self._indent(last)}{written}"
        if comma >= 0:
            return head + between + self._lines(written + ",") + tail
        return head + "," + between + self._lines(written) + tail

    def cut(self, holder: _Span, part: _Span) -> str:
        """Take a member or an element out, with its comma and, where it has lines of its own, these."""
        parts = list(self.parts(holder.value))
        if len(parts) == 1 and not self._without(part, holder).strip(_SPACE + ","):
            return self._text[: holder.value + 1] + self._text[holder.end - 1 :]
        number = [other.start for other in parts].index(part.start)
        comma = self.blank.find(",", part.end, self._skip(part.end) + 1)
        if comma < 0:
            comma = self._trailing_comma(part, holder)
        end = comma + 1 if comma >= 0 else part.end
        start = part.start
        if self._has_own_line(part):
            start = self._text.rfind("\n", 0, start)
            start -= self._text[start - 1] == "\r"
        elif number + 1 < len(parts):
            end = parts[number + 1].start
        text = self._text[:start] + self._text[end:]
        if number and number + 1 == len(parts) and comma < 0:
            # It was the last: the comma before it goes, too.
            before = self.blank.index(",", parts[number - 1].end)
            text = text[:before] + (text[before + 1 :] if self._has_own_line(part) else text[start:])
        return text

    def _without(self, part: _Span, holder: _Span) -> str:
        """Return what stands in an object or list beside one of its parts."""
        return self._text[holder.value + 1 : part.start] + self._text[part.end : holder.end - 1]

    def _skip(self, at: int) -> int:
        while at < len(self.blank) and self.blank[at] in _SPACE + "\ufeff":
            at += 1
        return at

    def _end(self, at: int) -> int:
        return int(_DECODER.raw_decode(self.blank, at)[1])

    def _has_own_line(self, part: _Span) -> bool:
        before = self._text[self._text.rfind("\n", 0, part.start) + 1 : part.start]
        return "\n" in self._text[: part.start] and not before.strip(_SPACE)

    def _indent(self, part: _Span) -> str:
        line = self._text[self._text.rfind("\n", 0, part.start) + 1 : part.start]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def _unit(self) -> str:
        for line in self._text.splitlines():
            if (indent := line[: len(line) - len(line.lstrip(" \t"))]) and line.strip():
                return "\t" if indent[0] == "\t" else indent
        return "  "

    def _trailing_comma(self, last: _Span, holder: _Span) -> int:
        """Return where a comma that is blanked out follows the last part, before the bracket, and -1 for nowhere."""
        for at in range(last.end, holder.end - 1):
            if self.blank[at] == _BLANKED_COMMA:
                return at
        return -1

    def _line_end(self, at: int, closing: int) -> int:
        """Return where the line ends on which a part does, if only space and comments follow it there."""
        line_end = self.blank.find("\n", at, closing)
        if line_end < 0:
            return at
        return line_end - (self._text[line_end - 1] == "\r")

    def _lines(self, text: str) -> str:
        return text.replace("\n", self._newline)


#: In the copy, stands for a comma before a closing bracket; readers of JSON take it as space, and no file holds it.
_BLANKED_COMMA: Final = "\r"


def _blanked(text: str) -> str:
    """Return the text with spaces for comments and for commas before a closing bracket; each character keeps its place.

    Line ends inside comments become spaces, too, so that a line of the copy ends outside of them only.
    """
    pieces: list[str] = []
    at, comma = 0, -1
    copy = text.replace("\r", " ")
    while at < len(copy):
        character = copy[at]
        if character == '"':
            try:
                end = _DECODER.raw_decode(copy, at)[1]
            except ValueError as error:
                raise NotReadable(str(error)) from None
            pieces.append(copy[at:end])
            at, comma = end, -1
        elif copy.startswith(("//", "/*"), at):
            is_line = copy[at + 1] == "/"
            end = copy.find("\n" if is_line else "*/", at + 2)
            end = len(copy) if end < 0 else end + (0 if is_line else 2)
            pieces.append(" " * (end - at))
            at = end
        elif character in _SPACE + "\ufeff":
            pieces.append(character)
            at += 1
        else:
            if character in "]}" and comma >= 0:
                pieces[comma] = _BLANKED_COMMA
            comma = len(pieces) if character == "," else -1
            pieces.append(character)
            at += 1
    return "".join(pieces)


def _written(value: Any, indent: str, unit: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return f"\n{indent}".join(lines)


def _nested(path: Sequence[str], value: Any, unit: str) -> str:
    for name in reversed(path):
        value = {name: value}
    return _written(value, "", unit)
