"""Fetching the answers of one job: kept as Gemini sent them, and read while they arrive."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.calls.journal import write_answers
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.jobs.delivery import LATE_FILE, since_end
from gemini_batch_mcp.batches.ledger.entries import JobEntry, Lack
from gemini_batch_mcp.digests import file_digest
from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import BatchError, NotFound, StorageError
from gemini_batch_mcp.results.store import TableBuild
from gemini_batch_mcp.results.table.slices import AnswerBytes
from gemini_batch_mcp.threads import in_thread


class NotDelivered(Exception):
    """Gemini has ended the job and does not have its answers to fetch yet; `lack` says what is missing."""

    def __init__(self, lack: Lack) -> None:
        super().__init__(lack)
        self.lack = lack


async def fetch_answers(app: App, job: JobEntry, destination: Path, build: TableBuild | None = None) -> str:
    """Bring one job's answers to `destination`, as they come; record their digest, and return it.

    With `build`, they are the next answer file of its plan, and staged by the time this returns. A failure to stage
    them is raised after they have been brought: they stay.

    Raises:
        NotDelivered: Gemini shows no output, or its result file is not there so shortly after the end.
        NotFound: Gemini does not have them any more.
        GeminiError: they could not be fetched.
        StorageError: they could not be stored, or not be staged.
    """
    if job.tier:
        return await _take_from_journal(app, job, destination, build)
    name = job.responses_file
    inlined: Sequence[JsonObject] | None = None
    if not name:
        seen = await app.gateway.get_job(job.name)
        name, inlined = seen.responses_file, seen.inlined_responses
    if inlined is not None:
        digest = await in_thread(_write_inlined, inlined, destination)
        await _record(app, job, digest)
        if build is not None:
            await in_thread(build.add_next)
        return digest
    if not name:
        raise NotDelivered(Lack.OUTPUT)

    def show(done_bytes: int, total_bytes: int | None) -> None:
        app.gauge.show(Progress(Doing.DOWNLOADING, done_bytes, total_bytes, note=job.name, part=job.id))

    try:
        if build is not None:
            return await _download_and_stage(app, job, name, destination, build, show)
        digest = (await app.gateway.download(name, destination, on_progress=show)).digest
        await _record(app, job, digest)
        return digest
    except NotFound:
        if since_end(job, datetime.now(UTC)) < LATE_FILE:
            raise NotDelivered(Lack.FILE) from None
        raise NotFound(
            f"The result file of {job.name} is gone from Gemini.",
            "Results are kept for a limited time; retry_failed resends the rows.",
            status_code=404,
        ) from None


async def _take_from_journal(app: App, job: JobEntry, destination: Path, build: TableBuild | None) -> str:
    """Bring what calls came to: their replies are here already."""
    files = app.files(job.batch_id)
    if not await in_thread(files.calls(job.id).is_file):
        raise NotFound(
            f"{files.calls(job.id)}, which holds the answers of {job.batch_id}, is gone.",
            "Restore the file; retry_failed resends the rows.",
        )
    await in_thread(write_answers, files.calls(job.id), files.keys(job.attempt), destination)
    digest = await in_thread(file_digest, destination)
    await _record(app, job, digest)
    if build is not None:
        await in_thread(build.add_next)
    return digest


async def _record(app: App, job: JobEntry, digest: str) -> None:
    await in_thread(app.ledger.update_job, job.id, answers_digest=digest)


async def _download_and_stage(
    app: App, job: JobEntry, name: str, destination: Path, build: TableBuild, show: Callable[[int, int | None], None]
) -> str:
    staging = _Staging(build)
    failure: BatchError | None = None
    digest = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(staging.run)
        try:
            downloaded = await app.gateway.download(name, destination, on_progress=show, follower=staging)
            await _record(app, job, downloaded.digest)
            digest = downloaded.digest
        except BatchError as error:
            failure = error
        finally:
            if not digest:  # Also when this is cancelled: the thread that stages waits for what arrives.
                staging.void()
    if failure is not None:
        raise failure
    if staging.failure is not None:
        raise staging.failure
    if not staging.is_whole:
        await in_thread(build.begin_again)
    return digest


class _Staging:
    """Follows a download: has what arrives staged in a thread.

    Nothing that goes wrong here harms the download. A file that is sent anew is staged from the disk, as a whole.
    """

    def __init__(self, build: TableBuild) -> None:
        self._build = build
        self._answers = AnswerBytes()
        self._has_begun = False
        #: What is staged is what the file holds.
        self.is_whole = True
        #: Why the answers could not be staged.
        self.failure: BatchError | None = None

    def begin(self, path: Path) -> None:
        """Expect a file at `path`; said once more, it is sent anew."""
        if self._has_begun:
            self.void()
            self._answers = AnswerBytes()  # nobody reads these
        self._answers.begin(path)
        self._has_begun = True

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        self._answers.arrive(len(piece))

    def complete(self) -> None:
        """Stage the rest: all has arrived."""
        self._answers.complete()

    def moving(self, destination: Path) -> AbstractContextManager[None]:
        """Give way while the file gets its name."""
        return self._answers.moving(destination)

    def void(self) -> None:
        """Give up what was staged: the file is sent anew, or will not be there."""
        self.is_whole = False
        self._answers.void()

    async def run(self) -> None:
        """Stage the file, to its end."""
        try:
            await in_thread(self._build.add_next, self._answers)
        except BatchError as error:
            if self.is_whole:
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
            f"{destination} could not be written ({error.strerror}).", "Free some space, then call get_results again."
        ) from None
    finally:
        partial_path.unlink(missing_ok=True)
    return file_digest(destination)
