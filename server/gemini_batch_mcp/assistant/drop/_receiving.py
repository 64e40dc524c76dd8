"""Files that arrive as a form, written to drafts while they come, and given their names once all of it is here.

Nothing has a name in the user's directory before the last byte of the form was read: whoever stops midway, on either
side, leaves drafts, which are removed.
"""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gemini_batch_mcp.assistant.drop._names import clean_name
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.handles import Directory
from gemini_batch_mcp.paths import DRAFT_PREFIX, names_after

#: Files of one form (our choice): a folder's worth, far from what file systems mind.
MAX_FILES: Final = 1_000
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(slots=True)
class _Draft:
    name: str
    path: Path
    file: BinaryIO
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """A file that was handed over: what it was called there, and where it is."""

    given: str
    path: Path
    size_bytes: int


class Receiving:
    """One form on its way into `directory`, which is resolved. For `with`: at the end no draft is left.

    `feed` and `publish` block, and raise:
        UsageError: the form is not one of files.
        OSError: the disk refuses.
    """

    def __init__(self, directory: Path, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
            raise UsageError("This is not a form with files.", "Use the form of the page.")
        self._directory = directory
        self._drafts: list[_Draft] = []
        self._received: list[Received] = []
        self._is_whole = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._current: _Draft | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_part,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for draft in self._drafts:
            with suppress(OSError):
                draft.file.close()
            with suppress(OSError):
                draft.path.unlink(missing_ok=True)

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the form."""
        try:
            self._parser.write(block)
        except MultipartParseError:
            raise UsageError(
                "The form could not be read.", "Open the page again and choose the files once more."
            ) from None

    def publish(self) -> tuple[Received, ...]:
        """Give the files names that nobody has; all of them, or none."""
        if not self._is_whole:
            raise UsageError("The files did not arrive whole.", "Choose them once more.")
        if not self._drafts:
            raise UsageError("No file was chosen.", "Choose one, then hand it over.")
        with Directory(self._directory) as directory:
            try:
                for draft in self._drafts:
                    self._give_name(directory, draft)
            except OSError:
                for received in self._received:
                    with suppress(OSError):
                        received.path.unlink()
                raise
        return tuple(self._received)

    def _give_name(self, directory: Directory, draft: _Draft) -> None:
        with draft.path.open("r+b") as file:
            # A name must not outlive its content where the power fails.
            os.fsync(file.fileno())
        for place in names_after(self._directory / clean_name(draft.name)):
            # A name that nobody has; where somebody takes it in this moment, the next.
            with suppress(FileExistsError):
                directory.publish(draft.path, place.name)
                self._received.append(Received(clean_name(draft.name), place, draft.size_bytes))
                return
        raise AssertionError("names do not end")

    def _on_header(self) -> None:
        field, value = self._header
        self._headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def _on_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if (written := options.get(b"filename")) is None:
            return
        name = written.decode("utf-8", "replace")
        if not name:
            # A field in which no file was chosen.
            return
        if len(self._drafts) >= MAX_FILES:
            raise UsageError(
                f"These are more than {MAX_FILES:,} files.", "Pack them into a .zip of one, or give a folder."
            )
        path = self._directory / f"{DRAFT_PREFIX}{secrets.token_hex(12)}"
        self._current = _Draft(name, path, os.fdopen(os.open(path, _NEW, 0o600), "wb"))
        self._drafts.append(self._current)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._current is None:
            return
        self._current.file.write(memoryview(data)[start:end])
        self._current.size_bytes += end - start

    def _on_part_end(self) -> None:
        if self._current is not None:
            self._current.file.close()
        self._current = None

    def _on_end(self) -> None:
        self._is_whole = True


def promised(directory: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Return where files of these names would be, if they were handed over now."""
    places: list[Path] = []
    for name in names:
        free = (place for place in names_after(directory / clean_name(name)) if not os.path.lexists(place))
        places.append(next(place for place in free if place not in places))
    return tuple(places)
