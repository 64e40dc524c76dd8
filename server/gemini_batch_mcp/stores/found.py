"""What a store says of an object, and what every store can do: the one interface that `store` knows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gemini_batch_mcp.stores.addresses import Address


@dataclass(frozen=True, slots=True)
class Found:
    """An object as it is now. `version` changes with its bytes; `sha256` is what we noted on writing it, or empty."""

    address: Address
    version: str
    size_bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Copied:
    """A source that is an object: its address, the copy of it that is read, and the sheet of it that is meant."""

    address: str
    file: Path
    sheet: str = ""


class Store(Protocol):
    """One store with the credentials of this machine. Every method blocks; for worker threads, any number of them."""

    def look(self, address: Address) -> Found | None:
        """Return what is there, None for nothing.

        Raises:
            ConfigurationError: there are no credentials, or they are not taken.
            GeminiError: it may not be looked at, its bucket is not there, or the store could not be reached.
        """

    def read(self, found: Found) -> Iterator[bytes]:
        """Yield the bytes of an object as it was found. A transfer that is cut goes on where it was.

        Raises:
            StorageError: it changed, or is gone.
            GeminiError: as `look`.
        """

    def put(self, file: Path, address: Address, sha256: str, replaced: Found | None) -> Found | None:
        """Write a file in place of `replaced` as it was found, or where nothing is; None if it is not so.

        There is no object before all of it has come; what came of an upload that fails or is cancelled is dropped.

        Raises:
            GeminiError: as `look`.
        """
