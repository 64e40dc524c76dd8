"""The scenarios of the matrices: what is ordered, and what the service behind it is like."""

from typing import Any, Final

from crash.ground import Plan
from gemini_batch_mcp.sandbox.config import ByReads, FileFault

#: Enough for several jobs, few enough for hundreds of cases.
ROWS: Final = 200


def _rows(*, with_lost: bool = False, padding: int = 0) -> tuple[dict[str, Any], ...]:
    """Rows of which some fail the first time (or are lost), and two are refused for good."""
    marks = {7: "error:14", 77: "error:13", 120: "status:8"}
    if with_lost:
        marks |= {31: "dropped", 150: "dropped"}
    texts = [
        f"The {number}. guest says that the room was fine.{' And so on.' * (padding // 11)}" for number in range(ROWS)
    ]
    for number, word in marks.items():
        texts[number] += f" [[sandbox:{word}]] [[sandbox:once]]"
    for number in (50, 199):
        texts[number] += " [[sandbox:blocked]]"
    return tuple({"key": f"guest-{number}", "text": text} for number, text in enumerate(texts))


_SERVICE: Final[dict[str, Any]] = {
    "pace": ByReads(2),
    "echoes_keys": True,
    "file_faults": frozenset({FileFault.SHUFFLED}),
}

READY: Final = Plan("one job from the user's own file, rows lost", _rows(with_lost=True), {}, _SERVICE)
SHARDS: Final = Plan("two jobs from one file", _rows(), {}, _SERVICE, {"GEMINI_BATCH_MAX_FILE_BYTES": "16000"})
QUEUED: Final = Plan(
    "jobs that wait for each other's quota", _rows(), {}, _SERVICE, {"GEMINI_BATCH_MAX_ENQUEUED_TOKENS": "1600"}
)
SKIPPING: Final = Plan(
    "one job of a file from which wrong lines are left out",
    tuple({**row, "is_wrong": number in (3, 60)} for number, row in enumerate(_rows())),
    {},
    _SERVICE,
)
REUSING: Final = Plan(
    "one job of the rows that nothing else answers",
    tuple({"key": f"guest-{number}", "text": row["text"]} for number, row in enumerate(_rows()[:60] + _rows()[:80])),
    {"reuse": "always"},
    _SERVICE,
    earlier=tuple({"key": f"old-{number}", "text": row["text"]} for number, row in enumerate(_rows()[20:40])),
)
LARGE: Final = Plan("one job from a file of several chunks", _rows(padding=60_000), {}, _SERVICE)
TABLE: Final = Plan("one job from a table", _rows(), {"form": "table"}, _SERVICE)
#: Jobs of Vertex AI: requests put into a bucket, answers in several objects of it, in no order.
CLOUD: Final = Plan(
    "two jobs on Google Cloud",
    _rows(with_lost=True),
    {"form": "table"},
    {"pace": ByReads(2), "echoes_keys": True},
    {"GEMINI_BATCH_MAX_FILE_BYTES": "20000", "GOOGLE_GENAI_USE_ENTERPRISE": "1"},
)
#: The same of an object that lies in the bucket already.
OBJECT: Final = Plan(
    "one job from an object in Cloud Storage",
    _rows(with_lost=True),
    {"form": "object"},
    {"pace": ByReads(2), "echoes_keys": True},
    {"GOOGLE_GENAI_USE_ENTERPRISE": "1"},
)
#: The same of a table in BigQuery, where requests and answers stay.
REMOTE: Final = Plan(
    "one job from a table in BigQuery",
    _rows(with_lost=True)[:90],
    {"form": "remote"},
    {"pace": ByReads(2), "echoes_keys": True},
    {"GOOGLE_GENAI_USE_ENTERPRISE": "1"},
)
INLINE: Final = Plan("one job within the call", _rows(), {"form": "requests"}, _SERVICE)
#: One row is turned away at first, and of one the first reply is a 500: it may have been answered.
NOW: Final = Plan("a few rows answered now", (*_rows()[:9], _rows()[77]), {"form": "now"})
ALL: Final = (SHARDS, READY, QUEUED, TABLE, INLINE, LARGE)
