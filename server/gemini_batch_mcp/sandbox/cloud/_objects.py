"""The objects of the sandbox's buckets, on disk, each with its checksum; and uploads that are not finished."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.state import ObjectRecord, State, new_id
from gemini_batch_mcp.sandbox.wire import ApiError

#: What of an upload is kept when its connection is cut: whole steps of so many bytes.
STEP_BYTES: Final = 256 * 1024
_READ_BYTES: Final = 1 << 20


@dataclasses.dataclass(slots=True)
class Session:
    """A resumable upload. `finished` is the object that it has become.

    `replaces` is the generation that is to be there: "0" for no object, None for any.
    """

    bucket: str
    name: str
    content_type: str
    metadata: dict[str, str]
    replaces: str | None
    path: Path
    received_bytes: int = 0
    finished: ObjectRecord | None = None


class Objects:
    """The store. Blocks while it writes; safe to use from several threads."""

    def __init__(self, state: State, config: SandboxConfig) -> None:
        self._state = state
        self._buckets = config.buckets
        self._clock_ns = config.clock_ns
        self._lock = threading.Lock()
        self.sessions: dict[str, Session] = {}

    def require_bucket(self, bucket: str) -> None:
        """Refuse what is in no bucket of ours.

        Raises:
            ApiError: 404.
        """
        if bucket not in self._buckets:
            raise ApiError(404, "The specified bucket does not exist.")

    def find(self, bucket: str, name: str) -> ObjectRecord | None:
        """Return an object as it is described, None for none."""
        return self._state.object(f"{bucket}/{name}")

    def path(self, record: ObjectRecord) -> Path:
        """Return where the bytes of an object lie."""
        return self._state.directory / "objects" / record.generation

    def listed(self, bucket: str, prefix: str) -> list[ObjectRecord]:
        """Return the objects of a bucket whose names begin so, by their names."""
        return self._state.objects(f"{bucket}/{prefix}")

    def draft(self) -> Path:
        """Return where an object's bytes may be written before it is there."""
        return self._state.directory / "objects" / f"{new_id(16)}.part"

    def begin(self, session: Session) -> str:
        """Open a resumable upload; returns its id."""
        self._require(session.bucket, session.name, session.replaces)
        upload_id = new_id(32)
        session.path.touch()
        self.sessions[upload_id] = session
        return upload_id

    def finish(
        self,
        draft: Path,
        bucket: str,
        name: str,
        *,
        content_type: str,
        metadata: dict[str, str],
        replaces: str | None = None,
        stated_crc32c: int | None = None,
    ) -> ObjectRecord:
        """Make an object of what was written.

        Raises:
            ApiError: 412, there is one of that name already; 400, the bytes have another checksum than was stated.
        """
        checksum = crc32c_of(draft)
        if stated_crc32c is not None and checksum != stated_crc32c:
            draft.unlink(missing_ok=True)
            raise ApiError(400, "[sandbox] Provided CRC32C doesn't match calculated CRC32C.")
        with self._lock:
            self._require(bucket, name, replaces)
            before = self.find(bucket, name)
            now_ns = self._clock_ns()
            record = ObjectRecord(
                name=f"{bucket}/{name}",
                generation=str(max(now_ns // 1000, int(before.generation) + 1 if before else 0)),
                size_bytes=draft.stat().st_size,
                crc32c=checksum,
                content_type=content_type,
                metadata=json.dumps(metadata),
                create_ns=now_ns,
            )
            while self.path(record).exists():
                record = dataclasses.replace(record, generation=str(int(record.generation) + 1))
            draft.replace(self.path(record))
            self._state.save(record)
            if before is not None:
                self.path(before).unlink(missing_ok=True)
        return record

    def delete(self, record: ObjectRecord) -> None:
        """Forget an object and its bytes."""
        self._state.remove_object(record.name)
        self.path(record).unlink(missing_ok=True)

    def _require(self, bucket: str, name: str, replaces: str | None) -> None:
        found = self.find(bucket, name)
        if replaces is not None and replaces != (found.generation if found is not None else "0"):
            raise ApiError(412, "At least one of the pre-conditions you specified did not hold.")


def crc32c_of(path: Path) -> int:
    """Return the checksum of a file's bytes.

    Raises:
        ApiError: 501, the package that makes it is not installed.
    """
    try:
        import google_crc32c
    except ImportError:
        raise ApiError(501, "[sandbox] Its Cloud Storage needs the extra vertex.") from None
    checksum = 0
    for block in _blocks(path):
        checksum = google_crc32c.extend(checksum, block)
    return int(checksum)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            yield block


def noted(record: ObjectRecord) -> dict[str, Any]:
    """Return what an uploader has noted beside an object."""
    return dict(json.loads(record.metadata))
