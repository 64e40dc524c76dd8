"""The files that go with a batch's rows, at the Files API: each content sent once, ready, and alive for long enough.

What a repeat finds in the ledger is not sent again. Files that were sent stay when another one fails: they cost
nothing, vanish by themselves after 48 hours, and the same order goes on from them.
"""

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.domain import UploadedFile
from gemini_batch_mcp.errors import AccessDenied, NotFound, PathError, Rejected, Unavailable, UsageError
from gemini_batch_mcp.intake.files.planning import Attachment, AttachmentPlan
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import in_thread

#: A file must outlive the job, which expires after 48 hours. So does a file, counted from its upload: the hour is for
#: the uploads of one order, of which the first is older than the last, and for an order that is continued soon.
ALIVE_FOR: Final = timedelta(hours=47)
#: Uploads at a time (our choice): they wait for replies more than for the line.
_AT_ONCE: Final = 4
#: Tries of one upload, each from the start, beside those that the gateway makes within one.
_ATTEMPTS: Final = 3
#: How long Gemini may work on one file (our choice): it takes minutes for an hour of video.
_PROCESSING: Final = timedelta(minutes=30)
_MAX_PAUSE_SECONDS: Final = 10.0
_MAX_NAME_CHARS: Final = 100


async def upload_attachments(app: App, batch_id: str, plan: AttachmentPlan) -> Mapping[str, UploadedFile]:
    """Bring the files of `plan` that are not inline to Gemini, and return them by `Attachment.sha256`.

    Raises:
        UsageError: a file has changed since the plan was made, or one uploaded before is gone.
        Rejected: Gemini refused a file, or could not make sense of it; the message names it.
        GeminiError: Gemini could not be reached. In all cases the files that are there are in the ledger.
    """
    known = await in_thread(app.ledger.attachments, batch_id)
    uploads = _Uploads(app, batch_id, known, sum(content.size_bytes for content in plan.uploads))
    waiting = deque(plan.uploads)
    ready: dict[str, UploadedFile] = {}
    failures: list[Exception] = []

    async def work() -> None:
        # What has begun is finished after a failure of another one: it need not be sent again.
        while waiting and not failures:
            content = waiting.popleft()
            try:
                ready[content.sha256] = await uploads.bring(content)
            except Exception as error:
                failures.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(_AT_ONCE):
            group.start_soon(work)
    if failures:
        raise failures[0]
    return {content.sha256: ready[content.sha256] for content in plan.uploads}


async def renew_attachments(app: App, batch_id: str, plan: AttachmentPlan) -> Mapping[str, str]:
    """Bring the files of `plan` to Gemini that are not there for long enough any more: for rows to be sent again.

    Returns the URIs that stored requests hold with those that are right now, where they differ. Raises as
    `upload_attachments`.
    """
    before = await in_thread(app.ledger.attachments, batch_id)
    # Of an order of which not all was sent, not all files are there.
    contents = tuple(content for content in plan.contents if content.sha256 in before or content.mode == "uploaded")
    now = await upload_attachments(app, batch_id, replace(plan, contents=contents))
    return {
        file.uri: now[sha256].uri
        for sha256, file in before.items()
        if sha256 in now and file.uri and file.uri != now[sha256].uri
    }


def expiry_warnings(files: Mapping[str, UploadedFile], now: datetime) -> tuple[str, ...]:
    """Return what to say about files that vanish before a job created now has had its 48 hours."""
    lives = [file.expires_at - now for file in files.values() if file.expires_at is not None]
    short = [life for life in lives if life < ALIVE_FOR]
    if not short:
        return ()
    hours = max(0, min(short) // timedelta(hours=1))
    what = "1 attached file expires" if len(short) == 1 else f"{len(short):,} attached files expire"
    when = f"the first in about {hours} hours" if len(short) > 1 else f"in about {hours} hours"
    return (f"{what} at Gemini before the job's own 48 hours are over, {when}: rows that run later than that fail.",)


class _Uploads:
    """Brings single files; `known` is what the ledger holds, `total_bytes` what all files have."""

    def __init__(self, app: App, batch_id: str, known: Mapping[str, UploadedFile], total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._done_bytes: dict[str, int] = {}
        self._app = app
        self._batch_id = batch_id
        self._known = known

    async def bring(self, content: Attachment) -> UploadedFile:
        """Return a file that requests may name."""
        if content.mode == "uploaded":
            return await self._ready(await self._given(content.sha256), content.sha256)
        file = await self._still_there(content) or await self._send(content)
        self._show(content, content.size_bytes)
        return await self._ready(file, _name(content))

    def _show(self, content: Attachment, done_bytes: int) -> None:
        self._done_bytes[content.sha256] = done_bytes
        done_bytes = sum(self._done_bytes.values())
        self._app.gauge.show(Progress(Doing.ATTACHING, done_bytes, self._total_bytes))

    async def _given(self, name: str) -> UploadedFile:
        """Return a file that the user uploaded before.

        Raises:
            UsageError: it is gone, or is not this project's.
        """
        try:
            return await self._app.gateway.get_file(name)
        except (NotFound, Rejected, AccessDenied) as error:
            if error.status_code == 401:
                raise
            raise UsageError(
                f"{name} is not in the Files API, which keeps uploads for 48 hours, or not in this key's project.",
                "Give the path of the local file instead.",
            ) from None

    async def _still_there(self, content: Attachment) -> UploadedFile | None:
        """Return the file that an earlier try has sent; None when it is gone, failed, or will be gone too soon."""
        known = self._known.get(content.sha256)
        if known is None or (known.expires_at is not None and known.expires_at - datetime.now(UTC) < ALIVE_FOR):
            return None
        try:
            file = await self._app.gateway.get_file(known.name)
        except (NotFound, Rejected):
            return None
        return None if file.state == "FAILED" else file

    async def _send(self, content: Attachment) -> UploadedFile:
        """Upload a file and write down where it is.

        Raises:
            UsageError: it has changed since it was looked at; nothing was finalized.
        """
        attempt = 1
        while True:
            try:
                file = await self._upload(content)
                break
            except Unavailable:
                if attempt == _ATTEMPTS:
                    raise
                await anyio.sleep(min(self._app.settings.poll_seconds, 2.0**attempt))
                attempt += 1
        # The file is there: a cancel that came now would leave nobody who knows of it.
        with anyio.CancelScope(shield=True):
            await in_thread(self._app.ledger.record_attachment, self._batch_id, content.sha256, file)
        return file

    async def _upload(self, content: Attachment) -> UploadedFile:
        with await in_thread(self._open, content) as file:
            return await self._app.gateway.upload(
                _Unchanged(file, content),
                size_bytes=content.size_bytes,
                display_name=_name(content),
                owner=self._batch_id,
                mime_type=content.mime_type,
                sha256=content.sha256,
                # Waited for below, where a file that takes long is not sent again.
                wait_until_ready=False,
                on_progress=lambda done_bytes, _: self._show(content, done_bytes),
            )

    def _open(self, content: Attachment) -> SourceFile:
        path = content.path
        assert path is not None
        try:
            # Once more through the guard: a link may have been put in its place.
            if self._app.guard.readable_file(str(path)) != path:
                raise _changed(content)
            return SourceFile(path)
        except PathError as error:
            raise UsageError(error.message, error.next_step) from None

    async def _ready(self, file: UploadedFile, name: str) -> UploadedFile:
        """Wait until Gemini has looked at a file: it has video and sound in PROCESSING for a while.

        Raises:
            Rejected: it could not make sense of it.
            Unavailable: it takes longer than `_PROCESSING`.
        """
        pause_seconds = min(1.0, self._app.settings.poll_seconds)
        with anyio.move_on_after(_PROCESSING.total_seconds()):
            while file.state == "PROCESSING":
                await anyio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 1.5, _MAX_PAUSE_SECONDS)
                file = await self._app.gateway.get_file(file.name)
        if file.state == "FAILED":
            raise Rejected(f"Gemini could not process the file {name}.", "Check that it plays, or leave it out.")
        if file.state == "PROCESSING":
            minutes = _PROCESSING // timedelta(minutes=1)
            raise Unavailable(
                f"Gemini has been processing the file {name} for {minutes} minutes.",
                "Submit the same order again later.",
            )
        return file


class _Unchanged:
    """Reads a file for the upload, and refuses at its end, before it is finalized, when it is not what was planned."""

    def __init__(self, file: SourceFile, content: Attachment) -> None:
        self._file = file
        self._content = content
        self._digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, nothing at the end.

        Raises:
            UsageError: the file has changed since it was looked at.
        """
        block = self._file.read(size)
        self._digest.update(block)
        if not block and self._digest.hexdigest() != self._content.sha256:
            raise _changed(self._content)
        return block


def _name(content: Attachment) -> str:
    assert content.path is not None
    return plain_text(content.path.name, _MAX_NAME_CHARS) or content.sha256[:12]


def _changed(content: Attachment) -> UsageError:
    return UsageError(f"{_name(content)} changed after it was checked.", "Submit the order again.")
