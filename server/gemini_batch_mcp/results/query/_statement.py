"""Which statements may run: one SELECT over `results`, judged by the tree that the engine's own parser makes of it.

Whatever kind of node, table or function is not known here is refused, so that what a later engine adds stays out until
somebody has looked at it. The locked configuration of `query_database` is the second wall behind this one.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query._database import engine_names
from gemini_batch_mcp.results.query._functions import FUNCTIONS, TABLE_FUNCTIONS, is_operator
from gemini_batch_mcp.results.query._problems import shown_name

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

#: Far above any query that somebody writes; it bounds what the parser and the planner are given to chew.
MAX_SQL_CHARS: Final = 20_000
RELATION: Final = "results"
ALLOWED: Final = (
    "Give one SELECT over the table results; WITH, FROM, VALUES, SUMMARIZE and DESCRIBE are possible, files and "
    "settings are not."
)

#: What the parser would stop at (it takes NUL for the end), and what cannot be handed to it.
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"})
_TABLES: Final = frozenset(
    {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)
_PARTS: Final = frozenset(
    {"ASCENDING", "DESCENDING", "ORDER_DEFAULT", "ORDER_MODIFIER", "DISTINCT_MODIFIER", "LIMIT_MODIFIER"}
)
_EXPRESSIONS: Final = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA"}
    | {"LAMBDA_REF", "OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}
)
_KIND_NAMES: Final = {"": "of a rare kind", "MULTI": "one of several statements at once"}
_DESCRIPTIONS: Final = frozenset({"DESCRIBE", "SUMMARY"})

_Scope = frozenset[str]
_Place = tuple[Any, _Scope]


@dataclass(frozen=True, slots=True)
class CheckedStatement:
    """A statement that may run. `is_open_ended` says that it sorts all it finds and takes no LIMIT of its own."""

    parsed: "Statement"
    is_open_ended: bool


def checked_statement(connection: "DuckDBPyConnection", sql: str) -> CheckedStatement:
    """Return the one statement in `sql` if it may run.

    Raises:
        UsageError: it is no statement, more than one, or one that is not allowed.
        duckdb.Error: the parser's own words about a syntax error.
    """
    _refuse_text(sql)
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        found = f"The SQL holds {len(statements)} statements." if statements else "The SQL holds no statement."
        raise UsageError(found, ALLOWED)
    kind = _kind(statements[0])
    if kind != "SELECT":
        raise UsageError(f"The statement is {_KIND_NAMES.get(kind, f'of the kind {kind}')}, which is refused.", ALLOWED)
    try:
        tree = _tree(connection, sql)
    except RecursionError:
        raise UsageError("The SQL is nested too deeply.", "Simplify it.") from None
    given_names = _check(tree)
    # A name that is a WITH to us can then never be one of the engine's own relations to the engine.
    if given_names and (taken := sorted(given_names & engine_names(connection))):
        raise UsageError(f"WITH gives the name {shown_name(taken[0])}, which the engine uses.", "Take another name.")
    modifiers = {modifier["type"] for modifier in tree["node"]["modifiers"]}
    return CheckedStatement(statements[0], "ORDER_MODIFIER" in modifiers and "LIMIT_MODIFIER" not in modifiers)


def _kind(statement: "Statement") -> str:
    try:
        return statement.type.name
    except ValueError:  # DuckDB 2.0 has kinds that its own list lacks, UPDATE EXTENSIONS among them
        return ""


def _refuse_text(sql: str) -> None:
    if len(sql) > MAX_SQL_CHARS:
        raise UsageError(f"The SQL has {len(sql):,} characters.", f"Shorten it to at most {MAX_SQL_CHARS:,}.")
    if _NO_TEXT.search(sql):
        raise UsageError("The SQL holds a control character.", "Write it as plain text.")


def _tree(connection: "DuckDBPyConnection", sql: str) -> Any:
    ((text,),) = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()
    tree = json.loads(text)
    if tree["error"] or len(tree["statements"]) != 1:
        raise UsageError("The statement cannot be checked, so it is refused.", ALLOWED)
    return tree["statements"][0]


def _check(tree: Any) -> set[str]:
    """Visit every part of the tree, each with the names that WITH has given where it stands; return all such names."""
    waiting: list[_Place] = [(tree, frozenset())]
    given: set[str] = set()
    while waiting:
        part, scope = waiting.pop()
        given |= scope
        if isinstance(part, list):
            waiting.extend((member, scope) for member in part)
        elif isinstance(part, dict):
            waiting.extend(_checked_part(part, scope))
    return given


def _checked_part(part: Mapping[str, Any], scope: _Scope) -> Iterator[_Place]:
    """Check one part by itself and return those inside it."""
    kind = part.get("type")
    expression = part.get("class")
    if expression is not None:
        _check_expression(part, expression)
    elif isinstance(kind, str):
        if kind in _NODES:
            return _inside_node(part, kind, scope)
        if kind in _TABLES:
            return _inside_table(part, kind, scope)
        if kind not in _PARTS:
            raise _refused(kind)
    return ((member, scope) for member in part.values())


def _check_expression(part: Mapping[str, Any], expression: str) -> None:
    if expression == "PARAMETER":
        raise UsageError("The SQL has a parameter (? or $).", "Write the value itself.")
    if expression not in _EXPRESSIONS:
        raise _refused(expression)
    if "function_name" in part:
        _check_function(part, FUNCTIONS)


def _check_function(part: Mapping[str, Any], allowed: frozenset[str]) -> None:
    # A name may stand behind a schema or, called as a method, behind a column; what counts is the last part.
    names = {part["function_name"].lower(), *(name.lower() for name in part["qualified_name"]["path"][-1:])}
    for name in names:
        if name not in allowed and not is_operator(name):
            near = difflib.get_close_matches(name, sorted(allowed), n=1, cutoff=0.8)
            advice = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"The function {shown_name(name)} is not available.",
                f"{advice}Functions that compute from their arguments are; those for files, settings and the "
                "catalog are not.",
            )


def _inside_node(node: Mapping[str, Any], kind: str, scope: _Scope) -> Iterator[_Place]:
    """Return what is inside a query; a name of its WITH counts from the next member on, in itself only if recursive."""
    for entry in (node.get("cte_map") or {}).get("map") or ():
        yield entry["value"], scope
        scope |= {entry["key"].lower()}
    for field, member in node.items():
        if field == "cte_map":
            continue
        # The engine looks a recursive name up in the second half only.
        is_recursion = kind == "RECURSIVE_CTE_NODE" and field == "right"
        yield member, scope | {node["cte_name"].lower()} if is_recursion else scope


def _inside_table(table: Mapping[str, Any], kind: str, scope: _Scope) -> Iterator[_Place]:
    """Return what is inside a table reference that may be read."""
    if kind == "BASE_TABLE":
        path = table["qualified_name"]["path"]
        name = table["table_name"]
        if path != [name] or name.lower() not in scope | {RELATION}:
            raise UsageError(f"There is no table {shown_name('.'.join(path or [name]))}.", "The only table is results.")
    if kind == "SHOW_REF" and (table["show_type"] not in _DESCRIPTIONS or not table.get("query")):
        raise _refused("SHOW")
    function = table.get("function") if kind == "TABLE_FUNCTION" else None
    if function:
        _check_function(function, TABLE_FUNCTIONS)
        if function["class"] != "FUNCTION":
            raise _refused(function["class"])
        yield from ((member, scope) for member in function.values())
    yield from ((member, scope) for field, member in table.items() if function is None or field != "function")


def _refused(kind: str) -> UsageError:
    return UsageError(f"The statement holds a part of the kind {shown_name(kind)}, which is refused.", ALLOWED)
