"""From an order to checked request lines on this machine. What is previewed here is what is sent.

Lines that have to be written (rendered from a table, converted, mended, given in the call) are staged under the
order's fingerprint: a preview leaves them there, and the create that follows takes them as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.orders._staging import clear, held, sweep_others
from gemini_batch_mcp.batches.orders.consent import quote_of, record_quote
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder, identify
from gemini_batch_mcp.batches.orders.models import check_model, check_thinking
from gemini_batch_mcp.batches.orders.pricing import JobLimits, estimate_file, job_limits, read_prices
from gemini_batch_mcp.domain import JsonObject, Order, RequestFile, UploadedFile
from gemini_batch_mcp.errors import Problem, RequestProblems, StillPreparing, UsageError, storage_errors
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.files.in_lines import without_files
from gemini_batch_mcp.intake.files.planning import MAX_IN_LINES_BYTES
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.openai.lines import write_converted
from gemini_batch_mcp.intake.opened import buffered, unreadable
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.requests.reader import (
    CheckedReader,
    CopyNeeded,
    LinesRefused,
    write_request_copy,
    write_requests,
)
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.threads import in_thread

_READ_BYTES: Final = 8 * 1024**2
#: Rendered requests that a preview shows.
_SHOWN_REQUESTS: Final = 2
#: Of attached files, inside the requests of an inline create, which takes 20 MB in all.
_INLINE_FILES_BYTES: Final = 10 * 1000**2
#: A batch may be of any size: what is too large for one job becomes several.
_NO_LIMIT_BYTES: Final = 1 << 62
#: In an order's directory: what is staged there, written last.
_FACTS: Final = "facts.json"
_FAILED: Final = "The requests could not be staged"


@dataclass(frozen=True, slots=True)
class Preview:
    """What an order would send and cost. With problems there is nothing to send, and no estimate."""

    model: str
    request_count: int = 0
    size_bytes: int = 0
    job_count: int = 0
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0
    warnings: tuple[str, ...] = ()
    sample: tuple[JsonObject, ...] = ()
    estimate: Estimate | None = None


async def preview_order(app: App, order: Order, *, wait_seconds: float | None = None) -> Preview:
    """Check an order, render it, and price it. Nothing is uploaded; Gemini is asked to count a few lines at most.

    Raises:
        UsageError: the order is wrong as a whole; problems of single lines are in the preview.
        StillPreparing: the requests are still being written after `wait_seconds`; that goes on.
    """
    identified = await in_thread(identify_for, app, order)
    if identified.kind is SourceKind.UPLOADED:
        raise UsageError(f"{order.source} cannot be read back.", "Preview the local file instead.")
    prices = await read_prices(app)
    await check_model(app, prices, order.model, order.task, ask=True)
    check_thinking(prices, order)
    try:
        request_file = await stage_within(app, identified, wait_seconds)
    except RequestProblems as report:
        return Preview(order.model, problems=report.problems, problem_count=report.problem_count)
    # Files that are not there yet cannot be counted by Gemini.
    ask = identified.attachments is None or not identified.attachments.uploads
    priced = await estimate_file(app, order, request_file.path, ask=ask)
    limits = job_limits(app, prices, order.model)
    await record_quote(app, quote_of(identified, priced))
    return Preview(
        model=order.model,
        request_count=request_file.count,
        size_bytes=request_file.size_bytes,
        job_count=limits.job_count(request_file, priced),
        warnings=(*request_file.warnings, *priced.warnings),
        sample=await in_thread(_first_requests, request_file.path),
        estimate=priced,
    )


async def stage_within(app: App, identified: IdentifiedOrder, wait_seconds: float | None) -> RequestFile:
    """Return what `stage_lines` returns, if that takes no longer than `wait_seconds` (None: however long it takes).

    Raises:
        StillPreparing: it takes longer, and goes on in the background.
        BatchError: as `stage_lines`.
    """

    async def write() -> None:
        await in_thread(stage_lines, app, identified)

    if not await app.work.run(f"stage {identified.sha256}", write, wait_seconds=wait_seconds):
        raise StillPreparing(
            "The requests are being written; nothing was submitted yet.", "Make the same call again in half a minute."
        )
    return await in_thread(stage_lines, app, identified)


def identify_for(app: App, order: Order) -> IdentifiedOrder:
    """Find an order's source; see `identity.identify`."""
    inline = order.delivery == "inline"
    max_in_lines_bytes = _INLINE_FILES_BYTES if inline else min(MAX_IN_LINES_BYTES, app.settings.max_file_bytes // 2)
    return identify(order, app.guard, app.settings.home, sha256_of=app.hashes.of, max_in_lines_bytes=max_in_lines_bytes)


def stage_lines(app: App, identified: IdentifiedOrder) -> RequestFile:
    """Return the order's checked request lines, writing them unless they are staged already.

    `path` is the user's own file where that can be sent as it is.

    Raises:
        RequestProblems: lines or rows are wrong.
        UsageError: a template, a schema or the table as a whole is wrong.
        StorageError: the state directory cannot be written.
    """
    directory = _staging_directory(app, identified)
    with held(directory):
        return _read_or_write(identified, directory)


def take_staged_lines(app: App, identified: IdentifiedOrder, requests: Path, keys: Path) -> RequestFile:
    """Bring the order's lines to where a batch keeps them, out of the staging area if they are there.

    Raises:
        as `stage_lines`.
    """
    directory = _staging_directory(app, identified)
    with held(directory):
        request_file = _read_or_write(identified, directory)
        taken = replace(request_file, keys_path=keys)
        if request_file.path.parent == directory:
            taken = replace(taken, path=requests)
        with storage_errors(_FAILED):
            # Facts first: what is half moved counts as not staged.
            (directory / _FACTS).unlink(missing_ok=True)
            if taken.path == requests:
                request_file.path.replace(requests)
            request_file.keys_path.replace(keys)
    # The directory and its lock stay until they are swept: somebody may be waiting for it.
    return taken


def discard_staged_lines(app: App, identified: IdentifiedOrder) -> None:
    """Remove an order's staged lines: a batch has its own, and no create will come for these."""
    directory = _staging_directory(app, identified)
    if not (directory / _FACTS).exists():
        return
    with held(directory):
        clear(directory)


def _read_or_write(identified: IdentifiedOrder, directory: Path) -> RequestFile:
    """Return what is staged in a directory that is held, or write it. Raises as `stage_lines`."""
    if (known := _read_facts(directory)) is not None:
        return known
    sweep_others(directory)
    clear(directory)
    request_file = write_lines(identified, directory / "requests.jsonl", directory / "keys.jsonl")
    facts = {**asdict(request_file), "path": str(request_file.path), "keys_path": str(request_file.keys_path)}
    draft = directory / f"{_FACTS}.part"
    with storage_errors(_FAILED):
        draft.write_text(json.dumps(facts), encoding="utf-8")
        draft.replace(directory / _FACTS)
    return request_file


def write_lines(
    identified: IdentifiedOrder, requests: Path, keys: Path, uploaded: Mapping[str, UploadedFile] | None = None
) -> RequestFile:
    """Write the order's request lines: rendered, converted, given in the call, or a mended copy of the user's file.

    `uploaded` says where attached files are; without it they are named by references that lead nowhere yet.

    Raises:
        as `stage_lines`.
    """
    order, place = identified.order, identified.place
    limit = _NO_LIMIT_BYTES
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
        )
    if isinstance(place, Folder) or identified.kind is SourceKind.TABLE:
        return write_rows(
            place,
            requests,
            order=order,
            keys_path=keys,
            max_file_bytes=limit,
            attachments=identified.attachments,
            uploaded=uploaded,
        )
    path = place
    rows = order.limit_rows
    if identified.kind is SourceKind.OPENAI:
        return write_converted(
            path, requests, task=order.task, model=order.model, keys_path=keys, max_file_bytes=limit, limit_rows=rows
        )
    copy = partial(
        write_request_copy,
        path,
        requests,
        task=order.task,
        keys_path=keys,
        max_file_bytes=limit,
        limit_rows=rows,
    )
    return copy() if rows else _check_as_it_is(path, identified, keys) or copy()


def _check_as_it_is(path: Path, identified: IdentifiedOrder, keys: Path) -> RequestFile | None:
    """Check the user's own file; None when only a copy of it can be sent."""
    reader = CheckedReader(
        path,
        task=identified.order.task,
        keys_path=keys,
        max_file_bytes=_NO_LIMIT_BYTES,
        known_sha256=identified.content_sha256,
    )
    try:
        while reader.read(_READ_BYTES):
            pass
        return reader.finish()
    except LinesRefused:
        raise reader.survey() from None
    except CopyNeeded:
        return None
    finally:
        reader.close()


def fits_one_job(limits: JobLimits, identified: IdentifiedOrder, priced: Estimate) -> bool:
    """True for a file of ready requests that may go to Gemini as it is, as one job, checked while it travels."""
    if identified.kind is not SourceKind.READY or identified.path is None or identified.order.limit_rows:
        return False
    try:
        size_bytes = identified.path.stat().st_size
    except OSError as error:
        raise unreadable(identified.path, error) from None
    return limits.fit(size_bytes, priced.input_tokens)


def _staging_directory(app: App, identified: IdentifiedOrder) -> Path:
    return app.settings.home / "staged" / identified.sha256


def _read_facts(directory: Path) -> RequestFile | None:
    """Return what is staged, None when nothing is, or not all of it."""
    try:
        facts = msgspec.json.decode((directory / _FACTS).read_bytes(), type=RequestFile, dec_hook=_path)
        is_whole = facts.keys_path.is_file() and facts.path.stat().st_size == facts.size_bytes
    except (OSError, msgspec.MsgspecError):
        return None
    return facts if is_whole and facts.path.is_file() else None


def _path(kind: type, value: object) -> Path:
    """Read a path for msgspec, which asks about every kind that it does not know and wants this error for others."""
    if kind is not Path:
        raise NotImplementedError
    return Path(str(value))


def _first_requests(path: Path) -> tuple[JsonObject, ...]:
    with buffered(path) as file:
        lines = (file.readline() for _ in range(_SHOWN_REQUESTS))
        return tuple(without_files(msgspec.json.decode(line)) for line in lines if line)
