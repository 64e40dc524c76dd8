"""Packed text files, read as what is in them: .gz, .bz2, .zst, and .zip archives of one file.

Nothing is unpacked further than the limits in `settings.py` allow, whatever an archive says of itself.
"""

import bz2
import gzip
import io
import lzma
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from gemini_batch_mcp.errors import StorageError, UsageError, storage_errors
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.settings import (
    LEAST_FREE_BYTES,
    MAX_UNPACKED_BYTES,
    MAX_UNPACKED_RATIO,
    MAX_UNSEEN_UNPACKED_BYTES,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: What the endings of packed files stand for.
PACKED: Final = {
    ".gz": "gzip file",
    ".bz2": "bzip2 file",
    ".zst": "Zstandard file",
    ".zip": "ZIP archive",
}
_BLOCK_BYTES: Final = 1 << 20
#: Between two looks at the room on the disk.
_LOOK_AT_DISK_BYTES: Final = 1 << 26
_SHOWN_MEMBERS: Final = 10
#: What systems put into archives beside what people put there.
_JUNK_DIRECTORY: Final = "__MACOSX"
_JUNK: Final = frozenset({"thumbs.db", "desktop.ini", ".ds_store"})
#: Where Windows notes that a file was downloaded: beside the file, on a disk that is not its own.
_DOWNLOADED: Final = ":zone.identifier"
_IS_ENCRYPTED: Final = 0x1
_IS_UTF8: Final = 0x800
_TAR_MARK: Final = slice(257, 262)
_DAMAGED: Final = (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, zipfile.BadZipFile, gzip.BadGzipFile)

#: How much of a packed file has been read, and of how many bytes.
OnRead = Callable[[int, int], None]


def is_packed(path: Path) -> bool:
    """True when a file is packed by its name."""
    return path.suffix.lower() in PACKED


def inner_name(path: Path) -> str:
    """Return the name of what a file is or holds: without the ending of its packing, or as its archive names it.

    Raises:
        UsageError: it is an archive of no file, or of several.
        PathError: it cannot be read.
    """
    if not is_packed(path):
        return path.name
    if path.suffix.lower() != ".zip":
        return path.stem
    with ExitStack() as stack:
        _, member = _archive(path, stack)
        name = PurePosixPath(_name_of(member).replace("\\", "/")).name
    # `reviews.csv.zip` says what is in it, whatever that is called inside.
    return name if PurePosixPath(name).suffix else path.stem


@contextmanager
def unpacking(path: Path, on_read: OnRead | None = None) -> Iterator[io.BufferedReader]:
    """Yield what a packed file holds, as a stream.

    Raises:
        UsageError: it is damaged, protected by a password, an archive of several files, or unpacks to more than is
            allowed; when it is opened, and from every read.
        PathError: it cannot be read.
    """
    with ExitStack() as stack:
        yield io.BufferedReader(stack.enter_context(_Unpacked(path, stack, on_read)), _BLOCK_BYTES)


def unpack(path: Path, destination: Path, on_read: OnRead | None = None) -> None:
    """Write what a packed file holds to `destination`. Raises as `unpacking`, or StorageError: it cannot be written."""
    written = looked_at = 0
    with unpacking(path, on_read) as file, storage_errors(_COPY_FAILED), destination.open("wb") as output:
        while block := file.read(_BLOCK_BYTES):
            if written >= looked_at:
                _refuse_full_disk(path, destination)
                looked_at = written + _LOOK_AT_DISK_BYTES
            output.write(block)
            written += len(block)


_COPY_FAILED: Final = "What is in the packed source could not be written"


def _refuse_full_disk(path: Path, destination: Path) -> None:
    if shutil.disk_usage(destination.parent).free < LEAST_FREE_BYTES:
        raise StorageError(
            f"{path.name} cannot be unpacked: less than {LEAST_FREE_BYTES:,} bytes are free in the state directory.",
            "Free some space there, or give the file in parts.",
        )


class _Stream(Protocol):
    """What every packing has of a file."""

    def read(self, size: int = ..., /) -> bytes:
        """Return the next bytes, up to `size`."""


class _Unpacked(io.RawIOBase):
    """What is in a packed file; its own failures are told as ours."""

    def __init__(self, path: Path, stack: ExitStack, on_read: OnRead | None) -> None:
        self._path = path
        self._on_read = on_read
        self._unpacked_bytes = 0
        self._file, self._packed_file = _opened(path, stack)
        self._packed_bytes = self._packed_file.seek(0, io.SEEK_END)
        self._packed_file.seek(0)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # as in `opened.SourceFile`
        """Fill `buffer` as far as there are bytes; return how many."""
        try:
            block = self._file.read(len(buffer))
        except _DAMAGED:
            raise _damaged(self._path) from None
        except OSError as error:
            # What bz2 and gzip say of bytes that are not theirs has no number; the disk's failures are ours by now.
            if error.errno is None:
                raise _damaged(self._path) from None
            raise
        if not self._unpacked_bytes and block[_TAR_MARK] == b"ustar":
            raise UsageError(f"{self._path.name} holds a tar archive.", "Give the one file in it that holds the rows.")
        buffer[: len(block)] = block
        self._unpacked_bytes += len(block)
        self._refuse_bomb()
        if self._on_read is not None:
            self._on_read(min(self._packed_file.tell(), self._packed_bytes), self._packed_bytes)
        return len(block)

    def _refuse_bomb(self) -> None:
        is_thick = (
            self._unpacked_bytes > MAX_UNSEEN_UNPACKED_BYTES
            and self._unpacked_bytes > MAX_UNPACKED_RATIO * self._packed_bytes
        )
        if is_thick or self._unpacked_bytes > MAX_UNPACKED_BYTES:
            limit = (
                f"{MAX_UNPACKED_RATIO:,} times its {self._packed_bytes:,}" if is_thick else f"{MAX_UNPACKED_BYTES:,}"
            )
            raise UsageError(
                f"{self._path.name} unpacks to more than {limit} bytes, and was not unpacked any further.",
                "Unpack it yourself if it is what you expect, and give the file, or parts of it.",
            )


def _opened(path: Path, stack: ExitStack) -> tuple[_Stream, SourceFile]:
    """Return the stream of what is in a packed file, and the file itself."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        archive, member = _archive(path, stack)
        packed = archive.fp
        assert isinstance(packed, SourceFile)
        try:
            return stack.enter_context(archive.open(member)), packed
        except (NotImplementedError, RuntimeError):
            raise UsageError(
                f"{path.name} is packed in a way that is not read here.", "Pack it again, or give what is in it."
            ) from None
        except _DAMAGED:
            raise _damaged(path) from None
    packed = stack.enter_context(SourceFile(path))
    if suffix == ".gz":
        return stack.enter_context(gzip.GzipFile(fileobj=packed, mode="rb")), packed
    if suffix == ".bz2":
        return stack.enter_context(bz2.BZ2File(packed)), packed
    return stack.enter_context(zstd.ZstdFile(packed)), packed


def _archive(path: Path, stack: ExitStack) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """Return a ZIP archive with the one file in it."""
    packed = stack.enter_context(SourceFile(path))
    try:
        archive = stack.enter_context(zipfile.ZipFile(packed))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError):
        raise _damaged(path) from None
    # Windows writes directories with a slash of its own, which makes files of them here.
    files = (member for member in archive.infolist() if not member.filename.endswith(("/", "\\")))
    members = [member for member in files if not _is_junk(member.filename)]
    if not members:
        raise UsageError(f"{path.name} holds no file.", "Give the file that holds the rows.")
    if len(members) > 1:
        shown = ", ".join(f"{_name_of(member)} ({member.file_size:,} bytes)" for member in members[:_SHOWN_MEMBERS])
        more = f" and {len(members) - _SHOWN_MEMBERS:,} more" if len(members) > _SHOWN_MEMBERS else ""
        raise UsageError(
            f"{path.name} holds {len(members):,} files: {_printable(shown)}{more}.",
            "Unpack it and give one of them, or the folder that holds them.",
        )
    (member,) = members
    if member.flag_bits & _IS_ENCRYPTED:
        raise UsageError(f"{path.name} is protected by a password.", "Unpack it, and give what is in it.")
    return archive, member


def _name_of(member: zipfile.ZipInfo) -> str:
    """Return the name of a file in an archive: a Mac writes UTF-8 and does not say so."""
    if member.flag_bits & _IS_UTF8 or member.filename.isascii():
        return member.filename
    with suppress(UnicodeError):
        return member.filename.encode("cp437").decode("utf-8")
    return member.filename


def _is_junk(name: str) -> bool:
    *directories, last = name.replace("\\", "/").split("/")
    is_noted = last.lower() in _JUNK or last.lower().endswith(_DOWNLOADED)
    return is_noted or _JUNK_DIRECTORY in directories or last.startswith(("._", "~$"))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)


def _damaged(path: Path) -> UsageError:
    what = PACKED[path.suffix.lower()]
    return UsageError(f"{path.name} is damaged, or no {what}.", "Pack it again, or give what is in it.")
