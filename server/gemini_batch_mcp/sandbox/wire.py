"""The sandbox's replies in wire form: google.rpc errors, operations, files, timestamps and page tokens."""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from starlette.responses import Response

from gemini_batch_mcp.sandbox.config import NANOSECONDS
from gemini_batch_mcp.sandbox.state import FileRecord, JobRecord

_STATUS_NAMES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
#: HTTP statuses of google.rpc codes, as google.rpc/code.proto maps them.
_STATUS_CODES: Final = {
    1: 499,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    14: 503,
    16: 401,
}
_TYPE_PREFIX: Final = "type.googleapis.com/google.ai.generativelanguage.v1main"
#: The message of a finished job that carries no output is an error; these are its codes and words by state.
DEFAULT_ERRORS: Final = {
    "BATCH_STATE_FAILED": (3, "[sandbox] The input could not be processed."),
    "BATCH_STATE_CANCELLED": (1, "[sandbox] The operation was cancelled."),
    "BATCH_STATE_EXPIRED": (4, "[sandbox] The batch did not finish in time."),
}
NOT_FOUND_MESSAGE: Final = "Requested entity was not found."

OutputPlace = Literal["both", "response", "metadata"]


class ApiError(Exception):
    """A refusal that becomes a google.rpc body: `details` are its typed messages, `headers` go with the reply."""

    def __init__(
        self,
        status_code: int,
        message: str,
        details: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = message
        self.details = details or []
        self.headers = dict(headers or {})

    def to_response(self) -> Response:
        """Return the HTTP reply."""
        error: dict[str, Any] = {
            "code": self.status_code,
            "message": self.message,
            "status": status_name(self.status_code),
        }
        if self.details:
            error["details"] = self.details
        return json_response({"error": error}, self.status_code, self.headers)


def status_name(status_code: int) -> str:
    """Return the google.rpc name that goes with an HTTP status."""
    return _STATUS_NAMES.get(status_code, "UNKNOWN")


def status_code_of(code: int) -> int:
    """Return the HTTP status that goes with a google.rpc code."""
    return _STATUS_CODES.get(code, 500)


def not_found() -> ApiError:
    """Return the refusal for a name that does not exist (any more)."""
    return ApiError(404, NOT_FOUND_MESSAGE)


def bad_request(field: str, message: str) -> ApiError:
    """Return a 400 that names the field, in the message and as a field violation."""
    violation = {"field": field, "description": message}
    return ApiError(
        400, message, [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}]
    )


def quota_exhausted(quota_id: str, model: str, retry_seconds: int) -> ApiError:
    """Return the 429 of wire sample 31."""
    violation = {
        "quotaMetric": f"generativelanguage.googleapis.com/{quota_id}",
        "quotaId": quota_id,
        "quotaDimensions": {"model": model, "location": "global"},
    }
    details: list[dict[str, Any]] = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_seconds}s"},
    ]
    message = "[sandbox] Resource has been exhausted (check quota)."
    return ApiError(429, message, details, {"retry-after": str(retry_seconds)})


def json_response(body: object, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return the body, which may hold `msgspec.Raw` JSON, as a reply; characters beyond ASCII are not escaped."""
    return Response(msgspec.json.encode(body), status_code, headers, media_type="application/json; charset=UTF-8")


def timestamp(nanoseconds: int, digits: int = 9) -> str:
    """Return an RFC 3339 time in UTC with that many digits of a second."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09d}"[: len(whole) + 1 + digits] + "Z"


def page_token(record: FileRecord | JobRecord) -> str:
    """Return the opaque token of the page behind `record`."""
    return _token(record.create_ns, record.name)


def number_page_token(start: int) -> str:
    """Return the opaque token of the page that begins with the item of that number."""
    return _token(start, "")


def _token(number: int, name: str) -> str:
    return base64.urlsafe_b64encode(f"{number}:{name}".encode()).decode()


def read_page_token(token: str) -> tuple[int, str] | None:
    """Return the number and the name that were put in; None for an empty token.

    Raises:
        ApiError: 400, the token did not come from here.
    """
    if not token:
        return None
    try:
        number, _, name = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        return int(number), name
    except (binascii.Error, ValueError):
        raise bad_request("page_token", "Invalid page token.") from None


def file_to_wire(record: FileRecord, base_url: str, state: str = "ACTIVE") -> dict[str, Any]:
    """Return a File resource: wire sample 43 for an upload, 44 for a result file."""
    uri = f"{base_url}/v1beta/{record.name}"
    wire: dict[str, Any] = {
        "name": record.name,
        "displayName": record.display_name,
        "mimeType": record.mime_type,
        "sizeBytes": str(record.size_bytes),
        "createTime": timestamp(record.create_ns, 6),
        "updateTime": timestamp(record.update_ns, 6),
        "expirationTime": timestamp(record.expire_ns) if record.expire_ns else "",
        "sha256Hash": base64.b64encode(record.sha256.encode()).decode(),
        "uri": uri,
        "downloadUri": f"{uri}:download?alt=media" if record.source == "GENERATED" else "",
        "state": state,
        "source": record.source,
    }
    return {name: value for name, value in wire.items() if value != "" and (name != "sizeBytes" or value != "0")}


def job_to_wire(job: JobRecord, output: dict[str, Any] | None, output_in: OutputPlace) -> dict[str, Any]:
    """Return a job as an Operation (wire samples 05 to 19). `output` is what a finished job answers with."""
    message = "GenerateContentBatch" if job.task == "generate" else "EmbedContentBatch"
    metadata: dict[str, Any] = {
        "@type": f"{_TYPE_PREFIX}.{message}",
        "model": f"models/{job.model}",
        "displayName": job.display_name,
        "inputConfig": {"fileName": job.input_file} if job.input_file else {},
        "createTime": timestamp(job.create_ns),
        "updateTime": timestamp(job.update_ns),
        "state": job.state,
        "name": job.name,
        "endTime": timestamp(job.end_ns) if job.end_ns else "",
        "output": output if output_in != "response" else None,
        "batchStats": _stats(job),
        "priority": str(job.priority) if job.priority else "",
        "webhookConfig": msgspec.json.decode(job.webhook) if job.webhook else None,
    }
    operation: dict[str, Any] = {"name": job.name, "metadata": {k: v for k, v in metadata.items() if v}}
    if job.is_done:
        operation["done"] = True
    if job.error:
        operation["error"] = msgspec.json.decode(job.error)
    elif output is not None and output_in != "metadata":
        operation["response"] = {"@type": f"{_TYPE_PREFIX}.{message}Output", **output}
    return operation


def _stats(job: JobRecord) -> dict[str, str]:
    counts = {
        "requestCount": job.row_count,
        "successfulRequestCount": job.succeeded,
        "failedRequestCount": job.failed,
        "pendingRequestCount": job.row_count - job.succeeded - job.failed,
    }
    return {name: str(count) for name, count in counts.items() if count > 0}
