"""Answers in BigQuery as a table of ours: Vertex AI's output laid against the keys that were sent, beside their rows.

The table has one row for each key whose job has ended, in no order; whoever reads it goes by `key`:

    the source's own columns; see `results.table.layout` for names that clash
    key, status, text
    json            the answer's JSON as text, where a response schema was ordered and it fits; then its fields
    finish_reason, error_code, error, model_version
    input_tokens, output_tokens, thoughts_tokens
    cost_usd        what all attempts at the row cost, at the price of a token with its date
    attempt         which attempt the answer came from; NULL for missing rows
    calls           as JSON text: function calls, code, files by address; else NULL
    cleaned         where a response schema was ordered: true for a good answer whose JSON had a code block around it
    history         where there was more than one attempt: how each ended, and what it took
"""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of literals and names made by `_text`

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gemini_batch_mcp.domain import PERMANENT_CODES, Column, JsonObject
from gemini_batch_mcp.results.outcomes import MISFIT
from gemini_batch_mcp.results.table.inputs import Rates
from gemini_batch_mcp.results.table.layout import layout
from gemini_batch_mcp.warehouse._classified import classified
from gemini_batch_mcp.warehouse._columns import SourceColumn
from gemini_batch_mcp.warehouse._fields import body_of, fault_of, fields_of
from gemini_batch_mcp.warehouse._names import TableName
from gemini_batch_mcp.warehouse._text import literal, name, readable_json, texts

#: Names that BigQuery keeps for itself begin so.
_RESERVED: Final = re.compile(r"_TABLE_|_FILE_|_PARTITION|_ROW_TIMESTAMP|__ROOT__|_COLIDENTIFIER", re.IGNORECASE)
_MAX_NAME_CHARS: Final = 100
_PERMANENT: Final = ", ".join(map(str, sorted(PERMANENT_CODES)))
_TOKENS: Final = ("input_tokens", "output_tokens", "thoughts_tokens")
_HISTORY: Final = ("attempt", "status", "error_code", "error", "finish_reason", *_TOKENS)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One job that has ended: the table it was made of, and its output, None where it ended without one.

    `number` counts attempts from 1; jobs of one attempt have the same. `response_type` is that of the output's column
    `response`. Without `rates` nobody knows what the answers cost.
    """

    number: int
    sent: TableName
    answers: TableName | None
    response_type: Literal["STRING", "JSON"] = "STRING"
    rates: Rates | None = None


@dataclass(frozen=True, slots=True)
class ResultLayout:
    """The columns of a result table, in order, with BigQuery's types; `expressions` fill them, in the same order."""

    columns: tuple[Column, ...]
    expressions: tuple[str, ...]


def result_layout(columns: Sequence[SourceColumn], schema: JsonObject, *, has_history: bool = False) -> ResultLayout:
    """Return the columns of a result table beside those of the source."""
    fields = fields_of(schema, "best.readable")
    named = layout(
        [Column(column.name, _type(column)) for column in columns],
        [Column(_fit(field.name), field.type) for field in fields],
    )
    found: list[tuple[Column, str]] = [
        (_told(place.column, column.name), f"kept.source.{name(column.name)}")
        for place, column in zip(named.source, columns, strict=True)
    ]
    found += [(Column("key", "STRING"), "kept.key"), *_own("status", "text")]
    found.append((Column("json", "STRING"), "IF(best.status = 'ok', best.body, NULL)"))
    found += [
        (_told(place.column, field.name), f"IF(best.status = 'ok', {field.expression}, NULL)")
        for place, field in zip(named.fields, fields, strict=True)
    ]
    found += _own("finish_reason", "error_code", "error", "model_version")
    found += _own("input_tokens", "output_tokens", "thoughts_tokens")
    found.append((Column("cost_usd", "FLOAT64"), "best.cost_usd"))
    found.append((Column("attempt", "INT64"), "IF(best.is_answered, best.attempt, NULL)"))
    found += _own("calls")
    if schema:
        found.append((Column("cleaned", "BOOL"), "best.status = 'ok' AND best.is_taken"))
    if has_history:
        found.append((Column("history", "ARRAY<STRUCT<…>>"), "best.history"))
    return ResultLayout(tuple(column for column, _ in found), tuple(expression for _, expression in found))


def collect(
    columns: Sequence[SourceColumn], schema: JsonObject, kept: TableName, attempts: Sequence[Attempt], to: TableName
) -> str:
    """Return the statement that makes the result table, in the place of an older one.

    `columns` are the source's, which `kept` holds; `attempts` have one entry for each job that has ended.
    """
    has_history = len({attempt.number for attempt in attempts}) > 1
    laid_out = result_layout(columns, schema, has_history=has_history)
    selected = ",\n  ".join(
        f"{expression} AS {name(column.name)}"
        for column, expression in zip(laid_out.columns, laid_out.expressions, strict=True)
    )
    return f"""CREATE OR REPLACE TABLE {to.quoted}
CLUSTER BY key AS
WITH sent AS ({_sent(attempts)}),
lines AS ({_lines(attempts)}),
judged AS ({_judged(schema, "lines")}),
one AS (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY key, attempt ORDER BY IF(status = 'ok', 0, 1), line) AS place FROM judged
),
ended AS (
  SELECT sent.key, sent.attempt, one.key IS NOT NULL AS is_answered, COALESCE(one.status, 'missing') AS status,
    COALESCE(one.text, '') AS text, one.body{", one.readable" if schema else ""},
    COALESCE(one.is_taken, FALSE) AS is_taken,
    COALESCE(one.finish_reason, '') AS finish_reason, one.error_code, COALESCE(one.error, '') AS error,
    COALESCE(one.model_version, '') AS model_version, COALESCE(one.input_tokens, 0) AS input_tokens,
    COALESCE(one.output_tokens, 0) AS output_tokens, COALESCE(one.thoughts_tokens, 0) AS thoughts_tokens,
    one.calls, {_cost(attempts)} AS cost
  FROM sent LEFT JOIN one ON one.key = sent.key AND one.attempt = sent.attempt AND one.place = 1
),
ranked AS (
  SELECT *, SUM(cost) OVER (PARTITION BY key) AS cost_usd,
    ROW_NUMBER() OVER (
      PARTITION BY key ORDER BY CASE WHEN status = 'ok' THEN 0 WHEN is_answered THEN 1 ELSE 2 END, attempt DESC
    ) AS place{_told_history(has_history)}
  FROM ended
),
best AS (SELECT * FROM ranked WHERE place = 1)
SELECT
  {selected}
FROM best JOIN {kept.quoted} AS kept ON kept.key = best.key"""


def leftovers(attempts: Sequence[Attempt]) -> str:
    """Return the query for what does not go together, one row: answers against the keys that were sent.

    duplicate (lines beyond the first of a key), unexpected (lines without a key, or with one that was not sent),
    missing (keys without an answer in their attempt), and example keys: duplicate_key, unexpected_key, missing_key.
    """
    return f"""WITH sent AS (SELECT key, attempt FROM ({_sent(attempts)}) GROUP BY key, attempt),
came AS (SELECT key, attempt, COUNT(*) AS uses FROM ({_lines(attempts, with_answers=False)}) GROUP BY key, attempt)
SELECT COALESCE(SUM(IF(sent.key IS NOT NULL AND uses > 1, uses - 1, 0)), 0) AS duplicate,
  COALESCE(SUM(IF(sent.key IS NULL, uses, 0)), 0) AS unexpected,
  COUNTIF(uses IS NULL) AS missing,
  MIN(IF(sent.key IS NOT NULL AND uses > 1, sent.key, NULL)) AS duplicate_key,
  MIN(IF(sent.key IS NULL, COALESCE(came.key, ''), NULL)) AS unexpected_key,
  MIN(IF(uses IS NULL, sent.key, NULL)) AS missing_key
FROM sent FULL JOIN came ON came.key = sent.key AND came.attempt = sent.attempt"""


def counts(results: TableName) -> str:
    """Return the query for what a result table holds, one row a status.

    status, row_count, permanent_rows (failed in a way that the same request meets again), input_tokens, output_tokens,
    thoughts_tokens, cost_usd, unmetered (answers without a count of tokens), calls, last_attempt and from_last (rows
    whose answer came from it).
    """
    return f"""WITH last AS (SELECT MAX(attempt) AS number FROM {results.quoted})
SELECT status, COUNT(*) AS row_count, COUNTIF(status = 'failed' AND error_code IN ({_PERMANENT})) AS permanent_rows,
  SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens, SUM(thoughts_tokens) AS thoughts_tokens,
  SUM(cost_usd) AS cost_usd, COUNTIF(attempt IS NOT NULL AND input_tokens + output_tokens = 0) AS unmetered,
  COUNT(calls) AS calls, MAX(last.number) AS last_attempt, COUNTIF(COALESCE(attempt = last.number, FALSE)) AS from_last
FROM {results.quoted} CROSS JOIN last
GROUP BY status
ORDER BY status"""


def usage(results: TableName) -> str:
    """Return the query for what each attempt took, of a table with `history`: one row an attempt, in their order.

    attempt, row_count, ok_rows, input_tokens, output_tokens, thoughts_tokens; each of these tokens also as wasted_… in
    rows that the attempt gave no good answer.
    """
    sums = ", ".join(
        f"SUM(entry.{column}) AS {column}, SUM(IF(entry.status = 'ok', 0, entry.{column})) AS wasted_{column}"
        for column in _TOKENS
    )
    return f"""SELECT entry.attempt AS attempt, COUNT(*) AS row_count, COUNTIF(entry.status = 'ok') AS ok_rows, {sums}
FROM {results.quoted} AS results CROSS JOIN UNNEST(results.history) AS entry
GROUP BY entry.attempt
ORDER BY attempt"""


def tokens(results: TableName, limit: int) -> str:
    """Return the query for what answers took, one row, whatever their number.

    row_count (answers with a count of tokens), longest (the most tokens of output, thinking included), and sampled: of
    `limit` of them at most, which are the same ones each time, tokens of input and of output as `12 34,56 78`.
    """
    each = "CONCAT(CAST(taken AS STRING), ' ', CAST(written AS STRING))"
    return f"""WITH metered AS (
  SELECT key, input_tokens AS taken, output_tokens + thoughts_tokens AS written
  FROM {results.quoted} WHERE input_tokens + output_tokens > 0
),
chosen AS (SELECT {each} AS took FROM metered ORDER BY TO_HEX(MD5(key)), key LIMIT {limit:d})
SELECT COUNT(*) AS row_count, MAX(written) AS longest, (SELECT STRING_AGG(took, ',') FROM chosen) AS sampled
FROM metered"""


def reasons(results: TableName, limit: int) -> str:
    """Return the query for why rows are not ok, most rows first: status, reason, row_count, example_key."""
    return f"""SELECT status, error AS reason, COUNT(*) AS row_count, MIN(key) AS example_key
FROM {results.quoted}
WHERE status NOT IN ('ok', 'missing')
GROUP BY status, error
ORDER BY row_count DESC, example_key
LIMIT {limit:d}"""


def retry(
    results: TableName,
    sent: Sequence[TableName],
    statuses: Sequence[str],
    to: TableName,
    *,
    skip_permanent: bool = False,
) -> str:
    """Return the statement that makes a request table of the rows that ended in one of these ways.

    The requests are those that were sent, letter by letter; `sent` are the tables of the first attempt's jobs.
    """
    permanent = f" AND NOT (status = 'failed' AND COALESCE(error_code, 0) IN ({_PERMANENT}))" if skip_permanent else ""
    requests = "\n  UNION ALL ".join(f"SELECT key, request FROM {table.quoted}" for table in sent)
    return f"""CREATE TABLE IF NOT EXISTS {to.quoted}
CLUSTER BY key AS
SELECT key, request FROM ({requests})
WHERE key IN (SELECT key FROM {results.quoted} WHERE status IN {texts(statuses)}{permanent})"""


def _sent(attempts: Sequence[Attempt]) -> str:
    each = (f"SELECT key, {attempt.number:d} AS attempt FROM {attempt.sent.quoted}" for attempt in attempts)
    return "\n  UNION ALL ".join(each)


def _lines(attempts: Sequence[Attempt], *, with_answers: bool = True) -> str:
    """Return the query for the lines of all outputs: key and attempt, and what was answered."""
    tables = []
    for attempt in attempts:
        if attempt.answers is None:
            continue
        came = "response" if attempt.response_type == "STRING" else "TO_JSON_STRING(response)"
        # Of lines with one key in one attempt, which is rare: the same one is the first whenever it is asked.
        answer = (
            f", {readable_json(came)} AS response, COALESCE(status, '') AS stated, "
            f"TO_HEX(MD5(COALESCE({came}, ''))) AS line"
        )
        tables.append(
            f"SELECT key, {attempt.number:d} AS attempt{answer if with_answers else ''} FROM {attempt.answers.quoted}"
        )
    none = "SELECT '' AS key, 0 AS attempt" + (", '' AS response, '' AS stated, '' AS line" if with_answers else "")
    return "\n  UNION ALL ".join(tables) or f"SELECT * FROM ({none}) WHERE FALSE"


def _judged(schema: JsonObject, lines: str) -> str:
    """Return the query for answers with their status, and with their JSON where a schema was ordered."""
    answers = classified(lines)
    if not schema:
        return f"SELECT *, CAST(NULL AS STRING) AS body, FALSE AS is_taken FROM ({answers})"
    bodies = f"SELECT *, IF(status = 'ok', {body_of('text')}, NULL) AS body FROM ({answers})"
    read = f"SELECT *, {readable_json('body')} AS readable FROM ({bodies})"
    faults = f"SELECT *, IF(status = 'ok', {fault_of(schema, 'readable')}, NULL) AS fault FROM ({read})"
    return f"""SELECT * EXCEPT (status, error, body, fault), IF(fault IS NULL, status, 'failed') AS status,
    IF(fault IS NULL, error, CONCAT({literal(MISFIT)}, fault)) AS error, IF(fault IS NULL, body, NULL) AS body,
    fault IS NULL AND body <> text AS is_taken
  FROM ({faults})"""


def _cost(attempts: Sequence[Attempt]) -> str:
    """Return the expression of what a line cost in USD: NULL where its tokens or their price are not known."""
    rates = {attempt.number: attempt.rates for attempt in attempts if attempt.rates is not None}
    cases = " ".join(
        f"WHEN {number:d} THEN one.input_tokens * CAST({rate.input_usd!r} AS FLOAT64) "
        f"+ (one.output_tokens + one.thoughts_tokens) * CAST({rate.output_usd!r} AS FLOAT64)"
        for number, rate in rates.items()
    )
    if not cases:
        return "CAST(NULL AS FLOAT64)"
    took = "one.input_tokens + one.output_tokens + one.thoughts_tokens"
    return f"IF({took} > 0, CASE sent.attempt {cases} END, NULL)"


def _told_history(has_history: bool) -> str:
    if not has_history:
        return ""
    all_of_a_key = "PARTITION BY key ORDER BY attempt ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
    return f",\n    ARRAY_AGG(STRUCT({', '.join(_HISTORY)})) OVER ({all_of_a_key}) AS history"


def _own(*names: str) -> list[tuple[Column, str]]:
    types = {"error_code": "INT64", "input_tokens": "INT64", "output_tokens": "INT64", "thoughts_tokens": "INT64"}
    return [(Column(own, types.get(own, "STRING")), f"best.{own}") for own in names]


def _told(column: Column, origin: str) -> Column:
    return Column(column.name, column.type, origin if origin != column.name else "")


def _type(column: SourceColumn) -> str:
    return f"ARRAY<{column.type.upper()}>" if column.is_repeated else column.kind


def _fit(text: str) -> str:
    """Return a name that BigQuery takes for a column of ours."""
    fit = re.sub(r"\W", "_", text)[:_MAX_NAME_CHARS] or "column"
    return f"_{fit}" if fit[0].isdigit() else f"of{fit}" if _RESERVED.match(fit) else fit
