"""Bodies, piece by piece: of requests, so that nobody waits for a large one; of replies, unpacked up to a limit.

A packed reply may become a thousand times as large.
"""

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx2

from gemini_batch_mcp.settings import MAX_REPLY_BYTES, MAX_REPLY_OBJECTS, MAX_REPLY_VALUES

#: What the service is asked for, and what is unpacked here.
ACCEPTED: Final = "gzip, deflate"
#: Headers that say how a body was sent, and not what it is once it has been read.
OF_THE_BODY: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
#: The mark of a response whose body was packed: its stated length is not that of what comes.
PACKED: Final = "packed"
_PIECE_BYTES: Final = 1 << 20
#: A piece of an upload has 8 MiB. Written, or encrypted, at once it keeps everybody else waiting for 4 to 10 ms.
_SLICE_BYTES: Final = 1 << 19
_ENCODINGS: Final = ("gzip", "x-gzip", "deflate")
#: zlib's or gzip's, whatever comes.
_ANY_HEAD: Final = 47


class ReplyTooLarge(Exception):
    """A reply has more than a reply may have; the text says how much that is."""


class _Slices(httpx2.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), _SLICE_BYTES):
            yield self._content[start : start + _SLICE_BYTES]


def send_in_slices(request: httpx2.Request) -> None:
    """Have the body of a request leave a slice at a time: between two of them, others have their turn."""
    if len(request.content) > _SLICE_BYTES:
        request.stream = _Slices(request.content)


class Unpacked(httpx2.AsyncByteStream):
    """The body of a response as it was before it was packed; `encoding` is empty for one that was not."""

    def __init__(self, body: httpx2.AsyncByteStream, encoding: str, limit_bytes: int | None) -> None:
        self._body = body
        self._encoding = encoding
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body, of a packed one a MiB at a time.

        Raises:
            ReplyTooLarge: it has more bytes than a reply may have.
            httpx2.DecodingError: it is not packed as the response says, or in a way that nobody asked for.
        """
        total_bytes = 0
        unpacker = zlib.decompressobj(_ANY_HEAD) if self._encoding else None
        if self._encoding not in ("", *_ENCODINGS):
            raise httpx2.DecodingError(f"the reply is compressed as {self._encoding[:20]!r}")
        async for received in self._body:
            for piece in _unpacked(received, unpacker) if unpacker is not None else (received,):
                total_bytes += len(piece)
                if self._limit_bytes is not None and total_bytes > self._limit_bytes:
                    raise ReplyTooLarge(f"more than {self._limit_bytes:,} bytes")
                yield piece

    async def aclose(self) -> None:
        """Close the connection."""
        await self._body.aclose()


def _unpacked(received: bytes, unpacker: "zlib._Decompress") -> Iterator[bytes]:
    while received:
        try:
            piece = unpacker.decompress(received, _PIECE_BYTES)
        except zlib.error as error:
            raise httpx2.DecodingError(str(error)) from None
        if piece:
            yield piece
        elif not unpacker.unconsumed_tail:
            return
        received = unpacker.unconsumed_tail


async def unpack(response: httpx2.Response) -> None:
    """Have the body of a response come unpacked, and end at the limit where it is no download."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # an AsyncClient's responses carry no other kind
    encoding = response.headers.get("content-encoding", "").strip().lower()
    encoding = "" if encoding == "identity" else encoding
    is_download = response.status_code in (200, 206) and response.request.url.path.endswith(":download")
    response.stream = Unpacked(response.stream, encoding, None if is_download else MAX_REPLY_BYTES)
    if encoding:
        # The body is now what these do not say.
        response.extensions = {**response.extensions, PACKED: True}
        for name in OF_THE_BODY:
            response.headers.pop(name, None)


def check_values(content: bytes) -> None:
    """Refuse a reply that takes many times its size once it is read.

    Raises:
        ReplyTooLarge: it holds more values or objects than a reply may hold.
    """
    if content.count(b",") > MAX_REPLY_VALUES:
        raise ReplyTooLarge(f"more than {MAX_REPLY_VALUES:,} values")
    if content.count(b"{") + content.count(b"[") > MAX_REPLY_OBJECTS:
        raise ReplyTooLarge(f"more than {MAX_REPLY_OBJECTS:,} objects and lists")
