"""What a result table is built from: the answers of which jobs, for which keys, beside which columns."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import JsonObject, Task

#: Raised whenever the same answers would make another table, so that older tables are built again.
TABLE_VERSION: Final = 9

#: What stands in the row of an answer that was not paid for with it.
NOT_PAID: Final = {
    "cost_usd": "0.0::DOUBLE",
    **dict.fromkeys(("input_tokens", "output_tokens", "thoughts_tokens"), "0::BIGINT"),
}


@dataclass(frozen=True, slots=True)
class Rates:
    """What a token costs in USD, as the question and as the answer."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """The downloaded answers of one job that has ended; `path` is None when it ended without any.

    `keys_path` holds the keys that its attempt sent, one JSON string a line, in request order; None when nobody knows
    them. Jobs of one attempt share it, and each sent `row_count` of these keys from the line `first_row` (from 0) on; a
    `row_count` of 0 stands for all. `attempt` counts from 1 and orders a first submission before its retries.
    `rates` are those of the model that was asked; without them nobody knows what the answers cost. `is_taken` says that
    an earlier batch has got these answers and paid for them: each line names it.
    """

    path: Path | None
    keys_path: Path | None = None
    attempt: int = 1
    first_row: int = 0
    row_count: int = 0
    rates: Rates | None = None
    is_taken: bool = False


@dataclass(frozen=True, slots=True)
class OrderedRows:
    """All rows of an order of which some were not sent.

    `keys_path` holds their keys, one JSON string a line, in order; `alike_path` (Parquet: row, first_row) says by their
    numbers from 1 which rows have the answer of which other one.
    """

    keys_path: Path
    alike_path: Path


@dataclass(frozen=True, slots=True)
class Identified:
    """The identity of each row's request, one a line, in order; answers of `attempts` are what others may take.

    Other attempts have asked another model than the identities are made with.
    """

    path: Path
    attempts: frozenset[int]


@dataclass(frozen=True, slots=True)
class TablePlan:
    """Everything that decides what a table looks like, but for the bytes of the answers.

    `answers` are in request order, attempt by attempt; keys of jobs that are not among them are pending. `batch_id`
    ties cursors to the batch, through any number of builds; without it they are tied to the table's path.
    `expected_rows` counts the rows sent; it is used only when no keys are known. `source_columns` is a Parquet file
    with the column `row` (from 1, as the keys of the first attempt) and the user's own columns; it may be absent.
    `response_schema` is as the order gave it. Files that answers carry are written into `media`; None leaves them out.
    `rows` are those of the order where not all were sent. With `identified`, an index of good answers by the identity
    of what was asked is kept with the table.
    """

    answers: tuple[AnswerFile, ...]
    batch_id: str = ""
    expected_rows: int = 0
    task: Task = "generate"
    response_schema: JsonObject = field(default_factory=dict[str, Any])
    source_columns: Path | None = None
    media: Path | None = None
    rows: OrderedRows | None = None
    identified: Identified | None = None

    @property
    def attempts(self) -> int:
        """The number of the latest attempt."""
        return max((answer.attempt for answer in self.answers), default=1)

    @property
    def keys_paths(self) -> tuple[Path, ...]:
        """The files of keys, each once, in the order of the answers."""
        return tuple(dict.fromkeys(answer.keys_path for answer in self.answers if answer.keys_path is not None))

    def digest(self) -> str:
        """Return a text that changes whenever other jobs, or anything but the answers' bytes, make another table."""
        jobs = [
            [
                str(answer.path and answer.path.name),
                str(answer.keys_path and answer.keys_path.name),
                answer.attempt,
                answer.first_row,
                answer.row_count,
                answer.rates,
                answer.is_taken,
            ]
            for answer in self.answers
        ]
        source = None
        if self.source_columns is not None and self.source_columns.is_file():
            seen = self.source_columns.stat()
            source = [seen.st_size, seen.st_mtime_ns]
        content = [TABLE_VERSION, jobs, self.expected_rows, self.task, _plain(self.response_schema), source]
        beside = [self.media is not None, self.rows is not None, self.identified is not None]
        return hashlib.sha256(msgspec.json.encode([*content, *beside])).hexdigest()


def _plain(value: Any) -> Any:
    """Return JSON data with mappings of any kind as dicts, in the order in which they came."""
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list | tuple) else value
