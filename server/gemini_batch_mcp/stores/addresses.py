"""Addresses of objects, `s3://bucket/key` and `gs://bucket/key`, and which of them may be used.

What `paths.py` is for files of this machine: what does not fit is refused, never repaired.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import PurePosixPath
from typing import Final

from gemini_batch_mcp.errors import PathError
from gemini_batch_mcp.text import plain_text

SCHEMES: Final = ("s3://", "gs://")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
#: Longest key that both stores take, in bytes; and longest last piece, as it becomes the name of a file here.
_MAX_KEY_BYTES: Final = 1024
_MAX_NAME_BYTES: Final = 200
_SHOWN_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object is. As text it is what the user has written."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The last piece of its key."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of its name, with the dot."""
        return PurePosixPath(self.name).suffix

    def with_name(self, name: str) -> "Address":
        """Return the address of that name beside it."""
        folder, slash, _ = self.key.rpartition("/")
        return replace(self, key=f"{folder}{slash}{name}")


def is_address(text: str) -> bool:
    """True for what is meant as an object of a store that is known here."""
    return text.startswith(SCHEMES)


def address_of(text: str) -> Address:
    """Return the address that a text means.

    Raises:
        PathError: it has no bucket or no key, or its key has a piece that may not be there.
    """
    shown = repr(plain_text(text, _SHOWN_CHARS))
    scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), "")
    bucket, _, key = text.removeprefix(scheme).partition("/")
    if not scheme or not _BUCKET.fullmatch(bucket):
        raise PathError(f"{shown} names no bucket.", f"Write {scheme or 's3://'}bucket/path/name.")
    if not key or key.endswith("/"):
        raise PathError(
            f"{shown} names no object, but a bucket or a folder.",
            "Give the whole address of one object. A folder of files is a source when it is copied here.",
        )
    if not key.isprintable() or len(key.encode()) > _MAX_KEY_BYTES:
        raise PathError(f"{shown} holds a control character or is too long.", "Give the address of an object.")
    if any(piece.startswith(".") for piece in key.split("/")):
        raise PathError(
            f"{shown} has a piece that begins with a dot: hidden files often hold secrets, and .. leads elsewhere.",
            "Give the address of an object without such pieces.",
        )
    address = Address(scheme, bucket, key)
    if len(address.name.encode()) > _MAX_NAME_BYTES:
        raise PathError(f"The name of {shown} is too long for a file here.", "Give the object a shorter name.")
    return address


def require_inside(address: Address, roots: tuple[str, ...]) -> None:
    """Refuse what begins with none of the roots, piece by piece; each of these ends with a slash.

    Raises:
        PathError: says what may be used.
    """
    listed = [root for root in roots if is_address(root)]
    if not f"{address}/".startswith(tuple(listed)):
        may = f"lies outside of what this server may use: {', '.join(listed)}" if listed else "is in no root"
        raise PathError(
            f"{plain_text(str(address), _SHOWN_CHARS)} {may}.",
            f"Add its beginning ({address.scheme}{address.bucket}/path/) to GEMINI_BATCH_ROOTS in the server's "
            "configuration, or give a place that is listed there.",
        )


def addresses_after(address: Address) -> Iterator[Address]:
    """Yield an address, then `name-2.ext`, `name-3.ext`, … beside it, as `paths.names_after` does."""
    yield address
    stem = address.name.removesuffix(address.suffix)
    for number in count(2):
        yield address.with_name(f"{stem}-{number}{address.suffix}")
