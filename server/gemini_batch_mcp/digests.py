"""What a file that we fetched or wrote is recognised by later: a digest, tagged with its algorithm.

For files of our own it need not withstand anybody who makes two files alike on purpose, and a gigabyte should not take
longer to recognise than to read: XXH3 passes 20 times as many bytes a second as SHA-256 (measured, with the processor's
own instructions for SHA). What decides whether something is paid for is recognised by SHA-256, elsewhere.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import xxhash

from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.handles import open_file

_ALGORITHM: Final = "xxh3_128"
#: With those in which ledgers of older versions hold digests.
_ALGORITHMS: Final[Mapping[str, Callable[[], Any]]] = {_ALGORITHM: xxhash.xxh3_128, "sha256": hashlib.sha256}


class Digest:
    """The digest of bytes that come in pieces."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(piece)

    def __str__(self) -> str:
        """Return the digest of all that came."""
        return f"{_ALGORITHM}:{self._hash.hexdigest()}"


@dataclass(frozen=True, slots=True)
class RequestDigest:
    """How the identity of a request to a model is made: XXH3-128 of its canonical bytes, from a seed.

    The seed stands for model and task: the same request to another model, or for another task, has another identity.
    """

    seed: int
    of_bytes: Callable[[bytes, int], bytes] = xxhash.xxh3_128_digest

    @classmethod
    def of(cls, model: str, task: str) -> Self:
        """Return that of requests to a model."""
        return cls(xxhash.xxh3_64_intdigest(f"{model}\n{task}".encode()))


def text_digest(text: str) -> str:
    """Return the digest of a text."""
    digest = Digest()
    digest.update(text.encode())
    return str(digest)


def file_digest(path: Path, algorithm: str = _ALGORITHM) -> str:
    """Return the digest of a file at a resolved path. Other threads run on while it is computed.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return descriptor_digest(open_file(path), algorithm)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror}).", "Check that the file exists and its permissions."
        ) from None


def descriptor_digest(descriptor: int, algorithm: str = _ALGORITHM) -> str:
    """Return the digest of a file that is open at its beginning, and close it."""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return f"{algorithm}:{hashlib.file_digest(file, _ALGORITHMS[algorithm]).hexdigest()}"


def has_digest(path: Path, digest: str) -> bool:
    """Return whether a file has a digest that was taken earlier.

    Raises:
        StorageError: it cannot be read.
    """
    return file_digest(path, digest.partition(":")[0]) == digest
