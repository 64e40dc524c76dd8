"""The source's own columns, kept so that answers can stand beside them: written while the lines are, from one copy."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import BatchError, StorageError, storage_errors
from gemini_batch_mcp.intake.tables.memory import connected, with_effort, workspace_in
from gemini_batch_mcp.intake.tables.reading import Table
from gemini_batch_mcp.intake.tables.sql import column_name, distinct_names, quoted

#: Of rows that say nothing, so many are named.
_FIRST_ROWS: Final = 3
_WHITE: Final = r"[\s\p{Z}\p{Cf}]*"
#: When a cell says something, where blank ones are empty, or hold spaces, or other white space.
_SAYS: Final = ("{} <> ''", "trim({}) <> ''", r"regexp_matches({}, '[^\s\p{{Z}}\p{{Cf}}]')")
#: Names that SQL takes as they are.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Given the number of lines: wait for the columns, and return why there are none, empty when they are kept.
Finish = Callable[[int], str]


@contextmanager
def keeping_columns(
    table: Table, destination: Path | None, *, limit_rows: int = 0, leave_out: Collection[str] = ()
) -> Iterator[Finish]:
    """Write the columns of a table that is `read_once` to a Parquet file, while the block writes its lines.

    They are `row`, which counts from 1 and is the number of the line, and then those of the source, as text, exactly
    as `{{column}}` would insert them. Readers of Parquet tell no capital from small letters, so a name that came
    before, or is `row`, gets a number behind it. The file is there once what is yielded was called and returned
    nothing: lines are whole without it, so that columns that cannot be kept refuse no order. Without a destination
    nothing is written.

    Raises:
        StorageError: there is no place to work in.
    """
    if destination is None:
        yield lambda line_count: ""
        return
    wanted = [column for column in table.columns if column not in leave_out]
    names = dict(zip(wanted, distinct_names(wanted), strict=True))
    draft = destination.with_name(f"{destination.name}.part")
    with storage_errors("The columns of the source cannot be kept"):
        destination.unlink(missing_ok=True)
    try:
        with table.beside(destination.parent) as beside, ThreadPoolExecutor(1) as pool:
            writing = pool.submit(
                with_effort, lambda effort: beside.write_parquet(names, draft, limit_rows=limit_rows, effort=effort)
            )
            try:
                yield partial(_finish, writing, draft, destination)
            except BaseException:
                beside.stop()
                raise
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class BlankRows:
    """How many rows say nothing in some columns, the first of them (from 1), and the condition that leaves them out."""

    count: int = 0
    first: tuple[int, ...] = ()
    without: str = ""


def blank_rows(
    kept: Path,
    table: Table,
    columns: Collection[str],
    *,
    leave_out: Collection[str] = (),
    are_texts: bool = True,
    besides: Sequence[int] = (),
) -> BlankRows:
    """Look for rows with nothing but white space in all of these columns, of those that `keeping_columns` has kept.

    Rows `besides` (from 1) are not looked at. `are_texts` says that a condition sees the source's columns as texts.
    Where one of the columns was left out nobody knows, and none are found.

    Raises:
        StorageError: what was kept cannot be read.
    """
    wanted = [column for column in table.columns if column not in leave_out]
    names = dict(zip(wanted, distinct_names(wanted), strict=True))
    if not columns or not names.keys() >= set(columns):
        return BlankRows()
    cells = [f"coalesce({column_name(names[column])}, '')" for column in columns]
    # It ends at the first letter of a cell.
    are_blank = " AND ".join(f"regexp_full_match({cell}, '{_WHITE}')" for cell in cells)
    said = f"({' || '.join(cells)})"
    query = f"""SELECT count(*), list("row" ORDER BY "row")[:{_FIRST_ROWS}],
                       max(CASE WHEN {said} = '' THEN 0 WHEN trim({said}) = '' THEN 1 ELSE 2 END)
                FROM read_parquet({quoted(str(kept))}) WHERE {are_blank}"""  # noqa: S608 - our own names, and literals
    with (
        storage_errors("The columns of the source cannot be read"),
        workspace_in(kept.parent) as workspace,
        connected(workspace) as connection,
    ):
        if besides:
            query += f' AND "row" NOT IN (SELECT wrong FROM {_numbered(besides, workspace / "besides")})'  # noqa: S608 - our own names, and literals
        ((count, first, kind),) = connection.execute(query).fetchall()
        if not count:
            return BlankRows()
        reserved = {
            word
            for (word,) in connection.execute(
                "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
            ).fetchall()
        }
    written = [
        name if _PLAIN_NAME.fullmatch(name) and name.lower() not in reserved else column_name(name) for name in columns
    ]
    written = written if are_texts else [f"{name}::VARCHAR" for name in written]
    return BlankRows(count, tuple(first), " OR ".join(_SAYS[kind].format(name) for name in written))


def _numbered(rows: Sequence[int], path: Path) -> str:
    """Write the numbers of rows to a file, and return it as a relation with the column `wrong`."""
    path.write_text("".join(f"{row}\n" for row in rows), encoding="ascii")
    return f"read_csv({quoted(str(path))}, header = false, delim = ',', columns = {{wrong: 'BIGINT'}})"


def put_behind(columns: Path, rows: Sequence[int]) -> None:
    """Number the kept columns of some rows (from 1) behind all others: their lines are not among those that are sent.

    Raises:
        StorageError: they cannot be read or written.
    """
    draft, numbers = columns.with_name(f"{columns.name}.part"), columns.with_name(f"{columns.name}.left")
    try:
        with storage_errors("The columns of the source cannot be kept"), workspace_in(columns.parent) as workspace:
            with connected(workspace) as connection:
                connection.execute(
                    f"""COPY (SELECT row_number() OVER (ORDER BY numbers.wrong IS NOT NULL, kept."row") AS "row",
                                     kept.* EXCLUDE ("row")
                              FROM read_parquet({quoted(str(columns))}) kept
                              LEFT JOIN {_numbered(rows, numbers)} numbers
                                ON kept."row" = numbers.wrong
                              ORDER BY "row") TO {quoted(str(draft))} (FORMAT parquet)"""  # noqa: S608 - our own names, and literals
                )
            draft.replace(columns)
    finally:
        for path in (draft, numbers):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _finish(writing: Future[int], draft: Path, destination: Path, line_count: int) -> str:
    try:
        row_count = writing.result()
        if row_count != line_count:
            raise StorageError(
                f"{row_count:,} rows were read for {line_count:,} lines.", "Convert the table to Parquet."
            )
        with storage_errors("They could not be written"):
            draft.replace(destination)
    except BatchError as error:
        return f"Your own columns will not be shown beside the answers. {error}"
    return ""
