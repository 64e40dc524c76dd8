"""Opening what was checked: a resolved path is opened without following links, so that it leads where it was seen to.

`paths.py` resolves a path and looks where it leads. Between that look and an open anybody who may write there can put a
link in the place of the file, or of a directory above it. So nothing of the user's is ever opened by following links:
what opens is the place that was checked, or nothing. Pipes, devices and sockets are not waited for and not read.

Linux does it in one call (`openat2`, since 5.6; for an absolute path without `..`, RESOLVE_NO_SYMLINKS is stricter than
RESOLVE_BENEATH), macOS too (O_NOFOLLOW_ANY); elsewhere every directory is opened by the handle of the one above it.
Windows has no such handles: a path is resolved once more after it was opened, and files are written by their paths, so
that whoever may make links there and meets the moment is not kept out.

A hard link is the file itself under another name, and a directory may be moved while it is open: neither can be told.
"""

import ctypes
import errno
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from gemini_batch_mcp.paths import DRAFT_PREFIX

#: Whether directories can be held by handles here.
_HAS_HANDLES: Final = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
#: Read, and wait for nobody: a pipe without a writer would otherwise hold us for ever.
_READING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_WRITING: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
#: A directory that is only passed through need not be readable.
_ON_THE_WAY: Final = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_IN_ONE_GO: Final[int] = getattr(os, "O_NOFOLLOW_ANY", 0)
#: `openat2` has one number on all of Linux but Alpha; <linux/openat2.h> has the rest.
_OPENAT2: Final = 437
_AT_FDCWD: Final = -100
_RESOLVE_NO_SYMLINKS: Final = 0x04
#: The kernel is older, or a sandbox around us forbids calls that it does not know.
_NO_SUCH_CALL: Final = (errno.ENOSYS, errno.EPERM)
_LINK_IN_THE_WAY: Final = "it, or a directory above it, was replaced by a link after it was checked"
_ANOTHER_DISK: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)
_COPIED_BYTES: Final = 1 << 20


def open_file(path: Path) -> int:
    """Return a descriptor for reading the regular file at a resolved path.

    Raises:
        OSError: the system refuses, a link stands somewhere in the path, or it is no regular file.
    """
    return _regular(_opened(path, _READING))


def listed(path: Path) -> "Iterator[os.DirEntry[str]]":
    """Yield the entries of the directory at a resolved path.

    Raises:
        OSError: as `open_file`.
    """
    if not _HAS_HANDLES or os.scandir not in os.supports_fd:
        with os.scandir(path) as entries:
            _refuse_moved(path)
            yield from entries
        return
    descriptor = _opened(path, _DIRECTORY)
    try:
        with os.scandir(descriptor) as entries:
            yield from entries
    finally:
        os.close(descriptor)


def engine_path(descriptor: int) -> Path | None:
    """Return a path by which others in this process open the very file of a descriptor; None where there is none.

    `/dev/fd` of other systems stands for the descriptor with its position, which two readers would move.
    """
    path = Path(f"/proc/self/fd/{descriptor}")
    return path if sys.platform == "linux" and path.exists() else None


class Directory:
    """An open directory: what is done here is done in it, wherever its path leads by now. For `with`.

    Raises:
        OSError: when it is opened, a link stands in its path; in all methods, the system refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _opened(path, _DIRECTORY) if _HAS_HANDLES else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def status(self, name: str) -> os.stat_result | None:
        """Return what is known of an entry itself, be it a link; None when there is none of that name."""
        try:
            return os.stat(self._place(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_file(self, name: str) -> int:
        """Return a descriptor for reading the regular file of that name; it is no link."""
        flags = _READING | getattr(os, "O_NOFOLLOW", 0)
        try:
            return _regular(os.open(self._place(name), flags, dir_fd=self._descriptor))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, _LINK_IN_THE_WAY, name) from None
            raise

    def publish(self, draft: Path, name: str) -> None:
        """Give a finished file, which may lie on another disk, a name here that nobody has; it leaves its place.

        Raises:
            FileExistsError: somebody has the name.
        """
        self._brought(draft, name, self._link)

    def replace(self, draft: Path, name: str) -> None:
        """Put a finished file, which may lie on another disk, in the place of what has the name, be it a link."""
        self._brought(draft, name, self._rename)

    def sweep(self, older_than_seconds: float) -> None:
        """Remove what processes that were killed have left of their drafts here."""
        oldest = time.time() - older_than_seconds
        for name in os.listdir(self.path if self._descriptor is None else self._descriptor):  # noqa: PTH208 - by its handle
            if not name.startswith(DRAFT_PREFIX):
                continue
            with suppress(OSError):
                status = self.status(name)
                if status is None or status.st_mtime > oldest:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(self._place(name), ignore_errors=True, dir_fd=self._descriptor)
                else:
                    os.unlink(self._place(name), dir_fd=self._descriptor)

    def _brought(self, draft: Path, name: str, move: Any) -> None:
        try:
            move(os.fspath(draft), name, None)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _ANOTHER_DISK:
                raise
            self._copied(draft, name, move)
        with suppress(FileNotFoundError):
            draft.unlink()

    def _copied(self, draft: Path, name: str, move: Any) -> None:
        """Copy a file here, and move the copy."""
        own = f"{DRAFT_PREFIX}{secrets.token_hex(6)}{draft.suffix}"
        try:
            descriptor = os.open(self._place(own), _WRITING, 0o666, dir_fd=self._descriptor)
            with draft.open("rb") as source, os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(source, file, _COPIED_BYTES)
                file.flush()
                written = os.fstat(descriptor)
                move(own, name, self._descriptor)
            if (seen := self.status(name)) is None or not os.path.samestat(seen, written):
                raise OSError(errno.ESTALE, "it was moved while it was being written", name)
        finally:
            with suppress(OSError):
                os.unlink(self._place(own), dir_fd=self._descriptor)

    def _link(self, source: str, name: str, source_fd: int | None) -> None:
        """Give a file a second name. Unlike a rename, that fails when somebody has taken the name meanwhile."""
        place = self._place(source) if source_fd is not None else source
        try:
            os.link(place, self._place(name), src_dir_fd=source_fd, dst_dir_fd=self._descriptor)
        except OSError as error:
            if isinstance(error, FileExistsError) or error.errno not in _ANOTHER_DISK or source_fd is None:
                raise
            # The disk knows no second names: the name is taken first, and then filled.
            os.close(os.open(self._place(name), _WRITING, 0o666, dir_fd=self._descriptor))
            self._rename(source, name, source_fd)

    def _rename(self, source: str, name: str, source_fd: int | None) -> None:
        os.replace(source, self._place(name), src_dir_fd=source_fd, dst_dir_fd=self._descriptor)

    def _place(self, name: str) -> str:
        return name if self._descriptor is not None else os.fspath(self.path / name)


class Neighbours:
    """Opens files one after the other; most lie beside the one before, so its directory is held open. For `with`."""

    def __init__(self) -> None:
        self._held: Directory | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.close()

    def open_file(self, directory: Path, name: str) -> int:
        """Return a descriptor for reading the regular file of that name in the directory at a resolved path.

        Raises:
            OSError: as the function `open_file`.
        """
        held = self._held
        if _HAS_HANDLES and (held is None or (held.path is not directory and held.path != directory)):
            self.__exit__()
            self._held = held = None
            # Who may not list a directory may still open what is in it.
            with suppress(PermissionError):
                self._held = held = Directory(directory)
        return held.open_file(name) if held is not None else open_file(directory / name)


def _regular(descriptor: int) -> int:
    """Return the descriptor of a regular file; close any other.

    Raises:
        OSError: it is none.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is a device, pipe or socket")


def _opened(path: Path, flags: int) -> int:
    """Open what stands at a resolved path, following no link in it."""
    text = os.fspath(path)
    try:
        if sys.platform == "linux" and (descriptor := _openat2(text, flags)) is not None:
            return descriptor
        if _IN_ONE_GO:
            return os.open(text, flags | _IN_ONE_GO)
        if _HAS_HANDLES:
            return _walked(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, _LINK_IN_THE_WAY, text) from None
        raise
    descriptor = os.open(text, flags)
    try:
        _refuse_moved(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _walked(path: Path, flags: int) -> int:
    """Open directory by directory, each by the handle of the one above it."""
    directory = os.open(path.anchor or ".", _ON_THE_WAY & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        *above, last = path.parts[bool(path.anchor) :] or (".",)
        for name in above:
            below = os.open(name, _ON_THE_WAY, dir_fd=directory)
            os.close(directory)
            directory = below
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=directory)
    finally:
        os.close(directory)


def _refuse_moved(path: Path) -> None:
    if path.resolve() != path:
        raise OSError(errno.ELOOP, _LINK_IN_THE_WAY, os.fspath(path))


class _How(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _syscall() -> Any:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t)
    return call


@cache
def _how(flags: int) -> _How:
    return _How(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)


def _openat2(text: str, flags: int) -> int | None:
    """Open a path in which no link stands; None where there is no such call."""
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    sys.audit("open", text, None, flags)
    how = _how(flags)
    while True:
        descriptor = _syscall()(_OPENAT2, _AT_FDCWD, encoded, how, ctypes.sizeof(_How))
        if descriptor >= 0:
            return int(descriptor)
        code = ctypes.get_errno()
        if code in _NO_SUCH_CALL:
            return None
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code), text)
