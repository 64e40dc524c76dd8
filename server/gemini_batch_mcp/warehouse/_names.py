"""Tables of BigQuery by their names: found in `bq://project.dataset.table`, and put into SQL."""

import re
from dataclasses import dataclass
from typing import Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.text import count, plain_text

SCHEME: Final = "bq://"
#: A project's id, with its domain where it has one (`example.com:project`).
_PROJECT: Final = r"(?:[a-z0-9][a-z0-9.-]{0,60}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"
#: What BigQuery takes in a table's name is letters, marks, digits, connectors, dashes and spaces. Wildcards, backticks
#: and quotation marks are none of these.
_WORD: Final = re.compile(r"[\w\-\u2010-\u2015 ]+")
_NAME: Final = re.compile(rf"(?P<project>{_PROJECT})[.](?P<dataset>\w+)[.](?P<table>[^.]+)")
_MAX_DATASET_CHARS: Final = 1024
_MAX_TABLE_BYTES: Final = 1024
_MAX_SHOWN_CHARS: Final = 200
_PARTS: Final = 3
_HOW: Final = "Write bq://project.dataset.table, without quotes."


@dataclass(frozen=True, slots=True)
class TableName:
    """A table, by names that have been checked: they may stand between backticks as they are."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"

    @property
    def uri(self) -> str:
        """The table as Vertex AI names it."""
        return f"{SCHEME}{self}"

    @property
    def quoted(self) -> str:
        """The table as SQL names it."""
        return f"`{self}`"

    def beside(self, suffix: str) -> "TableName":
        """Return another table of the same dataset, whose name ends in `suffix`."""
        return TableName(self.project, self.dataset, f"{self.table[: 255 - len(suffix)].rstrip()}{suffix}")


def is_table(source: str) -> bool:
    """True for a source that is to be a table in BigQuery."""
    return source.startswith(SCHEME)


def table_named(source: str) -> TableName:
    """Return the table that `bq://project.dataset.table` names.

    Raises:
        UsageError: it names none, or by characters that no table has.
    """
    text = source.removeprefix(SCHEME)
    found = _NAME.fullmatch(text)
    if not is_table(source) or found is None:
        raise UsageError(f"{_shown(source)} does not name a table in BigQuery{_why(text)}.", _HOW)
    table, dataset = found["table"], found["dataset"]
    if dataset.upper() == "INFORMATION_SCHEMA":
        raise UsageError(
            f"{_shown(source)} is a view of BigQuery's own (INFORMATION_SCHEMA).", "Make a table or a view of it first."
        )
    is_short = len(table.encode()) <= _MAX_TABLE_BYTES and len(dataset) <= _MAX_DATASET_CHARS
    if not dataset.isascii() or not _WORD.fullmatch(table) or table != table.strip() or not is_short:
        raise UsageError(
            f"{_shown(source)} has a dataset or a table by a name that BigQuery does not have.",
            "A table's name has letters, digits, _ and -, a dataset's letters, digits and _. One table is one order; a "
            "view puts several together.",
        )
    return TableName(found["project"], dataset, table)


def _why(text: str) -> str:
    """Return what is wrong with the form of a table's name, as the end of a sentence."""
    parts = text.rpartition(":")[2].split(".")
    if len(parts) != _PARTS:
        return f": it has {count(len(parts), 'part')} between dots, not {_PARTS}"
    project = text.removesuffix("." + ".".join(parts[1:]))
    if not re.fullmatch(_PROJECT, project):
        what = "6 to 30 small letters, digits and hyphens, a letter first and no hyphen last"
        return f": {_shown(project) or 'nothing'} isn't a project's id, which has {what}"
    return ": a dataset's name has letters, digits and _, and none of the three is empty"


def _shown(source: str) -> str:
    return plain_text(source, _MAX_SHOWN_CHARS)
