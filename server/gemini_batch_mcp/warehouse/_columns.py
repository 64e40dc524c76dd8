"""Columns of a table in BigQuery, and the expression of what stands in them as text, which a prompt inserts.

A cell without a value is empty. Texts, numbers, booleans, times and bytes come out as from other tables, byte by byte;
decimals and nested values in the one spelling that CAST and TO_JSON_STRING have for them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.warehouse._text import name

#: Types as the API has them, by the names of SQL.
_SQL_TYPES: Final = MappingProxyType(
    {
        "INTEGER": "INT64",
        "INT": "INT64",
        "SMALLINT": "INT64",
        "BIGINT": "INT64",
        "TINYINT": "INT64",
        "BYTEINT": "INT64",
        "FLOAT": "FLOAT64",
        "BOOLEAN": "BOOL",
        "RECORD": "STRUCT",
        "DECIMAL": "NUMERIC",
        "BIGDECIMAL": "BIGNUMERIC",
    }
)
_BASE: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*)")
_NESTED: Final = ("ARRAY", "STRUCT")
#: The shortest text that is read as the same number, where CAST writes 17 digits for all that take more than 15, and
#: none behind the point of a whole one.
_FLOAT: Final = """CASE WHEN {0} = TRUNC({0}) AND ABS({0}) < 1e16 THEN CONCAT(FORMAT('%.0f', {0}), '.0')
      WHEN SAFE_CAST(FORMAT('%.15g', {0}) AS FLOAT64) = {0} THEN FORMAT('%.15g', {0})
      WHEN SAFE_CAST(FORMAT('%.16g', {0}) AS FLOAT64) = {0} THEN FORMAT('%.16g', {0})
      WHEN ABS({0}) >= 1e16 THEN FORMAT('%.16e', {0}) ELSE FORMAT('%.17g', {0}) END"""
#: A part of a second without the zeros at its end: three or six digits are written else.
_TIME: Final = r"REGEXP_REPLACE({}, r'(\.[0-9]*[1-9])0+($|\+)', r'\1\2')"
#: What a cell is as text; `{}` is the cell. A time stands in UTC, whatever the session's zone is.
_TEXTS: Final = MappingProxyType(
    {
        "STRING": "{}",
        "BYTES": "TO_BASE64({})",
        "TIMESTAMP": _TIME.format("STRING({}, 'UTC')"),
        "TIME": _TIME.format("CAST({} AS STRING)"),
        "DATETIME": _TIME.format("CAST({} AS STRING)"),
        "FLOAT64": _FLOAT,
        # A text in JSON is inserted as it is, null as nothing: as from a file of JSON lines.
        "JSON": "IF(JSON_TYPE({0}) = 'string', JSON_VALUE({0}), NULLIF(TO_JSON_STRING({0}), 'null'))",
        **dict.fromkeys(_NESTED, "NULLIF(TO_JSON_STRING({}), 'null')"),
        **dict.fromkeys(("INT64", "BOOL", "NUMERIC", "BIGNUMERIC", "DATE"), "CAST({} AS STRING)"),
    }
)
#: Types whose text is not certain, and what makes one of them.
_MAKES_TEXT: Final = MappingProxyType(
    {"GEOGRAPHY": "ST_ASTEXT({})", "INTERVAL": "CAST({} AS STRING)", "RANGE": "CAST({} AS STRING)"}
)
#: One of these inside of another type; a field may have such a name, which its own type follows.
_UNSURE: Final = re.compile(rf"\b({'|'.join(_MAKES_TEXT)})\b\s*(?=[<>,]|$)")
#: Types whose texts may hold a character that JSON escapes.
_ESCAPED: Final = ("STRING", "JSON", *_NESTED)
#: Types of which two cells are the same key if and only if their texts are the same.
_KEYS: Final = ("STRING", "INT64", "DATE", "DATETIME", "TIME", "TIMESTAMP", "NUMERIC", "BIGNUMERIC", "BYTES", "BOOL")


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column: its type as the API has it (`INTEGER`, `RECORD` with `fields`) or as SQL does (`ARRAY<STRING>`)."""

    name: str
    type: str
    is_repeated: bool = False
    fields: tuple["SourceColumn", ...] = ()

    @property
    def kind(self) -> str:
        """The type as SQL names it, without what it consists of and its limits."""
        return "ARRAY" if self.is_repeated else _base(self.type)

    @property
    def is_plain(self) -> bool:
        """True where no text of its values holds a character that JSON escapes."""
        return self.kind not in _ESCAPED

    @property
    def without_text(self) -> str:
        """A type, of the column or of what its values consist of, of which no text is certain; empty for none."""
        if self.kind not in _TEXTS:
            return self.kind
        found = _UNSURE.search(self.type.upper())
        return found[1] if found else next((field.without_text for field in self.fields if field.without_text), "")


def text_of(column: SourceColumn, row: str) -> str:
    """Return the expression of a column's cell as text, NULL where it has no value. `row` is what holds the column.

    Raises:
        UsageError: there is no text of it that is certain.
    """
    refuse_without_text(column)
    return _TEXTS[column.kind].format(f"{row}.{name(column.name)}")


def mark_of(column: SourceColumn, row: str) -> str:
    """Return the expression of a text that is the same for the same values of a column, whatever its type is.

    It is what a prompt inserts, where that is certain: nothing for a cell without a value.
    """
    form = _TEXTS.get(column.kind) or _MAKES_TEXT.get(column.kind, "TO_JSON_STRING({})")
    return f"COALESCE({form.format(f'{row}.{name(column.name)}')}, '')"


def key_text(column: SourceColumn, row: str) -> str:
    """Return the expression of a column's cell as a key.

    Raises:
        UsageError: its values are no keys.
    """
    if column.kind not in _KEYS:
        what = f"{_article(column.kind)} {column.kind}, whose values are not keys"
        raise UsageError(
            f"The column {shown(column.name)} of `key_column` is {what}.",
            "Name a column of texts or whole numbers, each row with another one; or leave key_column out.",
        )
    return text_of(column, row)


def refuse_without_text(column: SourceColumn) -> None:
    """Refuse a column whose values have no text that is certain.

    Raises:
        UsageError: it is one.
    """
    unsure = column.without_text
    if not unsure:
        return
    how = _MAKES_TEXT.get(unsure, "CAST({} AS STRING)").format(shown(column.name))
    holds = "is" if column.kind == unsure else "holds"
    raise UsageError(
        f"The column {shown(column.name)} {holds} {_article(unsure)} {unsure}, of which no text is certain.",
        f"Order a view of the table that has the text ({how} AS a_text), and name that column.",
    )


def column_of(columns: Sequence[SourceColumn], wanted: str) -> SourceColumn:
    """Return the column of that name, which is there."""
    return next(column for column in columns if column.name == wanted)


def _base(text: str) -> str:
    found = _BASE.match(text)
    word = found[1].upper() if found else text.upper()
    return _SQL_TYPES.get(word, word)


def _article(kind: str) -> str:
    return "an" if kind[:1] in "AEIOU" else "a"
