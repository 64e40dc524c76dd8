"""The routes of BigQuery: tables, and query jobs, as its real client asks for them.

Forms: the discovery document of bigquery v2 (2026-11). Jobs are kept in this process.
"""

import base64
import concurrent.futures
import dataclasses
import json
import math
import re
import threading
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gemini_batch_mcp.sandbox.api.requests import read_json
from gemini_batch_mcp.sandbox.cloud._tables import Described, Field, Found, Tables
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.state import new_id
from gemini_batch_mcp.sandbox.wire import ApiError, json_response
from gemini_batch_mcp.threads import in_thread

_MAX_BODY_BYTES: Final = 4 * 1024**2
_JOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,1024}")
_PAGE_ROWS: Final = 1_000
#: How long a reply waits for a statement to end, as BigQuery's do for a while.
_AT_ONCE_SECONDS: Final = 1.0
_MOST_WAIT_SECONDS: Final = 8.0
#: How often a statement is interrupted until it ends.
_LOOK_SECONDS: Final = 0.1
_CONFIGURATION: Final = {"query", "labels", "dryRun", "jobTimeoutMs"}
_QUERY: Final = {"query", "useLegacySql", "maximumBytesBilled", "useQueryCache", "priority"}
_REASONS: Final = {400: "invalidQuery", 403: "accessDenied", 404: "notFound", 409: "duplicate"}


@dataclasses.dataclass(slots=True)
class _Job:
    id: str
    configuration: dict[str, Any]
    found: Found = dataclasses.field(default_factory=lambda: Found((), (), 0))
    error: dict[str, Any] | None = None
    at_ms: int = 0
    is_done: threading.Event = dataclasses.field(default_factory=threading.Event)


class BigQuery:
    """The handlers. They raise ApiError for every refusal."""

    def __init__(self, tables: Tables, config: SandboxConfig) -> None:
        self._tables = tables
        self._config = config
        self._jobs: dict[str, _Job] = {}
        #: The statements that made a table, in order.
        self.statements: list[str] = []
        self._lock = threading.Lock()
        # One at a time, as each takes a processor; tables are looked at meanwhile.
        self._runner = concurrent.futures.ThreadPoolExecutor(1, "sandbox-queries")
        self._under_way: set[concurrent.futures.Future[None]] = set()

    def close(self) -> None:
        """Interrupt the statement that is running: nobody asks for its answer any more."""
        self._runner.shutdown(wait=False, cancel_futures=True)
        # Again and again, because an interrupt between two statements of the engine is forgotten.
        while concurrent.futures.wait(tuple(self._under_way), _LOOK_SECONDS).not_done:
            self._tables.interrupt()
        self._runner.shutdown()

    async def insert(self, request: Request) -> Response:
        """Answer `jobs.insert`: of a query, which may be running still; a name is used once."""
        self._require_project(request)
        job = await in_thread(self._insert, await read_json(request, _MAX_BODY_BYTES))
        await in_thread(job.is_done.wait, _AT_ONCE_SECONDS)
        return json_response(self._to_wire(job))

    async def get(self, request: Request) -> Response:
        """Answer `jobs.get`."""
        return json_response(self._to_wire(self._find(request)))

    async def results(self, request: Request) -> Response:
        """Answer `jobs.getQueryResults`."""
        job = self._find(request)
        if not await in_thread(job.is_done.wait, _MOST_WAIT_SECONDS):
            return json_response({"jobReference": self._reference(job), "jobComplete": False})
        if job.error is not None:
            raise ApiError(400, str(job.error["message"]))
        found = job.found
        start = int(request.query_params.get("pageToken") or request.query_params.get("startIndex") or 0)
        asked = request.query_params.get("maxResults")
        size = min(int(asked) if asked is not None else _PAGE_ROWS, _PAGE_ROWS)
        is_exact = request.query_params.get("formatOptions.useInt64Timestamp", "").lower() == "true"
        reply: dict[str, Any] = {
            "kind": "bigquery#getQueryResultsResponse",
            "jobReference": self._reference(job),
            "jobComplete": True,
            "totalRows": str(found.row_count),
            "totalBytesProcessed": str(found.read_bytes),
            "cacheHit": False,
            "schema": {"fields": [_field_to_wire(field) for field in found.fields]},
        }
        if page := await in_thread(self._tables.page, found, start, size):
            reply["rows"] = [
                {"f": [{"v": _value(v, f, is_exact)} for v, f in zip(r, found.fields, strict=True)]} for r in page
            ]
        if size and start + size < found.row_count:
            reply["pageToken"] = str(start + size)
        return json_response(reply)

    async def describe_dataset(self, request: Request) -> Response:
        """Answer `datasets.get`."""
        project, dataset = request.path_params["project"], request.path_params["dataset"]
        self._tables.require_dataset(project, dataset)
        reference = {"projectId": project, "datasetId": dataset}
        return json_response({"kind": "bigquery#dataset", "datasetReference": reference, "location": "US"})

    async def describe(self, request: Request) -> Response:
        """Answer `tables.get`."""
        return json_response(self._table_to_wire(await self._described(request)))

    async def change(self, request: Request) -> Response:
        """Answer `tables.patch`: of labels, and of the time at which a table ends."""
        table = await self._described(request)
        body = await read_json(request, _MAX_BODY_BYTES)
        expires = body.get("expirationTime")
        await in_thread(
            self._tables.change,
            table.dataset,
            table.table,
            body.get("labels"),
            int(expires) if expires is not None else None,
        )
        return json_response(self._table_to_wire(await self._described(request)))

    async def delete(self, request: Request) -> Response:
        """Answer `tables.delete`."""
        table = await self._described(request)
        await in_thread(self._tables.drop, table.dataset, table.table)
        return Response(status_code=204)

    def _insert(self, body: dict[str, Any]) -> _Job:
        configuration = body.get("configuration", {})
        query = configuration.get("query", {})
        for value, known in ((configuration, _CONFIGURATION), (query, _QUERY)):
            if unknown := value.keys() - known:
                raise ApiError(400, f"[sandbox] {sorted(unknown)[0]} is not known here.")
        if query.get("useLegacySql", True):
            raise ApiError(400, "[sandbox] Legacy SQL is not understood here.")
        sql = str(query.get("query", ""))
        job = _Job(str(body.get("jobReference", {}).get("jobId") or new_id(20)), configuration)
        if not _JOB_ID.fullmatch(job.id):
            raise ApiError(400, "[sandbox] Invalid job ID.")
        location = body.get("jobReference", {}).get("location") or self._config.datasets_location
        if location != self._config.datasets_location:
            raise ApiError(404, f"[sandbox] Not found: Dataset was not found in location {str(location)[:40]}")
        if configuration.get("dryRun"):
            job.found = self._tables.measure(sql)
            job.is_done.set()
            return job
        with self._lock:
            if job.id in self._jobs:
                raise ApiError(409, f"[sandbox] Already Exists: Job {self._config.cloud_project}:{job.id}")
            job.at_ms = self._config.clock_ns() // 1_000_000
            # What cannot be read makes no job of that name; what is wrong otherwise, the job tells.
            measured = self._tables.weigh(sql)
            self._jobs[job.id] = job
        most = int(query.get("maximumBytesBilled") or 0)
        if most and measured.billed_bytes > most:
            needed = f"{measured.billed_bytes} or higher required."
            said = f"[sandbox] Query exceeded limit for bytes billed: {most}. {needed}"
            job.error = {"reason": "bytesBilledLimitExceeded", "message": said}
            job.is_done.set()
        else:
            statement = self._runner.submit(self._run, job, sql)
            self._under_way.add(statement)
            statement.add_done_callback(self._under_way.discard)
        return job

    def _run(self, job: _Job, sql: str) -> None:
        try:
            job.found = self._tables.run(sql)
            self.statements += [sql] if not job.found.fields else []
        except ApiError as error:
            reason = _REASONS.get(error.status_code, "invalidQuery")
            job.error = {"reason": reason, "message": error.message}
        finally:
            job.is_done.set()

    def _find(self, request: Request) -> _Job:
        self._require_project(request)
        job = self._jobs.get(request.path_params["id"])
        location = request.query_params.get("location") or self._config.datasets_location
        if job is None or location != self._config.datasets_location:
            raise ApiError(404, f"[sandbox] Not found: Job {str(request.path_params['id'])[:80]}")
        return job

    async def _described(self, request: Request) -> Described:
        project, dataset, table = (str(request.path_params[name]) for name in ("project", "dataset", "table"))
        self._tables.require_dataset(project, dataset)
        found = await in_thread(self._tables.describe, dataset, table)
        if found is None:
            raise ApiError(404, f"[sandbox] Not found: Table {project}:{dataset}.{table}")
        return found

    def _require_project(self, request: Request) -> None:
        project = request.path_params["project"]
        if project not in (self._config.cloud_project, self._config.cloud_project_number):
            raise ApiError(403, f"[sandbox] Access Denied: Project {project[:60]}.")

    def _reference(self, job: _Job) -> dict[str, str]:
        return {
            "projectId": self._config.cloud_project,
            "jobId": job.id,
            "location": self._config.datasets_location,
        }

    def _to_wire(self, job: _Job) -> dict[str, Any]:
        status: dict[str, Any] = {"state": "DONE" if job.is_done.is_set() else "RUNNING"}
        if job.error is not None:
            status |= {"errorResult": job.error, "errors": [job.error]}
        is_dry = bool(job.configuration.get("dryRun"))
        billed = 0 if is_dry or job.error is not None else job.found.billed_bytes
        at = str(job.at_ms)
        return {
            "kind": "bigquery#job",
            "id": f"{self._config.cloud_project}:{self._config.datasets_location}.{job.id}",
            "jobReference": self._reference(job),
            "configuration": {**job.configuration, "jobType": "QUERY"},
            "status": status,
            "statistics": {
                "creationTime": at,
                "startTime": at,
                "endTime": at,
                "totalBytesProcessed": str(job.found.read_bytes),
                "query": {
                    "totalBytesProcessed": str(job.found.read_bytes),
                    "totalBytesBilled": str(billed),
                    "statementType": "SELECT",
                    "schema": {"fields": [_field_to_wire(field) for field in job.found.fields]},
                },
            },
        }

    def _table_to_wire(self, table: Described) -> dict[str, Any]:
        reference = {"projectId": self._config.cloud_project, "datasetId": table.dataset, "tableId": table.table}
        wire: dict[str, Any] = {
            "kind": "bigquery#table",
            "id": f"{self._config.cloud_project}:{table.dataset}.{table.table}",
            "tableReference": reference,
            "type": "TABLE",
            "location": self._config.datasets_location,
            "schema": {"fields": [_field_to_wire(field) for field in table.fields]},
            "numRows": str(table.rows),
            "numBytes": str(table.size_bytes),
            "creationTime": str(table.modified_ms),
            "lastModifiedTime": str(table.modified_ms),
            "labels": dict(table.labels),
            "etag": f"{table.modified_ms}",
        }
        if table.expires_ms:
            wire["expirationTime"] = str(table.expires_ms)
        return wire


def _field_to_wire(field: Field) -> dict[str, Any]:
    wire: dict[str, Any] = {"name": field.name, "type": field.type, "mode": field.mode}
    if field.fields:
        wire["fields"] = [_field_to_wire(inner) for inner in field.fields]
    return wire


def _value(value: Any, field: Field, is_exact: bool) -> Any:
    """Return a value as BigQuery writes it: scalars as text."""
    if field.mode == "REPEATED":
        inner = dataclasses.replace(field, mode="NULLABLE")
        return [{"v": _value(item, inner, is_exact)} for item in value or ()]
    if value is None:
        return None
    if field.type == "RECORD":
        return {"f": [{"v": _value(value.get(inner.name), inner, is_exact)} for inner in field.fields]}
    match value:
        case bool():
            return "true" if value else "false"
        case int() if field.type == "TIMESTAMP":
            return str(value) if is_exact else repr(value / 1e6)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
        case float():
            return (
                "NaN" if math.isnan(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, repr(value))
            )
        case Decimal():
            return format(value.normalize(), "f")
        case dict() | list():
            return json.dumps(value)
        case _:
            return str(value)
