"""The jobs: made, looked at, moved, cancelled and wound up. Answers are written once, when a job ends."""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle._outputs import Output, OutputOrder, write_output
from gemini_batch_mcp.sandbox.lifecycle._pace import (
    CANCELLED,
    EXPIRED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    TERMINAL,
    at_fraction,
    has_file,
    look,
    planned_ending,
    shows_output,
)
from gemini_batch_mcp.sandbox.lifecycle.bodies import BatchChanges
from gemini_batch_mcp.sandbox.lifecycle.references import References
from gemini_batch_mcp.sandbox.state import CreateRecord, FileRecord, JobRecord, State, new_id
from gemini_batch_mcp.sandbox.wire import DEFAULT_ERRORS, bad_request, not_found

_JOB_ID_LENGTH: Final = 36
_RESULT_PREFIX: Final = "files/batch-"
#: Threads that write answers; one at a time keeps a small machine usable.
_WRITERS: Final = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Delivered:
    """What a job of Vertex AI has left, and where."""

    succeeded: int
    failed: int
    place: str


#: Writes the answers to the first rows of a job of Vertex AI: the job, its rows, how many.
Deliver = Callable[[JobRecord, Path, int], Delivered]


class Jobs:
    """The jobs of one directory. Every method is safe to call from any thread and blocks until it is done."""

    def __init__(self, state: State, config: SandboxConfig, deliver: Deliver | None = None) -> None:
        self._state = state
        self._config = config
        self._deliver = deliver
        self._lock = threading.Lock()
        self._writers = concurrent.futures.ThreadPoolExecutor(_WRITERS, "sandbox-answers")
        self._endings: dict[str, concurrent.futures.Future[JobRecord]] = {}

    def close(self) -> None:
        """Wait for the answers that are being written."""
        self._writers.shutdown()

    def create(self, job: JobRecord, rows: Path) -> JobRecord:
        """Enter a job, under a new name unless it has one; `rows` is taken over (linked if it belongs to a file)."""
        named = dataclasses.replace(job, name=job.name or f"batches/{new_id(_JOB_ID_LENGTH)}")
        _link(rows, self._state.rows_path(named.name))
        with self._state.transaction():
            self._state.save(named)
            self._state.save(
                CreateRecord(named.name, named.display_name, named.model, named.task, named.row_count, named.create_ns)
            )
        return named

    def find(self, name: str) -> JobRecord:
        """Return the job as it was last left.

        Raises:
            ApiError: 404, there is none of that name.
        """
        job = self._state.job(name)
        if job is None:
            raise not_found()
        return job

    def read(self, name: str) -> tuple[JobRecord, "concurrent.futures.Future[JobRecord] | None"]:
        """Count a read and return the job as it is now, with the ending that is under way, if any."""
        with self._state.transaction():
            found = self.find(name)
            job = dataclasses.replace(found, reads=found.reads + 1)
            seen = look(job, self._config, self._config.clock_ns())
            self._state.save(seen.job)
        if not seen.ending:
            return seen.job, None
        return seen.job, self._start_ending(seen.job, seen.ending, seen.end_ns)

    def settle(self) -> None:
        """Let every unfinished job be where its pace has it by now."""
        for job in self._state.unfinished_jobs():
            seen = look(job, self._config, self._config.clock_ns())
            if seen.ending:
                self._start_ending(seen.job, seen.ending, seen.end_ns).result()

    def cancel(self, name: str) -> None:
        """Ask a job to stop; one that has ended stays as it is."""
        with self._state.transaction():
            job = self.find(name)
            if not job.is_done and not job.cancel_ns:
                self._state.save(dataclasses.replace(job, cancel_ns=self._config.clock_ns()))

    def update(self, name: str, changes: BatchChanges) -> JobRecord:
        """Change a job that has not ended.

        Raises:
            ApiError: 404, there is no such job; 400, it has ended.
        """
        with self._state.transaction():
            job = self.find(name)
            if job.is_done:
                raise bad_request("batch.state", f"[sandbox] The batch is {job.state} and cannot be updated.")
            changed = dataclasses.replace(
                job,
                display_name=job.display_name if changes.display_name is None else changes.display_name,
                priority=job.priority if changes.priority is None else changes.priority,
                update_ns=self._config.clock_ns(),
            )
            self._state.save(changed)
        return changed

    def delete(self, name: str) -> None:
        """Forget a job; its result file stays."""
        self._state.remove_job(self.find(name).name)

    def advance(self, name: str) -> JobRecord:
        """Move a job one step: pending, running (half of the rows), its end; from now on only commands move it."""
        job = self.find(name)
        now_ns = self._config.clock_ns()
        if job.is_done:
            return job
        if job.cancel_ns:
            return self._start_ending(job, CANCELLED, now_ns).result()
        if job.state != PENDING:
            return self._start_ending(job, planned_ending(job), now_ns).result()
        running = dataclasses.replace(at_fraction(job, 0.5, self._config, now_ns), state=RUNNING, held=True)
        self._state.save(running)
        return running

    def finish(
        self,
        name: str,
        state: str = SUCCEEDED,
        error: Mapping[str, Any] | None = None,
        answered_rows: int | None = None,
    ) -> JobRecord:
        """End a job now. `error` is a google.rpc.Status; `answered_rows` limits the answers to the first rows."""
        job = self.find(name)
        if job.is_done:
            return job
        return self._start_ending(job, wire_state(state), self._config.clock_ns(), error, answered_rows).result()

    def set_state(self, name: str, state: str) -> JobRecord:
        """Give a job any state, a name that Gemini does not have yet included; only commands move it from now on."""
        wire = wire_state(state)
        if wire in TERMINAL:
            raise UsageError(f"{wire} ends a job.", "Use finish.")
        changed = dataclasses.replace(self.find(name), state=wire, held=True, update_ns=self._config.clock_ns())
        self._state.save(changed)
        return changed

    def output(self, job: JobRecord) -> dict[str, Any] | None:
        """Return what a finished job answers with: `responsesFile`, or the inlined responses as raw JSON.

        None when there is nothing, or nothing yet.
        """
        if not shows_output(job, self._config, self._config.clock_ns()):
            return None
        if job.responses_file:
            return {"responsesFile": job.responses_file}
        path = self._state.answers_path(job.name)
        if job.is_inline and path.exists():
            return {"inlinedResponses": {"inlinedResponses": msgspec.Raw(path.read_bytes())}}
        return None

    def has_result(self, file_name: str) -> bool:
        """True when a result file can be downloaded by now; its job may be gone."""
        job = self._state.job(f"batches/{file_name.removeprefix(_RESULT_PREFIX)}")
        return job is None or has_file(job, self._config, self._config.clock_ns())

    def _start_ending(
        self,
        job: JobRecord,
        state: str,
        end_ns: int,
        error: Mapping[str, Any] | None = None,
        answered_rows: int | None = None,
    ) -> "concurrent.futures.Future[JobRecord]":
        """Begin to wind a job up, or return the ending that is under way."""
        with self._lock:
            under_way = self._endings.get(job.name)
            if under_way is not None:
                return under_way
            ending = self._writers.submit(self._end, job, state, end_ns, error, answered_rows)
            self._endings[job.name] = ending
        ending.add_done_callback(lambda _: self._forget_ending(job.name))
        return ending

    def _forget_ending(self, name: str) -> None:
        with self._lock:
            self._endings.pop(name, None)

    def _end(
        self, job: JobRecord, state: str, end_ns: int, error: Mapping[str, Any] | None, answered_rows: int | None
    ) -> JobRecord:
        current = self._state.job(job.name)
        if current is None or current.is_done:
            return current or job
        rows = self._answered(job, state, answered_rows)
        place = _result_name(job) if rows and not job.is_inline else ""
        try:
            if job.cloud and self._deliver is not None and rows:
                delivered = self._deliver(job, self._state.rows_path(job.name), rows)
                output, place = Output(delivered.succeeded, delivered.failed), delivered.place
            else:
                output = self._write_answers(job, rows) if rows else Output()
        except FileNotFoundError:  # the rows are gone: deleted meanwhile, or wound up by another process
            return self._state.job(job.name) or job
        if error is None and state in DEFAULT_ERRORS:
            code, message = DEFAULT_ERRORS[state]
            error = {"code": code, "message": message}
        ended = dataclasses.replace(
            job,
            state=state,
            held=True,
            succeeded=output.succeeded if rows else job.succeeded,
            failed=output.failed if rows else job.failed,
            end_ns=end_ns,
            update_ns=end_ns,
            error=json.dumps(dict(error)) if error else "",
            responses_file=place,
        )
        if state == "BATCH_STATE_FAILED":
            ended = dataclasses.replace(ended, succeeded=0, failed=job.row_count)
        with self._state.transaction():
            current = self._state.job(job.name)
            if current is None:
                if not job.cloud:
                    self._answers_of(job).unlink(missing_ok=True)
                return ended
            if current.is_done:
                return current
            self._state.save(ended)
            if ended.responses_file and not job.cloud:
                self._state.save(_result_file(ended, output))
        self._state.rows_path(job.name).unlink(missing_ok=True)
        return ended

    def _answered(self, job: JobRecord, state: str, answered_rows: int | None) -> int:
        """Return how many of the first rows are answered in the output."""
        if answered_rows is not None:
            return min(answered_rows, job.row_count)
        if state in (SUCCEEDED, "BATCH_STATE_PARTIALLY_SUCCEEDED"):
            return job.row_count
        # Vertex AI exports what is done when a job is stopped.
        if (state == CANCELLED and self._config.keeps_cancelled_rows) or (job.cloud and state in (CANCELLED, EXPIRED)):
            return job.succeeded + job.failed
        return 0

    def _write_answers(self, job: JobRecord, rows: int) -> Output:
        target = self._answers_of(job)
        unfinished = target.with_name(f"{target.name}.{new_id(8)}")
        order = OutputOrder(job.task, job.model, rows, is_inline=job.is_inline)
        references = References(self._state.file, self._config)
        output = write_output(self._state.rows_path(job.name), unfinished, order, self._config, references)
        unfinished.replace(target)
        return output

    def _answers_of(self, job: JobRecord) -> Path:
        return self._state.answers_path(job.name) if job.is_inline else self._state.file_path(_result_name(job))


def wire_state(name: str) -> str:
    """Return the wire's name of a state given as SUCCEEDED, JOB_STATE_SUCCEEDED or BATCH_STATE_SUCCEEDED."""
    return f"BATCH_STATE_{name.removeprefix('BATCH_STATE_').removeprefix('JOB_STATE_')}"


def _result_name(job: JobRecord) -> str:
    return f"{_RESULT_PREFIX}{job.name.removeprefix('batches/')}"


def _result_file(job: JobRecord, output: Output) -> FileRecord:
    return FileRecord(
        name=job.responses_file,
        display_name="",
        mime_type="application/jsonl",
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        source="GENERATED",
        create_ns=job.end_ns,
        update_ns=job.end_ns,
    )


def _link(source: Path, target: Path) -> None:
    """Keep the bytes of `source` under a second name: the file may be deleted while the job runs."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)  # some file systems have no links
