"""A copy of the user's file that can be sent as it is: LF, no BOM, no blank lines, slips put right."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Final

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.filling import Filling
from gemini_batch_mcp.intake.requests.keys import KeyLog
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.requests.passes import (
    NO_LIMIT_BYTES,
    Report,
    check_size,
    no_requests,
    run,
    spread_lines,
    too_large,
)
from gemini_batch_mcp.intake.requests.skipping import LeftOut
from gemini_batch_mcp.intake.rows.spreading import Spread, told
from gemini_batch_mcp.intake.validator.world import CLOSED, World

_FAILED: Final = "The request file could not be written"


def write_request_copy(
    path: Path,
    destination: Path,
    *,
    task: Task,
    keys_path: Path,
    max_file_bytes: int,
    limit_rows: int = 0,
    spread: Spread | None = None,
    onlooker: Onlooker | None = None,
    world: World = CLOSED,
    filling: Filling | None = None,
    left_out: LeftOut | None = None,
) -> RequestFile:
    """Write what of `path` can be sent to `destination`, and say in `warnings` what differs.

    With `limit_rows`, only the first so many requests are checked and written; with `spread`, those that it takes. Both
    files appear whole or not at all; `path` is only read. `filling` goes into lines that do not set the same. With
    `left_out`, wrong lines go there instead of refusing the file.

    Raises:
        RequestProblems: lines have problems; carries the whole report.
        RepeatsFound: only with `left_out`.
        UsageError: the file is empty, holds blank lines only, or is too large.
        PathError: the file cannot be read.
        StorageError: the copy cannot be written.
    """
    check_size(path, NO_LIMIT_BYTES if limit_rows or spread else max_file_bytes)
    report = Report()
    with SourceFile(path) as source, KeyLog(keys_path) as keys, Draft(destination) as draft:
        rows = spread_lines(source, spread) if spread else None
        if rows is not None:
            report.spread = told(rows, path.name, "request")
        for piece in run(source, task, keys, report, limit_rows, onlooker, world, filling, left_out, rows):
            draft.write(piece)
        if report.problem_count:
            raise report.as_error(path.name)
        if not keys.count:
            raise left_out.all_wrong(path.name) if left_out is not None and left_out.count else no_requests(path.name)
        if draft.size_bytes > max_file_bytes:
            raise too_large(path.name, draft.size_bytes, max_file_bytes)
        return draft.keep(keys, report, mended=True)


class Draft:
    """A request file being written. Use as a context: it gets its name only with `keep`."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.size_bytes = 0
        self._draft = destination.with_name(f"{destination.name}.part")
        self._sha256 = hashlib.sha256()
        with storage_errors(_FAILED):
            self._file = self._draft.open("wb")

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            # What a full disk did not take is of no use any more.
            self._file.close()
        with suppress(OSError):
            self._draft.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Append whole lines.

        Raises:
            StorageError: they cannot be written.
        """
        with storage_errors(_FAILED):
            self._file.write(piece)
        self._sha256.update(piece)
        self.size_bytes += len(piece)

    def keep(self, keys: KeyLog, report: Report, *, mended: bool) -> RequestFile:
        """Put this file and its keys in their places and describe them.

        Raises:
            StorageError: they cannot be written.
        """
        with storage_errors(_FAILED):
            self._file.close()
            keys.keep()
            self._draft.replace(self.destination)
        return RequestFile(
            path=self.destination,
            count=keys.count,
            size_bytes=self.size_bytes,
            sha256=self._sha256.hexdigest(),
            keys_path=keys.path,
            warnings=report.warnings(),
            mended=mended,
        )
