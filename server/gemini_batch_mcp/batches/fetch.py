"""Fetching the answers of one job: kept as Gemini sent them, and read while they arrive."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.entries import JobEntry
from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import BatchError, NotFound, StorageError
from gemini_batch_mcp.results.slices import Slice, SliceWriter
from gemini_batch_mcp.results.store import TableBuild


async def fetch_answers(app: App, job: JobEntry, destination: Path, build: TableBuild | None = None) -> None:
    """Bring one job's answers to `destination`, whole or not at all, and record what they hash to.

    With `build`, they are the next answer file of its plan, and staged by the time this returns. A failure to stage
    them is raised after they have been brought: they stay.

    Raises:
        NotFound: Gemini does not have them any more.
        GeminiError: they could not be fetched.
        StorageError: they could not be stored, or not be staged.
    """
    name = job.responses_file
    inlined: Sequence[JsonObject] | None = None
    if not name:
        seen = await app.gateway.get_job(job.name)
        name, inlined = seen.responses_file, seen.inlined_responses
    if not name or inlined is not None:
        sha256 = await anyio.to_thread.run_sync(_write_inlined, inlined or (), destination)
        await _record(app, job, sha256)
        if build is not None:
            await anyio.to_thread.run_sync(build.add_next)
        return
    try:
        if build is None:
            await _record(app, job, (await app.gateway.download(name, destination)).sha256)
        else:
            await _download_and_stage(app, job, name, destination, build)
    except NotFound:
        raise NotFound(
            f"The result file of {job.name} is gone from Gemini.",
            "Results are kept for a limited time; retry_failed sends the rows again.",
            status_code=404,
        ) from None


async def _record(app: App, job: JobEntry, sha256: str) -> None:
    await anyio.to_thread.run_sync(partial(app.ledger.update_job, job.id, answers_sha256=sha256))


async def _download_and_stage(app: App, job: JobEntry, name: str, destination: Path, build: TableBuild) -> None:
    staging = _Staging(build, build.slice_writer())
    failure: BatchError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(staging.run)
        try:
            downloaded = await app.gateway.download(name, destination, follower=staging)
            await _record(app, job, downloaded.sha256)
        except BatchError as error:
            failure = error
            staging.begin_again()
        finally:
            staging.end()
    if failure is not None:
        raise failure
    if staging.failure is not None:
        raise staging.failure
    if not staging.is_whole:
        await anyio.to_thread.run_sync(build.begin_again)


class _Staging:
    """Follows a download: cuts what arrives into slices and has them staged, one after the other, in a thread.

    Nothing that goes wrong here harms the download. Staging then starts anew from the file on the disk.
    """

    def __init__(self, build: TableBuild, writer: SliceWriter) -> None:
        self._build = build
        self._writer = writer
        self._send, self._slices = anyio.create_memory_object_stream[Slice](math.inf)
        #: Every byte so far is in a slice.
        self.is_whole = True
        #: Why the answers could not be staged.
        self.failure: BatchError | None = None

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        if not self.is_whole or self.failure is not None:
            return
        try:
            if (done := self._writer.write(chunk)) is not None:
                self._send.send_nowait(done)
        except OSError:
            self.is_whole = False

    def begin_again(self) -> None:
        """Leave a file that is sent a second time to the disk."""
        self.is_whole = False

    def end(self) -> None:
        """Let go of the last slice, and of the writer."""
        try:
            last = self._writer.finish()
        except OSError:
            self.is_whole = False
        else:
            self._send.send_nowait(last)
        self._send.close()

    async def run(self) -> None:
        """Stage slices until there are no more. The build is opened meanwhile, too: that takes half a second."""
        slices: MemoryObjectReceiveStream[Slice] = self._slices
        async with slices:
            await self._step(self._build.start_next)
            async for piece in slices:
                if self.is_whole:
                    await self._step(partial(self._build.stage, piece))

    async def _step(self, step: Callable[[], None]) -> None:
        if self.failure is None:
            try:
                await anyio.to_thread.run_sync(step)
            except BatchError as error:
                self.failure = error


def _write_inlined(responses: Sequence[JsonObject], destination: Path) -> str:
    """Write inlined answers as lines of a result file; a key comes from an answer's own metadata, never its place."""
    lines: list[bytes] = []
    for response in responses:
        line = {name: value for name, value in response.items() if name != "metadata"}
        metadata = response.get("metadata")
        if isinstance(metadata, dict) and "key" in metadata:
            line["key"] = metadata["key"]
        # As ASCII: text in an answer may hold half a surrogate pair.
        lines.append(json.dumps(line).encode("ascii") + b"\n")
    content = b"".join(lines)
    partial_path = destination.with_suffix(".part")
    try:
        partial_path.write_bytes(content)
        partial_path.replace(destination)
    except OSError as error:
        raise StorageError(
            f"{destination} could not be written ({error.strerror}).", "Make room, then ask for the results again."
        ) from None
    finally:
        partial_path.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()
