"""The request lines of an order, in one pass over its source: rendered, converted, mended, or the user's own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.domain import RequestFile, UploadedFile
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.openai.lines import write_converted
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.requests.passes import NO_LIMIT_BYTES
from gemini_batch_mcp.intake.requests.reader import CopyNeeded, check_file, write_request_copy, write_requests
from gemini_batch_mcp.intake.tables.kinds import SourceKind


def write_lines(
    identified: IdentifiedOrder,
    requests: Path,
    keys: Path,
    columns: Path,
    *,
    uploaded: Mapping[str, UploadedFile] | None = None,
    onlooker: Onlooker | None = None,
) -> RequestFile:
    """Write the order's request lines: rendered, converted, given in the call, or a mended copy of the user's file.

    Of a table, its own columns go to `columns`. `uploaded` says where attached files are; without it they are named by
    references that lead nowhere yet. `onlooker` sees each line in this one pass.

    Raises:
        RequestProblems: lines or rows are wrong.
        UsageError: a template, a schema or the table as a whole is wrong.
        StorageError: the files cannot be written, or the source changed while it was read.
    """
    try:
        written = _written(identified, requests, keys, columns, uploaded, onlooker)
    except BatchError:
        # What half of a change looks like is not worth telling.
        identified.refuse_changed()
        raise
    identified.refuse_changed()
    return written


def _written(
    identified: IdentifiedOrder,
    requests: Path,
    keys: Path,
    columns: Path,
    uploaded: Mapping[str, UploadedFile] | None,
    onlooker: Onlooker | None,
) -> RequestFile:
    order, place = identified.order, identified.place
    limit = NO_LIMIT_BYTES
    if place is None:
        members = request_members(order.task, order.generation_config, order.response_schema)
        return write_requests(
            order.requests,
            requests,
            task=order.task,
            keys_path=keys,
            max_file_bytes=limit,
            system_instruction=order.system_instruction,
            generation_config=members.get("generationConfig", members),
            onlooker=onlooker,
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
        )
    path = place
    rows = order.limit_rows
    if identified.kind is SourceKind.OPENAI:
        return write_converted(
            path,
            requests,
            task=order.task,
            model=order.model,
            keys_path=keys,
            max_file_bytes=limit,
            limit_rows=rows,
            onlooker=onlooker,
        )
    copy = partial(
        write_request_copy,
        path,
        requests,
        task=order.task,
        keys_path=keys,
        max_file_bytes=limit,
        limit_rows=rows,
        onlooker=onlooker,
    )
    if rows:
        return copy()
    try:
        return check_file(path, task=order.task, keys_path=keys, sha256=identified.content_sha256, onlooker=onlooker)
    except CopyNeeded:
        return copy()
