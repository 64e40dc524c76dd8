"""The form of a request filled by BigQuery: one query that renders the cells of a row, escaped as JSON.

It comes out byte by byte as `intake.tables` writes the same form: constants are the same text, cells are escaped by the
same table, each once, however often a prompt names it.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals and names made by `_text`

import mimetypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gemini_batch_mcp.intake.line_form import RequestForm
from gemini_batch_mcp.intake.tables.sql import Marked, Piece, RowKey
from gemini_batch_mcp.intake.tables.sql import json_inside as constant_json
from gemini_batch_mcp.intake.template import Column, Template
from gemini_batch_mcp.warehouse._columns import SourceColumn, column_of, text_of
from gemini_batch_mcp.warehouse._text import SAYS, joined, json_inside, literal

#: Endings of files that Gemini takes. What they are is said as for links of other tables: as `mimetypes` names them.
_ENDINGS: Final = (
    *("png", "jpg", "jpeg", "webp", "heic", "heif", "pdf", "txt", "html", "csv", "md"),
    *(
        "mp3",
        "wav",
        "aac",
        "flac",
        "ogg",
        "m4a",
        "aiff",
        "mp4",
        "mov",
        "mpeg",
        "mpg",
        "webm",
        "avi",
        "wmv",
        "flv",
        "3gp",
    ),
)
_BUCKET: Final = r"r'^gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^\r\n]{1,1000}$'"


@dataclass(frozen=True, slots=True)
class _Constant:
    """Text that is the same in every request."""

    text: str


def requests_of(form: RequestForm, columns: Sequence[SourceColumn], rows: str) -> str:
    """Return the query for `key` and `request` of rows with `key` and `source`; `rows` is a table, or a query."""
    request = joined(_constants_joined(_filled(form.request, _places(form))))
    return f"SELECT key, {request} AS request\nFROM ({_escaped(form, columns, rows)})"


def measured(form: RequestForm, columns: Sequence[SourceColumn], rows: str) -> str:
    """Return the query for what each row comes to, under its key.

    `size` of the request and `said` in prompt and system instruction, in bytes; `is_blank` where all texts that make a
    request another one say nothing; `files` that are attached, and `wrong_files` at no such address.
    """
    places = _places(form)
    texts = _constants_joined(_texts((form.prompt, form.system), places))
    asked = [f"NOT REGEXP_CONTAINS(v{places[column]}, {SAYS})" for column in form.asks]
    named = [f"v{places[piece.column]}" for piece in form.request if isinstance(piece, Marked)]
    files = " + ".join(f"IF(TRIM({cell}) = '', 0, 1)" for cell in named) or "0"
    wrong = " + ".join(f"IF(TRIM({cell}) = '' OR REGEXP_CONTAINS({cell}, {_BUCKET}), 0, 1)" for cell in named) or "0"
    return f"""SELECT key, BYTE_LENGTH({joined(_constants_joined(_filled(form.request, places)))}) AS size,
    BYTE_LENGTH({joined(texts)}) AS said, {" AND ".join(asked) or "FALSE"} AS is_blank,
    {files} AS files, {wrong} AS wrong_files
  FROM ({_escaped(form, columns, rows)})"""


def _places(form: RequestForm) -> dict[str, int]:
    return {column: place for place, column in enumerate(form.columns)}


def _escaped(form: RequestForm, columns: Sequence[SourceColumn], rows: str) -> str:
    """Return the query for the cells of a form, as text (`v0`, `v1`, …) and inside JSON (`e0`, `e1`, …)."""
    used = [column_of(columns, column) for column in form.columns]
    texts = ", ".join(
        f"COALESCE({text_of(column, 'kept.source')}, '') AS v{place}" for place, column in enumerate(used)
    )
    inside = ", ".join(
        f"{f'v{place}' if column.is_plain else json_inside(f'v{place}')} AS e{place}"
        for place, column in enumerate(used)
    )
    return f"SELECT *, {inside}\nFROM (SELECT key, {texts} FROM {rows} AS kept)"


def _filled(form: Sequence[Piece], places: Mapping[str, int]) -> Iterator[_Constant | str]:
    """Yield what a form consists of, each place as the expression of what fills it."""
    for piece in form:
        match piece:
            case str():
                yield _Constant(piece)
            case Template():
                yield _Constant('"')
                for part in piece.pieces:
                    yield f"e{places[part.name]}" if isinstance(part, Column) else _Constant(constant_json(part))
                yield _Constant('"')
            case Marked():
                yield _file_part(places[piece.column])
            case RowKey():
                raise AssertionError("a key stands beside a request, not in it")


def _texts(templates: Sequence[Template], places: Mapping[str, int]) -> Iterator[_Constant | str]:
    for template in templates:
        for part in template.pieces:
            yield f"v{places[part.name]}" if isinstance(part, Column) else _Constant(part)


def _constants_joined(parts: Iterable[_Constant | str]) -> list[str]:
    """Return the expressions of parts, constants that follow each other as one; at least one."""
    expressions: list[str] = []
    constant = ""
    for part in parts:
        if isinstance(part, _Constant):
            constant += part.text
            continue
        if constant:
            expressions.append(literal(constant))
            constant = ""
        expressions.append(part)
    return [*expressions, literal(constant)] if constant or not expressions else expressions


def _file_part(place: int) -> str:
    """Return the expression of the part that names a file in Cloud Storage, with its comma; nothing for no file."""
    kinds = " ".join(
        f"""WHEN '{ending}' THEN ',"mimeType":"{mimetypes.guess_type(f"name.{ending}")[0]}"'"""
        for ending in _ENDINGS
        if mimetypes.guess_type(f"name.{ending}")[0]
    )
    kind = rf"CASE LOWER(REGEXP_EXTRACT(v{place}, r'\.([A-Za-z0-9]+)$')) {kinds} ELSE '' END"
    part = joined(("""'{"fileData":{"fileUri":"'""", f"e{place}", "'\"'", kind, "'}},'"))
    return f"IF(TRIM(v{place}) = '', '', {part})"
