"""Results that stay in BigQuery, read from there: a page of rows, or an answer to a question.

What a question may bill is limited: nobody is asked before it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.remote._bytes import bytes_words, cost_of_bytes
from gemini_batch_mcp.batches.remote._values import plain
from gemini_batch_mcp.batches.remote.kept_facts import RemoteFacts, read_remote
from gemini_batch_mcp.batches.remote.places import is_remote, statement, warehouse_of
from gemini_batch_mcp.domain import Column, ResultPage, ResultQuery, ResultRow, RowAttempt, RowStatus
from gemini_batch_mcp.errors import NotReady, Rejected, UsageError
from gemini_batch_mcp.gemini.warehouse import Rows
from gemini_batch_mcp.results.query.queries import RELATION, QueryAnswer
from gemini_batch_mcp.results.visible import shown_error, visible, visible_cell
from gemini_batch_mcp.text import dollars
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.warehouse import statements

#: What one page, one question or one file may read: 100 GiB, for 61 cents on demand. Beyond the least that is billed,
#: nobody is asked before it (our choice).
MOST_QUERY_BYTES: Final = 100 * 1024**3
#: A call may take 50 seconds, and something stands before and behind this.
_MOST_SECONDS: Final = 35.0
_MAX_CELL_CHARS: Final = 2_000
#: Behind a cell that was cut by BigQuery, which does not say how long it is.
_CUT: Final = "… [cut]"
_MAX_ERROR_CHARS: Final = 500
#: Longer than any cell that BigQuery gives out.
_WHOLE_CELL: Final = 1 << 30
#: Characters of one answer, as of a question to a table here.
_MAX_ANSWER_CHARS: Final = 17_000
_MOST_COLUMNS: Final = 200
_MAX_EXACT_INTEGER: Final = 2**53


@dataclass(frozen=True, slots=True)
class RemoteTable:
    """Results that lie in BigQuery, as far as they were read: their columns, and rows that were asked for."""

    table: str
    columns: tuple[Column, ...]
    rows: tuple[ResultRow, ...] = ()
    attempts: int = 1

    def history(self, keys: Sequence[str]) -> dict[str, tuple[RowAttempt, ...]]:
        """Return how each of these rows that is there ended; earlier attempts are in the column `history`."""
        return {
            row.key: (RowAttempt(self.attempts, row.status, row.error, row.finish_reason),)
            for row in self.rows
            if row.key in keys
        }


async def read_page(app: App, batch: BatchEntry, query: ResultQuery) -> tuple[RemoteTable, ResultPage | None]:
    """Return what is known of a batch's results, and the page that was asked for; None where none was.

    Raises:
        NotReady: nothing was collected.
        UsageError: the cursor is none of ours.
        GeminiError: BigQuery refused, or could not be asked.
    """
    facts = await facts_of(app, batch)
    if query.view == "summary" and not query.cursor and not query.keys:
        return RemoteTable(facts.table, facts.columns), None
    view: Literal["rows", "failures"] = "failures" if query.view == "failures" else "rows"
    after = _position(query.cursor, batch.id, view, query.keys)
    sql = statements.page(
        statements.table_named(facts.table), view=view, limit=query.limit, keys=query.keys, after=after
    )
    found = await run_within(app, batch, facts, sql, query.limit + 1)
    names = [column.name for column in found.columns]
    rows: list[ResultRow] = []
    characters = 0
    for cells in found.rows:
        shown = _row(dict(zip(names, cells, strict=True)))
        characters += len(json.dumps([shown.key, shown.text, shown.error], ensure_ascii=False))
        if rows and (characters > _MAX_ANSWER_CHARS or len(rows) == query.limit):
            break
        rows.append(shown)
    more = len(rows) < len(found.rows)
    cursor = _cursor(batch.id, view, query.keys, rows[-1].key) if rows and more else ""
    table = RemoteTable(facts.table, facts.columns, tuple(rows), batch.attempts)
    return table, ResultPage(tuple(rows), cursor)


async def ask_remote(app: App, batches: Sequence[BatchEntry], sql: str, *, limit: int) -> QueryAnswer:
    """Answer one SELECT over the results of a batch, as `results`, and of others, by their ids.

    Raises:
        UsageError: the statement is none that may be asked, is wrong, or reads too much.
        GeminiError: BigQuery could not be asked.
    """
    first, *others = batches
    facts = await facts_of(app, first)
    tables = {RELATION: statements.table_named(facts.table)}
    for other in others:
        tables[other.id.replace("-", "_")] = statements.table_named((await facts_of(app, other)).table)
    judged = await in_thread(statements.judged_query, sql, tables)
    found = await run_within(app, first, facts, judged, limit + 1)
    names = tuple(visible_cell(column.name, 100) for column in found.columns)
    if len(names) > _MOST_COLUMNS:
        raise UsageError(f"The statement selects {len(names):,} columns.", "Select those that are wanted.")
    rows: list[tuple[Any, ...]] = []
    characters = len(json.dumps(names))
    for row in found.rows[:limit]:
        cells = tuple(_cell(value) for value in row)
        characters += len(json.dumps(cells, ensure_ascii=False))
        if rows and characters > _MAX_ANSWER_CHARS:
            break
        rows.append(cells)
    return QueryAnswer(names, tuple(rows), len(rows), truncated=len(rows) < found.total)


async def read_source(app: App, batch: BatchEntry, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the source says of rows with these keys, by the names that its columns have there.

    Raises:
        NotReady: nothing was collected.
        GeminiError: BigQuery refused, or could not be asked.
    """
    facts = await facts_of(app, batch)
    sql = statements.rows(statements.table_named(facts.table), keys=keys)
    found = await run_within(app, batch, facts, sql, len(keys))
    names = [column.name for column in facts.columns]
    source = [column.origin or column.name for column in facts.columns[: names.index("key")]]
    return {str(row[len(source)]): dict(zip(source, map(_cell, row), strict=False)) for row in found.rows}


async def facts_of(app: App, batch: BatchEntry) -> RemoteFacts:
    """Return what is known of a batch's results.

    Raises:
        NotReady: nothing was collected.
    """
    facts = await in_thread(read_remote, app, batch) if is_remote(batch) else None
    if facts is None:
        raise NotReady(f"{batch.id} has no results in BigQuery yet.", "Call get_results.")
    return facts


async def run_within(app: App, batch: BatchEntry, facts: RemoteFacts, sql: str, most_rows: int) -> Rows:
    """Run a statement over results, within what may be read unasked.

    Raises:
        UsageError: it is wrong, or would read more.
    """
    try:
        prepared = await statement(app, sql, facts.location, batch_id=batch.id, most_bytes=MOST_QUERY_BYTES)
        with anyio.fail_after(_MOST_SECONDS):
            return await warehouse_of(app).ask(prepared, most_rows=most_rows)
    except TimeoutError:
        raise UsageError(
            f"BigQuery has not answered within {_MOST_SECONDS:.0f} seconds.", "Ask for less, or make the call again."
        ) from None
    except Rejected as error:
        limit = f"up to {bytes_words(MOST_QUERY_BYTES)} ({dollars(cost_of_bytes(MOST_QUERY_BYTES))}) are read unasked"
        raise UsageError(error.message, f"{error.next_step} ({limit}.)") from None


def _row(row: Mapping[str, Any]) -> ResultRow:
    code = row.get("error_code")
    error = str(row.get("error") or "")
    return ResultRow(
        key=str(row["key"]),
        status=RowStatus(str(row["status"])),
        text=_beginning(str(row.get("text") or "")),
        error=shown_error(int(code) if code is not None else None, error, _MAX_ERROR_CHARS) if error else "",
        finish_reason=str(row.get("finish_reason") or ""),
        calls=_beginning(str(row.get("calls") or "")),
    )


def _beginning(text: str) -> str:
    """Return a cell of a page, of which BigQuery sends one character more than are shown."""
    if len(text) <= _MAX_CELL_CHARS:
        return visible_cell(text, _MAX_CELL_CHARS)
    return visible(text)[: _MAX_CELL_CHARS - len(_CUT)] + _CUT


def _cursor(batch_id: str, view: str, keys: Sequence[str], last: str) -> str:
    text = json.dumps([batch_id, view, list(keys), last])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str, batch_id: str, view: str, keys: Sequence[str]) -> str:
    """Return the key that a page begins behind; empty for the first page.

    Raises:
        UsageError: the cursor is none of this batch and view.
    """
    if not cursor:
        return ""
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if found[:3] == [batch_id, view, list(keys)] and isinstance(found[3], str):
            return found[3]
    except (ValueError, TypeError, LookupError):
        pass
    raise UsageError(
        f"The cursor {cursor[:40]!r} does not belong to this batch, view and choice of keys.",
        "Leave cursor out to start at the first row.",
    )


def _cell(value: Any) -> Any:
    """Return a value as an assistant may read it."""
    found = plain(value)
    if isinstance(found, str):
        return visible_cell(found, _MAX_CELL_CHARS)
    if isinstance(found, list | dict):
        return visible_cell(json.dumps(found, ensure_ascii=False), _MAX_CELL_CHARS)
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) > _MAX_EXACT_INTEGER:
        return str(found)
    return found
