"""The routes of the Files API: start, upload, finalize, query and cancel; get, list, delete and download."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope

from gemini_batch_mcp.sandbox.api.requests import page_of, path_id, read_json
from gemini_batch_mcp.sandbox.api.uploads import RECEIVED_HEADER, STATUS_HEADER, Uploads
from gemini_batch_mcp.sandbox.config import CHUNK_BYTES, SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.jobs import Jobs
from gemini_batch_mcp.sandbox.lifecycle.references import file_state
from gemini_batch_mcp.sandbox.state import FileRecord, State, UploadRecord
from gemini_batch_mcp.sandbox.wire import (
    ApiError,
    bad_request,
    file_to_wire,
    json_response,
    not_found,
    page_token,
)
from gemini_batch_mcp.threads import in_thread

_DOWNLOAD_BYTES: Final = 1024**2
#: A file id (names without `files/`) has at most this many characters, result files excepted (wire sample 33).
_MAX_ID_LENGTH: Final = 40
_DEFAULT_PAGE_SIZE: Final = 10
_MAX_PAGE_SIZE: Final = 100
_ROUTE_OF_COMMAND: Final = {
    "upload": "files.chunk",
    "upload, finalize": "files.finalize",
    "finalize": "files.finalize",
    "query": "files.query",
    "cancel": "files.cancel",
}


class _FileFields(msgspec.Struct):
    name: str = ""
    display_name: str = ""
    mime_type: str = ""


def upload_command(scope: Scope) -> str:
    """Return the X-Goog-Upload-Command in one spelling."""
    value = next((value for name, value in scope["headers"] if name == b"x-goog-upload-command"), b"")
    return ", ".join(sorted((word.strip().lower() for word in value.decode("latin-1").split(",")), reverse=True))


def upload_route(scope: Scope) -> str:
    """Return the route of a request to the upload path; a session's URL carries its id."""
    if b"upload_id=" not in scope["query_string"]:
        return "files.start"
    return _ROUTE_OF_COMMAND.get(upload_command(scope), "files.chunk")


def is_session_request(scope: Scope) -> bool:
    """Return whether a request goes to a session: such requests carry no key."""
    return upload_route(scope) != "files.start"


class Files:
    """The handlers. They raise ApiError for every refusal."""

    def __init__(self, state: State, jobs: Jobs, uploads: Uploads, config: SandboxConfig) -> None:
        self._state = state
        self._jobs = jobs
        self._uploads = uploads
        self._config = config

    async def upload(self, request: Request) -> Response:
        """Answer a start, or a command to a session."""
        if not is_session_request(request.scope):
            return await self._start(request)
        upload = self._uploads.find(request.query_params["upload_id"])
        match upload_command(request.scope):
            case "upload":
                taken = await self._uploads.append(upload, _offset(request), request.stream(), finalize=False)
                return Response(headers=_session_headers(taken))
            case "upload, finalize":
                taken = await self._uploads.append(upload, _offset(request), request.stream(), finalize=True)
                return self._finalize(request, taken)
            case "finalize":
                taken = await self._uploads.append(upload, upload.received_bytes, request.stream(), finalize=True)
                return self._finalize(request, taken)
            case "query":
                return Response(headers=_session_headers(upload))
            case "cancel":
                self._uploads.end(upload, "cancelled")
                return Response(headers={STATUS_HEADER: "cancelled"})
            case command:
                raise bad_request("X-Goog-Upload-Command", f"[sandbox] Unknown upload command {command!r}.")

    async def get(self, request: Request) -> Response:
        """Answer `files.get`."""
        return json_response(self._to_wire(self._find(_short_id(request, "GetFileRequest")), request))

    async def list(self, request: Request) -> Response:
        """Answer `files.list`, newest first."""
        size, after = page_of(request, _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        found = self._state.files(size + 1, after, self._config.clock_ns())
        reply: dict[str, Any] = {}
        if found:
            reply["files"] = [self._to_wire(record, request) for record in found[:size]]
        if len(found) > size:
            reply["nextPageToken"] = page_token(found[size - 1])
        return json_response(reply)

    async def delete(self, request: Request) -> Response:
        """Answer `files.delete`."""
        self._state.remove_file(self._find(_short_id(request, "DeleteFileRequest")).name)
        return json_response({})

    async def download(self, request: Request) -> Response:
        """Send a result file from the disk; a Range header is ignored."""
        record = self._find(path_id(request))
        if record.source != "GENERATED":
            raise ApiError(403, "[sandbox] Only generated files can be downloaded.")
        if not self._jobs.has_result(record.name):
            raise not_found()
        if request.query_params.get("alt") != "media":
            raise bad_request("alt", "[sandbox] Downloads need alt=media.")
        headers = {"content-length": str(record.size_bytes)}
        path = self._state.file_path(record.name)
        return StreamingResponse(_stream(path), headers=headers, media_type=record.mime_type)

    async def _start(self, request: Request) -> Response:
        if request.headers.get("x-goog-upload-protocol", "").lower() != "resumable":
            raise bad_request("X-Goog-Upload-Protocol", "[sandbox] Only resumable uploads are supported.")
        if upload_command(request.scope) != "start":
            raise bad_request("X-Goog-Upload-Command", "[sandbox] An upload begins with the command start.")
        fields = _file_fields(await read_json(request, self._config.max_inline_bytes))
        file_id = fields.name.removeprefix("files/")
        if file_id:
            check_file_id(file_id, "CreateFileRequest.file")
        declared = request.headers.get("x-goog-upload-header-content-length", "-1")
        mime_type = request.headers.get("x-goog-upload-header-content-type") or fields.mime_type
        if not mime_type:
            raise bad_request("file.mime_type", "[sandbox] Unsupported MIME type: none was given.")
        upload = self._uploads.start(file_id, fields.display_name, mime_type, _integer(declared, "content length"))
        version = request.path_params["version"]
        url = f"{base_url(request)}/upload/{version}/files?upload_id={upload.upload_id}&upload_protocol=resumable"
        headers = {
            "x-goog-upload-url": url,
            "x-goog-upload-control-url": url,
            "x-goog-upload-chunk-granularity": str(CHUNK_BYTES),
            STATUS_HEADER: "active",
        }
        return Response(headers=headers)

    def _finalize(self, request: Request, upload: UploadRecord) -> Response:
        record = self._uploads.finalize(upload)
        return json_response(
            {"file": self._to_wire(record, request)},
            headers={STATUS_HEADER: "final", RECEIVED_HEADER: str(record.size_bytes)},
        )

    def _to_wire(self, record: FileRecord, request: Request) -> dict[str, Any]:
        return file_to_wire(record, base_url(request), file_state(record, self._config))

    def _find(self, file_id: str) -> FileRecord:
        record = self._state.file(f"files/{file_id}")
        if record is None or 0 < record.expire_ns <= self._config.clock_ns():
            raise not_found()
        return record


def base_url(request: Request) -> str:
    """Return scheme and host as the client wrote them."""
    return f"{request.url.scheme}://{request.url.netloc}"


def check_file_id(file_id: str, message_name: str) -> None:
    """Refuse what cannot be a file's id.

    Raises:
        ApiError: 400, too long or with characters other than `[a-z0-9-]`.
    """
    prefix = f'* {message_name}.name: File ID (name without the "files/" prefix) must'
    if len(file_id) > _MAX_ID_LENGTH:
        raise ApiError(400, f"{prefix} be at most {_MAX_ID_LENGTH} characters ([sandbox] wording).")
    ok = file_id.isascii() and file_id == file_id.lower() and file_id.replace("-", "").isalnum()
    if not ok or file_id.startswith("-") or file_id.endswith("-"):
        raise ApiError(400, f"{prefix} consist of a-z, 0-9 and inner hyphens ([sandbox] wording).")


def _short_id(request: Request, message_name: str) -> str:
    file_id = path_id(request)
    check_file_id(file_id, message_name)
    return file_id


def _file_fields(body: dict[str, Any]) -> _FileFields:
    file = body.get("file", {})
    if not isinstance(file, dict):
        raise bad_request("file", "[sandbox] Invalid value at 'file'.")
    values = {
        name.replace("displayName", "display_name").replace("mimeType", "mime_type"): v for name, v in file.items()
    }
    try:
        return msgspec.convert(values, _FileFields)
    except msgspec.ValidationError as error:
        raise bad_request("file", f"[sandbox] Invalid value at 'file': {error}") from None


def _offset(request: Request) -> int:
    return _integer(request.headers.get("x-goog-upload-offset", ""), "upload offset")


def _integer(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise bad_request(what, f"[sandbox] Invalid {what}: {text[:40]!r}.") from None


def _session_headers(upload: UploadRecord) -> dict[str, str]:
    return {STATUS_HEADER: upload.status, RECEIVED_HEADER: str(upload.received_bytes)}


async def _stream(path: Path) -> AsyncIterator[bytes]:
    """Yield a file piece by piece. Nothing is open between two pieces: who leaves a download need not end it."""
    at = 0
    while block := await in_thread(_block, path, at):
        yield block
        at += len(block)


def _block(path: Path, at: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(_DOWNLOAD_BYTES)
