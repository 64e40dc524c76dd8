"""Cloud Storage as a store, through the client that batches on Google Cloud use: one way to it, and one library."""

from collections.abc import Iterator
from pathlib import Path

from gemini_batch_mcp.errors import NotFound, Rejected, StorageError
from gemini_batch_mcp.gemini.vertex.buckets import PIECE_BYTES, extended, open_storage
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.stores.addresses import Address
from gemini_batch_mcp.stores.found import Found
from gemini_batch_mcp.text import plain_text


class CloudStorage:
    """The store. Raises `ConfigurationError` when its client or the credentials are not there."""

    def __init__(self, settings: Settings) -> None:
        self._storage = open_storage(settings.cloud or settings.google)

    def look(self, address: Address) -> Found | None:
        """Return what is there; see `found.Store`."""
        found = self._storage.find(str(address))
        if found is None:
            return None
        return Found(address, str(found.generation), found.size_bytes, found.sha256)

    def read(self, found: Found) -> Iterator[bytes]:
        """Yield its bytes; see `found.Store`. They are compared with the checksum that the object has."""
        uri = str(found.address)
        stored = self._storage.find(uri)
        if stored is None or str(stored.generation) != found.version:
            raise _changed(uri)
        position, checksum = 0, 0
        while position < found.size_bytes:
            try:
                piece = self._storage.read(stored, position, min(PIECE_BYTES, found.size_bytes - position))
            except (NotFound, Rejected):
                now = self._storage.find(uri)
                if now is None or now.generation != stored.generation:
                    raise _changed(uri) from None
                raise
            position, checksum = position + len(piece), extended(checksum, piece)
            yield piece
        if checksum != stored.crc32c:
            raise StorageError(f"{plain_text(uri, 200)} arrived damaged.", "Make the same call again.")

    def put(self, file: Path, address: Address, sha256: str, replaced: Found | None) -> Found | None:
        """Write a file as one object; see `found.Store`."""
        uri, expected = str(address), int(replaced.version) if replaced is not None else 0
        try:
            with file.open("rb") as source:
                stored = self._storage.put(
                    source,
                    uri,
                    size_bytes=file.stat().st_size,
                    mime_type="application/octet-stream",
                    sha256=sha256,
                    report=lambda _done, _total: None,
                    replaced_generation=expected,
                )
        except Rejected:
            now = self._storage.find(uri)
            if (now.generation if now is not None else 0) != expected:
                return None
            raise
        return Found(address, str(stored.generation), stored.size_bytes, stored.sha256)


def _changed(uri: str) -> StorageError:
    return StorageError(
        f"{plain_text(uri, 200)} changed while it was read; nothing was submitted.",
        "Submit the order again once nothing writes to the object any more.",
    )
