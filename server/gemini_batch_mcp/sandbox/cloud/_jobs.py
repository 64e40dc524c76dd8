"""The routes of Vertex AI: batch prediction jobs, models, countTokens.

Forms: the discovery document of aiplatform v1 (2026-11-06), wire samples 80 to 86.
"""

import json
import re
import secrets
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gemini_batch_mcp.sandbox.api.requests import page_of, read_json
from gemini_batch_mcp.sandbox.cloud._objects import Objects
from gemini_batch_mcp.sandbox.cloud._table_rows import split_table, write_input
from gemini_batch_mcp.sandbox.cloud._tables import Tables
from gemini_batch_mcp.sandbox.config import NANOSECONDS, SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.jobs import Jobs
from gemini_batch_mcp.sandbox.replies.tokens import text_tokens
from gemini_batch_mcp.sandbox.state import JobRecord, State
from gemini_batch_mcp.sandbox.wire import ApiError, json_response, not_found, number_page_token, page_token, timestamp
from gemini_batch_mcp.threads import in_thread

_PUBLISHER: Final = "publishers/google/models/"
_DEFAULT_PAGE_SIZE: Final = 50
_MAX_PAGE_SIZE: Final = 100
_MAX_BODY_BYTES: Final = 1024**2
#: How long a reply waits for the answers of a job that has ended.
_MOST_WAIT_SECONDS: Final = 10.0
_MEMBERS: Final = {
    "": {"displayName", "model", "inputConfig", "outputConfig", "labels"},
    "inputConfig": {"instancesFormat", "gcsSource", "bigquerySource"},
    "inputConfig.gcsSource": {"uris"},
    "inputConfig.bigquerySource": {"inputUri"},
    "outputConfig": {"predictionsFormat", "gcsDestination", "bigqueryDestination"},
    "outputConfig.gcsDestination": {"outputUriPrefix"},
    "outputConfig.bigqueryDestination": {"outputUri"},
}
_LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
_FILTER: Final = re.compile(r'labels\.([a-z][a-z0-9_-]{0,62})\s*=\s*"([a-z0-9_-]{0,63})"')
_MAX_DISPLAY_NAME: Final = 128
_MAX_LABELS: Final = 64


class CloudJobs:
    """The handlers. They raise ApiError for every refusal."""

    def __init__(self, state: State, jobs: Jobs, objects: Objects, tables: Tables, config: SandboxConfig) -> None:
        self._state = state
        self._jobs = jobs
        self._objects = objects
        self._tables = tables
        self._config = config

    async def create(self, request: Request) -> Response:
        """Answer `batchPredictionJobs.create`."""
        self._require_place(request)
        body = await read_json(request, _MAX_BODY_BYTES)
        return json_response(self._to_wire(await in_thread(self._create, body)))

    async def get(self, request: Request) -> Response:
        """Answer `batchPredictionJobs.get`."""
        self._require_place(request)
        return json_response(self._to_wire(await self._read(_name(request))))

    async def list(self, request: Request) -> Response:
        """Answer `batchPredictionJobs.list`, newest first; `filter` may name one label."""
        self._require_place(request)
        size, after = page_of(request, _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        label = _label_filter(request.query_params.get("filter", ""))
        until_ns = self._config.clock_ns() - round(self._config.list_lag_seconds * NANOSECONDS)
        found = await in_thread(self._state.jobs, -1, after, until_ns, is_cloud=True)
        wanted = [job for job in found if label is None or json.loads(job.cloud)["labels"].get(label[0]) == label[1]]
        page = [await self._read(job.name) for job in wanted[:size]]
        reply: dict[str, Any] = {"batchPredictionJobs": [self._to_wire(job) for job in page]} if page else {}
        if len(wanted) > size:
            reply["nextPageToken"] = page_token(page[-1])
        return json_response(reply)

    async def cancel(self, request: Request) -> Response:
        """Answer `batchPredictionJobs.cancel`."""
        self._require_place(request)
        job = self._find(_name(request))
        if job.is_done:
            raise ApiError(400, f"[sandbox] The job is in state {_state(job)} and cannot be cancelled.")
        await in_thread(self._jobs.cancel, job.name)
        return json_response({})

    async def delete(self, request: Request) -> Response:
        """Answer `batchPredictionJobs.delete`: only of jobs that have ended."""
        self._require_place(request)
        job = self._find(_name(request))
        if not job.is_done:
            raise ApiError(400, f"[sandbox] The job is in state {_state(job)} and cannot be deleted.")
        await in_thread(self._jobs.delete, job.name)
        name = f"{self._parent()}/operations/{job.name.rpartition('/')[2]}"
        empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        return json_response({"name": name, "done": True, "response": empty})

    async def models(self, request: Request) -> Response:
        """Answer `publishers.models.list`."""
        size, after = page_of(request, _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        start = after[0] if after else 0
        models = self._config.models
        reply: dict[str, Any] = {
            "publisherModels": [
                {"name": f"{_PUBLISHER}{model.name}", "versionId": "sandbox", "launchStage": "GA"}
                for model in models[start : start + size]
            ]
        }
        if start + size < len(models):
            reply["nextPageToken"] = number_page_token(start + size)
        return json_response(reply)

    async def count_tokens(self, request: Request) -> Response:
        """Answer `publishers.models.countTokens`."""
        self._require_place(request)
        if self._config.model(str(request.path_params["id"])) is None:
            raise not_found()
        body = await read_json(request, self._config.max_inline_bytes)
        if unknown := body.keys() - {"contents", "systemInstruction", "tools", "generationConfig"}:
            raise ApiError(
                400, f'Invalid JSON payload received. Unknown name "{sorted(unknown)[0]}": Cannot find field.'
            )
        if any(content.get("role") not in ("user", "model") for content in body.get("contents", [])):
            raise ApiError(400, "Please use a valid role: user, model.")
        return json_response({"totalTokens": text_tokens(msgspec.json.encode(body).decode())})

    def _create(self, body: dict[str, Any]) -> JobRecord:
        self._check_members(body, "")
        name, labels = body.get("displayName", ""), body.get("labels", {})
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_DISPLAY_NAME:
            raise ApiError(400, f"[sandbox] display_name must have 1 to {_MAX_DISPLAY_NAME} characters.")
        _check_labels(labels)
        model = str(body.get("model", ""))
        info = self._config.model(model.removeprefix(_PUBLISHER)) if model.startswith(_PUBLISHER) else None
        if info is None or "batchGenerateContent" not in info.methods:
            raise ApiError(404, f"[sandbox] Publisher model {model[:200]} is not found, or takes no batches.")
        source, target = body.get("inputConfig", {}), body.get("outputConfig", {})
        formats = (source.get("instancesFormat"), target.get("predictionsFormat"))
        if formats == ("jsonl", "jsonl"):
            path, count, uri, dest = self._objects_of(source, target)
        elif formats == ("bigquery", "bigquery"):
            path, count, uri, dest = self._tables_of(source, target)
        else:
            raise ApiError(400, "[sandbox] Here, instances and predictions are both jsonl, or both bigquery.")
        now_ns = self._config.clock_ns()
        job = JobRecord(
            name=f"batches/{secrets.randbelow(9 * 10**18) + 10**18}",
            task="generate",
            model=info.name,
            display_name=name,
            input_file=uri,
            webhook="",
            priority=0,
            row_count=count,
            token_count=path.stat().st_size // 4,
            create_ns=now_ns,
            update_ns=now_ns,
            cloud=json.dumps({"labels": labels, "dest": dest}),
        )
        return self._jobs.create(job, path)

    def _objects_of(self, source: dict[str, Any], target: dict[str, Any]) -> tuple[Path, int, str, str]:
        uris = source.get("gcsSource", {}).get("uris", [])
        if not isinstance(uris, list) or len(uris) != 1:
            raise ApiError(400, "[sandbox] A batch for a Gemini model takes one file.")
        dest = target.get("gcsDestination", {}).get("outputUriPrefix", "")
        for uri in (uris[0], dest):
            if not isinstance(uri, str) or not uri.startswith("gs://"):
                raise ApiError(400, "[sandbox] A gs:// URI was expected.")
            self._objects.require_bucket(uri.removeprefix("gs://").partition("/")[0])
        bucket, _, object_name = uris[0].removeprefix("gs://").partition("/")
        record = self._objects.find(bucket, object_name)
        if record is None:
            raise ApiError(400, "[sandbox] The input file does not exist.")
        if record.size_bytes > self._config.max_cloud_file_bytes:
            raise ApiError(400, f"[sandbox] The input has more than {self._config.max_cloud_file_bytes:,} bytes.")
        path = self._objects.path(record)
        count = _count_rows(path.open("rb"))
        if count > self._config.max_cloud_rows:
            raise ApiError(400, f"[sandbox] The input has more than {self._config.max_cloud_rows:,} rows.")
        return path, count, uris[0], dest

    def _tables_of(self, source: dict[str, Any], target: dict[str, Any]) -> tuple[Path, int, str, str]:
        uri = source.get("bigquerySource", {}).get("inputUri", "")
        dest = target.get("bigqueryDestination", {}).get("outputUri", "")
        project, dataset, table = split_table(dest)
        self._tables.require_dataset(project, dataset)
        if self._tables.describe(dataset, table) is not None:
            raise ApiError(400, "[sandbox] The output table exists.")
        path = self._objects.draft()
        at_once = self._config.answers_tables_at_once
        count = write_input(self._tables, uri, path, self._config.max_table_rows, at_once=at_once)
        return path, count, uri, dest

    def _check_members(self, value: dict[str, Any], path: str) -> None:
        known = _MEMBERS.get(path)
        if known is None:
            return
        if not isinstance(value, dict):
            raise ApiError(400, f"Invalid value at '{path}': an object was expected.")
        if unknown := value.keys() - known:
            at = f" at '{path}'" if path else ""
            name = sorted(unknown)[0]
            raise ApiError(400, f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.')
        for name, member in value.items():
            self._check_members(member, f"{path}.{name}".lstrip("."))

    def _find(self, name: str) -> JobRecord:
        job = self._jobs.find(name)
        if not job.cloud:
            raise not_found()
        return job

    async def _read(self, name: str) -> JobRecord:
        self._find(name)
        job, ending = await in_thread(self._jobs.read, name)
        if ending is None:
            return job
        try:
            return await in_thread(ending.result, _MOST_WAIT_SECONDS)
        except TimeoutError:
            # Its answers are still being written: it shows as it was.
            return job

    def _require_place(self, request: Request) -> None:
        project, location = request.path_params["project"], request.path_params["location"]
        if project not in (self._config.cloud_project, self._config.cloud_project_number):
            raise ApiError(403, f"[sandbox] Permission denied on resource project {project[:60]}.")
        if location != self._config.cloud_location:
            raise not_found()

    def _parent(self) -> str:
        return f"projects/{self._config.cloud_project_number}/locations/{self._config.cloud_location}"

    def _to_wire(self, job: JobRecord) -> dict[str, Any]:
        plan = json.loads(job.cloud)
        output = self._jobs.output(job)
        error = json.loads(job.error) if job.error else None
        is_partial = job.state in ("BATCH_STATE_SUCCEEDED", "BATCH_STATE_PARTIALLY_SUCCEEDED")
        stats = {
            "successfulCount": job.succeeded,
            "failedCount": job.failed,
            "incompleteCount": job.row_count - job.succeeded - job.failed,
        }
        wire: dict[str, Any] = {
            "name": f"{self._parent()}/batchPredictionJobs/{job.name.removeprefix('batches/')}",
            "displayName": job.display_name,
            "model": f"{_PUBLISHER}{job.model}",
            **_places(job.input_file, plan["dest"]),
            "labels": plan["labels"],
            "state": _state(job),
            "outputInfo": _output_info(output["responsesFile"]) if output else None,
            "completionStats": {name: str(count) for name, count in stats.items() if count > 0},
            "error": None if is_partial else error,
            "partialFailures": [error] if is_partial and error else None,
            "createTime": timestamp(job.create_ns, 6),
            "startTime": timestamp(job.create_ns, 6) if job.state != "BATCH_STATE_PENDING" else "",
            "endTime": timestamp(job.end_ns, 6) if job.end_ns else "",
            "updateTime": timestamp(job.update_ns, 6),
        }
        return {name: value for name, value in wire.items() if value}


def _places(source: str, dest: str) -> dict[str, Any]:
    """Return where the requests of a job are, and where its answers go."""
    if source.startswith("bq://"):
        return {
            "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": source}},
            "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": dest}},
        }
    return {
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [source]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": dest}},
    }


def _output_info(place: str) -> dict[str, str]:
    return {"bigqueryOutputTable" if place.startswith("bq://") else "gcsOutputDirectory": place}


def _name(request: Request) -> str:
    return f"batches/{request.path_params['id']}"


def _state(job: JobRecord) -> str:
    # A cancel shows at once, and takes effect later.
    state = "CANCELLING" if job.cancel_ns and not job.is_done else job.state.removeprefix("BATCH_STATE_")
    return f"JOB_STATE_{state}"


def _check_labels(labels: object) -> None:
    if not isinstance(labels, dict) or len(labels) > _MAX_LABELS:
        raise ApiError(400, f"[sandbox] labels must be an object of up to {_MAX_LABELS} members.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            raise ApiError(400, f"[sandbox] {key[:60]!r} isn't a label, or its value isn't one.")


def _label_filter(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    found = _FILTER.fullmatch(text.strip())
    if found is None:
        raise ApiError(400, "[sandbox] Invalid filter.")
    return found[1], found[2]


def _count_rows(file: Any) -> int:
    count = 0
    with file:
        for number, line in enumerate(file, start=1):
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("request"), dict):
                raise ApiError(400, f"[sandbox] Failed to import data: line {number} has no `request`.")
            count += 1
    if not count:
        raise ApiError(400, "[sandbox] The input holds no requests.")
    return count
