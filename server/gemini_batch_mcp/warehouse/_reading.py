"""Reading a result table in BigQuery: pages in the order of keys, the whole of it, and answers laid against others.

What counts as equal in a comparison is what does in tables on this machine (`batches.answers._pairs`): numbers within a
tolerance, texts after trimming and in any letter case, lists as sets. Each side has a label of each row, equal things
the same one.
"""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of literals and names made by `_text`

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.warehouse._columns import SourceColumn, mark_of
from gemini_batch_mcp.warehouse._names import TableName
from gemini_batch_mcp.warehouse._text import literal, name, parsed_json, readable_json, texts

#: Columns of a page that may be long are cut there; they say so by being one character longer than may be shown.
_LONG: Final = ("text", "error", "calls")
_PAGE: Final = ("key", "status", "text", "error", "finish_reason", "calls")
_FORMATS: Final = MappingProxyType({"jsonl": "JSON", "csv": "CSV", "parquet": "PARQUET"})
#: What is compared: texts, numbers, or lists in JSON.
Kind = Literal["text", "number", "list"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two columns: one of the answers in `results`, and what is expected, beside it or in the results `other`.

    `is_json` and `other_is_json` say that a column holds JSON as text.
    """

    results: TableName
    actual: SourceColumn
    expected: SourceColumn
    kind: Kind
    other: TableName | None = None
    is_json: bool = False
    other_is_json: bool = False


def page(
    results: TableName,
    *,
    view: Literal["rows", "failures"],
    limit: int,
    keys: Sequence[str] = (),
    after: str = "",
    offset: int = 0,
    max_cell_chars: int = 2000,
) -> str:
    """Return the query for a page of rows in the order of their keys: key, status, text, error, finish_reason, calls.

    One row more than `limit` says that there are more. `after` is the last key of the page before; the table is
    clustered by key, so such a page reads little. `failures` are all rows that are not ok.
    """
    conditions = [
        *(["status <> 'ok'"] if view == "failures" else []),
        *([f"key IN {texts(keys)}"] if keys else []),
        *([f"key > {literal(after)}"] if after else []),
    ]
    cells = ", ".join(
        f"SUBSTR({column}, 1, {max_cell_chars + 1:d}) AS {column}" if column in _LONG else column for column in _PAGE
    )
    where = f"\nWHERE {' AND '.join(conditions)}" if conditions else ""
    skipped = f" OFFSET {offset:d}" if offset else ""
    return f"SELECT {cells}\nFROM {results.quoted}{where}\nORDER BY key\nLIMIT {limit + 1:d}{skipped}"


def rows(results: TableName, *, columns: Sequence[SourceColumn] = (), keys: Sequence[str] = ()) -> str:
    """Return the query for whole rows in the order of their keys: all, or those with these keys.

    The source's `columns` come as the texts that a prompt inserts, as tables on this machine have them; where none are
    named, all are as they are stored.
    """
    where = f"\nWHERE key IN {texts(keys)}" if keys else ""
    as_texts = ", ".join(f"{mark_of(column, 'results')} AS {name(column.name)}" for column in columns)
    every = f"results.* REPLACE ({as_texts})" if as_texts else "*"
    return f"SELECT {every}\nFROM {results.quoted} AS results{where}\nORDER BY results.key"


def export(results: TableName, columns: Sequence[Column], uri: str, format: Literal["jsonl", "csv", "parquet"]) -> str:
    """Return the statement that writes a result table to Cloud Storage; BigQuery numbers the files at the `*` in `uri`.

    Raises:
        UsageError: `uri` is none of Cloud Storage with one `*` in it.
    """
    if not uri.startswith("gs://") or uri.count("*") != 1 or "*" in uri.removeprefix("gs://").partition("/")[0]:
        raise UsageError(
            f"{plain_text(uri, 200)} isn't a place for the files of a table.", "Write gs://bucket/path/name-*.jsonl."
        )
    # A CSV holds no lists.
    cells = ", ".join(
        f"TO_JSON_STRING({name(column.name)}) AS {name(column.name)}"
        if format == "csv" and column.type.startswith(("ARRAY", "STRUCT"))
        else name(column.name)
        for column in columns
    )
    options = f"uri = {literal(uri)}, format = '{_FORMATS[format]}', overwrite = FALSE"
    return f"EXPORT DATA OPTIONS ({options}) AS\nSELECT {cells}\nFROM {results.quoted}\nORDER BY key"


def compared(
    sides: Compared, *, tolerance: float, after: str, limit: int, max_pairs: int, max_labels: int, cell_chars: int
) -> str:
    """Return the query for all that a comparison says: part, n, m, k, x, row_key, expected_text, actual_text.

    1: n rows, m of them with a good answer on both sides, k of these equal. 2: the commonest pairs, n rows each, by the
    first row of each. 3: rows that differ, behind the key `after`, one more than `limit`. 4: n labels, and x, the
    sum of the products of how often either side has each. 5 and 6: of equal rows and of others, the sums k of how often
    the labels of a row stand on the opposite side, and x of their squares; for up to `max_labels` labels.
    """
    return f"""WITH pairs AS ({_pairs(sides, tolerance, cell_chars)}),
judged AS (SELECT * FROM pairs WHERE same IS NOT NULL),
counted AS (SELECT e, a, same, COUNT(*) AS n, MIN(row_key) AS first_key FROM judged GROUP BY e, a, same),
labels AS (
  SELECT label, SUM(one) AS one, SUM(two) AS two
  FROM (SELECT e AS label, n AS one, 0 AS two FROM counted UNION ALL SELECT a AS label, 0 AS one, n AS two FROM counted)
  GROUP BY label
),
weights AS (
  SELECT same, n, CAST(of_e.two + of_a.one AS FLOAT64) AS weight
  FROM counted JOIN labels AS of_e ON of_e.label = e JOIN labels AS of_a ON of_a.label = a
  WHERE (SELECT COUNT(*) FROM labels) <= {max_labels:d}
),
top_pairs AS (
  SELECT SUM(n) AS pair_rows, MIN(first_key) AS pair_key
  FROM counted GROUP BY e, a ORDER BY pair_rows DESC, pair_key LIMIT {max_pairs:d}
),
differing AS (
  SELECT row_key, shown_e, shown_a FROM judged
  WHERE NOT same AND row_key > {literal(after)} ORDER BY row_key LIMIT {limit + 1:d}
)
SELECT 1 AS part, COUNT(*) AS n, COUNT(same) AS m, CAST(COUNTIF(same) AS FLOAT64) AS k, CAST(NULL AS FLOAT64) AS x,
  CAST(NULL AS STRING) AS row_key, CAST(NULL AS STRING) AS expected_text, CAST(NULL AS STRING) AS actual_text
FROM pairs
UNION ALL SELECT 2, pair_rows, NULL, NULL, NULL, judged.row_key, shown_e, shown_a
FROM top_pairs JOIN judged ON judged.row_key = pair_key
UNION ALL SELECT 3, NULL, NULL, NULL, NULL, row_key, shown_e, shown_a FROM differing
UNION ALL SELECT 4, COUNT(*), NULL, NULL, SUM(CAST(one AS FLOAT64) * CAST(two AS FLOAT64)), NULL, NULL, NULL FROM labels
UNION ALL SELECT IF(same, 5, 6), NULL, NULL, SUM(n * weight), SUM(n * weight * weight), NULL, NULL, NULL
FROM weights GROUP BY same"""


def _pairs(sides: Compared, tolerance: float, cell_chars: int) -> str:
    """Return the query for rows: labels `e` and `a`, `same`, NULL without a good answer, and both as shown."""
    beside = "o" if sides.other is not None else "r"
    tables = f"{sides.results.quoted} AS r"
    good = f"r.status = 'ok' AND r.{name(sides.actual.name)} IS NOT NULL"
    if sides.other is not None:
        tables += f" JOIN {sides.other.quoted} AS o ON o.key = r.key"
        good += f" AND o.status = 'ok' AND o.{name(sides.expected.name)} IS NOT NULL"
    expected = _text(sides.expected, beside, is_json=sides.other_is_json)
    actual = _text(sides.actual, "r", is_json=sides.is_json)
    # Of a list a text has the entries, and of anything else itself.
    whole = mark_of(sides.expected, beside), mark_of(sides.actual, "r")
    labels = [_label(sides.kind, *texts) for texts in zip(("e_text", "a_text"), ("e_whole", "a_whole"), strict=True)]
    same = "e_label = a_label"
    if sides.kind == "number":
        one, two = _number("e_text"), _number("a_text")
        close = f"ABS({one} - {two}) <= {tolerance!r} * GREATEST(ABS({one}), ABS({two}))"
        same = f"COALESCE({close}, {same})"
    labelled = "TRUE"
    if sides.other is None:
        # A blank cell of a source is no label, unless answers are blank as well.
        answer = _text(sides.actual, "b", is_json=sides.is_json)
        blank = f"(SELECT LOGICAL_OR(TRIM({answer}, ' ') = '') FROM {sides.results.quoted} AS b WHERE b.status = 'ok')"
        labelled = f"(TRIM(e_text, ' ') <> '' OR {blank})"
    shown = f"SUBSTR(e_text, 1, {cell_chars + 1:d}) AS shown_e, SUBSTR(a_text, 1, {cell_chars + 1:d}) AS shown_a"
    return f"""SELECT row_key, TO_HEX(MD5(e_label)) AS e, TO_HEX(MD5(a_label)) AS a,
    IF(is_good AND {labelled}, {same}, NULL) AS same, {shown}
  FROM (
    SELECT *, {labels[0]} AS e_label, {labels[1]} AS a_label
    FROM (
      SELECT r.key AS row_key, {good} AS is_good, {expected} AS e_text, {actual} AS a_text,
        {whole[0]} AS e_whole, {whole[1]} AS a_whole
      FROM {tables}
    )
  )"""


def _text(column: SourceColumn, row: str, *, is_json: bool) -> str:
    """Return the expression of a cell as text; of a JSON text what it says."""
    text = mark_of(column, row)
    return f"COALESCE(JSON_VALUE({readable_json(text)}, '$'), {text})" if is_json else text


def _number(text: str) -> str:
    return f"SAFE_CAST(TRIM({text}) AS FLOAT64)"


def _label(kind: Kind, text: str, whole: str) -> str:
    plain = f"LOWER(TRIM({text}, ' '))"
    match kind:
        case "text":
            return plain
        case "number":
            return f"COALESCE(FORMAT('%.9g', {_number(text)}), {plain})"
        case "list":
            end = literal("\n")
            items = f"UNNEST(JSON_QUERY_ARRAY({readable_json(whole)}, '$')) AS item"
            entry = "LOWER(TRIM(COALESCE(JSON_VALUE(item, '$'), item), ' '))"
            entries = f"SELECT DISTINCT CONCAT({entry}, {end}) AS entry FROM {items}"
            of_list = f"COALESCE((SELECT STRING_AGG(entry, '' ORDER BY entry) FROM ({entries})), '')"
            is_list = rf"REGEXP_CONTAINS({whole}, r'^\s*\[') AND {parsed_json(whole)} IS NOT NULL"
            return f"CASE WHEN {is_list} THEN {of_list} ELSE CONCAT({plain}, {end}) END"
