"""GoogleSQL in the words of DuckDB, through sqlglot; and functions that only BigQuery has, as macros."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from gemini_batch_mcp.sandbox.wire import ApiError

#: Functions of BigQuery that DuckDB does not have, or has otherwise: of JSON that is none, and of null in JSON, they
#: make NULL, and texts have bytes.
MACROS: Final = (
    "CREATE OR REPLACE MACRO bq_parse_json(x) AS CASE WHEN json_valid(x) THEN CAST(x AS JSON) END",
    "CREATE OR REPLACE MACRO bq_json_value(x, p) AS CASE WHEN json_valid(x) THEN"
    " CASE WHEN json_type(x, p) NOT IN ('OBJECT', 'ARRAY', 'NULL') THEN json_extract_string(x, p) END END",
    "CREATE OR REPLACE MACRO bq_json_query(x, p) AS CASE WHEN json_valid(x) THEN"
    " CASE WHEN json_type(x, p) <> 'NULL' THEN CAST(json_extract(x, p) AS VARCHAR) END END",
    "CREATE OR REPLACE MACRO bq_json_array(x, p) AS CASE WHEN json_valid(x) THEN CASE WHEN json_type(x, p) = 'ARRAY'"
    " THEN CAST(CAST(json_extract(x, p) AS JSON[]) AS VARCHAR[]) END END",
    "CREATE OR REPLACE MACRO bq_byte_length(x) AS strlen(x)",
    "CREATE OR REPLACE MACRO bq_utc(x) AS CAST(make_timestamp(epoch_us(x)) AS VARCHAR) || '+00'",
)


Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Translated:
    """A SELECT for DuckDB, and the tables that it reads: project (empty where it names none), dataset, table.

    `makes` is the table that it is to become, None for one that is only read. `may_be_there` says that nothing happens
    where there is one, `replaces` that it takes its place.
    """

    sql: str
    tables: tuple[Name, ...]
    makes: Name | None = None
    may_be_there: bool = False
    replaces: bool = False


@lru_cache(maxsize=64)
def translated(sql: str) -> Translated:
    """Return a statement in DuckDB's words.

    Raises:
        ApiError: 400, it is none that is understood, or cannot be read.
    """
    import sqlglot
    from sqlglot import exp

    try:
        (parsed,) = sqlglot.parse(sql, read="bigquery")
    except (sqlglot.errors.SqlglotError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise ApiError(400, f"[sandbox] Syntax error: {said}") from None
    made: Any = None
    may_be_there = replaces = False
    if isinstance(parsed, exp.Create) and str(parsed.args.get("kind")).upper() == "TABLE" and parsed.expression:
        made, may_be_there = parsed.this, bool(parsed.args.get("exists"))
        replaces, parsed = bool(parsed.args.get("replace")), parsed.expression
        if isinstance(made, exp.Schema):
            made = made.this
    parsed = parsed.unnest() if isinstance(parsed, exp.Subquery) else parsed
    if not isinstance(parsed, exp.Query):
        raise ApiError(400, "[sandbox] Only SELECT, and CREATE TABLE AS SELECT, are understood here.")
    names = {cte.alias_or_name for cte in parsed.find_all(exp.CTE)}
    tables: dict[Name, None] = {}
    for table in parsed.find_all(exp.Table):
        if not table.db:
            if table.name in names or not isinstance(table.this, exp.Identifier):
                continue
            raise ApiError(400, f"[sandbox] Table {table.name[:80]!r} must be qualified with a dataset.")
        tables[(table.catalog, table.db, table.name)] = None
        table.set("catalog", None)
        for part in ("db", "this"):
            table.args[part].set("quoted", True)
    return Translated(
        sql=_adapted(parsed).sql(dialect="duckdb"),
        tables=tuple(tables),
        makes=(made.catalog, made.db, made.name) if made is not None else None,
        may_be_there=may_be_there,
        replaces=replaces,
    )


def _adapted(parsed: Any) -> Any:
    """Return a statement with what sqlglot puts otherwise than BigQuery means it replaced by macros."""
    from sqlglot import exp

    by_path = {
        exp.JSONExtractScalar: "bq_json_value",
        exp.JSONExtract: "bq_json_query",
        exp.JSONExtractArray: "bq_json_array",
    }

    def macro(name: str, first: Any, *others: Any) -> Any:
        # What takes a node's place is not looked into any further.
        return exp.Anonymous(this=name, expressions=[first.transform(adapted), *others])

    def adapted(node: Any) -> Any:
        if isinstance(node, exp.SafeFunc) and isinstance(node.this, exp.ParseJSON):
            node = node.this
        if isinstance(node, exp.ParseJSON):
            return macro("bq_parse_json", node.this)
        if isinstance(node, exp.ByteLength):
            return macro("bq_byte_length", node.this)
        if isinstance(node, exp.Format):
            return macro("printf", node.this, *(part.transform(adapted) for part in node.expressions))
        if isinstance(node, exp.String) and node.args.get("zone") == exp.Literal.string("UTC"):
            return macro("bq_utc", node.this)
        if (name := by_path.get(type(node))) is not None:
            path = node.expression
            text = path.sql(dialect="duckdb")[1:-1].replace("''", "'") if path is not None else "$"
            return macro(name, node.this, exp.Literal.string(text))
        return node

    return parsed.transform(adapted)
