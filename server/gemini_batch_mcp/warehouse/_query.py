"""A user's query over a result table in BigQuery: one SELECT over the tables that it is given, and no others."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.warehouse._judging import parsed, refuse_parts, written
from gemini_batch_mcp.warehouse._names import TableName

if TYPE_CHECKING:
    from sqlglot import exp

_ADVICE: Final = "Give one SELECT in BigQuery's SQL over the table {}; WITH and UNNEST work, too."


def judged_query(sql: str, tables: Mapping[str, TableName]) -> str:
    """Return a user's SELECT over these tables, by the names that it uses, with the real ones in their place.

    Raises:
        UsageError: it is something else, reads another table, or has something in it that may not run.
        ConfigurationError: the library that judges it is not installed.
    """
    advice = _ADVICE.format(" and ".join(tables))
    tree = parsed(sql, advice)
    if not _is_query(tree):
        raise UsageError("The SQL isn't a SELECT.", advice)
    refuse_parts(tree, _parts(), advice)
    return written(_with_tables(tree, {name.lower(): table for name, table in tables.items()}, advice), sql)


def _is_query(tree: "exp.Expression") -> bool:
    from sqlglot import exp

    return isinstance(tree, exp.Select | exp.SetOperation | exp.Subquery)


def _parts() -> tuple[type, ...]:
    """Return the kinds of parts that a query consists of."""
    from sqlglot import exp

    return (
        exp.Select,
        exp.SetOperation,
        exp.Subquery,
        exp.From,
        exp.Join,
        exp.Where,
        exp.Group,
        exp.Having,
        exp.Order,
        exp.Ordered,
        exp.Limit,
        exp.Offset,
        exp.With,
        exp.CTE,
        exp.TableAlias,
        exp.Table,
        exp.Window,
        exp.WindowSpec,
        exp.Qualify,
        exp.Distinct,
        exp.Star,
        exp.Aliases,
        exp.HavingMax,
        exp.IgnoreNulls,
        exp.RespectNulls,
        exp.Filter,
        exp.Cube,
        exp.Rollup,
        exp.GroupingSets,
    )


def _with_tables(tree: "exp.Expression", tables: Mapping[str, TableName], advice: str) -> "exp.Expression":
    from sqlglot import exp

    given = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    if shadowed := sorted(given & set(tables)):
        raise UsageError(f"WITH gives {shadowed[0]} another meaning.", "Use another name for it.")
    for table in list(tree.find_all(exp.Table)):
        name = table.name.lower()
        if not isinstance(table.this, exp.Identifier) or table.db or table.catalog:
            what = table.sql(dialect="bigquery", comments=False)
            unnested = " A list of a row is read by UNNEST(results.column)." if table.db.lower() in tables else ""
            raise UsageError(f"There is no table {shown(what)}.", f"{advice}{unnested}")
        if name in tables:
            real = tables[name]
            alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True))
            found = exp.Table(
                this=exp.to_identifier(real.table, quoted=True),
                db=exp.to_identifier(real.dataset, quoted=True),
                catalog=exp.to_identifier(real.project, quoted=True),
                alias=alias.copy(),
                joins=table.args.get("joins"),
            )
            table.replace(found)
        elif name not in given:
            raise UsageError(f"There is no table {shown(table.name)}.", advice)
    return tree
