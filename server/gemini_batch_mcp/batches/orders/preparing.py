"""An order as a preview shows it, and how its source is found. What is previewed here is what is sent."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders._earlier import earlier_rows
from gemini_batch_mcp.batches.orders.ahead import PassAhead
from gemini_batch_mcp.batches.orders.appraising import Appraisal, appraise
from gemini_batch_mcp.batches.orders.consent import quote_of, record_quote
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder, identify
from gemini_batch_mcp.batches.orders.likeness import likeness_notes
from gemini_batch_mcp.batches.orders.models import check_model, check_thinking
from gemini_batch_mcp.batches.orders.pricing import (
    job_limits,
    now_notes,
    price_notes,
    read_prices,
    refuse_too_many,
    tier_of,
)
from gemini_batch_mcp.batches.work import deadline_after, seconds_left
from gemini_batch_mcp.digests import text_digest
from gemini_batch_mcp.domain import JsonObject, Order
from gemini_batch_mcp.errors import PathError, Problem, RequestProblems, StillPreparing, UsageError
from gemini_batch_mcp.intake.files.in_lines import without_files
from gemini_batch_mcp.intake.files.planning import MAX_IN_LINES_BYTES
from gemini_batch_mcp.intake.opened import buffered
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.tables.folders import Folder, FolderContents, read_folder
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.intake.workbooks.sheets import split_sheet
from gemini_batch_mcp.stores.addresses import is_address
from gemini_batch_mcp.stores.found import Copied
from gemini_batch_mcp.text import dollars, plain_text
from gemini_batch_mcp.threads import end_if_cancelled, in_thread
from gemini_batch_mcp.warehouse.statements import is_table, table_named

T = TypeVar("T")

#: Rendered requests that a preview shows.
_SHOWN_REQUESTS: Final = 2
#: Rows of the pilot that a preview proposes, and the rows from which on it proposes one (our choice).
_PILOT_ROWS: Final = 20
_WORTH_A_PILOT_ROWS: Final = 100
#: Of attached files, inside the requests of an inline create, which takes 20 MB in all.
_INLINE_FILES_BYTES: Final = 10 * 1000**2
#: What copies tables here, which batches on Google Cloud read where they are.
_EXTRACT: Final = "bq extract --destination_format=NEWLINE_DELIMITED_JSON"
#: Said where an order is refused; of a preview, which submits nothing in any case, it would be read as news.
_NOT_SUBMITTED: Final = re.compile(r"; nothing was submitted(?=\.)| Nothing was submitted\.")


@dataclass(frozen=True, slots=True)
class Preview:
    """What an order would send and cost. With problems that are not skipped, nothing is sent: there is no estimate."""

    model: str
    request_count: int = 0
    size_bytes: int = 0
    job_count: int = 0
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0
    warnings: tuple[str, ...] = ()
    sample: tuple[JsonObject, ...] = ()
    estimate: Estimate | None = None
    #: The batch that is this order already; empty for none.
    standing: str = ""
    #: Requests that are not sent: answered in an earlier batch, the same as another one here, or left out as wrong.
    reused_count: int = 0
    identical_count: int = 0
    skipped_count: int = 0

    @property
    def send_count(self) -> int:
        """How many requests are sent."""
        return self.request_count - self.reused_count - self.identical_count - self.skipped_count


async def preview_order(app: App, order: Order, *, wait_seconds: float | None = None) -> Preview:
    """Check an order, render it, and price it. Nothing is uploaded; Gemini is asked to count a few lines at most.

    Raises:
        UsageError: the order is wrong as a whole; problems of single lines are in the preview.
        StillPreparing: the requests are still being written after `wait_seconds`; that goes on.
    """
    with PassAhead(app) as ahead:
        try:
            return await _previewed(app, order, ahead, wait_seconds)
        except UsageError as error:
            error.message = _NOT_SUBMITTED.sub("", error.message)
            error.next_step = error.next_step.replace("submit the order again", "preview it again")
            raise


async def _previewed(app: App, order: Order, ahead: PassAhead, wait_seconds: float | None) -> Preview:
    deadline = deadline_after(wait_seconds)
    identified = await find_order(app, order, ahead, wait_seconds)
    if identified.kind is SourceKind.UPLOADED:
        raise UsageError(f"{order.source} cannot be read back.", "Preview the local file instead.")
    prices = (await read_prices(app)).at(tier_of(app.settings, order.delivery, order.task))
    await check_model(app, prices, order.model, order.task, ask=True)
    check_thinking(prices, order)
    notes = await in_thread(likeness_notes, app, identified)
    standing = await in_thread(standing_for, app, identified)
    if standing is not None and (seen := await in_thread(_as_it_stands, app, standing)) is not None:
        return replace(seen, warnings=(*notes, *seen.warnings))
    try:
        appraisal = await appraise(app, identified, seconds_left(deadline), ahead)
    except RequestProblems as report:
        count = report.problem_count
        return Preview(order.model, problems=report.problems, problem_count=count, warnings=(*notes, *report.warnings))
    request_file, estimate = appraisal.request_file, appraisal.estimate
    refuse_too_many(order.delivery, request_file.count)
    identified = identified.settled(request_file)
    spared, skipped = request_file.spared, request_file.skipped.first if request_file.skipped is not None else ()
    if standing is None:
        await record_quote(app, quote_of(identified, estimate))
    elif standing.estimate is not None:
        # What was agreed to holds, whatever prices have become since.
        estimate = standing.estimate
    limits, spared = job_limits(app, prices, order.model), request_file.spared
    return Preview(
        model=order.model,
        request_count=request_file.row_count + request_file.skipped_count,
        reused_count=spared.reused_count if spared is not None else 0,
        identical_count=spared.identical_count if spared is not None else 0,
        skipped_count=request_file.skipped_count,
        problems=tuple(Problem(line.line, line.key, line.message, line.fix) for line in skipped),
        problem_count=request_file.skipped_count,
        size_bytes=request_file.size_bytes,
        job_count=1 if prices.tier else limits.job_count(request_file, estimate),
        warnings=(
            *notes,
            *_saving(appraisal),
            *appraisal.notes,
            *now_notes(prices, order.task, request_file.count),
            *price_notes(app, prices),
            *request_file.warnings,
            *estimate.warnings,
            *pilot_notes(app, identified, request_file.count, estimate),
        ),
        sample=await in_thread(_first_requests, request_file.path),
        estimate=estimate,
        standing=standing.id if standing is not None else "",
    )


def pilot_notes(app: App, identified: IdentifiedOrder, count: int, estimate: Estimate) -> tuple[str, ...]:
    """Say how to learn what an order will cost, where that is worth it: it is large, and nothing tells yet."""
    order, low, high = identified.order, estimate.cost_usd_low, estimate.cost_usd_high
    is_pilot = 0 < (order.limit_rows or order.sample_rows) <= count
    if estimate.likely is not None or low is None or high is None or order.task == "embed":
        return ()
    has_rows = identified.place is not None or identified.kind is SourceKind.REMOTE
    if is_pilot or not has_rows or count < _WORTH_A_PILOT_ROWS:
        return ()
    if high <= (app.settings.confirm_above_usd or 0.0):
        return ()
    # Where rows are not answered at once, a pilot is a batch like any other.
    now = "" if app.gateway.service.is_cloud else " with delivery='now'"
    pilot = f"sample_rows={_PILOT_ROWS}{now} (its input is about {dollars(low / count * _PILOT_ROWS)})"
    return (
        f"No answers to this prompt tell yet what it will likely cost. Order a pilot first: {pilot}, then preview this "
        "again.",
    )


def _as_it_stands(app: App, batch: BatchEntry) -> Preview | None:
    """Return the preview of an order that is a batch already, out of what is kept of it; None when that is not all."""
    path = Path(batch.request_path) if batch.request_path else app.files(batch.id).requests()
    if batch.estimate is None or not (batch.request_count or batch.sends_nothing) or not path.is_file():
        return None
    return Preview(
        model=batch.model,
        request_count=batch.row_count,
        reused_count=batch.reused_count,
        identical_count=batch.identical_count,
        skipped_count=batch.skipped_count,
        size_bytes=batch.size_bytes,
        job_count=sum(job.attempt == 1 and not job.is_of_nothing for job in batch.jobs),
        warnings=(*batch.warnings, *batch.estimate.warnings),
        sample=_first_requests(path),
        estimate=batch.estimate,
        standing=batch.id,
    )


def _saving(appraisal: Appraisal) -> tuple[str, ...]:
    """Say what is saved by rows that are not sent; nothing where all are, or no price is known."""
    whole, sent = appraisal.whole, appraisal.estimate
    if whole is None or whole.cost_usd_low is None or whole.cost_usd_high is None:
        return ()
    if whole.likely is not None and (sent.likely is not None or not appraisal.request_file.count):
        likely = whole.likely.usd - (sent.cost_usd_likely or 0.0)
        return (f"Rows that are not sent save about {dollars(max(0.0, likely))}.",)
    low = max(0.0, whole.cost_usd_low - (sent.cost_usd_low or 0.0))
    # What their answers would have cost is in no range that helps: it ends with the longest that a model can give.
    return (f"Rows that are not sent save at least {dollars(low)}.",)


def standing_for(app: App, identified: IdentifiedOrder) -> BatchEntry | None:
    """Return the batch that stands for an order, None when none does.

    One that has sent fewer rows than there are does not stand for an order that wants all of them sent.
    """
    standing = app.ledger.standing(identified.sha256, identified.earlier_sha256)
    if standing is not None or not identified.wants_all_sent:
        return standing
    plain = app.ledger.standing(identified.plain_sha256, ())
    is_same = plain is not None and plain.is_submitted and not plain.reused_count and not plain.identical_count
    return plain if is_same else None


async def find_order(app: App, order: Order, ahead: PassAhead, wait_seconds: float | None) -> IdentifiedOrder:
    """Find an order's source as `identify_for` does. Many files, of a folder or attached, are read in the background.

    Raises:
        StillPreparing: they are still being read after `wait_seconds` (None: never); that goes on.
        BatchError: as `identity.identify`.
    """
    if not await in_thread(_reads_many_files, app, order):
        return await in_thread(identify_for, app, order, ahead)
    name, work = f"find {text_digest(repr(order))}", partial(in_thread, identify_for, app, order)
    found = await app.work.result(name, work, wait_seconds=wait_seconds, gauge=app.gauge)
    if found is None:
        raise StillPreparing(
            f"The files of {plain_text(order.source, 200)} are still being read{app.gauge.reached()}; nothing has been "
            "submitted yet.",
            "Make the same call again in half a minute: the reading continues in the background.",
        )
    return found


def _reads_many_files(app: App, order: Order) -> bool:
    """True for an order that attaches files, and for one whose source is a folder or a pattern."""
    if order.attach or is_copied(app, order):
        return True
    try:
        place, pattern = app.guard.readable_place(order.source)
    except PathError:
        return False  # Whoever looks for it says so.
    return bool(pattern) or place.is_dir()


def identify_for(app: App, order: Order, ahead: PassAhead | None = None) -> IdentifiedOrder:
    """Find an order's source; see `identity.identify`. A pass `ahead` begins while it is hashed.

    How many files of a folder have been read, or of those attached, is read on the gauge; a cancel ends the reading.
    """
    refuse_unoffered(app, order)

    attached = count()

    def tell(done: int, total: int | None = None) -> None:
        end_if_cancelled()
        app.gauge.show(Progress(Doing.READING, done, total))

    def read(folder: Folder, stamp: str) -> FolderContents:
        return app.hashes.of_folder(folder.root, stamp, lambda: read_folder(folder, tell))

    def through(path: Path, look: Callable[[], T]) -> T:
        tell(next(attached))
        return app.hashes.of_attached(path, look)

    def copied() -> Copied | None:
        if not is_copied(app, order):
            return None
        text, sheet = split_sheet(order.source)
        file = app.stores.copy(text, lambda done, total: app.gauge.show(Progress(Doing.COPYING, done, total)))
        return Copied(text, file, sheet)

    inline = order.delivery == "inline"
    max_in_lines_bytes = _INLINE_FILES_BYTES if inline else min(MAX_IN_LINES_BYTES, app.settings.max_file_bytes // 2)
    identified = identify(
        order,
        app.guard,
        app.settings.home,
        sha256_of=app.hashes.of,
        read=read,
        through=through,
        max_in_lines_bytes=max_in_lines_bytes,
        on_found=ahead.begin if ahead is not None else None,
        earlier=partial(earlier_rows, app),
        choose=app.choose,
        copied=copied(),
    )
    if done := next(attached):
        tell(done, done)
    return identified


def is_copied(app: App, order: Order) -> bool:
    """True for an order whose source is an object that is copied here and read as a file.

    On Google Cloud, ready lines in Cloud Storage are sent from where they are.
    """
    return is_address(order.source) and not (order.source.startswith("gs://") and _sends_in_place(app, order))


def _sends_in_place(app: App, order: Order) -> bool:
    return app.gateway.service.is_cloud and not order.prompt


def refuse_unoffered(app: App, order: Order) -> None:
    """Refuse what the API that this server uses does not offer, or what no version of this server does yet.

    Raises:
        UsageError: says what to do instead.
    """
    if is_table(order.source):
        # A slip in the name is told first: the command below takes the same one.
        table_named(order.source.partition("#")[0])
        if not app.gateway.service.is_cloud:
            raise UsageError(
                f"{plain_text(order.source, 200)} cannot be a source: bq:// is read on Google Cloud only "
                "(GOOGLE_GENAI_USE_ENTERPRISE).",
                f"Give a local file; `{_EXTRACT}` brings one here.",
            )
    if not app.gateway.service.is_cloud:
        return
    if order.delivery == "inline":
        raise UsageError("Batches on Google Cloud take no requests inside the call.", "Use delivery='file'.")
    if order.delivery == "now":
        raise UsageError(
            "delivery='now' is not available on Google Cloud.", "Use delivery='file'; limit_rows makes a small trial."
        )
    if order.task == "embed":
        raise UsageError(
            "Batches of embeddings are not available on Google Cloud with this version.",
            "Start a server with a Gemini API key (without GOOGLE_GENAI_USE_ENTERPRISE) for them.",
        )
    if order.source.startswith("files/"):
        raise UsageError(
            f"{plain_text(order.source, 80)} belongs to the Gemini API; batches on Google Cloud cannot use it.",
            "Give the local file.",
        )


def _first_requests(path: Path) -> tuple[JsonObject, ...]:
    with buffered(path) as file:
        lines = (file.readline() for _ in range(_SHOWN_REQUESTS))
        return tuple(without_files(msgspec.json.decode(line)) for line in lines if line)
