"""Resumable uploads: bytes go to disk as they come, and a chunk counts only when all of it has arrived."""

import dataclasses
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from gemini_batch_mcp.sandbox.config import CHUNK_BYTES, NANOSECONDS, SandboxConfig
from gemini_batch_mcp.sandbox.state import FileRecord, State, UploadRecord, new_id
from gemini_batch_mcp.sandbox.wire import ApiError, bad_request, not_found
from gemini_batch_mcp.threads import in_thread

#: Pieces are collected up to this size before they are hashed and written in a thread.
_WRITE_BYTES: Final = 1024**2
_READ_BYTES: Final = 1024**2
STATUS_HEADER: Final = "x-goog-upload-status"
RECEIVED_HEADER: Final = "x-goog-upload-size-received"
_FILE_ID_LENGTH: Final = 12
_UPLOAD_ID_LENGTH: Final = 40


class Uploads:
    """The upload sessions of one directory. A restarted process goes on with them."""

    def __init__(self, state: State, config: SandboxConfig) -> None:
        self._state = state
        self._config = config
        self._lock = threading.Lock()
        #: SHA-256 over the received bytes, by upload id; rebuilt from the disk after a restart.
        self._hashes: dict[str, hashlib._Hash] = {}

    def start(self, file_id: str, display_name: str, mime_type: str, declared_bytes: int) -> UploadRecord:
        """Open a session. `file_id` is empty unless the caller chose one; `declared_bytes` is -1 when not given.

        Raises:
            ApiError: 400 for a file over the limit, 429 when the storage is full, 409 for a name that exists.
        """
        for expired in self._state.expired_files(self._config.clock_ns()):
            self._state.remove_file(expired.name)
        self._check_size(declared_bytes)
        name = f"files/{file_id or new_id(_FILE_ID_LENGTH)}"
        if self._state.file(name):
            raise ApiError(409, f"[sandbox] {name} already exists.")
        upload = UploadRecord(
            new_id(_UPLOAD_ID_LENGTH), name, display_name, mime_type, declared_bytes, received_bytes=0, status="active"
        )
        self._state.upload_path(upload.upload_id).touch()
        self._state.save(upload)
        return upload

    def find(self, upload_id: str) -> UploadRecord:
        """Return the session.

        Raises:
            ApiError: 404, there is none of that id.
        """
        upload = self._state.upload(upload_id)
        if upload is None:
            raise not_found()
        return upload

    async def append(
        self, upload: UploadRecord, offset: int, body: AsyncIterator[bytes], *, finalize: bool
    ) -> UploadRecord:
        """Take one chunk, whole or not at all.

        Raises:
            ApiError: 400 for a session that has ended, a wrong offset, a size that is no multiple of the chunk
                granularity (unless this is the last chunk) or more bytes than declared.
        """
        if upload.status != "active":
            raise ApiError(400, f"[sandbox] This upload is {upload.status}.", headers=_headers(upload))
        if offset != upload.received_bytes:
            message = f"[sandbox] Upload offset {offset} does not match the {upload.received_bytes} bytes received."
            raise ApiError(400, message, headers=_headers(upload))
        path = self._state.upload_path(upload.upload_id)
        digest = await in_thread(self._hash, upload, path)
        received = await self._write(upload, path, digest, body)
        chunk_bytes = received - offset
        if not finalize and chunk_bytes % CHUNK_BYTES:
            message = f"[sandbox] A chunk of {chunk_bytes} bytes is not a multiple of {CHUNK_BYTES}."
            raise ApiError(400, message, headers=_headers(upload))
        taken = dataclasses.replace(upload, received_bytes=received)
        with self._lock:
            self._hashes[upload.upload_id] = digest
        self._state.save(taken)
        return taken

    def finalize(self, upload: UploadRecord) -> FileRecord:
        """Turn a whole upload into a file.

        Raises:
            ApiError: 400 when the size is not the declared one (the session ends); 429 when the storage is full.
        """
        if upload.declared_bytes not in (-1, upload.received_bytes):
            self.end(upload, "final")
            message = f"[sandbox] {upload.received_bytes} bytes received, {upload.declared_bytes} declared."
            raise ApiError(400, message, headers={STATUS_HEADER: "final"})
        self._check_size(upload.received_bytes)
        now_ns = self._config.clock_ns()
        path = self._state.upload_path(upload.upload_id)
        digest = self._hash(upload, path)
        record = FileRecord(
            name=upload.file_name,
            display_name=upload.display_name,
            mime_type=upload.mime_type,
            size_bytes=upload.received_bytes,
            sha256=digest.hexdigest(),
            source="UPLOADED",
            create_ns=now_ns,
            update_ns=now_ns,
            expire_ns=now_ns + round(self._config.lifetime_seconds * NANOSECONDS),
        )
        with self._state.transaction():
            path.rename(self._state.file_path(record.name))
            self._state.save(record)
            self._state.save(dataclasses.replace(upload, status="final"))
        with self._lock:
            self._hashes.pop(upload.upload_id, None)
        return record

    def end(self, upload: UploadRecord, status: str) -> None:
        """End a session without a file."""
        self._state.save(dataclasses.replace(upload, status=status))
        self._state.upload_path(upload.upload_id).unlink(missing_ok=True)
        with self._lock:
            self._hashes.pop(upload.upload_id, None)

    async def _write(
        self, upload: UploadRecord, path: Path, digest: "hashlib._Hash", body: AsyncIterator[bytes]
    ) -> int:
        """Append the body behind the bytes that count, and return where it ends."""
        allowed = self._config.max_file_bytes if upload.declared_bytes < 0 else upload.declared_bytes
        position = upload.received_bytes
        pieces: list[bytes] = []
        waiting = 0
        async for piece in body:
            pieces.append(piece)
            waiting += len(piece)
            if position + waiting > allowed:
                message = f"[sandbox] More than the {allowed} bytes that this upload may have."
                raise ApiError(400, message, headers=_headers(upload))
            if waiting >= _WRITE_BYTES:
                await in_thread(_write_at, path, position, digest, b"".join(pieces))
                position += waiting
                pieces, waiting = [], 0
        await in_thread(_write_at, path, position, digest, b"".join(pieces))
        return position + waiting

    def _hash(self, upload: UploadRecord, path: Path) -> "hashlib._Hash":
        """Return a copy of the digest over the bytes that count."""
        with self._lock:
            known = self._hashes.get(upload.upload_id)
        if known is not None:
            return known.copy()
        digest = hashlib.sha256()
        left = upload.received_bytes
        with path.open("rb") as file:
            while left and (block := file.read(min(left, _READ_BYTES))):
                digest.update(block)
                left -= len(block)
        with self._lock:
            self._hashes[upload.upload_id] = digest
        return digest.copy()

    def _check_size(self, size_bytes: int) -> None:
        limit = self._config.max_file_bytes
        if size_bytes > limit:
            raise bad_request(
                "file.size_bytes", f"[sandbox] A file of {size_bytes} bytes is over the limit of {limit}."
            )
        stored = self._state.stored_bytes(self._config.clock_ns())
        if stored + max(size_bytes, 0) > self._config.max_stored_bytes:
            message = f"[sandbox] {stored} of {self._config.max_stored_bytes} bytes of file storage are in use."
            raise ApiError(429, message)


def _write_at(path: Path, position: int, digest: "hashlib._Hash", data: bytes) -> None:
    digest.update(data)
    with path.open("r+b") as file:
        file.seek(position)
        file.truncate()
        file.write(data)


def _headers(upload: UploadRecord) -> dict[str, str]:
    return {STATUS_HEADER: upload.status, RECEIVED_HEADER: str(upload.received_bytes)}
