"""An order over a table in BigQuery as SQL: its rows kept under their keys, their requests, what both come to.

What is kept is a snapshot: whatever the source becomes, requests, retries and results go by the same rows. A statement
that makes a table leaves one alone that is there: it was made whole, by an attempt that did not come to hear of it.
"""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of literals and names made by `_text`

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.line_form import RequestForm, check_form, request_form
from gemini_batch_mcp.intake.template import column_named
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.intake.validator.decoders import MAX_KEY_CHARACTERS
from gemini_batch_mcp.intake.validator.world import CLOSED, Note, World
from gemini_batch_mcp.patterns import pattern_warnings
from gemini_batch_mcp.settings import MAX_LINE_BYTES
from gemini_batch_mcp.text import count
from gemini_batch_mcp.warehouse._columns import SourceColumn, column_of, key_text, mark_of, refuse_without_text
from gemini_batch_mcp.warehouse._condition import judged_condition
from gemini_batch_mcp.warehouse._names import TableName
from gemini_batch_mcp.warehouse._requests import measured, requests_of
from gemini_batch_mcp.warehouse._text import joined, name

#: What the source's own columns are in, of a table that keeps rows.
SOURCE: Final = "source"
#: Parts of an order that a table in BigQuery does not take, with what takes their place.
_NOT_TAKEN: Final = {
    "encoding": "a table has no encoding: leave it out",
    "skip_invalid": "every row becomes a request: leave rows out with `where`",
}
_MADE_KEY_CHARS: Final = 16
_MAX_COLUMNS: Final = 10_000


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """An order over a table, judged. `condition` is SQL that has been judged; empty for all rows."""

    table: TableName
    columns: tuple[SourceColumn, ...]
    form: RequestForm
    key_column: str = ""
    condition: str = ""
    limit_rows: int = 0
    sample_rows: int = 0
    warnings: tuple[str, ...] = ()

    def column(self, wanted: str) -> SourceColumn:
        """Return the column of that name, which is there."""
        return column_of(self.columns, wanted)


def plan_rows(order: Order, table: TableName, columns: Sequence[SourceColumn], world: World = CLOSED) -> RowsPlan:
    """Judge an order over a table, by what judges orders over other tables; nothing is asked of BigQuery.

    Raises:
        UsageError: a template, the schema, a column or the condition cannot be used, or the order is none for BigQuery.
        RequestProblems: what all requests share is wrong.
        ConfigurationError: `where` is given, and the library that judges it is not installed.
    """
    _refuse_parts(order)
    notes: set[Note] = set()
    members = request_members(order.task, order.generation_config, order.response_schema, world, notes)
    names = [column.name for column in columns]
    form = request_form(order, str(table), names, members)
    for used in form.columns:
        refuse_without_text(column_of(columns, used))
    if order.key_column:
        key_text(column_of(columns, column_named(order.key_column, names, "key_column")), SOURCE)
    check_form(form, order.task, world)
    return RowsPlan(
        table=table,
        columns=tuple(columns),
        form=form,
        key_column=order.key_column,
        condition=judged_condition(order.where, columns) if order.where else "",
        limit_rows=order.limit_rows,
        sample_rows=order.sample_rows,
        warnings=(
            *(note.sentence for note in sorted(notes)),
            *pattern_warnings(order.response_schema),
            *_order_warnings(order),
        ),
    )


def keep_rows(plan: RowsPlan, to: TableName) -> str:
    """Return the statement that keeps the chosen rows: `key`, and the source's columns in `source`, as they are now."""
    return _made(to, f"SELECT key, {SOURCE}\nFROM ({_chosen(plan)})")


def write_requests(plan: RowsPlan, kept: TableName, to: TableName) -> str:
    """Return the statement that writes a request for each kept row: `key` and `request`, as Vertex AI reads them."""
    return _made(to, requests_of(plan.form, plan.columns, kept.quoted))


def sample(plan: RowsPlan, rows: int) -> str:
    """Return the query for the requests of up to `rows` rows, the same ones each time: `key` and `request`."""
    first = f"(SELECT key, {SOURCE} FROM ({_chosen(plan)}) ORDER BY key LIMIT {rows:d})"
    return f"{requests_of(plan.form, plan.columns, first)}\nORDER BY key"


def survey(plan: RowsPlan) -> str:
    """Return the query for what an order comes to, one row, whatever the number of rows.

    row_count, request_bytes and longest_bytes of the requests' JSON, text_bytes and longest_text_bytes of prompts with
    their system instructions, too_long_rows over the limit of a line, blank_rows in which what the prompt names says
    nothing, attached_files, bad_files that are at no gs:// address; and of the keys what `prove_keys` returns.
    """
    rows = measured(plan.form, plan.columns, f"({_chosen(plan)})")
    sums = ", ".join(
        f"{function}({column}) AS {column}"
        for function, column in (
            ("SUM", "request_bytes"),
            ("MAX", "longest_bytes"),
            ("SUM", "text_bytes"),
            ("MAX", "longest_text_bytes"),
            ("SUM", "too_long_rows"),
            ("SUM", "blank_rows"),
            ("SUM", "attached_files"),
            ("SUM", "bad_files"),
        )
    )
    figures = f"""SELECT key, COUNT(*) AS uses, SUM(size) AS request_bytes, MAX(size) AS longest_bytes,
    SUM(said) AS text_bytes, MAX(said) AS longest_text_bytes, COUNTIF(size > {MAX_LINE_BYTES}) AS too_long_rows,
    COUNTIF(is_blank) AS blank_rows, SUM(files) AS attached_files, SUM(wrong_files) AS bad_files
  FROM ({rows})
  GROUP BY key"""
    return f"SELECT {_KEY_FIGURES}, {sums}\nFROM ({figures})"


def prove_keys(kept: TableName) -> str:
    """Return the query that shows whether each kept row has a key of its own, one row.

    row_count, null_keys without a value or empty, long_keys over the limit, repeated_keys beyond the first of each, and
    example_key, one that comes more than once or is too long.
    """
    return f"SELECT {_KEY_FIGURES}\nFROM (SELECT key, COUNT(*) AS uses FROM {kept.quoted} GROUP BY key)"


def row_problem(plan: RowsPlan, figures: Mapping[str, Any]) -> UsageError | None:
    """Return what is wrong with an order's rows, by the figures of `survey` or of `prove_keys`; None for nothing."""
    rows, column = int(figures["row_count"] or 0), shown(plan.key_column)
    found = {column: int(figures.get(column) or 0) for column in _WRONG}
    example = shown(str(figures.get("example_key") or ""))
    if not rows:
        what = f"No row of {plan.table} meets `where`." if plan.condition else f"{plan.table} has no rows."
        return UsageError(what, "Check how the values are written." if plan.condition else "Give a table with rows.")
    if found["null_keys"]:
        return UsageError(
            f"{count(found['null_keys'], 'row')} of {rows:,} have nothing in {column}, which is to be their key.",
            f'Leave them out with where="{column} IS NOT NULL", name another `key_column`, or leave it out.',
        )
    if found["repeated_keys"]:
        return UsageError(
            f"{count(found['repeated_keys'], 'row')} of {rows:,} have a key in {column} that another row has, too, "
            f"such as {example}.",
            "Name a `key_column` that is different in each row, or leave it out: keys are made then.",
        )
    if found["long_keys"]:
        return UsageError(
            f"{count(found['long_keys'], 'key')} of {rows:,} have more than {MAX_KEY_CHARACTERS:,} characters.",
            "Name a `key_column` with shorter values, or leave it out: keys are made then.",
        )
    if found["too_long_rows"]:
        return UsageError(
            f"{count(found['too_long_rows'], 'request')} of {rows:,} would have more than {MAX_LINE_BYTES:,} bytes.",
            "Leave such rows out with `where` (LENGTH of the long column), or name a shorter column in the prompt.",
        )
    if found["bad_files"]:
        return UsageError(
            f"{count(found['bad_files'], 'cell')} of the attached column name no file in Cloud Storage.",
            "Vertex AI opens gs://bucket/name, one in each cell; leave other rows out with `where`.",
        )
    return None


_WRONG: Final = ("null_keys", "repeated_keys", "long_keys", "too_long_rows", "bad_files")
_IS_NULL: Final = "key IS NULL OR key = ''"
_IS_LONG: Final = f"CHAR_LENGTH(key) > {MAX_KEY_CHARACTERS}"
_KEY_FIGURES: Final = f"""COALESCE(SUM(uses), 0) AS row_count, COALESCE(SUM(IF({_IS_NULL}, uses, 0)), 0) AS null_keys,
  COUNTIF({_IS_LONG}) AS long_keys, COALESCE(SUM(IF({_IS_NULL}, 0, uses - 1)), 0) AS repeated_keys,
  MIN(IF(uses > 1 OR {_IS_LONG}, SUBSTR(key, 1, 200), NULL)) AS example_key"""


def _made(to: TableName, query: str) -> str:
    """Return the statement that makes a table of a query's rows, unless it is there; by key, one page is little."""
    return f"CREATE TABLE IF NOT EXISTS {to.quoted}\nCLUSTER BY key AS\n{query}"


def _chosen(plan: RowsPlan) -> str:
    """Return the query for the rows of an order: `key` and `source`."""
    row = _alias(plan.columns)
    where = f"\nWHERE {plan.condition}" if plan.condition else ""
    if plan.key_column:
        key, digest = key_text(plan.column(plan.key_column), name(row)), [plan.column(plan.key_column)]
    else:
        key, digest = "", list(plan.columns)
    marks = joined(f"TO_HEX(MD5({mark_of(column, name(row))}))" for column in digest)
    hashed = f"""SELECT TO_HEX(MD5({marks})) AS digest, {key or "NULL"} AS own_key, {name(row)} AS {SOURCE}
FROM {plan.table.quoted} AS {name(row)}{where}"""
    if key:
        rows = f"SELECT own_key AS key, digest, {SOURCE} FROM ({hashed})"
    else:
        # Rows that are the same in all columns are numbered: which of them gets which number, nobody can tell.
        twin = "IF(twin = 1, '', CONCAT('-', CAST(twin AS STRING)))"
        numbered = f"SELECT digest, {SOURCE}, ROW_NUMBER() OVER (PARTITION BY digest) AS twin FROM ({hashed})"
        rows = f"""SELECT CONCAT('row-', SUBSTR(digest, 1, {_MADE_KEY_CHARS}), {twin}) AS key, digest, {SOURCE}
FROM ({numbered})"""
    if plan.sample_rows:
        return f"{rows}\nORDER BY {_PLACED}, key LIMIT {plan.sample_rows:d}"
    # A table has no order of its own: the first rows are those of the lowest keys.
    return f"{rows}\nORDER BY key LIMIT {plan.limit_rows:d}" if plan.limit_rows else rows


#: What rows are placed by when they are spread: the digest of `intake.rows.spreading`, without its highest bit.
_PLACED: Final = "CONCAT(TRANSLATE(SUBSTR(digest, 1, 1), '89abcdef', '01234567'), SUBSTR(digest, 2, 15))"


def _alias(columns: Sequence[SourceColumn]) -> str:
    """Return a name for a row that no column has."""
    taken, alias = {column.name.lower() for column in columns}, SOURCE
    while alias in taken:
        alias += "_row"
    return alias


def _refuse_parts(order: Order) -> None:
    if order.task == "embed":
        raise UsageError(
            "Embeddings of a table in BigQuery are not taken: Vertex AI reads their requests from Cloud Storage only.",
            "Export the table (bq extract) and order the file.",
        )
    if order.delivery == "now":
        raise UsageError(
            "delivery='now' answers rows of this machine; those of a table in BigQuery never come here.",
            "Leave delivery out, with limit_rows for a few rows.",
        )
    if order.limit_rows and order.sample_rows:
        raise UsageError("`limit_rows` and `sample_rows` are both given.", "Give one of them.")
    if order.reuse == "always":
        raise UsageError("Rows of a table in BigQuery are not compared with earlier batches.", "Leave `reuse` out.")
    for part, instead in _NOT_TAKEN.items():
        if getattr(order, part):
            raise UsageError(f"`{part}` does not go with a table in BigQuery.", f"{instead[:1].upper()}{instead[1:]}.")


def _order_warnings(order: Order) -> tuple[str, ...]:
    if not order.limit_rows:
        return ()
    by = f"of the lowest {shown(order.key_column)}" if order.key_column else "of the lowest made keys, which are hashes"
    return (f"A table in BigQuery has no order of its own; limit_rows takes the {order.limit_rows:,} rows {by}.",)
