"""The routes of Cloud Storage's JSON API: uploads in one piece and resumable, reads with ranges, lists, deletes.

Forms: Cloud Storage's reference of the JSON API, as google-cloud-storage 3.17 uses it.
"""

import base64
import email.parser
import email.policy
import re
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gemini_batch_mcp.sandbox.cloud._objects import STEP_BYTES, Objects, Session, noted
from gemini_batch_mcp.sandbox.state import ObjectRecord
from gemini_batch_mcp.sandbox.wire import ApiError, json_response, number_page_token, read_page_token, timestamp
from gemini_batch_mcp.threads import in_thread

#: An upload in one piece has up to so much here; the client makes larger ones resumable.
_MAX_WHOLE_BYTES: Final = 64 * 1024**2
_MAX_PAGE_SIZE: Final = 1000
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d{1,15})-(\d{1,15})|\*)/(\d{1,15}|\*)")
_RANGE: Final = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")
_HASH: Final = re.compile(r"crc32c=([A-Za-z0-9+/=]{8})")


class Storage:
    """The handlers. They raise ApiError for every refusal."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def insert(self, request: Request) -> Response:
        """Answer `objects.insert`: a whole object, or the start of a resumable upload."""
        bucket = _bucket(request, self._objects)
        match request.query_params.get("uploadType"):
            case "multipart":
                return await self._insert_whole(request, bucket)
            case "resumable":
                return await self._start(request, bucket)
        raise ApiError(400, "[sandbox] uploadType must be multipart or resumable.")

    async def chunk(self, request: Request) -> Response:
        """Answer a PUT to a resumable upload: bytes, or the question how many have come."""
        session = self._objects.sessions.get(request.query_params.get("upload_id", ""))
        if session is None:
            raise ApiError(404, "[sandbox] There is no such upload.")
        found = _CONTENT_RANGE.fullmatch(request.headers.get("content-range", ""))
        if found is None:
            raise ApiError(400, "[sandbox] A Content-Range is needed.")
        if session.finished is not None:
            return json_response(_to_wire(session.finished))
        start = int(found[1]) if found[1] else session.received_bytes
        if start > session.received_bytes:
            raise ApiError(503, "[sandbox] Bytes are missing before these.")
        total = None if found[3] == "*" else int(found[3])
        is_whole = await self._receive(request, session, skip_bytes=session.received_bytes - start)
        if not is_whole or total is None or session.received_bytes < total:
            if is_whole and found[1] and session.received_bytes % STEP_BYTES:
                raise ApiError(400, "[sandbox] A piece that is not the last one has a multiple of 256 KiB.")
            return _incomplete(session)
        if session.received_bytes > total:
            raise ApiError(400, "[sandbox] More bytes came than the upload was to have.")
        session.finished = await in_thread(
            self._objects.finish,
            session.path,
            session.bucket,
            session.name,
            content_type=session.content_type,
            metadata=session.metadata,
            replaces=session.replaces,
            stated_crc32c=_stated(request.headers.get("x-goog-hash", "")),
        )
        return json_response(_to_wire(session.finished))

    async def get(self, request: Request) -> Response:
        """Answer `objects.get`: what an object is, or with `alt=media` its bytes."""
        record = self._find(request)
        if request.query_params.get("alt") != "media":
            return json_response(_to_wire(record))
        headers = {
            "x-goog-generation": record.generation,
            "x-goog-hash": f"crc32c={_base64(record.crc32c)}",
            "accept-ranges": "bytes",
        }
        wanted = _RANGE.fullmatch(request.headers.get("range", ""))
        if wanted is None:
            content = await in_thread(self._objects.path(record).read_bytes)
            return Response(content, 200, headers, media_type=record.content_type)
        start, end = int(wanted[1]), min(int(wanted[2] or record.size_bytes), record.size_bytes - 1)
        if start > end:
            raise ApiError(416, "[sandbox] The requested range cannot be satisfied.")
        content = await in_thread(_read, self._objects.path(record), start, end + 1 - start)
        headers["content-range"] = f"bytes {start}-{end}/{record.size_bytes}"
        return Response(content, 206, headers, media_type=record.content_type)

    async def delete(self, request: Request) -> Response:
        """Answer `objects.delete`."""
        await in_thread(self._objects.delete, self._find(request))
        return Response(status_code=204)

    async def list(self, request: Request) -> Response:
        """Answer `objects.list`, by name."""
        bucket, query = _bucket(request, self._objects), request.query_params
        if unknown := set(query) - {"prefix", "maxResults", "pageToken", "projection", "prettyPrint", "fields"}:
            raise ApiError(400, f"[sandbox] {sorted(unknown)[0]} is not known here.")
        after = read_page_token(query.get("pageToken", ""))
        start = after[0] if after else 0
        size = min(int(query.get("maxResults") or _MAX_PAGE_SIZE), _MAX_PAGE_SIZE)
        found = await in_thread(self._objects.listed, bucket, query.get("prefix", ""))
        reply: dict[str, Any] = {"kind": "storage#objects"}
        if page := found[start : start + size]:
            reply["items"] = [_to_wire(record) for record in page]
        if start + size < len(found):
            reply["nextPageToken"] = number_page_token(start + size)
        return json_response(reply)

    async def bucket(self, request: Request) -> Response:
        """Answer `buckets.get`."""
        name = _bucket(request, self._objects)
        return json_response({"kind": "storage#bucket", "id": name, "name": name, "location": "US"})

    async def permissions(self, request: Request) -> Response:
        """Answer `buckets.testIamPermissions`: all that was asked for is granted."""
        _bucket(request, self._objects)
        asked = request.query_params.getlist("permissions")
        return json_response({"kind": "storage#testIamPermissionsResponse", "permissions": asked})

    async def _insert_whole(self, request: Request, bucket: str) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_WHOLE_BYTES:
                raise ApiError(400, "[sandbox] Larger objects take a resumable upload.")
        head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + bytes(body))
        parts = list(message.iter_parts()) if message.is_multipart() else []
        if len(parts) != 2:
            raise ApiError(400, "[sandbox] A multipart upload has two parts: what the object is, and its bytes.")
        described = _described(bytes(parts[0].get_payload(decode=True) or b""))
        # Cut out by the boundary: a parser of mail would change line ends.
        content = _last_part(bytes(body), message.get_boundary() or "")
        draft = self._objects.draft()
        await in_thread(draft.write_bytes, content)
        record = await in_thread(
            self._objects.finish,
            draft,
            bucket,
            _name(request, described),
            content_type=described.get("contentType") or parts[1].get_content_type(),
            metadata=described.get("metadata") or {},
            replaces=_replaces(request),
            stated_crc32c=_number(described.get("crc32c", "")),
        )
        return json_response(_to_wire(record))

    async def _start(self, request: Request, bucket: str) -> Response:
        described = _described(await request.body())
        session = Session(
            bucket=bucket,
            name=_name(request, described),
            content_type=described.get("contentType") or request.headers.get("x-upload-content-type", ""),
            metadata=described.get("metadata") or {},
            replaces=_replaces(request),
            path=self._objects.draft(),
        )
        upload_id = self._objects.begin(session)
        base = f"{request.url.scheme}://{request.url.netloc}{request.url.path}"
        return Response(status_code=200, headers={"location": f"{base}?uploadType=resumable&upload_id={upload_id}"})

    async def _receive(self, request: Request, session: Session, *, skip_bytes: int) -> bool:
        """Append what comes; of a connection that is cut, whole steps stay. Returns whether all came."""
        is_whole = True
        with session.path.open("ab") as file:
            try:
                async for piece in request.stream():
                    fresh = piece[skip_bytes:]
                    skip_bytes = max(skip_bytes - len(piece), 0)
                    file.write(fresh)
            except ClientDisconnect:
                is_whole = False
            file.flush()
            session.received_bytes = file.tell()
            if not is_whole:
                session.received_bytes -= session.received_bytes % STEP_BYTES
                file.truncate(session.received_bytes)
        return is_whole

    def _find(self, request: Request) -> ObjectRecord:
        record = self._objects.find(_bucket(request, self._objects), request.path_params["object"])
        if record is None:
            raise ApiError(404, "[sandbox] No such object.")
        wanted = request.query_params.get("ifGenerationMatch") or request.query_params.get("generation")
        if wanted is not None and wanted != record.generation:
            raise ApiError(412, "At least one of the pre-conditions you specified did not hold.")
        return record


def _bucket(request: Request, objects: Objects) -> str:
    bucket = str(request.path_params["bucket"])
    objects.require_bucket(bucket)
    return bucket


def _described(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError(400, "[sandbox] What the object is must be a JSON object.") from None


def _name(request: Request, described: dict[str, Any]) -> str:
    name = described.get("name") or request.query_params.get("name", "")
    if not name:
        raise ApiError(400, "[sandbox] The object needs a name.")
    return str(name)


def _replaces(request: Request) -> str | None:
    wanted = request.query_params.get("ifGenerationMatch")
    if wanted is not None and not wanted.isdecimal():
        raise ApiError(400, "[sandbox] ifGenerationMatch must be a number.")
    return wanted


def _last_part(body: bytes, boundary: str) -> bytes:
    """Return the second of two parts, byte for byte."""
    mark = f"--{boundary}".encode()
    part = body.split(mark)[2].split(b"\r\n\r\n", 1)[1]
    return part.removesuffix(b"\r\n")


def _read(path: Path, start: int, size_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size_bytes)


def _incomplete(session: Session) -> Response:
    received = {"range": f"bytes=0-{session.received_bytes - 1}"} if session.received_bytes else {}
    return Response(status_code=308, headers=received)


def _stated(header: str) -> int | None:
    found = _HASH.search(header)
    return _number(found[1]) if found else None


def _number(text: str) -> int | None:
    return int.from_bytes(base64.b64decode(text), "big") if text else None


def _base64(checksum: int) -> str:
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def _to_wire(record: ObjectRecord) -> dict[str, Any]:
    bucket, _, name = record.name.partition("/")
    created = timestamp(record.create_ns, 3)
    return {
        "kind": "storage#object",
        "id": f"{record.name}/{record.generation}",
        "name": name,
        "bucket": bucket,
        "generation": record.generation,
        "metageneration": "1",
        "contentType": record.content_type,
        "storageClass": "STANDARD",
        "size": str(record.size_bytes),
        "crc32c": _base64(record.crc32c),
        "etag": _base64(record.crc32c),
        "timeCreated": created,
        "updated": created,
        "metadata": noted(record),
    }
