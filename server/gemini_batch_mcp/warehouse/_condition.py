"""A condition over the rows of a table in BigQuery: judged as a whole, and written anew.

It chooses the same rows whenever it is asked: nothing in it looks at the clock or at chance.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.template import listed
from gemini_batch_mcp.intake.validator.corrections import nearest, shown
from gemini_batch_mcp.warehouse._columns import SourceColumn
from gemini_batch_mcp.warehouse._functions import CLOCK
from gemini_batch_mcp.warehouse._judging import parsed, refuse_parts, written

if TYPE_CHECKING:
    from sqlglot import exp

_FRAME: Final = "SELECT 1 FROM t WHERE"
_EXAMPLE: Final = "Give what would stand behind WHERE, such as country = 'DE' AND stars < 3."


def judged_condition(where: str, columns: Sequence[SourceColumn]) -> str:
    """Return a condition as SQL that may stand behind WHERE, in brackets.

    Raises:
        UsageError: it is more than a condition, names what is no column, or has something in it that may not run.
        ConfigurationError: the library that judges it is not installed.
    """
    try:
        inside = _inside(where)
        refuse_parts(inside, (), _EXAMPLE)
        _refuse_more(inside, columns)
        return f"({written(inside, where)})"
    except UsageError as error:
        # A name in capitals keeps them.
        is_word = not error.message[1:2].isupper()
        message = f"{error.message[:1].lower()}{error.message[1:]}" if is_word else error.message
        raise UsageError(f"`where` cannot be used: {message}", error.next_step) from None


def _inside(where: str) -> "exp.Expression":
    """Return what stands in a condition, which must come out of the parser as that and nothing else."""
    # On lines of its own, so that a comment in it ends before our bracket does.
    tree, frame = (parsed(f"{_FRAME} (\n{text}\n)", _EXAMPLE) for text in (where, "TRUE"))
    found = tree.args.get("where")
    if found is None or not _is_paren(found.this):
        raise UsageError("It is more than one condition.", _EXAMPLE)
    inside: exp.Expression = found.this.this
    found.this.set("this", frame.args["where"].this.this.copy())
    if tree != frame:
        raise UsageError("It is more than one condition.", _EXAMPLE)
    return inside


def _is_paren(node: object) -> bool:
    from sqlglot import exp

    return isinstance(node, exp.Paren)


def _refuse_more(inside: "exp.Expression", columns: Sequence[SourceColumn]) -> None:
    from sqlglot import exp

    known = {column.name.lower(): column.name for column in columns}
    for node in inside.walk():
        if isinstance(node, exp.Query | exp.Subquery | exp.Table | exp.Exists):
            raise UsageError("It holds a query of its own.", _EXAMPLE)
        if isinstance(node, exp.AggFunc | exp.Window):
            raise UsageError("It computes something over several rows.", _EXAMPLE)
        if isinstance(node, exp.Func) and node.sql(dialect="bigquery").upper().split("(")[0] in CLOCK:
            raise UsageError(
                f"{shown(node.sql(dialect='bigquery'))} gives another answer at another time, and an order has the "
                "same rows whenever it is given.",
                "Write the date or the value itself.",
            )
        if isinstance(node, exp.Column):
            first = node.parts[0].name
            if first.lower() not in known:
                near = nearest(first, list(known.values()))
                step = f"Did you mean {shown(near)}? " if near else ""
                names = listed([column.name for column in columns])
                raise UsageError(
                    f"There is no column {shown(first)}.", f"{step}The columns are: {names}. Texts stand in quotes."
                )
