"""Tables that lie at Google and stay there: what other rooms may ask of BigQuery, and what it answers.

Names of tables are `bq://project.dataset.table` here. Whoever writes SQL quotes them as BigQuery wants it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from gemini_batch_mcp.gemini.service import Finding


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column as BigQuery describes it: `type` is STRING, INTEGER, RECORD…, `mode` NULLABLE, REQUIRED or REPEATED."""

    name: str
    type: str
    mode: str = "NULLABLE"
    fields: tuple["TableColumn", ...] = ()


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table as BigQuery describes it. `kind` is TABLE, VIEW, EXTERNAL…; `modified_at` changes with its content."""

    name: str
    kind: str
    location: str
    rows: int
    size_bytes: int
    modified_at: datetime
    columns: tuple[TableColumn, ...]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of SQL that BigQuery runs. `most_bytes` is the most that it may bill; beyond, it does not begin.

    `once` names it: what bears the same name runs once, and is billed once, whoever asks how often. Empty for a
    statement that may run again.
    """

    sql: str
    location: str
    most_bytes: int
    once: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that a statement came to: the first ones, and how many there are. Values are Python's."""

    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int
    billed_bytes: int


class Taker(Protocol):
    """Takes rows in pieces, in a worker thread."""

    def begin(self, columns: Sequence[TableColumn]) -> None:
        """Expect rows of these columns."""

    def take(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take the next rows."""


class Warehouse(Protocol):
    """Calls to BigQuery, with the credentials of this machine; what it bills goes to the project that is configured.

    Every method raises GeminiError, and ConfigurationError where the client is not installed.
    """

    async def describe(self, name: str) -> StoredTable | None:
        """Return what a table is; None where there is none."""

    async def measure(self, statement: Statement) -> int:
        """Return the bytes that a statement would read, as BigQuery says without running it: free of charge.

        Raises:
            Rejected: it is wrong; says what.
        """

    async def ask(self, statement: Statement, *, most_rows: int) -> Rows:
        """Run a SELECT and return its first rows.

        Raises:
            Rejected: it is wrong, or would bill more than it may.
        """

    async def read(self, statement: Statement, taker: Taker) -> int:
        """Run a SELECT and hand all of its rows on, page by page; returns how many there were."""

    async def write(self, statement: Statement, to: str, *, expires_at: datetime | None = None) -> int:
        """Run a statement that makes the table `to`, once; returns how many rows it holds.

        The table gets the labels of the statement, and its end. `statement.once` must be set.

        Raises:
            Rejected: the statement is wrong, or would bill more than it may.
        """

    async def findings(self, *, is_used: bool) -> tuple[Finding, ...]:
        """Look whether statements can run, by a dry run, and at the datasets that the settings name.

        What is wrong is a finding, and a fault only where BigQuery is used: by these settings, or `is_used`.
        """

    async def delete(self, name: str) -> None:
        """Delete a table.

        Raises:
            NotFound: there is none.
        """
