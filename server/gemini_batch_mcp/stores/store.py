"""Objects for whoever has an address: a private copy of what is there, and a file written in its place.

A store's client is loaded when its first object is asked for, and kept.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import PathError, StorageError, UsageError, storage_errors
from gemini_batch_mcp.paths import sweep
from gemini_batch_mcp.settings import LEAST_FREE_BYTES, Settings
from gemini_batch_mcp.stores.addresses import Address, address_of, require_inside
from gemini_batch_mcp.stores.found import Found, Store
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import end_if_cancelled

#: How long a copy is kept after it was last used: an order mostly follows its preview within the hour.
_KEPT_SECONDS: Final = 24 * 3600.0
_WILDCARDS: Final = frozenset("*?[")
_SHOWN_CHARS: Final = 200

#: Is told bytes done, and bytes in all.
Tell = Callable[[int, int], None]


class Stores:
    """The stores of one process. Nothing is loaded before the first use. Blocks; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._copies = (settings.home / "copies").resolve()
        self._sweep()
        self._opened: dict[str, Store] = {}
        self._lock = threading.Lock()

    @property
    def roots(self) -> tuple[str, ...]:
        """The beginnings of addresses that may be used."""
        cloud = self._settings.cloud
        own = (f"gs://{cloud.bucket}/",) if cloud is not None and cloud.bucket else ()
        return (*own, *self._settings.addresses)

    def allowed(self, text: str) -> Address:
        """Return the address that a text means.

        Raises:
            PathError: it is none, or lies outside of the roots.
        """
        address = address_of(text)
        require_inside(address, self.roots)
        return address

    def look(self, address: Address) -> Found | None:
        """Return what is at an allowed address, None for nothing; see `found.Store.look`."""
        return self._store(address).look(address)

    def put(self, file: Path, address: Address, replaced: Found | None) -> Found | None:
        """Write a file there; see `found.Store.put`."""
        return self._store(address).put(file, address, sha256_of(file), replaced)

    def copy(self, text: str, tell: Tell) -> Path:
        """Return a copy of an object as it is now, under its own name, in the state directory; made unless it is there.

        Raises:
            PathError: nothing is there, or it may not be read.
            UsageError: it is too large.
            StorageError: it changed while it was read, or there is no room for it.
            ConfigurationError, GeminiError: see `found.Store`.
        """
        address = self.allowed(text)
        found = self.look(address)
        shown = plain_text(text, _SHOWN_CHARS)
        if found is None:
            if not _WILDCARDS.isdisjoint(address.key):
                raise PathError(
                    f"{shown} is a pattern, and one order reads one object.",
                    "Give the address of one object, or copy the files into one directory here and give that.",
                )
            raise PathError(f"There is no object {shown}.", "Check the address; capital letters count.")
        limit = self._settings.max_file_bytes
        if found.size_bytes > limit:
            raise UsageError(
                f"{shown} has {found.size_bytes:,} bytes; objects of up to {limit:,} are copied here "
                "(GEMINI_BATCH_MAX_FILE_BYTES).",
                "Copy it into a directory of this server yourself and give its path, or split it.",
            )
        self._sweep()
        folder = self._copies / hashlib.sha256(f"{address}\0{found.version}".encode()).hexdigest()
        copy = folder / address.name
        if _is_whole(copy, found):
            with suppress(OSError):
                os.utime(folder)
            return copy
        self._bring(found, folder, copy, tell)
        return copy

    def _sweep(self) -> None:
        sweep(self._copies, "*", older_than_seconds=_KEPT_SECONDS)

    def _bring(self, found: Found, folder: Path, copy: Path, tell: Tell) -> None:
        with storage_errors("The object could not be copied"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if shutil.disk_usage(folder).free < found.size_bytes + LEAST_FREE_BYTES:
                raise StorageError(
                    f"{plain_text(str(found.address), _SHOWN_CHARS)} has {found.size_bytes:,} bytes, for which the "
                    "state directory has no room.",
                    "Free some space there.",
                )
            # One for each who reads it: two that copy the same are in nobody's way.
            draft = folder / f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}.part"
            try:
                with draft.open("xb") as file:
                    for piece in self._store(found.address).read(found):
                        end_if_cancelled()
                        file.write(piece)
                        tell(file.tell(), found.size_bytes)
                draft.chmod(0o600)
                draft.replace(copy)
            finally:
                draft.unlink(missing_ok=True)

    def _store(self, address: Address) -> Store:
        with self._lock:
            if address.scheme not in self._opened:
                self._opened[address.scheme] = self._open(address.scheme)
            return self._opened[address.scheme]

    def _open(self, scheme: str) -> Store:
        # Only what is used is imported: each needs an extra.
        if scheme == "s3://":
            from gemini_batch_mcp.stores._s3 import S3

            return S3()
        from gemini_batch_mcp.stores._gs import CloudStorage

        return CloudStorage(self._settings)


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file of ours as lowercase hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_whole(copy: Path, found: Found) -> bool:
    try:
        return copy.stat().st_size == found.size_bytes
    except OSError:
        return False
