"""The source's own columns, kept so that answers can stand beside them: written while the lines are, from one copy."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from gemini_batch_mcp.errors import BatchError, StorageError, storage_errors
from gemini_batch_mcp.intake.tables.memory import connected, with_effort, workspace_in
from gemini_batch_mcp.intake.tables.reading import Table
from gemini_batch_mcp.intake.tables.sql import distinct_names, quoted

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


def put_behind(columns: Path, rows: Sequence[int]) -> None:
    """Number the kept columns of some rows (from 1) behind all others: their lines are not among those that are sent.

    Raises:
        StorageError: they cannot be read or written.
    """
    draft, numbers = columns.with_name(f"{columns.name}.part"), columns.with_name(f"{columns.name}.left")
    try:
        with storage_errors("The columns of the source cannot be kept"), workspace_in(columns.parent) as workspace:
            numbers.write_text("".join(f"{row}\n" for row in rows), encoding="ascii")
            with connected(workspace) as connection:
                connection.execute(
                    f"""COPY (SELECT row_number() OVER (ORDER BY numbers.wrong IS NOT NULL, kept."row") AS "row",
                                     kept.* EXCLUDE ("row")
                              FROM read_parquet({quoted(str(columns))}) kept
                              LEFT JOIN read_csv({quoted(str(numbers))}, header = false, delim = ',',
                                                 columns = {{wrong: 'BIGINT'}}) numbers
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
        return f"Your own columns will not stand beside the answers. {error}"
    return ""
