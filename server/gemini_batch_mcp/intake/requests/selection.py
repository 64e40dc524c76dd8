"""Lines of a request file chosen by key, for rows that are sent again: byte for byte as they were sent."""

import hashlib
from collections.abc import Collection, Iterator
from itertools import compress, islice
from pathlib import Path
from typing import BinaryIO, Final

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
    requests: Path,
    keys: Path,
    are_wanted: bytes,
    destination: Path,
    keys_destination: Path,
    *,
    task: Task = "generate",
    onlooker: Onlooker,
    terms: Terms | None = None,
) -> RequestFile:
    """Copy the lines that are wanted, and their keys; none at all is right, too.

    `are_wanted` holds a byte for each line: 1 for one that is wanted, and 0. `requests` are lines that were checked
    just now, `keys` theirs. `terms` says what each of them asks for; without it that is read from the lines again.

    Raises:
        StorageError: the files cannot be read or written.
    """
    digest, size_bytes, count, before = hashlib.sha256(), 0, 0, 0
    checker = LineChecker(task, onlooker, OPEN)
    with (
        storage_errors(_FAILED),
        SourceFile(requests) as source,
        buffered(keys) as names,
        destination.open("wb") as lines_file,
        keys_destination.open("wb") as keys_file,
    ):
        for piece in pieces(source):
            if isinstance(piece, LongLine):
                raise _changed(requests)
            lines = split_lines(piece)
            end = before + len(lines)
            chosen, before = are_wanted[before:end], end
            own_keys = list(islice(names, len(lines)))
            if not any(chosen):
                continue
            picked, their_keys = list(compress(lines, chosen)), b"".join(compress(own_keys, chosen))
            block = b"\n".join(picked) + b"\n"
            if terms is not None:
                onlooker.see(block, picked, their_keys, count, terms)
            else:
                for number, line in enumerate(picked, count + 1):
                    checker.examine(line, number)
            digest.update(block)
            count, size_bytes = count + len(picked), size_bytes + len(block)
            lines_file.write(block)
            keys_file.write(their_keys)
    return RequestFile(destination, count, size_bytes, digest.hexdigest(), keys_destination, mended=True)


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
