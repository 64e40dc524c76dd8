"""Transfers that survive a cut connection: upload chunks that ask how far they got, download bodies that go on."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import anyio
import httpx2

from gemini_batch_mcp.gemini.retry import RetryPolicy, is_transient_status

Send = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
Sink = Callable[[bytes], object]

_COMMAND: Final = "x-goog-upload-command"
_OFFSET: Final = "x-goog-upload-offset"
_STATUS: Final = "x-goog-upload-status"
_RECEIVED: Final = "x-goog-upload-size-received"
#: A download that gets this much further between two cuts starts counting its attempts anew.
_PROGRESS_BYTES: Final = 1024 * 1024
#: A download that brings fewer bytes in all of `Timeouts.stall_seconds` has broken off (our choice: at 200 bytes a
#: second, a gigabyte takes two months).
_STALL_BYTES: Final = 64 * 1024


async def send_chunk(request: httpx2.Request, send: Send, policy: RetryPolicy) -> httpx2.Response:
    """Send one chunk of a resumable upload; after a cut or a server error ask how far it got and send the rest.

    The SDK takes any reply that says "active" for an accepted chunk, a 503 included, and never asks. A failure that
    stays is returned as a reply it cannot take for success, or raised.

    Raises:
        httpx2.TransportError: the connection failed in the last attempt.
    """
    response: httpx2.Response | None = None
    failure: httpx2.TransportError | None = None
    for attempt in range(policy.attempts):
        try:
            if attempt == 0:
                response = await send(request)
            else:
                await anyio.sleep(policy.pause_seconds(attempt))
                response = await _send_rest(request, send)
            if not is_transient_status(response.status_code):
                return _settled(response)
            failure = None
        except httpx2.TransportError as error:
            failure = error
    if failure is not None or response is None:
        raise failure or httpx2.RemoteProtocolError("no attempt was made")
    return _settled(response)


async def _send_rest(request: httpx2.Request, send: Send) -> httpx2.Response:
    """Ask how far the upload got, and send what is missing of this chunk."""
    state = await send(_command(request, "query", b""))
    if state.status_code != 200 or state.headers.get(_STATUS) != "active":
        return state  # "final": the reply to the finalize was lost, this is it again
    start = int(request.headers[_OFFSET])
    reached = _number(state.headers.get(_RECEIVED, "")) or start
    rest = request.content[max(reached - start, 0) :]
    command = request.headers[_COMMAND]
    if not rest and "finalize" not in command:
        return state  # all of it had arrived; only the reply was lost
    return await send(_command(request, command, rest, offset=start + len(request.content) - len(rest)))


def _command(request: httpx2.Request, command: str, content: bytes, offset: int | None = None) -> httpx2.Request:
    headers = {_COMMAND: command} if offset is None else {_COMMAND: command, _OFFSET: str(offset)}
    return httpx2.Request("POST", request.url, headers=headers, content=content, extensions=request.extensions)


def _settled(response: httpx2.Response) -> httpx2.Response:
    """Return the reply, marked as ended when it is a refusal: the SDK stops on that, and raises by the status.

    To a reply that states nothing the SDK would answer with the same bytes again, without asking what arrived.
    """
    if response.status_code != 200 or _STATUS not in response.headers:
        response.headers[_STATUS] = "terminated"
    return response


class WholeBody(httpx2.AsyncByteStream):
    """The body of a download, continued over cut connections and checked against its stated length.

    Goes on with a Range request when the server honours it, and otherwise reads the file again from the start and
    skips what was handed out already. Gives up after `policy.attempts` failures in a row without progress; to bring
    next to nothing for `stall_seconds` is one.

    With `sink`, the bytes are given to that, and the body looks empty to who reads it.
    """

    def __init__(
        self,
        request: httpx2.Request,
        response: httpx2.Response,
        send: Send,
        policy: RetryPolicy,
        stall_seconds: float,
        sink: Sink | None = None,
    ) -> None:
        self._request = request
        self._stall_seconds = stall_seconds
        self._stream = _stream(response)
        self._send = send
        self._policy = policy
        self._sink = sink
        self._etag = response.headers.get("etag", "")
        self._position = 0
        self._skip = 0
        #: The length the server stated; None when it stated none.
        self.total_bytes = _number(response.headers.get("content-length", ""))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body from the first byte to the last.

        Raises:
            httpx2.TransportError: it could not be completed.
        """
        failures, position_at_failure = 0, 0
        while True:
            try:
                if failures:
                    await self._reopen()
                moved, moved_at = 0, anyio.current_time()
                async for chunk in self._stream:
                    moved += len(chunk)
                    if (now := anyio.current_time()) - moved_at > self._stall_seconds:
                        if moved < _STALL_BYTES:
                            raise httpx2.ReadTimeout("the transfer has almost stalled")
                        moved, moved_at = 0, now
                    fresh = self._fresh(chunk)
                    if fresh and self._sink is not None:
                        self._sink(fresh)
                    elif fresh:
                        yield fresh
                if self.total_bytes in (None, self._position):
                    return
                raise httpx2.RemoteProtocolError("the body does not have the stated length")
            except httpx2.TransportError:
                progress_bytes = self._position - position_at_failure
                failures = 1 if progress_bytes >= _PROGRESS_BYTES else failures + 1
                position_at_failure = self._position
                if failures >= self._policy.attempts:
                    raise
            await anyio.sleep(self._policy.pause_seconds(failures))

    async def aclose(self) -> None:
        """Close the connection that is open at the moment."""
        await self._stream.aclose()

    def _fresh(self, chunk: bytes) -> bytes:
        """Return the part of `chunk` that was not handed out before."""
        fresh = chunk[self._skip :]
        self._skip = max(self._skip - len(chunk), 0)
        self._position += len(fresh)
        return fresh

    async def _reopen(self) -> None:
        """Ask for the rest of the file; take the whole file where that is what comes."""
        await self.aclose()
        headers = {**self._request.headers, "range": f"bytes={self._position}-"}
        request = httpx2.Request("GET", self._request.url, headers=headers, extensions=self._request.extensions)
        response = await self._send(request)
        self._stream = _stream(response)
        if response.status_code == 206 and self._is_rest(response.headers.get("content-range", "")):
            self._skip = 0
        elif response.status_code == 200 and _number(response.headers.get("content-length", "")) == self.total_bytes:
            self._skip = self._position
        else:
            raise httpx2.RemoteProtocolError("the download cannot be continued")
        if response.headers.get("etag", "") != self._etag:
            raise httpx2.RemoteProtocolError("the file changed while it was read")

    def _is_rest(self, content_range: str) -> bool:
        """True when a Content-Range starts where the body was cut, and belongs to a file of the same length."""
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", content_range.strip())
        if match is None or int(match[1]) != self._position:
            return False
        return match[2] == "*" or self.total_bytes in (None, int(match[2]))


def _stream(response: httpx2.Response) -> httpx2.AsyncByteStream:
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # an AsyncClient's responses carry no other kind
    return response.stream


def _number(header: str) -> int | None:
    return int(header) if re.fullmatch(r"\d{1,18}", header) else None
