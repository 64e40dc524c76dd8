"""Raw JSON from Gemini → domain values, and requests → the body of a countTokens call.

Tolerant: a member of a wrong type counts as absent, nothing here raises.

Shapes: the API reference and captures behind `tests/support/wire-samples`. Names are accepted in camelCase and
snake_case; counters as strings or numbers; zero counters, false and empty members are omitted by Gemini.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gemini_batch_mcp.domain import Job, JobError, JobState, JsonObject, Model, RowCounts, Task, UploadedFile
from gemini_batch_mcp.json_members import as_list, as_object, as_text, member
from gemini_batch_mcp.text import plain_text, safe_text

#: The calls that make a model usable for batches (`batchEmbedContents` is a synchronous call).
BATCH_METHODS: Final = ("batchGenerateContent", "asyncBatchEmbedContent")

_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_~-]{0,199}"
_JOB_NAME: Final = re.compile(rf"batches/({_ID})")
#: A result file of a job: its id is the job's id with "batch-" before it.
_RESULT_FILE: Final = re.compile(rf"files/batch-({_ID})")
_FILE_NAME: Final = re.compile(rf"files/{_ID}")
_MODEL_NAME: Final = re.compile(r"(?:(?:models|tunedModels)/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: Nine quintillion rows need 19 digits; anything longer is no count.
_COUNT: Final = re.compile(r"[0-9]{1,18}")
#: A link as a request may name it. Nothing is said here about where it leads: the sandbox has a host of its own.
_URI: Final = re.compile(r"https?://[!#-\[\]-~]{1,500}")
_HEX_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_CANCELLED_CODE: Final = 1  # google.rpc.Code.CANCELLED


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs; `next_page_token` is empty on the last page."""

    jobs: tuple[Job, ...]
    next_page_token: str = ""


def job_name(text: str) -> str | None:
    """Return `batches/<id>` for a job name, a bare id, a result-file name or any link to one; None for other text."""
    text = text.strip()
    resource = _resource_path(text)
    if match := _JOB_NAME.fullmatch(resource) or _RESULT_FILE.fullmatch(resource):
        return f"batches/{match[1]}"
    return f"batches/{text}" if re.fullmatch(_ID, text) else None


def file_name(text: str) -> str | None:
    """Return `files/<id>` for a file name or a link to a file; None for other text."""
    resource = _resource_path(text.strip())
    return resource if _FILE_NAME.fullmatch(resource) else None


def model_name(text: str) -> str | None:
    """Return `models/<id>` (or `tunedModels/<id>`) for a model name with or without its prefix; None for other text."""
    text = text.strip()
    if not _MODEL_NAME.fullmatch(text) or ".." in text:
        return None
    return text if "/" in text else f"models/{text}"


def _resource_path(text: str) -> str:
    """Return the last two segments of a link or name, without query, fragment and `:verb`."""
    path = re.split(r"[?#]", text, maxsplit=1)[0].rstrip("/")
    if "://" in path:
        path = "/".join(path.split("/")[-2:])
    return path.split(":", 1)[0]


def job_from_wire(raw: object, *, asked_name: str = "") -> Job:
    """Read one Operation. `asked_name` is used when the reply carries no name of its own.

    State and output are taken from `metadata` first; where these are missing, from `done`, `error` and `response`.
    """
    operation = as_object(raw)
    metadata = as_object(operation.get("metadata"))
    error = error_from_wire(operation.get("error"))
    wire_state = as_text(member(metadata, "state"))
    output = _output(operation, metadata)
    return Job(
        name=_job_name_of(operation, metadata) or asked_name,
        state=_state(wire_state) if wire_state else _state_without_name(operation, error),
        display_name=plain_text(as_text(member(metadata, "displayName")), 512),
        model=plain_text(as_text(member(metadata, "model")), 200),
        counts=_counts(as_object(member(metadata, "batchStats"))),
        error=error,
        created_at=moment_from_wire(member(metadata, "createTime")),
        updated_at=moment_from_wire(member(metadata, "updateTime")),
        ended_at=moment_from_wire(member(metadata, "endTime")),
        input_file=_file_member(as_object(member(metadata, "inputConfig")), "fileName"),
        responses_file=_file_member(output, "responsesFile"),
        inlined_responses=_inlined(output),
        wire_state=safe_text(wire_state, 80),
        task=_task(as_text(metadata.get("@type"))),
    )


def jobs_from_wire(raw: object) -> JobPage:
    """Read one page of `batches.list`. Operations without a usable name are left out."""
    page = as_object(raw)
    jobs = (job_from_wire(operation) for operation in as_list(member(page, "operations")))
    return JobPage(tuple(job for job in jobs if job.name), as_text(member(page, "nextPageToken")))


def file_from_wire(raw: object) -> UploadedFile:
    """Read a File resource, bare or wrapped as `{"file": …}`. `name` is empty when there is none."""
    reply = as_object(raw)
    resource = as_object(reply.get("file")) or reply
    return UploadedFile(
        name=_file_member(resource, "name"),
        size_bytes=read_count(member(resource, "sizeBytes")),
        sha256=_sha256(member(resource, "sha256Hash")),
        mime_type=plain_text(as_text(member(resource, "mimeType")), 100),
        state=plain_text(as_text(member(resource, "state")), 80),
        expires_at=moment_from_wire(member(resource, "expirationTime")),
        uri=_uri(member(resource, "uri")),
    )


def models_from_wire(raw: object) -> tuple[tuple[Model, ...], str]:
    """Read one page of `models.list` → the models, and the next page's token."""
    page = as_object(raw)
    models = (_model(as_object(model)) for model in as_list(member(page, "models")))
    return tuple(model for model in models if model.name), as_text(member(page, "nextPageToken"))


def files_from_wire(raw: object) -> tuple[tuple[UploadedFile, ...], str]:
    """Read one page of `files.list` → the files, and the next page's token. A project without files has no member."""
    page = as_object(raw)
    return tuple(map(file_from_wire, as_list(member(page, "files")))), as_text(member(page, "nextPageToken"))


def request_to_count(model: str, requests: Sequence[JsonObject], task: Task) -> dict[str, Any]:
    """Return the `generateContentRequest` of one countTokens call for all of `requests`.

    Its form is that of `tests/support/wire-samples/71-count-tokens-full.request.json`. One request to generate goes out
    as it is. Of several, the contents stand one after the other, each with its system instruction and its tools (as
    text) before it, since one request can have these once only. An EmbedContentRequest is counted by its content.
    """
    if task == "generate" and len(requests) == 1:
        return {**requests[0], "model": model}
    content_name = "content" if task == "embed" else "contents"
    contents: list[Any] = []
    for request in requests:
        system, tools, content = (member(request, name) for name in ("systemInstruction", "tools", content_name))
        if system:
            contents.append({"role": "user", "parts": as_object(system).get("parts", [])})
        if tools:
            contents.append({"role": "user", "parts": [{"text": json.dumps(tools, ensure_ascii=False)}]})
        contents += content if isinstance(content, list) else [content] if content else []
    return {"model": model, "contents": contents}


def _model(resource: Mapping[str, Any]) -> Model:
    methods = as_list(member(resource, "supportedGenerationMethods"))
    return Model(
        name=model_name(as_text(member(resource, "name"))) or "",
        display_name=plain_text(as_text(member(resource, "displayName")), 200),
        batch_methods=tuple(method for method in BATCH_METHODS if method in methods),
    )


def _state(wire_state: str) -> JobState:
    for prefix in ("BATCH_STATE_", "JOB_STATE_"):
        if wire_state.startswith(prefix):
            name = f"JOB_STATE_{wire_state.removeprefix(prefix)}"
            return JobState(name) if name in JobState.__members__.values() else JobState.UNSPECIFIED
    return JobState.UNSPECIFIED


def _task(type_url: str) -> Task | None:
    """Tell what a job does by the type of its metadata."""
    kind = type_url.rpartition(".")[2]
    return "embed" if kind == "EmbedContentBatch" else "generate" if kind == "GenerateContentBatch" else None


def _state_without_name(operation: Mapping[str, Any], error: JobError | None) -> JobState:
    """Tell the state of an operation whose metadata states none."""
    if operation.get("done") is not True:
        return JobState.UNSPECIFIED
    if error is None:
        return JobState.SUCCEEDED if as_object(operation.get("response")) else JobState.UNSPECIFIED
    return JobState.CANCELLED if error.code == _CANCELLED_CODE else JobState.FAILED


def _job_name_of(operation: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    for holder in (operation, metadata):
        name = as_text(holder.get("name"))
        if _JOB_NAME.fullmatch(name):
            return name
    return ""


def _counts(stats: Mapping[str, Any]) -> RowCounts:
    return RowCounts(
        total=read_count(member(stats, "requestCount")),
        succeeded=read_count(member(stats, "successfulRequestCount")),
        failed=read_count(member(stats, "failedRequestCount")),
        pending=read_count(member(stats, "pendingRequestCount")),
    )


def _output(operation: Mapping[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first of `metadata.output` and `response` that holds answers, else an empty object."""
    for candidate in (as_object(member(metadata, "output")), as_object(operation.get("response"))):
        if _file_member(candidate, "responsesFile") or _inlined(candidate) is not None:
            return candidate
    return {}


def _inlined(output: Mapping[str, Any]) -> tuple[JsonObject, ...] | None:
    """Return the inlined answers; an item that is no object becomes an empty one, so that their number stays right."""
    for name in ("inlinedResponses", "inlinedEmbedContentResponses"):
        outer = member(output, name)
        items = outer if isinstance(outer, list) else member(as_object(outer), "inlinedResponses")
        if isinstance(items, list):
            return tuple(as_object(item) for item in items)
        # Zero answers: Gemini omits the empty inner list.
        if isinstance(outer, Mapping) and items is None:
            return ()
    return None


def error_from_wire(value: object) -> JobError | None:
    """Read a google.rpc.Status. Its `details` may have any shape and are not shown."""
    if isinstance(value, str):
        return JobError(0, safe_text(value)) if value else None
    status = as_object(value)
    code = read_count(status.get("code"))
    message = safe_text(as_text(status.get("message")))
    return JobError(code, message) if code or message else None


def _file_member(holder: Mapping[str, Any], name: str) -> str:
    value = as_text(member(holder, name))
    return value if _FILE_NAME.fullmatch(value) else ""


def _uri(value: object) -> str:
    text = as_text(value)
    return text if _URI.fullmatch(text) else ""


def read_count(value: object) -> int:
    """Read a counter: a number or its decimal digits. Anything else, or below zero, counts as 0."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, float):
        value = str(int(value)) if value.is_integer() else ""
    text = str(value) if isinstance(value, int) and abs(value) < 10**18 else as_text(value)
    return int(text) if _COUNT.fullmatch(text) else 0


#: No job of Gemini's is older, and none will be looked at by this version later.
_POSSIBLE_YEARS: Final = range(2015, 2200)


def moment_from_wire(value: object) -> datetime | None:
    """Read an RFC 3339 time, cut to microseconds; a time without a zone is taken as UTC.

    One of another age says nothing: of it and a span no other time could be computed.
    """
    try:
        moment = datetime.fromisoformat(as_text(value))
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year in _POSSIBLE_YEARS else None


def _sha256(value: object) -> str:
    """Return lowercase hex from `sha256Hash`: base64 of the hex digest as documented, or of the bytes, or plain hex."""
    text = as_text(value)
    if _HEX_SHA256.fullmatch(text):
        return text.lower()
    try:
        decoded = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return ""
    if len(decoded) == 32:
        return decoded.hex()
    digest = decoded.decode("ascii", "replace")
    return digest.lower() if _HEX_SHA256.fullmatch(digest) else ""
