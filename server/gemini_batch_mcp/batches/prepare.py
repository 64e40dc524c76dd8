"""From an order to a checked request file on this machine. What is previewed here is what is sent."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.identity import IdentifiedOrder, identify
from gemini_batch_mcp.batches.models import check_model
from gemini_batch_mcp.domain import JsonObject, Order, RequestFile
from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.estimate import Estimate, estimate, over_cap, sample_file
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.prices import load_prices
from gemini_batch_mcp.intake.reader import CheckedReader, CopyNeeded, LinesRefused, write_request_copy, write_requests

_READ_BYTES: Final = 8 * 1024**2
#: Rendered requests that a preview shows.
_SHOWN_REQUESTS: Final = 2


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


async def preview_order(app: App, order: Order) -> Preview:
    """Check an order, render it, and price it. Nothing is uploaded; Gemini is asked to count a few lines at most.

    Raises:
        UsageError: the order is wrong as a whole; problems of single lines are in the preview.
    """
    identified = await anyio.to_thread.run_sync(identify, order, app.guard)
    if identified.uploaded_file:
        raise UsageError(f"{identified.uploaded_file} cannot be read back.", "Preview the local file instead.")
    await check_model(app, order.model, order.task)
    async with anyio.TemporaryDirectory[str](prefix="preview-", dir=str(app.settings.home)) as name:
        directory = Path(name)
        try:
            request_file = await anyio.to_thread.run_sync(_prepare, app, identified, directory)
        except RequestProblems as report:
            return Preview(order.model, problems=report.problems, problem_count=report.problem_count)
        priced = await _estimate(app, order, request_file.path, request_file.count, ask=True)
        return Preview(
            model=order.model,
            request_count=request_file.count,
            size_bytes=request_file.size_bytes,
            job_count=math.ceil(request_file.size_bytes / app.settings.max_file_bytes),
            warnings=(*request_file.warnings, *priced.warnings),
            sample=await anyio.to_thread.run_sync(_first_requests, request_file.path),
            estimate=priced,
        )


def write_request_file(app: App, identified: IdentifiedOrder, requests: Path, keys: Path) -> RequestFile:
    """Write the order's request lines: rendered from a table, given in the call, or a mended copy of the user's file.

    Raises:
        RequestProblems: lines or rows are wrong.
        UsageError: a template, a schema or the table as a whole is wrong.
    """
    order = identified.order
    limit = app.settings.max_file_bytes
    if identified.path is None:
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
    if identified.is_table:
        return write_rows(identified.path, requests, order=order, keys_path=keys, max_file_bytes=limit)
    return write_request_copy(identified.path, requests, task=order.task, keys_path=keys, max_file_bytes=limit)


async def refuse_over_cap(app: App, order: Order, request_file: Path, *, rows: int = 0) -> None:
    """Refuse an order that may cost more than the hard cap. No argument of a tool lifts it.

    Gemini is not asked to count here: a create takes no more calls than it must.

    Raises:
        UsageError: the upper estimate is above GEMINI_BATCH_MAX_COST_USD, or the cost is not known.
    """
    if app.settings.max_cost_usd is None:
        return
    priced = await _estimate(app, order, request_file, rows, ask=False)
    if (refusal := over_cap(priced, app.settings.max_cost_usd)) is not None:
        raise UsageError(refusal, "Set maxOutputTokens, order fewer rows, or ask the user to raise the cap.")


async def _estimate(app: App, order: Order, path: Path, rows: int, *, ask: bool) -> Estimate:
    prices = await anyio.to_thread.run_sync(load_prices, app.settings.prices_path)
    sample = await anyio.to_thread.run_sync(partial(sample_file, path, model=order.model, rows=rows))

    async def count(request: JsonObject) -> int:
        return await app.gateway.count_tokens(model=order.model, requests=[request], task=order.task)

    return await estimate(
        sample,
        model=order.model,
        task=order.task,
        prices=prices,
        count_tokens=count if ask else None,
        today=datetime.now(UTC).date(),
    )


def _prepare(app: App, identified: IdentifiedOrder, directory: Path) -> RequestFile:
    """Return the request file as it would be uploaded; the user's own file where that can be sent as it is."""
    keys = directory / "keys.jsonl"
    if identified.path is None or identified.is_table:
        return write_request_file(app, identified, directory / "requests.jsonl", keys)
    reader = CheckedReader(
        identified.path, task=identified.order.task, keys_path=keys, max_file_bytes=app.settings.max_file_bytes
    )
    try:
        while reader.read(_READ_BYTES):
            pass
        return reader.finish()
    except LinesRefused:
        raise reader.survey() from None
    except CopyNeeded:
        return write_request_file(app, identified, directory / "requests.jsonl", keys)
    finally:
        reader.close()


def _first_requests(path: Path) -> tuple[JsonObject, ...]:
    with path.open("rb") as file:
        lines = (file.readline() for _ in range(_SHOWN_REQUESTS))
        return tuple(msgspec.json.decode(line) for line in lines if line)
