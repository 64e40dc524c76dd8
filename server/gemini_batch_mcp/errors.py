"""The one error family, what happened and what to do next, and how a refusal of the disk becomes one of them.

    BatchError                   anything we foresaw; its text is ours and safe to show
    ├── UsageError               the caller can fix it: a bad argument, a bad combination
    │   ├── PathError            a path that is missing, outside the roots, or no regular file
    │   ├── RequestProblems      request lines with problems; carries the report
    │   └── UnknownBatch         no batch or job by that name, or more than one
    ├── ConfigurationError       a setting is missing or wrong; names the setting
    ├── GeminiError              Gemini answered with a failure, or did not answer
    │   ├── AccessDenied         401 and 403: the key
    │   ├── NotFound             404: the job or the file is gone
    │   ├── Rejected             400: Gemini refused the request as it was sent
    │   ├── QuotaExhausted       429: carries how long to wait and which quota
    │   ├── Unavailable          5xx, time-outs and broken connections
    │   └── OutcomeUnknown       a create whose reply was lost: it may or may not exist
    ├── NotReady                 not now: the batch has not come so far, or has ended already
    ├── StillCollecting          answers are being fetched in the background; ask again
    ├── StillPreparing           requests are being written in the background; order again
    └── StorageError             local state or results could not be read or written

Text in these errors never contains a key, a URL or words from outside that could be read as instructions.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final

#: What a file system without locks says, by number, and in SQLite's words, which have none.
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_LOCKS_SAID: Final = ("locking protocol", "disk I/O error", "locking not supported")
#: Longest piece of a key that is shown.
_SHOWN_KEY_CHARS = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one request line. `line` counts from 1; 0 concerns the whole source."""

    line: int
    key: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.found} {self.fix}".strip()

    @property
    def found(self) -> str:
        """Where it is and what is wrong, without what to do about it."""
        key = f"key {self.key[:_SHOWN_KEY_CHARS]!r}" if self.key else ""
        place = ", ".join(filter(None, (f"line {self.line}" if self.line else "", key))) or "The source"
        return f"{place}: {self.message}"


def told(problems: Iterable[Problem]) -> list[str]:
    """Return a sentence for each problem; what mends several that follow each other is said once, after the last."""
    lines: list[str] = []
    for fix, alike in groupby(problems, key=attrgetter("fix")):
        lines += [problem.found for problem in alike]
        lines[-1] = f"{lines[-1]} {fix}".strip()
    return lines


class BatchError(Exception):
    """A foreseen failure: `message` says what happened, `next_step` what to do about it."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message, next_step)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()


class UsageError(BatchError):
    """An argument, or a combination of arguments, that the caller can correct.

    `elsewhere` holds the paths among them that lie where a chat keeps its files, which is no place of this machine.
    """

    elsewhere: tuple[str, ...] = ()


class PathError(UsageError):
    """A path that is missing, is no regular file, or lies outside the allowed roots."""

    def __init__(self, message: str, next_step: str = "", *, elsewhere: tuple[str, ...] = ()) -> None:
        super().__init__(message, next_step)
        self.elsewhere = elsewhere


class UnknownBatch(UsageError):
    """No batch or job goes by that name, or more than one does."""


class RequestProblems(UsageError):
    """Request lines with problems. `problems` holds the first ones, `problem_count` counts all of them.

    `warnings` say what else was seen in the lines: what of them would be put right, say.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        problem_count: int,
        message: str,
        next_step: str,
        *,
        elsewhere: tuple[str, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, next_step)
        self.warnings = warnings
        self.problems = tuple(problems)
        self.problem_count = problem_count
        self.elsewhere = elsewhere

    def __str__(self) -> str:
        return "\n".join((self.message, *told(self.problems), self.next_step))


class UnreadableRows(RequestProblems):
    """Rows that cannot be read, of which it is certain where they begin and end: whoever wants can go on without them.

    `rows` has what is wrong with each, by its number among the rows, from 1.
    """

    def __init__(self, error: RequestProblems, rows: Mapping[int, Problem]) -> None:
        super().__init__(error.problems, error.problem_count, error.message, error.next_step)
        self.rows = rows


class ConfigurationError(BatchError):
    """A setting that is missing or wrong; the message names it."""


class GeminiError(BatchError):
    """Gemini answered with a failure, or did not answer. `status_code` is the HTTP status, 0 when none came."""

    def __init__(self, message: str, next_step: str = "", *, status_code: int = 0) -> None:
        super().__init__(message, next_step)
        self.status_code = status_code


class AccessDenied(GeminiError):
    """The key was refused (401) or may not do this (403)."""


class NotFound(GeminiError):
    """The job or file does not exist, or no longer does (404)."""


class Rejected(GeminiError):
    """Gemini refused the request as it was sent (400 and other client errors)."""


class QuotaExhausted(GeminiError):
    """A quota is used up (429). `retry_after_seconds` is Gemini's own advice, None when it gave none."""

    def __init__(
        self, message: str, next_step: str = "", *, retry_after_seconds: float | None = None, quota_id: str = ""
    ) -> None:
        super().__init__(message, next_step, status_code=429)
        self.retry_after_seconds = retry_after_seconds
        self.quota_id = quota_id


class Unavailable(GeminiError):
    """A server error, a time-out or a broken connection. `retry_after_seconds` as Gemini advised, if it did."""

    def __init__(
        self,
        message: str,
        next_step: str = "",
        *,
        status_code: int = 0,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, next_step, status_code=status_code)
        self.retry_after_seconds = retry_after_seconds


class OutcomeUnknown(GeminiError):
    """The reply to a create was lost: the job may or may not exist at Google."""


class NotReady(BatchError):
    """What was asked for is not possible in the batch's present state."""


class StillCollecting(BatchError):
    """Answers are being fetched in the background and will be there when asked for again."""


class StillPreparing(BatchError):
    """Requests are being written in the background; the same order, given again, finds them."""


class StorageError(BatchError):
    """The state directory or a result file could not be read or written."""


@contextmanager
def storage_errors(what: str, next_step: str = "Check the free space of the state directory.") -> Iterator[None]:
    """Turn an OSError in the block into a StorageError: `what`, such as "The copy could not be written", and why."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {system_reason(error)}.", next_step) from None


def system_reason(error: Exception) -> str:
    """Return what the system says about a failure, or at least the kind of it. No path is in it."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or type(error).__name__


def state_failure(directory: Path, what: str, error: Exception) -> StorageError:
    """Return the error for a failure to lock, read or write the state directory: `what`, such as "The ledger".

    `error` is an OSError, or SQLite's, which has a sentence only.
    """
    said = system_reason(error) if isinstance(error, OSError) else str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_LOCKS or any(words in said for words in _NO_LOCKS_SAID):
        return StorageError(
            f"{what} in {directory} (GEMINI_BATCH_HOME) cannot be locked ({said}): its file system has no working "
            "locks, as on many network drives and synchronised folders. Nothing was sent or changed.",
            "Set GEMINI_BATCH_HOME to a directory on a disk of this machine. Move the contents of the old one there "
            "while no server is running.",
        )
    if "is locked" in said:
        return StorageError(
            f"{what} in {directory} (GEMINI_BATCH_HOME) has been held by another process for 30 seconds ({said}).",
            "Try again. If no other gemini-batch-mcp is running, it may be on a network drive: set GEMINI_BATCH_HOME "
            "to a directory on a disk of this machine.",
        )
    if "malformed" in said or "not a database" in said:
        return StorageError(
            f"{what} in {directory} (GEMINI_BATCH_HOME) is damaged ({said}). Nothing was sent or changed.",
            "Move ledger.sqlite3 and the files beside it whose names begin with that elsewhere, then restart this "
            "server: it restores the batches from their directories. gemini-batch-mcp doctor reports what it finds.",
        )
    return StorageError(
        f"{what} in {directory} (GEMINI_BATCH_HOME) could not be read or written ({said}).",
        "Check that the directory exists, is writable and has free space.",
    )


def is_disk_full(error: OSError) -> bool:
    """True when there is no room left on the disk, or none for this user."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
