"""Sending a request file to the Files API, and making sure that it arrived whole."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio

from gemini_batch_mcp.domain import JsonObject, UploadedFile
from gemini_batch_mcp.errors import BatchError, Rejected, Unavailable
from gemini_batch_mcp.gemini.developer._client import Connection
from gemini_batch_mcp.gemini.http import GeminiHttpClient
from gemini_batch_mcp.gemini.retry import repeat
from gemini_batch_mcp.gemini.session import Session, raw_reply
from gemini_batch_mcp.gemini.transfers import Outgoing, Progress, Readable, reading_errors
from gemini_batch_mcp.gemini.wire import file_from_wire
from gemini_batch_mcp.text import plain_text

Sha256 = str | Callable[[], str]

#: Documented for batch files; users report projects that are answered 400 for it and take the second.
_USUAL_MIME_TYPE: Final = "jsonl"
_OTHER_MIME_TYPE: Final = "application/jsonl"
_PATH_ATTEMPTS: Final = 3
_LONGEST_POLL_SECONDS: Final = 5.0


async def upload(
    session: Session[Connection],
    source: Path | Readable,
    *,
    size_bytes: int,
    display_name: str,
    mime_type: str,
    sha256: Sha256,
    on_progress: Progress,
    wait_until_ready: bool = True,
    before_finalize: Callable[[], Awaitable[None]] | None = None,
) -> UploadedFile:
    """Upload and check; see `Gateway.upload`."""
    what = f"accept the upload of {plain_text(display_name, 100)!r}"

    async def once(attempt: int) -> UploadedFile:
        uploaded = await _send_as_either_type(
            session, source, size_bytes, display_name, mime_type, what, on_progress, before_finalize
        )
        on_progress(size_bytes, size_bytes)
        if wait_until_ready:
            uploaded = await _processed(session, uploaded, what)
        await _require_whole(session, uploaded, size_bytes, sha256 if isinstance(sha256, str) else sha256(), what)
        return uploaded

    attempts = min(_PATH_ATTEMPTS, session.policy.attempts) if isinstance(source, Path) else 1
    return await repeat(once, session.policy, attempts=attempts)


async def _send_as_either_type(
    session: Session[Connection],
    source: Path | Readable,
    size_bytes: int,
    display_name: str,
    mime_type: str,
    what: str,
    on_progress: Progress,
    before_finalize: Callable[[], Awaitable[None]] | None,
) -> UploadedFile:
    """Send the file; when Gemini refuses the usual MIME type, once more under the other."""
    with _opened(source) as readable:
        outgoing = Outgoing(readable, size_bytes, display_name, on_progress)
        try:
            return await _send(session, outgoing, display_name, mime_type, what, before_finalize)
        except Rejected as refused:
            if mime_type != _USUAL_MIME_TYPE or "mime" not in refused.message.lower():
                raise
            if not outgoing.rewind():
                raise Rejected(
                    refused.message,
                    f"Upload it again as {_OTHER_MIME_TYPE}: these lines could be read only once.",
                    status_code=refused.status_code,
                ) from None
        return await _send(session, outgoing, display_name, _OTHER_MIME_TYPE, what, before_finalize)


async def _send(
    session: Session[Connection],
    outgoing: Outgoing,
    display_name: str,
    mime_type: str,
    what: str,
    before_finalize: Callable[[], Awaitable[None]] | None,
) -> UploadedFile:
    connection = await session.connection()
    async with session.effect("upload", what, is_ours=lambda error: error is outgoing.refusal) as current:
        current.before_finalize = before_finalize
        current.before_chunk = outgoing.await_next
        try:
            raw = await raw_reply(
                current,
                connection.sdk.aio.files.upload(
                    file=outgoing, config={"display_name": display_name, "mime_type": mime_type}
                ),
            )
            uploaded = file_from_wire(raw)
            if not uploaded.name:
                raise KeyError("name")
        except BaseException:
            await _cancel(connection.http, current.upload_url)
            raise
    return uploaded


async def _cancel(http: GeminiHttpClient, upload_url: str) -> None:
    """Tell the Files API to forget an upload that will not be finished; if that fails it forgets by itself."""
    if not upload_url:
        return
    with anyio.move_on_after(_LONGEST_POLL_SECONDS, shield=True), suppress(Exception):
        await http.post(upload_url, headers={"x-goog-upload-command": "cancel"})


async def _processed(session: Session[Connection], uploaded: UploadedFile, what: str) -> UploadedFile:
    """Wait until Gemini has looked at the file."""
    pause_seconds = session.policy.initial_delay_seconds
    with anyio.move_on_after(session.timeouts.processing_seconds):
        while uploaded.state == "PROCESSING":
            await anyio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.5, _LONGEST_POLL_SECONDS)
            uploaded = await get_file(session, uploaded.name)
    if uploaded.state == "PROCESSING":
        raise Unavailable(
            f"{uploaded.name} was still being processed after {session.timeouts.processing_seconds:.0f} s "
            f"when Gemini was asked to {what}.",
            "Try again later.",
        )
    if uploaded.state == "FAILED":
        raise Rejected(
            f"Gemini could not process {uploaded.name} when asked to {what}.",
            "Check the file's content, then try again.",
        )
    return uploaded


async def _require_whole(
    session: Session[Connection], uploaded: UploadedFile, size_bytes: int, sha256: str, what: str
) -> None:
    """Compare what arrived with what was sent, by hash when both sides know one, else by size."""
    hashes_known = bool(sha256 and uploaded.sha256)
    is_whole = uploaded.sha256 == sha256.lower() if hashes_known else uploaded.size_bytes == size_bytes
    if is_whole:
        return
    with anyio.move_on_after(session.timeouts.connect_seconds, shield=True), suppress(BatchError):
        await delete_file(session, uploaded.name)
    raise Unavailable(
        f"{uploaded.name} was damaged on the way ({uploaded.size_bytes:,} bytes arrived of {size_bytes:,}, or their "
        f"hash differs) when Gemini was asked to {what}.",
        "Nothing was submitted; try again.",
    )


async def get_file(session: Session[Connection], name: str) -> UploadedFile:
    """Read a file's metadata. `name` has been checked."""

    def understand(raw: JsonObject) -> UploadedFile | None:
        uploaded = file_from_wire(raw)
        return uploaded if uploaded.name else None

    return await session.read("get_file", lambda connection, _: connection.read(name), f"describe {name}", understand)


async def delete_file(session: Session[Connection], name: str) -> None:
    """Delete a file. `name` has been checked."""
    connection = await session.connection()
    await session.deletion("delete_file", f"delete {name}", lambda: connection.sdk.aio.files.delete(name=name))


@contextmanager
def _opened(source: Path | Readable) -> Iterator[Readable]:
    if not isinstance(source, Path):
        yield source
        return
    with reading_errors(source), source.open("rb", buffering=0) as file:
        yield file
