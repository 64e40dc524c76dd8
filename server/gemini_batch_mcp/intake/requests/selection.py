"""Lines of a request file chosen by key, for rows that are sent again: byte for byte as they were sent."""

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, compress, islice
from pathlib import Path
from typing import BinaryIO, Final, Self, overload

import msgspec

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import StorageError, UsageError, storage_errors
from gemini_batch_mcp.intake.opened import SourceFile, buffered
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.copies import Draft
from gemini_batch_mcp.intake.requests.keys import KeyLog, Keys
from gemini_batch_mcp.intake.requests.lines import LineChecker, LongLine, Onlooker, pieces, split_lines
from gemini_batch_mcp.intake.requests.passes import Report
from gemini_batch_mcp.intake.validator.terms import Terms
from gemini_batch_mcp.intake.validator.world import OPEN

_KEYS_AT_ONCE: Final = 10_000
#: Lines are found by counting from every so many-th one.
_STEP_LINES: Final = 4096
_FAILED: Final = "The requests to be sent could not be written"
_KEYS: Final = msgspec.json.Decoder(list[str])


class _Keyed(msgspec.Struct):
    key: str


_LINE: Final = msgspec.json.Decoder(_Keyed)


def write_selected(
    requests: Path,
    keys: Path,
    wanted: Collection[str] | Path,
    destination: Path,
    keys_destination: Path,
    *,
    sha256: str = "",
    task: Task = "generate",
    onlooker: Onlooker | None = None,
) -> RequestFile:
    """Copy the lines of `requests` whose keys are `wanted`, in their order, and write their keys down.

    `keys` holds one JSON string a line, that of line n at place n; `wanted` is in memory, or a file of the same form.
    Both files appear whole or not at all; of the sources, no more than a piece is in memory.

    Raises:
        UsageError: nothing is wanted.
        StorageError: `requests` is not what `sha256` was computed of, `keys` are not its keys, a wanted key is not
            among them, or the files cannot be written.
        PathError: a file cannot be read.
    """
    chosen = frozenset(_all_keys(wanted) if isinstance(wanted, Path) else wanted)
    if not chosen:
        raise UsageError("No rows were selected.", "Select rows that have a request.")
    digest, checker = hashlib.sha256(), LineChecker(task, onlooker, OPEN)
    with (
        SourceFile(requests) as source,
        buffered(keys) as names,
        KeyLog(keys_destination) as log,
        Draft(destination) as draft,
    ):
        for piece in pieces(source):
            if isinstance(piece, LongLine):
                raise _changed(requests)
            digest.update(piece)
            lines = split_lines(piece)
            found = _next_keys(names, len(lines), keys)
            if len(found) < len(lines):
                raise _not_its_keys(requests, keys)
            for line, key in zip(lines, found, strict=True):
                if key in chosen:
                    if _key_of(line) != key:
                        raise _not_its_keys(requests, keys)
                    checker.examine(line, log.count + 1)
                    draft.write(line + b"\n")
                    log.extend(Keys([key]))
        if sha256 and digest.hexdigest() != sha256:
            raise _changed(requests)
        if names.read(1):
            raise _not_its_keys(requests, keys)
        if log.count != len(chosen):
            raise StorageError(
                f"{requests.name} holds {log.count:,} of the {len(chosen):,} requests to be resent.",
                "Submit these rows again from their source.",
            )
        return draft.keep(log, Report(), mended=True)


def write_numbered(
    requests: Path, keys: Path, are_wanted: bytes, destination: Path, keys_destination: Path
) -> RequestFile:
    """Copy the lines that are wanted, and their keys; none at all is right, too.

    `are_wanted` holds a byte for each line: 1 for one that is wanted, and 0. `requests` are lines that were checked
    just now, `keys` theirs.

    Raises:
        StorageError: the files cannot be read or written.
    """
    digest, size_bytes, count = hashlib.sha256(), 0, 0
    with storage_errors(_FAILED), destination.open("wb") as lines_file, keys_destination.open("wb") as keys_file:
        for lines, their_keys in _numbered(requests, keys, are_wanted):
            block = b"\n".join(lines) + b"\n"
            digest.update(block)
            count, size_bytes = count + len(lines), size_bytes + len(block)
            lines_file.write(block)
            keys_file.write(b"".join(their_keys))
    return RequestFile(destination, count, size_bytes, digest.hexdigest(), keys_destination, mended=True)


def show_numbered(
    requests: Path,
    keys: Path,
    are_wanted: bytes,
    onlooker: Onlooker,
    *,
    task: Task = "generate",
    terms: Terms | None = None,
) -> None:
    """Have an onlooker see the lines that are wanted; `are_wanted` and the files are those of `write_numbered`.

    `terms` says what each of them asks for; without it that is read from the lines again.

    Raises:
        StorageError: the files cannot be read.
    """
    checker, count = LineChecker(task, onlooker, OPEN), 0
    with storage_errors(_FAILED):
        for lines, their_keys in _numbered(requests, keys, are_wanted):
            if terms is not None:
                onlooker.see(b"\n".join(lines) + b"\n", lines, b"".join(their_keys), count, terms)
            else:
                for number, line in enumerate(lines, count + 1):
                    checker.examine(line, number)
            count += len(lines)


def _numbered(requests: Path, keys: Path, are_wanted: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield the lines that are wanted, some at a time, with their keys."""
    before = 0
    with SourceFile(requests) as source, buffered(keys) as names:
        for piece in pieces(source):
            if isinstance(piece, LongLine):
                raise _changed(requests)
            lines = split_lines(piece)
            end = before + len(lines)
            chosen, before = are_wanted[before:end], end
            own_keys = list(islice(names, len(lines)))
            if any(chosen):
                yield list(compress(lines, chosen)), list(compress(own_keys, chosen))


class WantedLines(Sequence[bytes]):
    """Some of the lines of a file, found by the sizes of all. Use as a context.

    `are_wanted` holds a byte for each line: 1 for one that is wanted, and 0.
    """

    def __init__(self, path: Path, sizes: Sequence[int], are_wanted: bytes) -> None:
        self._file = SourceFile(path)
        self._sizes = sizes
        self._are_wanted = are_wanted
        starts = range(0, len(sizes), _STEP_LINES)
        #: At the beginning of every so many lines: how many before are wanted, and the bytes before.
        self._counts = [0, *accumulate(are_wanted.count(1, start, start + _STEP_LINES) for start in starts)]
        self._places = [0, *accumulate(sum(sizes[start : start + _STEP_LINES]) for start in starts)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def size_bytes(self) -> int:
        """The bytes that all of them come to."""
        return sum(compress(self._sizes, self._are_wanted))

    def __len__(self) -> int:
        return self._counts[-1]

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        """Return a line with its end, or some of them.

        Raises:
            PathError: the file cannot be read.
        """
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        if not 0 <= place < len(self):
            raise IndexError(place)
        step = bisect_right(self._counts, place) - 1
        start = step * _STEP_LINES
        marks = self._are_wanted[start : start + _STEP_LINES]
        row = start + next(islice(compress(range(len(marks)), marks), place - self._counts[step], None))
        self._file.seek(self._places[step] + sum(self._sizes[start:row]))
        return self._file.read(self._sizes[row])


def _next_keys(names: BinaryIO, count: int, path: Path) -> list[str]:
    """Return the next `count` keys, fewer only at the end of the file."""
    try:
        return _KEYS.decode(b"[" + b",".join(islice(names, count)) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StorageError(f"{path.name}, a list of keys, is damaged.", "Submit these rows again.") from None


def _all_keys(path: Path) -> Iterator[str]:
    with buffered(path) as names:
        while keys := _next_keys(names, _KEYS_AT_ONCE, path):
            yield from keys


def _key_of(line: bytes) -> str | None:
    try:
        return _LINE.decode(line).key
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _changed(path: Path) -> StorageError:
    return StorageError(
        f"{path.name} has changed since its lines were sent.", "Submit these rows again from their source."
    )


def _not_its_keys(requests: Path, keys: Path) -> StorageError:
    return StorageError(
        f"{keys.name} no longer matches {requests.name} line by line: one of the two was changed.",
        "Submit these rows again from their source.",
    )
