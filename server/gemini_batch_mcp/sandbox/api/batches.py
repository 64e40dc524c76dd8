"""The routes of batches: create (generate and embed, file and inline), get, list, cancel, delete, update."""

import asyncio
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.sandbox.api.requests import page_of, path_id, read_json
from gemini_batch_mcp.sandbox.config import NANOSECONDS, SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.bodies import read_update
from gemini_batch_mcp.sandbox.lifecycle.creates import Creates
from gemini_batch_mcp.sandbox.lifecycle.jobs import Jobs
from gemini_batch_mcp.sandbox.state import JobRecord, State
from gemini_batch_mcp.sandbox.wire import job_to_wire, json_response, page_token
from gemini_batch_mcp.threads import in_thread

#: A read that finds a job at its end waits this long for the answers; after that it still shows the job running.
_ENDING_SECONDS: Final = 2.0
_DEFAULT_PAGE_SIZE: Final = 50
_MAX_PAGE_SIZE: Final = 100


class Batches:
    """The handlers. They raise ApiError for every refusal."""

    def __init__(self, state: State, jobs: Jobs, creates: Creates, config: SandboxConfig) -> None:
        self._state = state
        self._jobs = jobs
        self._creates = creates
        self._config = config

    async def create_generate(self, request: Request) -> Response:
        """Answer `models/…:batchGenerateContent`."""
        return await self._create(request, "generate")

    async def create_embed(self, request: Request) -> Response:
        """Answer `models/…:asyncBatchEmbedContent`."""
        return await self._create(request, "embed")

    async def get(self, request: Request) -> Response:
        """Answer `batches/…`."""
        return json_response(self._to_wire(await self._read(_name(request))))

    async def list(self, request: Request) -> Response:
        """Answer `batches`, newest first; finished inline jobs carry all their answers."""
        size, after = page_of(request, _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        until_ns = self._config.clock_ns() - round(self._config.list_lag_seconds * NANOSECONDS)
        found = self._state.jobs(size + 1, after, until_ns)
        reply: dict[str, Any] = {}
        if found:
            reply["operations"] = [self._to_wire(await self._read(job.name)) for job in found[:size]]
        if len(found) > size:
            reply["nextPageToken"] = page_token(found[size - 1])
        return json_response(reply)

    async def cancel(self, request: Request) -> Response:
        """Answer `batches/…:cancel`; it takes effect later."""
        self._jobs.cancel(_name(request))
        return json_response({})

    async def delete(self, request: Request) -> Response:
        """Answer the delete of a job."""
        self._jobs.delete(_name(request))
        return json_response({})

    async def update(self, request: Request) -> Response:
        """Answer `batches/…:updateGenerateContentBatch` and its twin for embeddings."""
        body = await read_json(request, self._config.max_inline_bytes)
        changes = read_update(
            body, request.query_params.get("updateMask") or request.query_params.get("update_mask", "")
        )
        return json_response(self._to_wire(self._jobs.update(_name(request), changes)))

    async def _create(self, request: Request, task: Task) -> Response:
        body = await read_json(request, self._config.max_inline_bytes)
        job = await in_thread(self._creates.create, path_id(request), task, body)
        return json_response(self._to_wire(job))

    async def _read(self, name: str) -> JobRecord:
        job, ending = self._jobs.read(name)
        if ending is None:
            return job
        await asyncio.wait([asyncio.wrap_future(ending)], timeout=_ENDING_SECONDS)
        return ending.result() if ending.done() else job

    def _to_wire(self, job: JobRecord) -> dict[str, Any]:
        return job_to_wire(job, self._jobs.output(job), self._config.output_in)


def _name(request: Request) -> str:
    return f"batches/{path_id(request)}"
