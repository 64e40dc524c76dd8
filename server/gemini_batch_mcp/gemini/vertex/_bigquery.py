"""Tables in BigQuery through google-cloud-bigquery: described, measured, written once, read in pages, deleted.

The client blocks: every function here is for a thread. What the client raises is turned into our errors by `_failures`.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.errors import AccessDenied, BatchError, ConfigurationError, NotFound, Rejected, Unavailable
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts
from gemini_batch_mcp.gemini.vertex._failures import BIGQUERY
from gemini_batch_mcp.gemini.warehouse import Rows, Statement, StoredTable, TableColumn, Taker
from gemini_batch_mcp.json_members import as_object, as_text
from gemini_batch_mcp.text import plain_text, safe_text

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, QueryJob

#: Rows of one reply; BigQuery ends a reply at 10 MB by itself.
_PAGE_ROWS: Final = 10_000
#: Under how many names a statement that is to run once is tried: BigQuery keeps a job that has failed for its own
#: reasons under its name for good.
_MOST_TRIES: Final = 4
_TOO_DEAR: Final = "bytesBilledLimitExceeded"
_JOB_PREFIX: Final = "gemini_batch_"


def is_installed() -> bool:
    """True when the client is installed; it is not loaded."""
    try:
        return importlib.util.find_spec("google.cloud.bigquery") is not None
    except ModuleNotFoundError:
        return False


class BigQuery:
    """Tables, with one account. Every method blocks, and may be called from any thread."""

    def __init__(self, client: "Client", policy: RetryPolicy, timeouts: Timeouts) -> None:
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        self._client = client
        self._options: Any = {
            "timeout": timeouts.reply_seconds,
            "retry": DEFAULT_RETRY.with_delay(
                initial=policy.initial_delay_seconds, maximum=policy.max_delay_seconds
            ).with_timeout(policy.total_seconds),
        }

    def describe(self, name: str) -> StoredTable | None:
        """Return what a table is, None where there is none."""
        from google.api_core.exceptions import NotFound as Missing

        with BIGQUERY.errors(f"describe {name}"):
            try:
                found = self._client.get_table(_dotted(name), **self._options)
            except Missing:
                return None
        return StoredTable(
            name=name,
            kind=str(found.table_type or ""),
            location=str(found.location or ""),
            rows=int(found.num_rows or 0),
            size_bytes=int(found.num_bytes or 0),
            modified_at=found.modified or datetime.fromtimestamp(0, UTC),
            columns=_columns(found.schema),
            labels=dict(found.labels or {}),
        )

    def location(self, dataset: str) -> str:
        """Return where a dataset is. Raises NotFound."""
        with BIGQUERY.errors(f"describe {dataset}"):
            return str(self._client.get_dataset(dataset, **self._options).location or "")

    def measure(self, statement: Statement) -> int:
        """Return the bytes that a statement would read."""
        with BIGQUERY.errors("price a statement"):
            job = self._client.query(
                statement.sql,
                job_config=self._config(statement, dry_run=True),
                location=statement.location or None,
                job_retry=None,
                **self._options,
            )
            return int(job.total_bytes_processed or 0)

    def start(self, statement: Statement) -> "QueryJob":
        """Have a statement begin, or find it under its name, and return its job.

        Raises:
            Rejected: under its name there is another statement.
        """
        for attempt in range(1, _MOST_TRIES + 1):
            name = _job_id(statement.once, attempt) if statement.once else None
            job = self._begin(statement, name)
            if not name or attempt == _MOST_TRIES or not self._has_passed(job):
                return job
        raise AssertionError("the last try returns")

    def _begin(self, statement: Statement, name: str | None) -> "QueryJob":
        from google.api_core.exceptions import Conflict

        what = "begin a query"
        with BIGQUERY.errors(what):
            try:
                return self._client.query(
                    statement.sql,
                    job_config=self._config(statement),
                    job_id=name,
                    location=statement.location or None,
                    job_retry=None,
                    **self._options,
                )
            except Conflict:
                if name is None:
                    raise
        # It has begun before: its reply was lost, or it was asked for by a process that is gone.
        with BIGQUERY.errors(what):
            job: Any = self._client.get_job(name, location=statement.location or None, **self._options)
        if getattr(job, "query", "") != statement.sql:
            raise Rejected(
                f"BigQuery has another statement under the name {name}.", "Submit the order again with resubmit=true."
            )
        return job  # type: ignore[no-any-return]  # the client knows many kinds of jobs; this one has a query

    def _has_passed(self, job: "QueryJob") -> bool:
        """True for a job that has failed for a reason that passes: it never runs again under its name."""
        if job.state != "DONE":
            return False
        return as_text(as_object(job.error_result).get("reason")) in BIGQUERY.passing

    def look(self, job: "QueryJob") -> bool:
        """Ask whether a job has ended.

        Raises:
            GeminiError: it has failed.
        """
        with BIGQUERY.errors("describe a query"):
            if job.state != "DONE":
                job.reload(**self._options)
        if job.state != "DONE":
            return False
        if job.error_result:
            raise _failed(as_object(job.error_result))
        return True

    def rows(self, job: "QueryJob", most_rows: int) -> Rows:
        """Return the first rows of a job that has ended."""
        with BIGQUERY.errors("send the rows of a query"):
            found = job.result(max_results=most_rows, page_size=min(most_rows, _PAGE_ROWS), **self._options)
            rows = tuple(tuple(row.values()) for row in found)
            return Rows(
                columns=_columns(found.schema),
                rows=rows,
                total=int(found.total_rows or len(rows)),
                billed_bytes=int(job.total_bytes_billed or 0),
            )

    def pages(self, job: "QueryJob", taker: Taker) -> int:
        """Hand on all rows of a job that has ended; returns how many."""
        count = 0
        with BIGQUERY.errors("send the rows of a query", is_ours=lambda error: isinstance(error, OSError)):
            found = job.result(page_size=_PAGE_ROWS, **self._options)
            taker.begin(_columns(found.schema))
            for page in found.pages:
                rows = [tuple(row.values()) for row in page]
                taker.take(rows)
                count += len(rows)
        return count

    def mark(self, name: str, labels: Mapping[str, str], expires_at: datetime | None) -> int:
        """Give a table of ours its labels and its end, and return how many rows it holds."""
        with BIGQUERY.errors(f"describe {name}"):
            table = self._client.get_table(_dotted(name), **self._options)
            if dict(table.labels or {}) != dict(labels) or (expires_at and table.expires is None):
                table.labels, table.expires = dict(labels), expires_at
                table = self._client.update_table(table, ["labels", "expires"], **self._options)
        return int(table.num_rows or 0)

    def delete(self, name: str) -> None:
        """Delete a table. Raises NotFound."""
        with BIGQUERY.errors(f"delete {name}"):
            self._client.delete_table(_dotted(name), **self._options)

    def _config(self, statement: Statement, *, dry_run: bool = False) -> Any:
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(use_legacy_sql=False, labels=dict(statement.labels))
        if dry_run:
            config.dry_run, config.use_query_cache = True, False
        else:
            config.maximum_bytes_billed = statement.most_bytes
        return config


def _dotted(name: str) -> str:
    return name.removeprefix("bq://")


def _job_id(once: str, attempt: int) -> str:
    """Return the name under which BigQuery keeps a statement that is to run once."""
    return f"{_JOB_PREFIX}{hashlib.sha256(once.encode()).hexdigest()[:40]}_{attempt}"


def _columns(schema: Any) -> tuple[TableColumn, ...]:
    return tuple(
        TableColumn(
            name=plain_text(str(found.name), 300),
            type=str(found.field_type or "").upper(),
            mode=str(found.mode or "NULLABLE").upper(),
            fields=_columns(found.fields or ()),
        )
        for found in schema or ()
    )


def _failed(result: Mapping[str, Any]) -> BatchError:
    """Return the error for a query that has ended with one."""
    reason, message = as_text(result.get("reason")), safe_text(as_text(result.get("message"))).rstrip(".")
    said = f"BigQuery could not run the query: {message or reason}."
    if reason == _TOO_DEAR:
        return Rejected(said, "Read fewer columns or rows.", status_code=400)
    if reason in BIGQUERY.passing:
        return Unavailable(said, "Try again in a minute.")
    if reason == "accessDenied":
        return AccessDenied(said, BIGQUERY.roles, status_code=403)
    if reason == "notFound":
        return NotFound(said, "Check the names of dataset and table.", status_code=404)
    return Rejected(said, "Correct what it names.", status_code=400)


def not_installed() -> ConfigurationError:
    """Return the error for a client that is not there."""
    return ConfigurationError(
        "google-cloud-bigquery is not installed; tables in BigQuery need it.",
        "Install this server with its extra: pip install 'gemini-batch-mcp[vertex]'.",
    )
