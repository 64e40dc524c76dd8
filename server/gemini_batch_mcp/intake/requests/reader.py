"""Request lines in one pass over what they come from: the user's own file checked as it is, a copy, or a given list."""

from pathlib import Path

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.opened import SourceFile, unreadable
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests._inline import write_requests
from gemini_batch_mcp.intake.requests.copies import write_request_copy
from gemini_batch_mcp.intake.requests.keys import KeyLog
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.requests.passes import NO_LIMIT_BYTES, Report, check_size, file_sha256, no_requests, run
from gemini_batch_mcp.intake.validator.world import CLOSED, World

__all__ = ["CopyNeeded", "check_file", "file_sha256", "write_request_copy", "write_requests"]


class CopyNeeded(Exception):
    """The file can be used, but not as its bytes are: send what `write_request_copy` writes."""


def check_file(
    path: Path,
    *,
    task: Task,
    keys_path: Path,
    sha256: str,
    onlooker: Onlooker | None = None,
    world: World = CLOSED,
) -> RequestFile:
    """Check every line of a file that is to be sent as it is, and write its keys down. The file is read once.

    `sha256` is that of the file, which finding the order's identity has told.

    Raises:
        CopyNeeded: its bytes cannot be sent as they are; nothing is left behind.
        RequestProblems: lines are wrong; carries the whole report.
        UsageError: the file is empty, or changed while it was read.
        PathError: the file cannot be read.
        StorageError: the keys cannot be written.
    """
    size_bytes, stamp, report = check_size(path, NO_LIMIT_BYTES), _stamp(path), Report()
    with KeyLog(keys_path) as keys, SourceFile(path) as file:
        for _ in run(file, task, keys, report, onlooker=onlooker, world=world):
            # A file with problems is read to its end, for the whole report.
            if report.differs and not report.problem_count:
                raise CopyNeeded
        if report.problem_count:
            raise report.as_error(path.name)
        if _stamp(path) != stamp:
            raise UsageError(f"{path.name} changed while it was read.", "Submit the order again.")
        if not keys.count:
            raise no_requests(path.name)
        keys.keep()
        return RequestFile(
            path=path,
            count=keys.count,
            size_bytes=size_bytes,
            sha256=sha256,
            keys_path=keys_path,
            warnings=report.warnings(),
        )


def _stamp(path: Path) -> tuple[int, int, int, int]:
    try:
        seen = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino
