"""The columns of a result table: the user's own first, then ours with the fields of structured answers among them.

Names are compared as SQL does, without regard to case. Ours always keep theirs. A column of the source that clashes
becomes `source_<name>`, a field that clashes becomes `answer_<name>`; if that is taken too, a number follows.
Characters that nobody sees are written out, because an assistant has to be able to type a name that it reads.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.results.engine import identifier
from gemini_batch_mcp.results.visible import visible_cell

#: Ours, in their order. `json` is followed by the fields; `embedding` and `history` are there where there is a use.
ANSWER_COLUMNS: Final = (
    Column("key", "VARCHAR"),
    Column("status", "VARCHAR"),
    Column("text", "VARCHAR"),
    Column("json", "JSON"),
    Column("finish_reason", "VARCHAR"),
    Column("error_code", "INTEGER"),
    Column("error_message", "VARCHAR"),
    Column("model_version", "VARCHAR"),
    Column("input_tokens", "BIGINT"),
    Column("output_tokens", "BIGINT"),
    Column("thoughts_tokens", "BIGINT"),
    Column("cost_usd", "DOUBLE"),
    Column("attempt", "INTEGER"),
    Column("files", "VARCHAR[]"),
    Column("calls", "JSON"),
    Column("grounding", "VARCHAR"),
    Column("citations", "VARCHAR"),
    Column("safety_ratings", "VARCHAR"),
    Column("cleaned", "BOOLEAN"),
    Column("answered_by", "VARCHAR"),
)
#: Of these a table is told to have only those that an answer fills; few do.
SELDOM: Final = ("grounding", "citations", "safety_ratings")
EMBEDDING: Final = Column("embedding", "FLOAT[]")
HISTORY: Final = Column(
    "history",
    "STRUCT(attempt INTEGER, status VARCHAR, error_code INTEGER, error_message VARCHAR, finish_reason VARCHAR)[]",
)
#: Where a row stands, and where its answer came from; last, and not exported.
PLACE_COLUMNS: Final = (Column("row", "BIGINT"), Column("file", "INTEGER"), Column("line", "BIGINT"))
#: Behind this one stand the fields of structured answers.
_BEFORE_FIELDS: Final = "json"
_OURS: Final = frozenset(column.name for column in (*ANSWER_COLUMNS, EMBEDDING, HISTORY, *PLACE_COLUMNS))
#: Names that nobody else gets: ours, as they are stored and as SQL has them.
_RESERVED: Final = _OURS | {"error"}
_MAX_NAME_CHARS: Final = 100


@dataclass(frozen=True, slots=True)
class Named:
    """A column of the table that goes by another name where it comes from."""

    origin: str
    column: Column


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one table. `source` come from the user's table, `fields` are members of the answers' JSON."""

    source: tuple[Named, ...] = ()
    fields: tuple[Named, ...] = ()
    has_embedding: bool = False
    has_history: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns in their order."""
        ours: list[Column] = []
        for column in ANSWER_COLUMNS:
            ours.append(column)
            if column.name == _BEFORE_FIELDS:
                ours += [field.column for field in self.fields]
        ours += [EMBEDDING] * self.has_embedding + [HISTORY] * self.has_history
        return (*(named.column for named in self.source), *ours, *PLACE_COLUMNS)

    def select(self, expression: Callable[[Column], str]) -> str:
        """Return a SELECT list of all columns; `expression` gives the SQL for each."""
        return ", ".join(f"{expression(column)} AS {identifier(column.name)}" for column in self.columns)


def layout(
    source: Sequence[Column], fields: Sequence[Column], *, has_embedding: bool = False, has_history: bool = False
) -> Layout:
    """Return the columns of a table whose source has these columns, and whose answers have these fields."""
    taken = set(_RESERVED)
    return Layout(
        source=_named(source, "source_", taken),
        fields=_named(fields, "answer_", taken),
        has_embedding=has_embedding,
        has_history=has_history,
    )


def with_texts(layout: Layout, places: Collection[int]) -> Layout:
    """Return a layout in which the fields at these places are text."""
    return replace(
        layout,
        fields=tuple(
            Named(named.origin, Column(named.column.name, "VARCHAR")) if place in places else named
            for place, named in enumerate(layout.fields)
        ),
    )


def _named(columns: Sequence[Column], prefix: str, taken: set[str]) -> tuple[Named, ...]:
    """Give each column a name that nobody has, and take it; a column gives way to those that can keep their names."""
    names: dict[int, str] = {}
    for place, column in enumerate(columns):
        name = _shown(column.name)
        if name.casefold() not in taken:
            names[place] = name
            taken.add(name.casefold())
    for place, column in enumerate(columns):
        if place not in names:
            names[place] = other_name(_shown(column.name), prefix, taken)
    return tuple(
        Named(
            column.name,
            Column(names[place], column.type, shown if (shown := _shown(column.name)) != names[place] else ""),
        )
        for place, column in enumerate(columns)
    )


def other_name(name: str, prefix: str, taken: set[str]) -> str:
    """Return the name that a column gets in place of one that is taken, and take it; `taken` is in lower case."""
    other, number = f"{prefix}{name}", 1
    while other.casefold() in taken:
        number += 1
        other = f"{prefix}{name}_{number}"
    taken.add(other.casefold())
    return other


def _shown(name: str) -> str:
    return visible_cell(name, _MAX_NAME_CHARS).replace("\n", " ").replace("\t", " ").strip() or "column"
