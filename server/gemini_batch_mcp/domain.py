"""The values that rooms hand to each other: frozen, and named as Gemini names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, get_args

Task = Literal["generate", "embed"]
Delivery = Literal["file", "inline", "now"]
Reuse = Literal["auto", "always", "never"]
#: What of a batch may be read: counts, rows, those without a good answer, what was asked.
View = Literal["summary", "rows", "failures", "order"]
#: What results may be saved as.
FileFormat = Literal["jsonl", "csv", "xlsx", "parquet", "npy"]
#: What the ending of a file says; a name without one is JSON lines.
FORMATS_BY_ENDING: Final[Mapping[str, FileFormat]] = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
    ".npy": "npy",
    ".ndjson": "jsonl",
    "": "jsonl",
}

#: Anything `json.loads` can return as an object. Wire data stays untyped until `gemini.wire` has read it.
JsonObject = Mapping[str, Any]


class JobState(StrEnum):
    """The states of the google-genai SDK. Wire names with the prefix BATCH_STATE_ mean the same."""

    #: Not stated, or a state this version does not know; the wire name is kept beside it.
    UNSPECIFIED = "JOB_STATE_UNSPECIFIED"
    #: Known here, not yet at Gemini: reserved, uploading, or waiting for quota.
    QUEUED = "JOB_STATE_QUEUED"
    #: Accepted by Gemini, no row started.
    PENDING = "JOB_STATE_PENDING"
    #: Rows are being worked on.
    RUNNING = "JOB_STATE_RUNNING"
    #: All rows have been tried; single rows may still have failed.
    SUCCEEDED = "JOB_STATE_SUCCEEDED"
    #: The job as a whole failed.
    FAILED = "JOB_STATE_FAILED"
    #: A cancel was asked for and has not taken effect yet.
    CANCELLING = "JOB_STATE_CANCELLING"
    #: Cancelled; rows that had finished may be readable.
    CANCELLED = "JOB_STATE_CANCELLED"
    #: Held back by Gemini.
    PAUSED = "JOB_STATE_PAUSED"
    #: Not finished within 48 hours; Gemini keeps no results.
    EXPIRED = "JOB_STATE_EXPIRED"
    #: Being changed at Gemini.
    UPDATING = "JOB_STATE_UPDATING"
    #: Finished with results for some of the rows.
    PARTIALLY_SUCCEEDED = "JOB_STATE_PARTIALLY_SUCCEEDED"

    @property
    def is_terminal(self) -> bool:
        """True when Gemini will not change the job any more."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.PARTIALLY_SUCCEEDED}
)


#: How rows may have ended that can be sent again, as assistants and people name it; `ok` ones never are.
Retryable = Literal["failed", "missing", "blocked", "truncated", "empty"]


class RowStatus(StrEnum):
    """How one row ended; only OK means that there is a whole answer."""

    OK = "ok"
    #: Gemini answered the row with an error.
    FAILED = "failed"
    #: The prompt or the answer was blocked (safety, recitation, prohibited content).
    BLOCKED = "blocked"
    #: The answer stopped at the output limit.
    TRUNCATED = "truncated"
    #: An answer without text or other content.
    EMPTY = "empty"
    #: No answer came back under this key.
    MISSING = "missing"


RETRYABLE: Final = tuple(RowStatus(name) for name in get_args(Retryable))
#: google.rpc codes with which the same request fails again: invalid argument, not found, permission denied, failed
#: precondition, out of range, unimplemented, unauthenticated. All others may pass by themselves.
PERMANENT_CODES: Final = frozenset({3, 5, 7, 9, 11, 12, 16})
#: How the error of a row begins that was left out. Its code says that it is not sent again, and is no answer of
#: Gemini's, so that it is not shown.
NOT_SENT: Final = "Not sent, because "


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Gemini's own `batchStats`, in rows. `total` is 0 while Gemini has not counted yet."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class RowOutcomes:
    """How the rows of a batch ended, by its result table. Every row of the table has exactly one of six statuses.

    `pending` rows are not in the table yet. Of the failed rows, `permanent` ones have an error that the same request
    meets again. `attempt` is the newest one in the table, and `gained` counts the rows whose good answer came from it;
    None when that was not counted.
    """

    ok: int = 0
    failed: int = 0
    blocked: int = 0
    truncated: int = 0
    empty: int = 0
    missing: int = 0
    pending: int = 0
    permanent: int = 0
    attempt: int = 1
    gained: int | None = None

    @property
    def not_ok(self) -> int:
        """Rows of the table without a good answer."""
        return self.failed + self.blocked + self.truncated + self.empty + self.missing

    @property
    def are_all_ok(self) -> bool:
        """True when every row of the batch has a good answer."""
        return self.ok > 0 and not self.not_ok and not self.pending

    def counts(self) -> RowCounts:
        """Return the same as the counts of a batch: failed is every row without a good answer."""
        return RowCounts(self.ok + self.not_ok + self.pending, self.ok, self.not_ok, self.pending)


@dataclass(frozen=True, slots=True)
class JobError:
    """A job's or a row's google.rpc.Status, with the message made safe to show."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """One Gemini batch job as last read from the wire."""

    name: str
    state: JobState
    display_name: str = ""
    model: str = ""
    counts: RowCounts = RowCounts()
    error: JobError | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    ended_at: datetime | None = None
    input_file: str = ""
    #: `files/…` with the answers, or the `gs://…` directory that holds them; empty when there is none.
    responses_file: str = ""
    #: Answers that came inside the operation, None when it carried none.
    inlined_responses: tuple[JsonObject, ...] | None = None
    #: The state as Gemini wrote it, for states this version does not know.
    wire_state: str = ""
    #: What its requests ask for, None when Gemini does not say.
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Whose calls to Gemini these are: a keyed hash of key and endpoint, and the setting that the key came from.

    Both are empty where there is no key that can be used.
    """

    fingerprint: str = ""
    key_origin: str = ""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file at the Files API, or in the bucket. `sha256` is lowercase hex, empty when Gemini reported none."""

    name: str
    size_bytes: int
    sha256: str = ""
    mime_type: str = ""
    state: str = ""
    expires_at: datetime | None = None
    #: What requests name it by.
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as `models.list` describes it; `batch_methods` are the batch calls it supports."""

    name: str
    display_name: str = ""
    batch_methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for, before anything was read or sent."""

    source: str = ""
    requests: tuple[JsonObject, ...] = ()
    model: str = ""
    task: Task = "generate"
    delivery: Delivery = "file"
    display_name: str = ""
    #: Template over the columns of a table, `{{column}}`; empty for a source that holds ready requests.
    prompt: str = ""
    system_instruction: str = ""
    response_schema: JsonObject = field(default_factory=dict[str, Any])
    generation_config: JsonObject = field(default_factory=dict[str, Any])
    #: The column that holds paths of files to attach; empty for none.
    attach: str = ""
    #: The column that holds the keys; empty for keys made from content and position.
    key_column: str = ""
    #: Only the first so many rows, or so many spread over the source by a stable hash; 0 for all.
    limit_rows: int = 0
    sample_rows: int = 0
    #: Only rows that meet this condition over their columns, in SQL; empty for all.
    where: str = ""
    #: The encoding of a text file; empty for what the file itself shows.
    encoding: str = ""
    #: The batch whose order was taken over where nothing else was given; empty for none.
    like: str = ""
    #: Wrong lines or rows are left out instead of refusing the order.
    skip_invalid: bool = False
    #: Whether rows whose very request was answered before, or stands twice, are sent; `auto` decides by the requests.
    reuse: Reuse = "auto"


@dataclass(frozen=True, slots=True)
class InstalledTypes:
    """What the types of the installed google-genai know: members and values, each by the name of its message or enum.

    Members stand in both spellings.
    """

    members: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    values: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """Which of `total` rows a condition, or a spread, chose: `count` of them.

    Bit n-1 of `bits`, from the highest bit of the first byte on, stands for row n.
    """

    bits: bytes
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class Donor:
    """A batch from which an order takes answers: for so many of its rows."""

    batch_id: str
    rows: int


#: A limit that no source reaches: 0 where an earlier order is taken over, whose pilot all rows take the place of.
ALL_ROWS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Spared:
    """How many rows of an order are not sent: an earlier batch has answered them, or another row asks the same.

    Which they are, and whose answers they get, stands in files in `directory` (see `results.reuse`).
    """

    directory: Path
    reused_count: int
    identical_count: int
    donors: tuple[Donor, ...] = ()

    @property
    def count(self) -> int:
        """How many rows are not sent."""
        return self.reused_count + self.identical_count


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as Gemini reported them, summed over rows. `unmetered` answers came without a count of tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    thoughts_tokens: int = 0
    unmetered: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result table, with its type as DuckDB writes it.

    `origin` is its name in the source or in the response schema, where a column of ours has that name.
    """

    name: str
    type: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Rows that did not end well for the same reason. `reason` is the message of one of them, that of `example_key`."""

    status: RowStatus
    rows: int
    reason: str
    example_key: str


@dataclass(frozen=True, slots=True)
class RowAttempt:
    """How one attempt at a row ended; `missing` when it was sent and nothing came back under its key."""

    attempt: int
    status: RowStatus
    error: str = ""
    finish_reason: str = ""


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """Counts over one batch, in rows. `expected` rows were ordered; every one of them has exactly one status.

    `returned` counts rows that came back at all, or were left out as wrong; `duplicate` extra lines for a key that had
    one already; `unexpected` lines without a key or under a key that was never sent; `malformed` those that are no JSON
    object.
    `pending` rows belong to jobs that have not ended: they are in no other count, and not in the table yet.
    `usage` sums up all attempts, because each was paid for; `attempt_usage` has it for each, the first one first, and
    `attempt_wasted` what of it went into rows that the attempt gave no good answer.
    """

    expected: int = 0
    returned: int = 0
    succeeded: int = 0
    failed: int = 0
    blocked: int = 0
    truncated: int = 0
    empty: int = 0
    missing: int = 0
    duplicate: int = 0
    unexpected: int = 0
    malformed: int = 0
    usage: Usage = Usage()
    model_versions: Mapping[str, int] = field(default_factory=dict[str, int])
    #: A few of the keys behind `missing`, `duplicate` and `unexpected`, for people to look at.
    missing_keys: tuple[str, ...] = ()
    duplicate_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    pending: int = 0
    attempt_usage: tuple[Usage, ...] = ()
    attempt_wasted: tuple[Usage, ...] = ()
    #: The most frequent reasons for which rows are not ok, most rows first; missing rows have none.
    error_groups: tuple[ErrorGroup, ...] = ()
    #: Files that answers carried (images, sound), written beside the table.
    media_files: int = 0
    #: Failed rows with an error that the same request meets again.
    permanent: int = 0
    #: Rows whose good answer came from the newest attempt, None when that was not counted.
    gained: int | None = None
    #: Good answers whose JSON had something around it, and was taken out.
    cleaned: int = 0
    #: Rows whose answer was taken from an earlier batch.
    reused: int = 0
    #: Rows whose answer holds function calls, code, files by address or further candidates.
    calls: int = 0

    @property
    def outcomes(self) -> RowOutcomes:
        """How the rows ended, in short."""
        return RowOutcomes(
            ok=self.succeeded,
            failed=self.failed,
            blocked=self.blocked,
            truncated=self.truncated,
            empty=self.empty,
            missing=self.missing,
            pending=self.pending,
            permanent=self.permanent,
            attempt=max(1, len(self.attempt_usage)),
            gained=self.gained,
        )

    @property
    def is_partial(self) -> bool:
        """True while more rows are to come."""
        return self.pending > 0

    @property
    def integrity_ok(self) -> bool:
        """True when every key that was sent came back exactly once, and nothing else did."""
        return not (self.missing or self.duplicate or self.unexpected)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One row of a result table. `text` never contains thoughts; `finish_reason` as Gemini wrote it."""

    key: str
    status: RowStatus
    text: str = ""
    error: str = ""
    finish_reason: str = ""
    #: Absolute paths of the files that the answer carried.
    files: tuple[str, ...] = ()
    #: Function calls, code, files by address and further candidates of the answer, as JSON; empty for none.
    calls: str = ""
    #: In few words: what the answer was found in, what it quotes, and how it was rated; empty for none.
    notes: str = ""


@dataclass(frozen=True, slots=True)
class ResultPage:
    """Some rows, and where the next ones start; `next_cursor` is empty at the end."""

    rows: tuple[ResultRow, ...]
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A result file written for the user, and the files written beside it (vectors as `.npy` with their keys).

    `notes` are sentences about what does not stand in it as it is. Of an object of an object store, `path` is its name.
    """

    path: Path
    format: str
    rows: int
    size_bytes: int
    companions: tuple["SavedFile", ...] = ()
    notes: tuple[str, ...] = ()
    #: `s3://bucket/key` or `gs://bucket/key` of an object; empty for a file of this machine.
    address: str = ""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.address or str(self.path)


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """Which part of a batch's results is wanted, and where it is to be written (empty: nowhere).

    `format` is that of the file, None where its name decides. Written are the rows with these `keys`, or
    what `sql` selects from the table and those of the batches in `also`, or else all rows.
    """

    view: View = "summary"
    limit: int = 20
    cursor: str = ""
    keys: tuple[str, ...] = ()
    save_to: str = ""
    format: FileFormat | None = None
    sql: str = ""
    also: tuple[str, ...] = ()

    @property
    def file_format(self) -> FileFormat | None:
        """The format that was asked for, else what the ending of the file promises its reader; None for an unknown."""
        return self.format or FORMATS_BY_ENDING.get(Path(self.save_to).suffix.lower())


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are wanted; empty members match everything.

    `state` may be `active` or `ended`, too. `search` looks in ids, names and display names.
    """

    state: str = ""
    search: str = ""
    model: str = ""
