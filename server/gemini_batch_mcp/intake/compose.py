"""A table and prompts as a request file: each row becomes a line, in the order of the table.

The line's form is checked once with sample values; the engine then fills in the cells, escaped as JSON. Afterwards the
file is read once for its keys, its count, its digest, and a sample of lines that goes through the whole validator.
"""

from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemini_batch_mcp.domain import Order, UploadedFile
from gemini_batch_mcp.errors import RequestProblems, StorageError, UnreadableRows, UsageError, storage_errors
from gemini_batch_mcp.intake.files.in_lines import AttachedLines, Parts
from gemini_batch_mcp.intake.files.planning import AttachmentPlan, column_of
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.line_form import check_form, request_form
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.copies import Draft
from gemini_batch_mcp.intake.requests.inspection import GrowingFile, Inspection, RowKeys
from gemini_batch_mcp.intake.requests.keys import KeyLog
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.requests.passes import Report, run, too_large
from gemini_batch_mcp.intake.requests.skipping import LeftOut
from gemini_batch_mcp.intake.rows.choosing import Choose
from gemini_batch_mcp.intake.rows.spreading import spread_of
from gemini_batch_mcp.intake.tables.earlier import KEY_COLUMN, EarlierRows
from gemini_batch_mcp.intake.tables.file_rows import NAME_COLUMN, PATH_COLUMN, TEXT_COLUMN, has_media_name, no_text
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.kept_columns import BlankRows, blank_rows, keeping_columns, put_behind
from gemini_batch_mcp.intake.tables.kinds import file_options
from gemini_batch_mcp.intake.tables.memory import Effort, with_effort
from gemini_batch_mcp.intake.tables.reading import Place, Table, open_table
from gemini_batch_mcp.intake.tables.sql import LineForm, RowKey
from gemini_batch_mcp.intake.template import (
    Column,
    Template,
    column_named,
    example_place,
    listed,
    places,
)
from gemini_batch_mcp.intake.unpacked import OnRead
from gemini_batch_mcp.intake.validator.world import CLOSED, Note, World
from gemini_batch_mcp.patterns import pattern_warnings
from gemini_batch_mcp.settings import MAX_FILE_BYTES
from gemini_batch_mcp.text import count


@dataclass(frozen=True, slots=True)
class _Form:
    """What every line looks like. `empty_text` is what only a line without any text holds.

    `asks` are the columns that make a request another one than all others: those of the prompt, and of attached files.
    """

    line: LineForm
    empty_text: bytes
    asks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Lines:
    """The finished lines; `read` is how many rows they come from."""

    count: int
    read: int
    size_bytes: int
    sha256: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Writing:
    """Where the lines of one order go: as the engine writes them, and with the files that are attached to them."""

    order: Order
    destination: Path
    keys_path: Path
    max_file_bytes: int
    parts: Parts | None
    onlooker: Onlooker | None
    world: World
    left_out: LeftOut | None
    is_hashed: bool

    @property
    def rendered(self) -> Path:
        """The lines as the engine writes them."""
        return self.destination.with_name(f"{self.destination.name}.part")

    @property
    def finished(self) -> Path:
        """The lines as they are to be sent, still under another name."""
        is_rendered = self.parts is None and self.left_out is None
        return self.rendered if is_rendered else self.destination.with_name(f"{self.destination.name}.whole")


def write_rows(
    source: Place,
    destination: Path,
    *,
    order: Order,
    keys_path: Path,
    max_file_bytes: int = MAX_FILE_BYTES,
    attachments: AttachmentPlan | None = None,
    uploaded: Mapping[str, UploadedFile] | None = None,
    onlooker: Onlooker | None = None,
    columns_path: Path | None = None,
    on_read: OnRead | None = None,
    choose: Choose | None = None,
    world: World = CLOSED,
    left_out: LeftOut | None = None,
    is_hashed: bool = True,
) -> RequestFile:
    """Render each row of `source` into `{"key":…,"request":{…}}` and write the lines to `destination`.

    Position n of `keys_path` belongs to row n of the table. Keys come from `order.key_column`; in a folder they are
    the names of the files, or where some share one their paths; else they are made of the row's place and of the cells
    that the templates use: the same order gives the same keys. Rows of `Problem`s are named in
    their messages; `Problem.line` is a line of the source, 0 where it is not known.

    `attachments` is the plan for `order.attach`, and goes with it; `uploaded` says where its uploads are, by
    `Attachment.sha256`. Without `uploaded`, for a preview, such files are named by references that lead nowhere yet.

    `columns_path` is where the source's own columns go, row n beside line n: both are written from one copy of it. The
    contents of a folder's files are no part of them. Where they cannot be kept, a warning says so. `on_read` is told
    how far the unpacking of a packed source is. With `left_out`, wrong rows go there instead of refusing the table, and
    their columns behind those of the others. Unless the lines are to be `hashed`, whoever needs their digest takes it.

    Raises:
        RepeatsFound: only with `left_out`.
        UsageError: a template, the schema, the config or the table cannot be used; or too many bytes come out.
        RequestProblems: rows cannot be read, or their keys cannot be used.
        PathError: a file cannot be read.
        StorageError: the files cannot be written.
    """
    notes: set[Note] = set()
    members = request_members(order.task, order.generation_config, order.response_schema, world, notes)
    parts = Parts(_checked_plan(order, attachments), uploaded) if attachments is not None or order.attach else None
    named = _named(order)
    _refuse_unread(source, order, named)
    if isinstance(source, Folder) and not order.key_column:
        # No part of the order's identity: the content of a folder decides on it.
        order = replace(order, key_column=source.key_column)
    writing = _Writing(order, destination, keys_path, max_file_bytes, parts, onlooker, world, left_out, is_hashed)
    if isinstance(source, Folder) and not order.where:
        # So as not to open files that nobody asks for.
        source = source.first(order.limit_rows)
    needs_text = TEXT_COLUMN in named and not order.attach and not order.where
    failure = "The request file could not be written"
    try:
        with storage_errors(failure, "Check the permissions and free space of the state directory."):
            with open_table(
                source,
                destination.parent,
                with_text=_uses_text(order),
                needs_text=_without_text(order) if needs_text else "",
                read_once=columns_path is not None,
                on_read=on_read,
                where=order.where,
                choose=choose,
                options=file_options(order, source),
                spread=spread_of(order),
                without=left_out.unreadable if left_out is not None else (),
            ) as table:
                _refuse_without_text(source, table, order)
                form = _form(table, order, members, world)
                # The contents of files would be kept twice: they are where they were.
                leave_out = (TEXT_COLUMN,) if isinstance(source, Folder) else ()
                if isinstance(source, EarlierRows) and order.key_column == KEY_COLUMN:
                    # They are the keys of this batch as well.
                    leave_out = (KEY_COLUMN,)
                with keeping_columns(table, columns_path, limit_rows=order.limit_rows, leave_out=leave_out) as finish:
                    write = _write if left_out is None else _write_right_ones
                    lines = with_effort(lambda effort: write(table, form, writing, effort))
                    lost_columns = finish(lines.read)
                blank = BlankRows()
                if columns_path is not None and not lost_columns:
                    are_texts = not isinstance(source, EarlierRows)
                    # What is wrong with a row is told, and all of one that cannot be read is empty.
                    wrong = left_out.numbers if left_out is not None else ()
                    blank = blank_rows(
                        columns_path, table, form.asks, leave_out=leave_out, are_texts=are_texts, besides=wrong
                    )
                    if left_out is not None and left_out.unreadable:
                        # Rows that cannot be read go with no condition.
                        blank = replace(blank, without="")
            if left_out is not None and columns_path is not None and not lost_columns:
                put_behind(columns_path, left_out.numbers)
            writing.finished.replace(destination)
            return RequestFile(
                path=destination,
                count=lines.count,
                size_bytes=lines.size_bytes,
                sha256=lines.sha256,
                keys_path=keys_path,
                columns_path=None if lost_columns else columns_path,
                warnings=(
                    *table.warnings,
                    *(() if form.empty_text and blank.count else lines.warnings),
                    *_blank_warnings(order, form, blank),
                    *(note.sentence for note in sorted(notes)),
                    *(attachments.warnings if attachments else ()),
                    *((lost_columns,) if lost_columns else ()),
                    *pattern_warnings(order.response_schema),
                ),
            )
    except UnreadableRows as error:
        if left_out is None or error.rows.keys() <= left_out.unreadable.keys():
            raise
        if chooses := "where" if order.where else "sample_rows" if spread_of(order) is not None else "":
            raise _not_chosen(error, chooses) from None
        left_out.refuse_unreadable(error.rows)
    finally:
        for path in (writing.rendered, writing.finished):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _not_chosen(error: UnreadableRows, chooses: str) -> RequestProblems:
    """Return what is said of rows that cannot be read where rows are chosen by what is in them.

    Nobody knows whether such a row would be one of them.
    """
    beside = f"Without `{chooses}`, skip_invalid leaves such rows out."
    problems = [replace(problem, fix=f"{problem.fix} {beside}") for problem in error.problems]
    return RequestProblems(problems, error.problem_count, error.message, error.next_step)


def _checked_plan(order: Order, plan: AttachmentPlan | None) -> AttachmentPlan:
    """Return the plan that belongs to an order.

    Raises:
        UsageError: there is none, or the order cannot have files.
    """
    if order.task == "embed":
        raise UsageError("Embeddings take text only, no files.", "Leave out `attach`.")
    if plan is None or plan.column != column_of(order.attach):
        raise UsageError("The files of this order have not been checked yet.", "Submit the order again.")
    return plan


def _refuse_unread(source: Place, order: Order, named: Set[str]) -> None:
    """Refuse a prompt that reads nothing of the files of a folder, and attaches none.

    Raises:
        UsageError: it does.
    """
    if not isinstance(source, Folder) or order.attach or order.task == "embed":
        return
    fix = f'Give attach="{PATH_COLUMN}", which attaches each file to its request'
    if not named:
        raise UsageError(
            f"The prompt names no column and nothing is attached, so every file of {source.name} would be the same "
            "request.",
            f"{fix}, or put a column in the prompt, such as {example_place([TEXT_COLUMN])}.",
        )
    if named <= {PATH_COLUMN, NAME_COLUMN} and all(map(has_media_name, source.names)):
        raise UsageError(
            f"The prompt sees the names of the files of {source.name} only, and nothing that is in them.",
            f"{fix}. To ask about names alone, give them as `requests`.",
        )


def _refuse_without_text(source: Place, table: Table, order: Order) -> None:
    """Refuse a prompt that reads the text of chosen files of which none is text, and attaches nothing.

    Raises:
        UsageError: it does.
    """
    if isinstance(source, Folder) and not order.attach and TEXT_COLUMN in _named(order) - {*table.columns}:
        raise no_text(source, len(source.names), _without_text(order))


def _without_text(order: Order) -> str:
    """Return what to do about files that are no text where a prompt reads them as text."""
    if order.task == "embed":
        return "Embeddings take text only: name the text files, such as *.txt."
    return (
        f'Give attach="{PATH_COLUMN}", which attaches each file to its request, and leave {TEXT_COLUMN} out of the '
        "prompt; or name text files only, such as *.txt."
    )


def _named(order: Order) -> set[str]:
    """Return the columns that the prompts of an order name."""
    return {*places(order.prompt), *places(order.system_instruction)}


def _uses_text(order: Order) -> bool:
    """True unless the order names nothing but a folder's own columns: then the files need not be read as text."""
    named = {order.key_column, *_named(order)}
    return bool(order.where) or not named <= {"", PATH_COLUMN, NAME_COLUMN}


def _write(table: Table, form: _Form, writing: _Writing, effort: Effort) -> _Lines:
    """Write the lines and look at them while they are written; what earlier tries left is replaced.

    Raises:
        as `write_rows`; and MoreEffort.
    """
    writing.rendered.unlink(missing_ok=True)
    order = writing.order
    with RowKeys(writing.keys_path, order.key_column) as keys:
        inspection = Inspection(
            order.task,
            keys,
            form.empty_text,
            writing.onlooker,
            is_varied=writing.parts is not None,
            is_hashed=writing.is_hashed,
            world=writing.world,
        )
        with ThreadPoolExecutor(1) as pool, ExitStack() as files:
            rendering = pool.submit(
                table.write_lines, form.line, writing.rendered, limit_rows=order.limit_rows, effort=effort
            )
            lines: GrowingFile | AttachedLines = files.enter_context(GrowingFile(writing.rendered, rendering))
            if writing.parts is not None:
                lines = AttachedLines(lines, writing.parts, files.enter_context(writing.finished.open("wb")))
            inspection.run(lines)
            inspection.refuse(table.name, rendering.result())
        if inspection.size_bytes > writing.max_file_bytes:
            raise too_large(f"{table.name}, rendered,", inspection.size_bytes, writing.max_file_bytes)
        keys.keep()
    return _Lines(
        inspection.count,
        inspection.count,
        inspection.size_bytes,
        inspection.sha256(),
        inspection.warnings(),
    )


def _write_right_ones(table: Table, form: _Form, writing: _Writing, effort: Effort) -> _Lines:
    """Write the lines that are right, each looked at as one of a file of ready lines is.

    Raises:
        as `write_rows`; and MoreEffort.
    """
    writing.rendered.unlink(missing_ok=True)
    order, left_out, report = writing.order, writing.left_out, Report(unit="row")
    assert left_out is not None
    with (
        ThreadPoolExecutor(1) as pool,
        KeyLog(writing.keys_path) as keys,
        Draft(writing.finished) as draft,
        ExitStack() as files,
    ):
        rendering = pool.submit(
            table.write_lines, form.line, writing.rendered, limit_rows=order.limit_rows, effort=effort
        )
        lines: Any = files.enter_context(GrowingFile(writing.rendered, rendering))
        if writing.parts is not None:
            lines = AttachedLines(lines, writing.parts, None)
        found = run(lines, order.task, keys, report, onlooker=writing.onlooker, world=writing.world, left_out=left_out)
        for piece in found:
            draft.write(piece)
        read = rendering.result()
        if keys.count + left_out.count != read:
            raise StorageError(f"{table.name} was rendered as other lines than rows.", "Submit the order again.")
        if not keys.count:
            raise left_out.all_wrong(table.name)
        if draft.size_bytes > writing.max_file_bytes:
            raise too_large(f"{table.name}, rendered,", draft.size_bytes, writing.max_file_bytes)
        kept = draft.keep(keys, report, mended=False)
    return _Lines(kept.count, read, kept.size_bytes, kept.sha256, kept.warnings)


def _form(table: Table, order: Order, members: dict[str, Any], world: World) -> _Form:
    """Put the line's form together and check it once."""
    form = request_form(order, table.name, table.columns, members)
    key: Template | RowKey = RowKey(form.columns)
    if order.key_column:
        key = Template((Column(column_named(order.key_column, table.columns, "key_column")),))
    check_form(form, order.task, world)
    return _Form(('{"key":', key, ',"request":', *form.request, "}"), form.empty_text, form.asks)


def _blank_warnings(order: Order, form: _Form, blank: BlankRows) -> tuple[str, ...]:
    """Say which rows have nothing in the columns that the prompt names, and how to leave them out."""
    if not blank.count:
        return ()
    is_one = blank.count == 1
    where = ""
    if not (order.where or order.sample_rows):
        # Of chosen rows, nobody would know which the numbers mean.
        numbers = listed([f"{row:,}" for row in blank.first])
        where = f" (row{'' if is_one else 's'} {numbers}{' first' if blank.count > len(blank.first) else ''})"
    sent = f" and {'is' if is_one else 'are'} sent all the same"
    refused = ", which Gemini refuses" if form.empty_text else sent
    what = f"{count(blank.count, 'row')} {'has' if is_one else 'have'} nothing in {listed(form.asks)}{where}{refused}"
    if not blank.without:
        return (f"{what}.",)
    condition = f"AND ({blank.without})" if order.where else blank.without
    written = f"`{condition}`" if '"' in condition else f'"{condition}"'
    fix = f"by adding {written} to where" if order.where else f"with where={written}"
    return (f"{what}; leave {'it' if is_one else 'them'} out {fix}.",)
