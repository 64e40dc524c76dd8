"""Everything about the sandbox that can be chosen: limits, keys, how jobs move, and how rows and files go wrong."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from gemini_batch_mcp.sandbox.models import DEFAULT_MODELS, ModelInfo
from gemini_batch_mcp.settings import MAX_FILE_BYTES, MAX_INLINE_CREATE_BYTES, MAX_LINE_BYTES

NANOSECONDS: Final = 1_000_000_000
#: Upload chunks other than the last are a multiple of this (wire sample 41).
CHUNK_BYTES: Final = 8 * 1024**2
#: Uploads vanish, and unfinished jobs expire, after this long (docs/files; batch guide).
LIFETIME_SECONDS: Final = 48 * 3600


@dataclass(frozen=True, slots=True)
class ByTime:
    """Jobs move with the clock: pending for the first tenth, finished `seconds_per_job` after their create."""

    seconds_per_job: float = 3.0


@dataclass(frozen=True, slots=True)
class ByReads:
    """Jobs move one step each time a GET or a list shows them, and are finished by the `reads_per_job`-th read."""

    reads_per_job: int = 3


@dataclass(frozen=True, slots=True)
class OnCommand:
    """Jobs move only when the sandbox is told to move them."""


Pace = ByTime | ByReads | OnCommand


class RowFault(StrEnum):
    """How a row can go wrong; the value is also the word of the marker `[[sandbox:…]]` in a request's text."""

    #: An `error` (google.rpc.Status, code 13) instead of a `response`; `[[sandbox:error:8]]` gives another code.
    ERROR = "error"
    #: The same under the member name `status`.
    STATUS = "status"
    #: `promptFeedback.blockReason`, no candidates.
    BLOCKED = "blocked"
    #: A candidate with finishReason SAFETY and no content.
    SAFETY = "safety"
    #: The same with finishReason RECITATION, PROHIBITED_CONTENT and MALFORMED_FUNCTION_CALL.
    RECITATION = "recitation"
    PROHIBITED = "prohibited"
    MALFORMED_CALL = "malformed_call"
    #: finishReason MAX_TOKENS with no text: thinking used up the limit.
    MAX_TOKENS = "max_tokens"
    #: finishReason MAX_TOKENS after half of the answer.
    CUT_TEXT = "cut_text"
    #: A candidate that stopped without any part.
    EMPTY = "empty"
    #: A response without candidates and without a block reason.
    NO_CANDIDATES = "no_candidates"
    #: `"response": null`.
    NULL = "null"
    #: No line at all.
    DROPPED = "dropped"
    #: The line twice.
    DUPLICATED = "duplicated"
    #: The line, and one more under a key that was never sent.
    UNEXPECTED = "unexpected"
    #: The line without its key.
    NO_KEY = "no_key"
    #: A line that is no JSON.
    MALFORMED = "malformed"
    #: An answer that holds a lone surrogate.
    SURROGATE = "surrogate"
    #: An answer that holds U+2028, U+2029 and U+0085 as they are.
    SEPARATOR = "separator"
    #: An answer of 10,000 characters; `[[sandbox:chars:500]]` gives another length.
    LONG = "chars"
    #: A structured answer that does not fit its schema: its first member is of another type, or the value itself.
    MISFIT = "misfit"
    #: A structured answer in a code block, between two sentences.
    WRAPPED = "wrapped"
    #: An answer that ends in the middle although finishReason is STOP: JSON that cannot be read.
    CUT_JSON = "cut_json"


class FileFault(StrEnum):
    """How a whole result file can go wrong; one marker in any row's text sets it for the file."""

    #: Lines in another order than the input's.
    SHUFFLED = "shuffled"
    #: The last line ends in the middle.
    CUT_LAST_LINE = "cut_last_line"
    #: Lines end in CR LF.
    CRLF = "crlf"


#: A share of the rows for each fault, or a function of the row's key.
RowFaults = Mapping[RowFault, float] | Callable[[str], RowFault | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """How one sandbox behaves. Sizes are bytes, times are seconds."""

    pace: Pace = ByTime()
    models: tuple[ModelInfo, ...] = DEFAULT_MODELS
    #: Keys that are accepted; None accepts every key that is not empty and does not begin with `invalid`,
    #: `unauthorized` or `forbidden` (400, 401 and 403).
    accepted_keys: frozenset[str] | None = None
    #: Whether a key sees only the files and jobs that it has made, in the life of this service.
    one_project_per_key: bool = False
    max_file_bytes: int = MAX_FILE_BYTES
    max_inline_bytes: int = MAX_INLINE_CREATE_BYTES
    #: One request line. Gemini's own limit is not known; this is the size up to which orders are accepted here.
    max_line_bytes: int = MAX_LINE_BYTES
    max_active_jobs: int = 100
    #: All files of a project (docs/files): 20 GB.
    max_stored_bytes: int = 20 * 1000**3
    #: Input tokens waiting or running, by model without `models/`; models not named have no limit.
    max_enqueued_tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    #: RetryInfo and Retry-After of a quota refusal.
    quota_retry_seconds: int = 34
    lifetime_seconds: float = LIFETIME_SECONDS
    #: How long a call takes that is answered at once.
    call_seconds: float = 0.0
    #: How long a video or a sound is in state PROCESSING after its upload.
    processing_seconds: float = 0.0
    #: How long a new job stays out of `batches.list`: lists lag behind creates.
    list_lag_seconds: float = 0.0
    #: How long a job that has ended shows no output, neither the name of its result file nor inlined answers;
    #: `[[sandbox:output-lag:6]]` in a display name sets it for one job.
    output_lag_seconds: float = 0.0
    #: How long after the end of its job a result file answers 404; `[[sandbox:file-lag:6]]` does it for one job.
    file_lag_seconds: float = 0.0
    #: How long a cancelled job goes on; a job that moves on command is cancelled by its next command.
    cancel_seconds: float = 0.0
    #: Whether a cancelled job keeps the answers it had.
    keeps_cancelled_rows: bool = False
    #: Where a finished operation shows its output (wire samples 07 and 10).
    output_in: Literal["both", "response", "metadata"] = "both"
    #: Google Cloud: the one project, its number, the location, the buckets that exist, and in how many objects a job's
    #: answers come.
    cloud_project: str = "sandbox-project"
    cloud_project_number: str = "123456789012"
    cloud_location: str = "global"
    buckets: frozenset[str] = frozenset({"sandbox-bucket"})
    cloud_shards: int = 3
    #: BigQuery: the datasets that exist, and where they are.
    datasets: frozenset[str] = frozenset({"sandbox_data"})
    datasets_location: str = "US"
    #: One job of Vertex AI (Agent Platform pages on batches, read 2026-08).
    max_cloud_rows: int = 200_000
    #: The same of a table: no limit is documented.
    max_table_rows: int = 100_000_000
    #: Every row of a table gets one and the same answer, by one statement: for sizes at which looking at each row would
    #: take hours.
    answers_tables_at_once: bool = False
    max_cloud_file_bytes: int = 1000**3
    row_faults: RowFaults = field(default_factory=dict[RowFault, float])
    file_faults: frozenset[FileFault] = frozenset()
    #: Every answer of text ends with its row's key, as `[[sandbox:echo_key]]` does it for one row.
    echoes_keys: bool = False
    #: Nanoseconds since 1970, UTC.
    clock_ns: Callable[[], int] = time.time_ns

    def model(self, name: str) -> ModelInfo | None:
        """Return the model of that name, given with or without `models/`."""
        bare = name.removeprefix("models/")
        return next((model for model in self.models if model.name == bare), None)
