"""What other rooms ask of this one: SQL for BigQuery as text, from values.

In the order of a batch's life: `table_named` and `plan_rows` judge what is asked; `survey` and `sample` say what it
comes to; `keep_rows`, `prove_keys` and `write_requests` make what Vertex AI reads; `collect` makes a table of its
answers, with `leftovers`, `counts`, `usage`, `tokens` and `reasons`; `retry` makes the next request table; `page`,
`rows`, `judged_query`, `compared` and `export` read. Every value stands in a statement as a literal: what is shown is
what runs.
"""

from gemini_batch_mcp.warehouse._answers import (
    Attempt,
    ResultLayout,
    collect,
    counts,
    leftovers,
    reasons,
    result_layout,
    retry,
    tokens,
    usage,
)
from gemini_batch_mcp.warehouse._columns import SourceColumn
from gemini_batch_mcp.warehouse._fields import field_types, unchecked
from gemini_batch_mcp.warehouse._names import TableName, is_table, table_named
from gemini_batch_mcp.warehouse._orders import (
    RowsPlan,
    keep_rows,
    plan_rows,
    prove_keys,
    row_problem,
    sample,
    survey,
    write_requests,
)
from gemini_batch_mcp.warehouse._query import judged_query
from gemini_batch_mcp.warehouse._reading import Compared, Kind, compared, export, page, rows

__all__ = [
    "Attempt",
    "Compared",
    "Kind",
    "ResultLayout",
    "RowsPlan",
    "SourceColumn",
    "TableName",
    "collect",
    "compared",
    "counts",
    "export",
    "field_types",
    "is_table",
    "judged_query",
    "keep_rows",
    "leftovers",
    "page",
    "plan_rows",
    "prove_keys",
    "reasons",
    "result_layout",
    "retry",
    "row_problem",
    "rows",
    "sample",
    "survey",
    "table_named",
    "tokens",
    "unchecked",
    "usage",
    "write_requests",
]
