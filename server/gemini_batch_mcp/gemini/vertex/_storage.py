"""Objects in Cloud Storage through google-cloud-storage: put there once by content, found, read in pieces, deleted.

The client blocks: every function here is for a thread. What it raises becomes one of our errors in `_failures`.
"""

import base64
import importlib.util
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio.from_thread

from gemini_batch_mcp.errors import AccessDenied, NotFound, Rejected, Unavailable
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts
from gemini_batch_mcp.gemini.transfers import Progress, Readable
from gemini_batch_mcp.gemini.vertex._failures import STORAGE, Service
from gemini_batch_mcp.gemini.vertex._wire import split_uri
from gemini_batch_mcp.json_members import as_object, as_text
from gemini_batch_mcp.text import plain_text

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

#: What is sent, or read, at once. A multiple of 256 KiB, as resumable uploads want it.
PIECE_BYTES: Final = 8 * 1024**2
#: Answers as Vertex AI writes them: in one object or in several, whose names say how many there are (observed).
_ANSWERS: Final = re.compile(r"predictions[^/]*\.jsonl(?:-\d{1,9}-of-(?P<of>\d{1,9}))?")
#: What it writes while a job still runs. It counts only where there is nothing else: its rows come again (observed).
_SO_FAR: Final = re.compile(r"incremental_predictions[^/]*\.jsonl(?:-\d{1,9}-of-(?P<of>\d{1,9}))?")
#: Objects of one directory that are looked at; a job's answers are a few hundred at most.
_MOST_OBJECTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as Cloud Storage describes it. `crc32c` is what it states, as a number; `sha256` what we noted."""

    bucket: str
    name: str
    generation: int
    size_bytes: int
    crc32c: int
    sha256: str = ""
    mime_type: str = ""

    @property
    def uri(self) -> str:
        """Its `gs://…` name."""
        return f"gs://{self.bucket}/{self.name}"


def is_installed() -> bool:
    """True when the client is installed; it is not loaded."""
    try:
        return importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        return False


class Storage:
    """Objects of one account. Every method blocks, and may be called from any thread.

    `service` says what to do where it refuses.
    """

    def __init__(self, client: "Client", policy: RetryPolicy, timeouts: Timeouts, service: Service = STORAGE) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._client = client
        self._service = service
        self._options: Any = {
            "timeout": (timeouts.connect_seconds, timeouts.transfer_seconds),
            "retry": DEFAULT_RETRY.with_delay(
                initial=policy.initial_delay_seconds, maximum=policy.max_delay_seconds
            ).with_timeout(policy.total_seconds),
        }

    def put(
        self,
        source: Readable,
        uri: str,
        *,
        size_bytes: int,
        mime_type: str,
        sha256: str,
        report: Progress,
        replaced_generation: int = 0,
    ) -> StoredObject:
        """Put an object where there is none, or in place of that generation; one that has the very content is taken.

        `source` is read to its end in any case, so that it can refuse what it reads. Cancelled, it ends with the piece
        that is being sent; what has been sent is never finalized then.

        Raises:
            Rejected: something else is there.
            Unavailable: it arrived damaged, or not at all.
            Exception: whatever the source raises, unchanged.
        """
        from google.api_core.exceptions import PreconditionFailed

        outgoing = _Outgoing(source, size_bytes, report)
        blob = self._blob(uri)
        blob.chunk_size = PIECE_BYTES
        blob.metadata = {"sha256": sha256} if sha256 else None
        with self._service.errors("accept an upload", is_ours=lambda error: error is outgoing.refusal):
            try:
                blob.upload_from_file(
                    outgoing,
                    size=size_bytes,
                    content_type=mime_type,
                    if_generation_match=replaced_generation,
                    checksum="crc32c",
                    **self._options,
                )
            except PreconditionFailed:
                # An earlier try of the same upload, whose reply was lost, or which nobody got to write down.
                outgoing.finish()
        # What was stored, as it is described now: the reply to an upload may be that of another one.
        found = self.find(uri)
        if found is None:
            raise Unavailable(f"{uri} is gone right after its upload.", "Try again.")
        if (found.size_bytes, found.crc32c) != (size_bytes, outgoing.crc32c):
            raise Rejected(
                f"{uri} holds something other than was sent ({found.size_bytes:,} bytes, {size_bytes:,} were sent, "
                "or their checksums differ). It was left as it is.",
                "Delete that object, then submit the order again.",
            )
        return found

    def find(self, uri: str) -> StoredObject | None:
        """Return what is stored under a name, None for nothing.

        Raises:
            NotFound: there is no such bucket.
        """
        from google.api_core.exceptions import NotFound as Missing

        blob = self._blob(uri)
        with self._service.errors(f"describe {uri}"):
            try:
                blob.reload(**self._options)
            except Missing as error:
                if "bucket does not exist" in str(error):
                    raise
                return None
        return _described(blob)

    def delete(self, uri: str) -> None:
        """Delete an object.

        Raises:
            NotFound: there was none.
        """
        with self._service.errors(f"delete {uri}"):
            self._blob(uri).delete(**self._options)

    def answers(self, directory: str) -> tuple[StoredObject, ...]:
        """Return the objects that hold a job's answers, by their names.

        Raises:
            NotFound: there are none yet, or fewer than their names say.
        """
        bucket, prefix = split_uri(f"{directory}/x") or ("", "")
        prefix = prefix.removesuffix("x")
        with self._service.errors(f"list {directory}"):
            found = self._client.list_blobs(bucket, prefix=prefix, max_results=_MOST_OBJECTS, **self._options)
            blobs = [_described(blob) for blob in found]
        for wanted in (_ANSWERS, _SO_FAR):
            matches = [(blob, wanted.fullmatch(blob.name.removeprefix(prefix))) for blob in blobs]
            parts = [blob for blob, match in matches if match is not None]
            counts = [int(match["of"]) for _, match in matches if match is not None and match["of"]]
            if counts and len(counts) < max(counts):
                raise NotFound(
                    f"{directory} holds {len(counts):,} of {max(counts):,} parts of the answers so far.",
                    status_code=404,
                )
            if parts:
                return tuple(sorted(parts, key=lambda part: part.name))
        raise NotFound(f"{directory} holds no answers.", status_code=404)

    def names(self, prefix: str) -> tuple[str, ...]:
        """Return the names of the objects that begin so, in order."""
        bucket, beginning = split_uri(f"{prefix}x") or ("", "")
        with self._service.errors(f"list {prefix}"):
            found = self._client.list_blobs(
                bucket, prefix=beginning.removesuffix("x"), max_results=_MOST_OBJECTS, **self._options
            )
            return tuple(f"gs://{bucket}/{blob.name}" for blob in found)

    def read(self, part: StoredObject, start: int, size_bytes: int) -> bytes:
        """Return bytes of an object from `start` on, all that were asked for; of the generation that was described.

        Raises:
            NotFound: it is gone, or was replaced.
            Unavailable: it ended early.
        """
        with self._service.errors(f"send {part.uri}"):
            piece = self._blob(part.uri).download_as_bytes(
                start=start,
                end=start + size_bytes - 1,
                raw_download=True,
                if_generation_match=part.generation or None,
                checksum=None,
                **self._options,
            )
        if len(piece) != size_bytes:
            raise Unavailable(
                f"Cloud Storage sent {len(piece):,} of {size_bytes:,} bytes of {part.uri}.", "Try again in a minute."
            )
        return bytes(piece)

    def examine(self, bucket: str) -> str:
        """Return what is to be said of a bucket: where it is, or what these credentials may not do with it.

        Raises:
            GeminiError: it is not there, or cannot be looked at.
        """
        needed = ["storage.objects.create", "storage.objects.get", "storage.objects.list", "storage.objects.delete"]
        with self._service.errors(f"describe gs://{bucket}"):
            granted = self._client.bucket(bucket).test_iam_permissions(needed, **self._options)
        missing = [permission for permission in needed if permission not in granted]
        if missing:
            raise AccessDenied(
                f"These credentials lack {', '.join(missing)} on gs://{bucket}.",
                "Grant roles/storage.objectAdmin on the bucket.",
                status_code=403,
            )
        return f"gs://{bucket} can be read and written"

    def _blob(self, uri: str) -> "Blob":
        parts = split_uri(uri)
        assert parts is not None  # names are checked by the gateway, or are ours
        return self._client.bucket(parts[0]).blob(parts[1])


class _Outgoing:
    """What the client reads an upload from, in a worker thread: counts, reports, and makes the checksum."""

    def __init__(self, source: Readable, size_bytes: int, report: Progress) -> None:
        self._source = source
        self._size_bytes = size_bytes
        self._report = report
        self._position = 0
        #: The checksum of what was read.
        self.crc32c = 0
        self._has_ended = False
        #: The exception with which the source refused to go on, None while it did not.
        self.refusal: BaseException | None = None

    def tell(self) -> int:
        """Return how much was read; the client asks, and cannot go back."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, fewer than `size` only at the end.

        Raises:
            Rejected: there are not as many as were announced.
            Exception: whatever the source raises, unchanged.
        """
        try:
            anyio.from_thread.check_cancelled()
            anyio.from_thread.run_sync(self._report, self._position, self._size_bytes)
            wanted = self._size_bytes - self._position if size < 0 else min(size, self._size_bytes - self._position)
            piece = self._whole(wanted)
            self._position += len(piece)
            if self._position == self._size_bytes and not self._has_ended:
                # Said once more at the end, before the last bytes leave: what has changed is refused here.
                self._has_ended = True
                if self._source.read(1):
                    raise _changed()
        except BaseException as error:
            self.refusal = error
            raise
        self.crc32c = extended(self.crc32c, piece)
        return piece

    def finish(self) -> None:
        """Read what was not read."""
        while self._position < self._size_bytes:
            self.read(PIECE_BYTES)

    def _whole(self, wanted: int) -> bytes:
        parts: list[bytes] = []
        missing = wanted
        while missing:
            part = self._source.read(missing)
            if not part:
                raise _changed()
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _changed() -> Rejected:
    return Rejected(
        "What is uploaded changed while it was being sent.", "Try again, without changing the file meanwhile."
    )


def extended(checksum: int, piece: bytes) -> int:
    """Return the CRC32C of what had `checksum` with a piece behind it; 0 is that of nothing."""
    import google_crc32c

    return int(google_crc32c.extend(checksum, piece))


def _described(blob: "Blob") -> StoredObject:
    noted = as_text(as_object(blob.metadata).get("sha256"))
    return StoredObject(
        bucket=blob.bucket.name,
        name=str(blob.name),
        generation=int(blob.generation or 0),
        size_bytes=int(blob.size or 0),
        crc32c=int.from_bytes(base64.b64decode(blob.crc32c or ""), "big"),
        sha256=noted if re.fullmatch(r"[0-9a-f]{64}", noted) else "",
        mime_type=plain_text(blob.content_type or "", 100),
    )
