"""What the ledger holds, as values: stages, batches and their jobs."""

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from gemini_batch_mcp.domain import (
    Account,
    Delivery,
    Donor,
    JobError,
    JobState,
    Order,
    RowCounts,
    RowOutcomes,
    Task,
    Usage,
)
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.prices.price_list import CallTier


class DamagedEntry(StorageError):
    """What the ledger says about one batch, or one order, cannot be read; all others can."""


class Stage(StrEnum):
    """How far a job got, as far as this ledger knows."""

    #: Ordered; nothing has left this machine.
    RESERVED = "reserved"
    #: The request file is at the Files API.
    UPLOADED = "uploaded"
    #: A create has left and its outcome is not known.
    UNKNOWN = "unknown"
    #: Its rows are called one by one from here; a job of this kind has no name at Gemini.
    CALLING = "calling"
    #: Gemini has the job.
    SUBMITTED = "submitted"
    #: Gemini is done with it; its answers have not been fetched, or have not been delivered yet (see `Lack`).
    FINISHED = "finished"
    #: Its answers are here: as many as Gemini counts, or all that it delivers.
    COLLECTED = "collected"
    #: It was refused or failed as a whole.
    FAILED = "failed"
    #: It was cancelled.
    CANCELLED = "cancelled"


class Lack(StrEnum):
    """What was missing when the answers of an ended job were last looked for."""

    NOTHING = ""
    #: Gemini shows no output: neither a result file nor inlined answers.
    OUTPUT = "output"
    #: The result file that it names is not there (404).
    FILE = "file"
    #: What came holds no answer to this job: an empty body, a page of a network that wants a sign-in.
    ANSWERS = "answers"
    #: What came ends in the middle of a line.
    END = "end"
    #: What came has fewer answers than Gemini counts.
    LINES = "lines"


#: A job in one of these stages stands for its order: the same order again is answered with it.
STANDING = frozenset(
    {
        Stage.RESERVED,
        Stage.UPLOADED,
        Stage.UNKNOWN,
        Stage.CALLING,
        Stage.SUBMITTED,
        Stage.FINISHED,
        Stage.COLLECTED,
    }
)
#: Stages in which the submission has not come to an end.
UNSUBMITTED = frozenset({Stage.RESERVED, Stage.UPLOADED, Stage.UNKNOWN})
#: Stages in which something is left to be done, here or at Gemini.
UNSETTLED = UNSUBMITTED | {Stage.CALLING, Stage.SUBMITTED, Stage.FINISHED}


@dataclass(frozen=True, slots=True)
class JobEntry:
    """One job of a batch: shard `shard` (from 1) in attempt `attempt` (from 1; later ones are retries).

    `first_row` (from 0), `first_byte`, `size_bytes` and `sha256` say which lines of the attempt's request file it
    takes; `size_bytes` is 0 until that is known. `input_tokens` is estimated.
    """

    id: int
    batch_id: str
    shard: int
    attempt: int
    stage: Stage
    state: JobState
    wire_state: str = ""
    name: str = ""
    uploaded_file: str = ""
    responses_file: str = ""
    request_count: int = 0
    counts: RowCounts = field(default_factory=RowCounts)
    error: JobError | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None
    answers_digest: str = ""
    #: The model of this job; a retry may ask another one than the batch.
    model: str = ""
    first_row: int = 0
    first_byte: int = 0
    size_bytes: int = 0
    sha256: str = ""
    input_tokens: int = 0
    #: Why its create waits; empty when it does not.
    wait_reason: str = ""
    #: Not to be tried before; None when other jobs have to end first.
    wait_until: datetime | None = None
    #: How often it was told to wait.
    waits: int = 0
    #: When its state or its counts were last seen to change.
    moved_at: datetime | None = None
    #: What was missing of its answers at the last look; `looks` counts the looks that found something missing.
    lack: Lack = Lack.NOTHING
    looks: int = 0
    look_again_at: datetime | None = None
    #: Of the body that lacked answers at the last look.
    seen_digest: str = ""
    #: Answers that came, None when they have not been counted.
    answer_count: int | None = None
    #: When the client of the call that wanted it sent took that back; None while it may be sent.
    withdrawn_at: datetime | None = None
    #: When a create of it left, whatever the answer was; None when none has, or Gemini's whole list did not have it.
    sent_at: datetime | None = None
    #: The `Account` that its create is made with; empty when an earlier version did not write it down.
    account: str = ""
    key_origin: str = ""
    #: The service tier at which its rows are called one by one; empty for a job that Gemini works on.
    tier: CallTier = ""
    #: Rows whose call has left and whose reply is lost: they may have been answered, and charged.
    lost_rows: int = 0

    @property
    def is_of_nothing(self) -> bool:
        """True for the one job of an order of which nothing had to be sent: Gemini has none."""
        return self.stage is Stage.COLLECTED and not self.name and not self.request_count

    @property
    def is_waiting(self) -> bool:
        """True while it is held back here until Gemini has room for it."""
        return self.stage in (*UNSUBMITTED, Stage.CALLING) and bool(self.wait_reason)

    @property
    def has_left(self) -> bool:
        """True when Gemini has it, had it or may have, or when calls of its rows may have left."""
        return bool(self.name) or self.is_unproved or (bool(self.tier) and self.created_at is not None)

    @property
    def is_unknown(self) -> bool:
        """True while a create has left and nobody knows whether it arrived."""
        return self.stage is Stage.UNKNOWN

    @property
    def is_unproved(self) -> bool:
        """True when a create of it has left, it has no job, and Gemini's list was not found to be without one."""
        return self.sent_at is not None and not self.name

    @property
    def shown_state(self) -> JobState:
        """The state to show: what is not known is not given a better name."""
        return JobState.UNSPECIFIED if self.is_unknown else self.state

    @property
    def tag(self) -> str:
        """The mark inside the job's display name, by which it is found again after a lost reply."""
        return f"[{self.batch_id}/{self.shard}.{self.attempt}]"


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt at a batch's rows is billed for: the tokens of its answers, at the prices of the day it was sent.

    `wasted` is what of `usage` went into rows that the attempt gave no good answer.
    """

    attempt: int
    model: str
    sent_on: date
    usage: Usage
    wasted: Usage
    #: What its price goes by; empty for that of a batch.
    tier: CallTier = ""


@dataclass(frozen=True, slots=True)
class BillEntry:
    """A batch as far as money goes; one that was deleted has its entry still."""

    batch_id: str
    display_name: str
    model: str
    created_at: datetime
    #: None where nothing was collected, or an earlier version did not note it.
    charges: tuple[Charge, ...] | None = None
    #: Rows of which nobody knows what they took: not fetched yet, or never given out by Gemini.
    unknown_rows: int = 0
    #: Jobs whose answers were fetched.
    answered_jobs: int = 0
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One batch: what the user ordered, and its jobs in shard order."""

    id: str
    order_sha256: str
    display_name: str
    model: str
    task: Task
    delivery: Delivery
    source: str
    created_at: datetime
    #: Requests that are sent, each once however often it is sent again.
    request_count: int = 0
    size_bytes: int = 0
    request_sha256: str = ""
    #: Wrong lines that were left out; they are no part of `request_count`.
    skipped_count: int = 0
    #: Nor are rows that an earlier batch has answered, and rows that ask the same as another one.
    reused_count: int = 0
    identical_count: int = 0
    #: The batches that answers were taken from.
    donors: tuple[Donor, ...] = ()
    #: It was ordered once more on purpose: no answers of earlier batches are taken.
    is_anew: bool = False
    #: Made by this ledger, as opposed to a job made elsewhere that was looked at here.
    is_ours: bool = True
    warnings: tuple[str, ...] = ()
    #: Why the submission ended without a job, for people.
    failure: str = ""
    jobs: tuple[JobEntry, ...] = ()
    #: What the user ordered; None for a job made elsewhere. Its `source` is absolute.
    order: Order | None = None
    #: Of the source's bytes when it was ordered.
    content_sha256: str = ""
    #: What it asks of each row, whatever the rows are; empty where that is not known.
    template_sha256: str = ""
    #: The user's own file, where its bytes are what was checked and sent; empty when a copy is kept here.
    request_path: str = ""
    estimate: Estimate | None = None
    #: How its rows ended, as its result table has it; None before there is one.
    rows: RowOutcomes | None = None
    #: What its answers are billed by, as its result table has it; None before there is one that was counted so.
    charges: tuple[Charge, ...] | None = None
    #: Somebody is deleting it, or has tried to.
    is_deleting: bool = False
    #: How many calls were told, or wait to be told, that what is not sent yet is on its way.
    callers: int = 1
    #: Why Gemini could not be asked about one of its jobs just now; never stored.
    forgotten: str = ""
    #: The requests are not here any more, or never were; never stored.
    lacks_requests: bool = False

    @property
    def row_count(self) -> int:
        """How many rows were ordered: those that are sent, and those that are not."""
        return self.request_count + self.skipped_count + self.reused_count + self.identical_count

    @property
    def is_pilot(self) -> bool:
        """True when only so many rows of its source were ordered, and there may be more of them."""
        most = (self.order.limit_rows or self.order.sample_rows) if self.order is not None else 0
        return 0 < most <= self.row_count

    @property
    def is_sent_in_place(self) -> bool:
        """True for an object in Cloud Storage of which its job was made; its content is known by its name only."""
        return self.source.startswith("gs://") and self.content_sha256 == self.source

    @property
    def sends_nothing(self) -> bool:
        """True when all that was ordered had been answered before: there is no job at Gemini."""
        return bool(self.jobs) and all(job.is_of_nothing for job in self.jobs)

    @property
    def is_standing(self) -> bool:
        """True when the same order, given again, should be answered with this batch."""
        if self.is_deleting:
            return False
        return any(job.stage in STANDING and job.state is not JobState.EXPIRED for job in self.jobs)

    @property
    def is_now(self) -> bool:
        """True when its rows are called one by one and answered now."""
        return self.delivery == "now"

    @property
    def can_be_sent_again(self) -> bool:
        """True when the rows of it that come to nothing could be sent again."""
        return self.is_ours and bool(self.order_sha256) and not self.lacks_requests

    @property
    def is_submitted(self) -> bool:
        """True when no job is still on its way to Gemini."""
        return not any(job.stage in UNSUBMITTED for job in self.jobs)

    @property
    def attempts(self) -> int:
        """How often rows of it were sent: 1 for the first submission, one more for each retry."""
        return max((job.attempt for job in self.jobs), default=1)


@dataclass(frozen=True, slots=True)
class QuoteEntry:
    """What was last said about the cost of an order, or of rows sent again, and what came of it."""

    order_sha256: str
    source: str
    quoted_at: datetime
    #: As the user was shown it.
    figure: str = ""
    #: When the user said no; None while they have not, or were told of the order again since.
    declined_at: datetime | None = None
    #: The batch, or the attempt of one, that was submitted on it; empty for none.
    paid_for: str = ""


@dataclass(frozen=True, slots=True)
class SavedEntry:
    """A file that was written for the user: the digest of its bytes, and what was wanted of it.

    `wish` stands for the rows and columns that it holds; empty for a page, and for what an earlier version wrote.
    """

    digest: str
    wish: str = ""
    row_count: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What is known of a batch when it is reserved."""

    order_sha256: str
    display_name: str
    model: str
    task: Task
    delivery: Delivery
    source: str
    uploaded_file: str = ""
    is_ours: bool = True
    order: Order | None = None
    content_sha256: str = ""
    template_sha256: str = ""
    estimate: Estimate | None = None
    #: What an older version may have called the order; never stored.
    earlier_sha256: tuple[str, ...] = ()
    account: Account = field(default_factory=Account)
    #: Of its first job.
    tier: CallTier = ""
    #: When a job made elsewhere was made; None stands for now.
    created_at: datetime | None = None
    #: Where not all rows are sent: how many are not, from whom their answers are, and the digest of the lines that are.
    reused_count: int = 0
    identical_count: int = 0
    donors: tuple[Donor, ...] = ()
    request_sha256: str = ""
    is_anew: bool = False


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job that an attempt is cut into; the members are those of `JobEntry`."""

    first_row: int
    request_count: int
    first_byte: int
    size_bytes: int
    sha256: str
    input_tokens: int
