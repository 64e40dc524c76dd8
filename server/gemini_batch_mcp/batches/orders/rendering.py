"""The request lines of an order, in one pass over its source: rendered, converted, mended, or the user's own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.domain import UploadedFile
from gemini_batch_mcp.errors import BatchError, RequestProblems, storage_errors
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.openai.lines import write_converted
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.filling import Filling
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.requests.passes import NO_LIMIT_BYTES
from gemini_batch_mcp.intake.requests.reader import CopyNeeded, check_file, write_request_copy, write_requests
from gemini_batch_mcp.intake.requests.skipping import LeftOut, leaving_out, remove_skipped
from gemini_batch_mcp.intake.rows.choosing import Choose
from gemini_batch_mcp.intake.rows.spreading import spread_of
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.intake.tables.text_files import TextFile, announces_wide, as_utf8, is_utf8
from gemini_batch_mcp.intake.unpacked import OnRead, inner_name, is_packed, unpack
from gemini_batch_mcp.intake.validator.world import CLOSED, World
from gemini_batch_mcp.stores.addresses import is_address


def write_lines(
    identified: IdentifiedOrder,
    requests: Path,
    keys: Path,
    columns: Path,
    *,
    uploaded: Mapping[str, UploadedFile] | None = None,
    onlooker: Onlooker | None = None,
    on_read: OnRead | None = None,
    choose: Choose | None = None,
    world: World = CLOSED,
    is_hashed: bool = True,
) -> RequestFile:
    """Write the order's request lines: rendered, converted, given in the call, or a mended copy of the user's file.

    Of a table, its own columns go to `columns`. `uploaded` says where attached files are; without it they are named by
    references that lead nowhere yet. `onlooker` sees each line in this one pass; `on_read` is told how far the
    unpacking of a packed source is; `world` says how lines are judged. Rendered lines need not be `hashed` while
    nobody knows which of them are sent.

    Where the order skips what is wrong, wrong lines are written down beside `requests` instead of refusing the order.

    Raises:
        RequestProblems: lines or rows are wrong, and are not skipped or nothing would be left.
        UsageError: a template, a schema or the table as a whole is wrong.
        StorageError: the files cannot be written, or the source changed while it was read.
    """
    try:
        remove_skipped(requests.parent)
        write = partial(
            _written, identified, requests, keys, columns, uploaded, onlooker, on_read, choose, world, is_hashed
        )
        written = _with_right_lines(identified, write, requests.parent)
    except BatchError:
        # What half of a change looks like is not worth telling.
        identified.refuse_changed()
        raise
    identified.refuse_changed()
    return written


def is_sent_as_it_is(identified: IdentifiedOrder) -> bool:
    """True for an order of all lines of the user's own file; what turns up in them may still have to be mended."""
    order, path = identified.order, identified.path
    is_changed = order.limit_rows or order.sample_rows or order.generation_config or order.skip_invalid
    if is_address(order.source):
        return False  # What is read is a copy that goes away, and the lines are kept with the batch.
    if identified.kind is not SourceKind.READY or path is None or path != identified.place or is_changed:
        return False
    return not (order.encoding or is_packed(path) or announces_wide(path))


def _with_right_lines(
    identified: IdentifiedOrder, write: Callable[[LeftOut | None], RequestFile], directory: Path
) -> RequestFile:
    """Write all lines, or, where that is wanted and some are wrong, those that are right."""
    unit = "item" if identified.place is None else "row" if identified.kind is SourceKind.TABLE else "line"
    if identified.attachments is None or not identified.attachments.faults:
        try:
            return write(None)
        except RequestProblems:
            if not identified.order.skip_invalid:
                raise
    return leaving_out(write, unit, directory)


def _written(
    identified: IdentifiedOrder,
    requests: Path,
    keys: Path,
    columns: Path,
    uploaded: Mapping[str, UploadedFile] | None,
    onlooker: Onlooker | None,
    on_read: OnRead | None,
    choose: Choose | None,
    world: World,
    is_hashed: bool,
    left_out: LeftOut | None,
) -> RequestFile:
    order, place, limit = identified.order, identified.place, NO_LIMIT_BYTES
    if place is None:
        members = request_members(order.task, order.generation_config, order.response_schema, world)
        return write_requests(
            order.requests,
            requests,
            task=order.task,
            keys_path=keys,
            max_file_bytes=limit,
            system_instruction=order.system_instruction,
            generation_config=members.get("generationConfig", members),
            onlooker=onlooker,
            world=world,
            left_out=left_out,
        )
    if not isinstance(place, Path) or identified.kind is SourceKind.TABLE:
        return write_rows(
            place,
            requests,
            order=order,
            keys_path=keys,
            max_file_bytes=limit,
            attachments=identified.attachments,
            uploaded=uploaded,
            onlooker=onlooker,
            columns_path=columns,
            on_read=on_read,
            choose=choose,
            world=world,
            left_out=left_out,
            is_hashed=is_hashed,
        )
    write = partial(_of_lines, identified, requests=requests, keys=keys, onlooker=onlooker, world=world)
    with _plain(place, requests.parent, order.encoding, on_read) as plain:
        problems: RequestProblems | None = None
        try:
            if left_out is None or _is_utf8(plain.path):
                return _told(write(path=plain.path, left_out=left_out), plain)
        except RequestProblems as found:
            if _is_utf8(plain.path):
                raise
            problems = found
        # What is wrong may be right in another encoding. A file without a wrong line is not looked at for that.
        with _in_utf8(plain.path, requests.parent) as readable:
            if readable is None and problems is not None:
                raise problems
            text = readable or plain
            return _told(write(path=text.path, left_out=left_out), text)


def _told(written: RequestFile, text: TextFile) -> RequestFile:
    return replace(written, warnings=(*text.warnings, *written.warnings))


def _is_utf8(path: Path) -> bool:
    """True for lines that are UTF-8, and for those that no encoding makes a text."""
    try:
        return is_utf8(path)
    except RequestProblems:
        return True


@contextmanager
def _in_utf8(path: Path, scratch: Path) -> Iterator[TextFile | None]:
    """Yield a copy in UTF-8 of lines that are in an older encoding, removed afterwards; None for damaged UTF-8.

    Raises:
        UsageError: which encoding it is is not certain.
        StorageError: the copy cannot be written.
    """
    with storage_errors("A copy of the source could not be made"):
        directory = TemporaryDirectory(prefix="lines-", dir=scratch, ignore_cleanup_errors=True)
    with directory as name:
        readable = None
        # Damage has a line, and whoever has checked the lines has said it.
        with suppress(RequestProblems):
            readable = as_utf8(path, Path(name).resolve())
        yield readable


def _of_lines(
    identified: IdentifiedOrder,
    path: Path,
    requests: Path,
    keys: Path,
    onlooker: Onlooker | None,
    world: World,
    left_out: LeftOut | None,
) -> RequestFile:
    """Write what the lines at `path` ask for; it is the user's own file, or a copy that goes."""
    order = identified.order
    limit, rows, spread = NO_LIMIT_BYTES, order.limit_rows, spread_of(order)
    members = request_members(order.task, order.generation_config, {}, world)
    filling = Filling(order.task, members) if members else None
    if identified.kind is SourceKind.OPENAI:
        return write_converted(
            path,
            requests,
            task=order.task,
            keys_path=keys,
            max_file_bytes=limit,
            limit_rows=rows,
            spread=spread,
            onlooker=onlooker,
            world=world,
            filling=filling,
            left_out=left_out,
        )
    copy = partial(
        write_request_copy,
        path,
        requests,
        task=order.task,
        keys_path=keys,
        max_file_bytes=limit,
        limit_rows=rows,
        spread=spread,
        onlooker=onlooker,
        world=world,
        filling=filling,
        left_out=left_out,
    )
    is_own = path == identified.path and not is_address(identified.order.source)
    if left_out is not None or rows or spread or filling is not None or not is_own:
        return copy()
    try:
        sha256 = identified.content_sha256
        return check_file(path, task=order.task, keys_path=keys, sha256=sha256, onlooker=onlooker, world=world)
    except CopyNeeded:
        return copy()


@contextmanager
def _plain(path: Path, scratch: Path, encoding: str, on_read: OnRead | None) -> Iterator[TextFile]:
    """Yield a file of lines, or a copy in UTF-8 of what is in it, unpacked, which is removed afterwards.

    Raises:
        UsageError: it cannot be unpacked.
        StorageError: the copy cannot be written.
    """
    if not is_packed(path) and not encoding and not announces_wide(path):
        yield TextFile(path)
        return
    with storage_errors("A copy of the source could not be made"):
        directory = TemporaryDirectory(prefix="lines-", dir=scratch, ignore_cleanup_errors=True)
    with directory as name:
        # It is read as the user's files are: by a path without links.
        workspace, copy = Path(name).resolve(), path
        if is_packed(path):
            copy = workspace / inner_name(path)
            unpack(path, copy, on_read)
        yield as_utf8(copy, workspace, encoding) if encoding or announces_wide(copy) else TextFile(copy)
