"""The source's own columns, kept so that answers can stand beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.memory import with_effort
from gemini_batch_mcp.intake.tables.reading import open_table

#: The number of the row, from 1, in the order of the request lines.
ROW_COLUMN: Final = "row"


def write_columns(source: Path | Folder, destination: Path, *, scratch: Path, limit_rows: int = 0) -> tuple[str, ...]:
    """Write the rows of `source` to the Parquet file `destination`, in the order in which `write_rows` renders them.

    Its columns are `row`, which counts from 1, and then those of the source, as text, exactly as `{{column}}` would
    insert them. Of a folder these are `path` and `name`: the contents of its files are left out. Returns the names
    of the source's columns in the file: readers of Parquet tell no capital from small letters, so a name that came
    before, or is `row`, gets a number behind it. Blocking: call it in a thread.

    Raises:
        UsageError, RequestProblems, PathError: the source cannot be read.
        StorageError: the file cannot be written.
    """
    draft = destination.with_name(f"{destination.name}.part")
    if isinstance(source, Folder):
        # So as not to open files that nobody asks for.
        source = source.first(limit_rows)
    failure = "The columns of the source could not be written"
    try:
        with storage_errors(failure, "Check the free space and the rights of the state directory."):
            with open_table(source, scratch, with_text=False) as table:
                names = dict(zip(table.columns, distinct_names(table.columns), strict=True))
                with_effort(lambda effort: table.write_parquet(names, draft, limit_rows=limit_rows, effort=effort))
            draft.replace(destination)
            return tuple(names.values())
    finally:
        draft.unlink(missing_ok=True)


def distinct_names(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names that columns have beside `row`, each once, whatever their capital letters."""
    taken = {ROW_COLUMN, *(column.casefold() for column in columns)}
    seen = {ROW_COLUMN}
    names = []
    for column in columns:
        name, number = column, 1
        while name.casefold() in seen or (number > 1 and name.casefold() in taken):
            number += 1
            name = f"{column}_{number}"
        seen.add(name.casefold())
        names.append(name)
    return tuple(names)
