"""Thrift's compact protocol, as far as a Parquet footer needs it: any structure is read, and written again as it was.

A structure is a list of `(number, type, value)`; one that has been written already may be given as its bytes. Nothing
here knows what a field means.
"""

from typing import Any, Final

#: Types of the protocol. The value of a bool in a structure is in its type.
TRUE: Final = 1
FALSE: Final = 2
I16: Final = 4
I32: Final = 5
I64: Final = 6
DOUBLE: Final = 7
BINARY: Final = 8
LIST: Final = 9
STRUCT: Final = 12

Field = tuple[int, int, Any]
Struct = list[Field]
#: The type of the members, and the members.
Members = tuple[int, list[Any]]

_LONG: Final = 15
_DOUBLE_BYTES: Final = 8


class Reader:
    """Reads values from the front of `content` on.

    Raises:
        ValueError: what is there is not of this protocol.
        IndexError: it is cut short.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def struct(self) -> Struct:
        """Read one structure."""
        fields: Struct = []
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._signed()
            fields.append((number, kind, None if kind in (TRUE, FALSE) else self._value(kind)))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (I16, I32, I64):
            return self._signed()
        if kind == BINARY:
            return self._bytes(self._unsigned())
        if kind == LIST:
            return self._list()
        if kind == STRUCT:
            return self.struct()
        if kind == DOUBLE:
            return self._bytes(_DOUBLE_BYTES)
        if kind in (TRUE, FALSE):
            return self._byte()
        raise ValueError(f"thrift type {kind}")

    def _list(self) -> Members:
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == _LONG:
            count = self._unsigned()
        return kind, [self._value(kind) for _ in range(count)]

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._content):
            raise ValueError("cut short")
        return self._content[self._at - count : self._at]

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
        return number | byte << shift

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)


class Writer:
    """Writes values one behind the other into `content`."""

    def __init__(self) -> None:
        self.content = bytearray()

    def struct(self, fields: Struct) -> None:
        """Write one structure; its fields stand in the order of their numbers."""
        before = 0
        for number, kind, value in fields:
            if 0 < number - before <= _LONG:
                self.content.append((number - before) << 4 | kind)
            else:
                self.content.append(kind)
                self._signed(number)
            before = number
            if kind not in (TRUE, FALSE):
                self._value(kind, value)
        self.content.append(0)

    def _value(self, kind: int, value: Any) -> None:
        if kind in (I16, I32, I64):
            self._signed(value)
        elif kind == BINARY:
            self._unsigned(len(value))
            self.content += value
        elif kind == LIST:
            self._list(value)
        elif kind == STRUCT and not isinstance(value, bytes):
            self.struct(value)
        elif kind in (DOUBLE, STRUCT):
            self.content += value
        else:
            self.content.append(value)

    def _list(self, members: Members) -> None:
        kind, values = members
        if len(values) < _LONG:
            self.content.append(len(values) << 4 | kind)
        else:
            self.content.append(_LONG << 4 | kind)
            self._unsigned(len(values))
        for value in values:
            self._value(kind, value)

    def _unsigned(self, number: int) -> None:
        while number > 0x7F:
            self.content.append(number & 0x7F | 0x80)
            number >>= 7
        self.content.append(number)

    def _signed(self, number: int) -> None:
        self._unsigned((number << 1) ^ (number >> 63))
