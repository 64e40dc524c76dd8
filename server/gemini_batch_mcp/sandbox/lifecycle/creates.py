"""A create, from the body of the call to the job: every check that Gemini makes before it accepts one."""

import threading
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.bodies import BatchBody, read_batch
from gemini_batch_mcp.sandbox.lifecycle.jobs import Jobs
from gemini_batch_mcp.sandbox.lifecycle.lines import scan
from gemini_batch_mcp.sandbox.models import ModelInfo
from gemini_batch_mcp.sandbox.state import JobRecord, State, new_id
from gemini_batch_mcp.sandbox.wire import ApiError, bad_request, not_found, quota_exhausted

_METHODS: Final[dict[Task, str]] = {"generate": "batchGenerateContent", "embed": "asyncBatchEmbedContent"}
#: Enqueued tokens are estimated from the size of the input: the real count would need the whole text.
_BYTES_PER_TOKEN: Final = 4


class Creates:
    """Makes jobs out of create calls. Blocks while it reads a file: call it in a thread."""

    def __init__(self, state: State, jobs: Jobs, config: SandboxConfig) -> None:
        self._state = state
        self._jobs = jobs
        self._config = config
        #: Held from the look at the quotas to the entry, so that two creates never share the last place.
        self._entering = threading.Lock()

    def create(self, model: str, task: Task, body: dict[str, Any]) -> JobRecord:
        """Check the call and enter the job.

        Raises:
            ApiError: 404 for an unknown model or file, 400 for a bad body or a bad line, 429 over a quota.
        """
        info = self._config.model(model)
        if info is None or _METHODS[task] not in info.methods:
            message = f"[sandbox] models/{model} is not found, or is not supported for {_METHODS[task]}."
            raise ApiError(404, message)
        batch = read_batch(body, task)
        if batch.input_file:
            path = self._input_path(batch.input_file)
            row_count = self._count_rows(path, task)
            return self._enter(batch, info, task, path, row_count)
        path = self._state.directory / "jobs" / f"{new_id(12)}.new"
        path.write_bytes(b"".join(row + b"\n" for row in batch.rows))
        try:
            return self._enter(batch, info, task, path, len(batch.rows))
        finally:
            path.unlink()

    def _enter(self, batch: BatchBody, info: ModelInfo, task: Task, rows: Path, row_count: int) -> JobRecord:
        token_count = rows.stat().st_size // _BYTES_PER_TOKEN
        now_ns = self._config.clock_ns()
        job = JobRecord(
            name="",
            task=task,
            model=info.name,
            display_name=batch.display_name,
            input_file=batch.input_file,
            webhook=batch.webhook,
            priority=batch.priority,
            row_count=row_count,
            token_count=token_count,
            create_ns=now_ns,
            update_ns=now_ns,
        )
        self._jobs.settle()
        with self._entering:
            self._check_quotas(info, token_count)
            return self._jobs.create(job, rows)

    def _input_path(self, name: str) -> Path:
        record = self._state.file(name)
        if record is None or 0 < record.expire_ns <= self._config.clock_ns():
            raise not_found()
        return self._state.file_path(name)

    def _count_rows(self, path: Path, task: Task) -> int:
        found = scan(path, task, self._config.max_line_bytes)
        if found.problem:
            raise ApiError(400, found.problem)
        if not found.row_count:
            raise bad_request("batch.input_config.file_name", "[sandbox] The file holds no requests.")
        return found.row_count

    def _check_quotas(self, info: ModelInfo, token_count: int) -> None:
        unfinished = self._state.unfinished_jobs()
        if len(unfinished) >= self._config.max_active_jobs:
            raise quota_exhausted("SandboxConcurrentBatchJobs", info.name, self._config.quota_retry_seconds)
        enqueued = sum(job.token_count for job in unfinished if job.model == info.name)
        limit = self._config.max_enqueued_tokens.get(info.name)
        if limit is not None and enqueued + token_count > limit:
            raise quota_exhausted("SandboxBatchEnqueuedTokensPerModel", info.name, self._config.quota_retry_seconds)
