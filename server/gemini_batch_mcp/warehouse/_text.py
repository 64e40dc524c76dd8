"""GoogleSQL as text: literals, names, and the expression that escapes a text as JSON does.

Nothing of a prompt, a key, a value or a name leaves the literal that it is put into here.
"""

import re
from collections.abc import Iterable
from typing import Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.tables.sql import JSON_ESCAPES
from gemini_batch_mcp.intake.validator.corrections import shown

#: Escapes of GoogleSQL's literals. No character that ends a literal, or a line
#: in it, is left; all others stand as they are.
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {
    ord("\\"): "\\\\",
    ord("'"): "\\'",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}
_HALF: Final = re.compile("[\ud800-\udfff]")
#: Readers of SQL differ in how such a one is written between backticks.
_NOT_IN_NAMES: Final = re.compile(r"[`\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: What is escaped in two steps: these get a backslash in front, control characters something else in their place.
_MARKS: Final = r"""r'(["\\])', r'\\\1'"""
_CONTROLS: Final = r"r'[\x00-\x1f]'"
#: When a text says something; as for tables on this machine (`intake.tables.kept_columns`).
SAYS: Final = r"r'[^\s\p{Z}\p{Cf}]'"


def literal(text: str) -> str:
    """Return text as a literal.

    Raises:
        UsageError: it holds half a surrogate pair, which is no text.
    """
    return f"'{_escaped(text)}'"


def name(text: str) -> str:
    """Return a column's name as an identifier.

    Raises:
        UsageError: it has characters that no column of BigQuery has: a backtick, a backslash, one that controls.
    """
    if not text or _NOT_IN_NAMES.search(text):
        raise UsageError(
            f"BigQuery has no column by the name {shown(text)}.", "Name the columns as the table has them."
        )
    return f"`{text}`"


def texts(values: Iterable[str]) -> str:
    """Return texts as a list in brackets, for IN; one that nothing is in where there are none."""
    return f"({', '.join(map(literal, values)) or 'NULL'})"


def joined(parts: Iterable[str]) -> str:
    """Return the expression of texts one behind the other."""
    arguments = list(parts)
    return arguments[0] if len(arguments) == 1 else f"CONCAT({', '.join(arguments)})"


def json_inside(value: str) -> str:
    """Return the expression of what stands between the quotation marks of a JSON text, as our own lines have it.

    Not by TO_JSON_STRING: how that spells the escapes of control characters is not documented.
    """
    escaped = f"REGEXP_REPLACE({value}, {_MARKS})"
    written = escaped
    for code in range(32):
        # A regular expression and its replacement: no control character stands in the SQL itself.
        written = f"REGEXP_REPLACE({written}, r'\\x{code:02x}', r'\\{JSON_ESCAPES[code]}')"
    return f"IF(REGEXP_CONTAINS({value}, {_CONTROLS}), {written}, {escaped})"


def parsed_json(text: str) -> str:
    """Return the expression of a text as JSON; NULL where it is none."""
    return f"SAFE.PARSE_JSON({text}, wide_number_mode => 'round')"


def readable_json(text: str) -> str:
    """Return the expression of a JSON text in which what lies beyond U+FFFF stands as it is.

    JSON_VALUE and its like take the two escapes of such a character, in a text, for two that are broken.
    """
    has_halves = rf"REGEXP_CONTAINS({text}, r'\\u[dD][89abAB]')"
    is_json = f"{parsed_json(text)} IS NOT NULL"
    return f"CASE WHEN {has_halves} AND {is_json} THEN TO_JSON_STRING({parsed_json(text)}) ELSE {text} END"


def _escaped(text: str) -> str:
    if _HALF.search(text):
        raise UsageError(
            "The order has half a surrogate pair (a broken character) in one of its texts.",
            "Write the character again.",
        )
    return text.translate(_ESCAPES)
