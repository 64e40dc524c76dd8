"""What an order over a table in BigQuery is and costs: its rows counted, its keys proved, a few requests looked at.

BigQuery counts, and writes; what comes here is one row of figures and a few requests. What was found is kept, so that
preview, consent and create say the same figure.
"""

import io
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from gemini_batch_mcp import __version__
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.in_place import SHOWN_REQUESTS, found_before, keep_found, preview_in_place, sweep_found
from gemini_batch_mcp.batches.orders.appraising import ask_gemini
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.preparing import Preview
from gemini_batch_mcp.batches.remote._bytes import bytes_words, cost_of_bytes, most_bytes_unasked, with_bigquery
from gemini_batch_mcp.batches.remote.places import (
    allowed,
    columns_of,
    source_table,
    unchanged_source,
    warehouse_of,
)
from gemini_batch_mcp.digests import text_digest
from gemini_batch_mcp.domain import JsonObject, Order
from gemini_batch_mcp.errors import StillPreparing, UsageError, storage_errors
from gemini_batch_mcp.gemini.warehouse import Rows, Statement
from gemini_batch_mcp.intake.prices.estimate import Counting, Estimate, estimate, limits_of
from gemini_batch_mcp.intake.prices.likely import Evidence
from gemini_batch_mcp.intake.prices.price_list import PriceTable
from gemini_batch_mcp.intake.prices.survey import Load, Survey, Surveyor
from gemini_batch_mcp.intake.prices.tokens import Tokens
from gemini_batch_mcp.intake.requests.keys import KeyLog
from gemini_batch_mcp.intake.requests.passes import Report, run
from gemini_batch_mcp.text import count, dollars
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.warehouse import statements

#: Requests that are looked at, and counted by Gemini (our choice; of a file it is 20, too).
_LOOKED_AT: Final = 20
_SHOWN_SQL_CHARS: Final = 6_000
_NOT_WRITTEN: Final = "What BigQuery counted could not be written down"


class CheckedTable(msgspec.Struct, frozen=True):
    """What is known of an order over a table. `read_bytes` is what writing its requests reads of the source.

    `size_bytes` is of all requests together, `longest_bytes` of the longest; `sql` is what writes them.
    """

    count: int
    size_bytes: int
    longest_bytes: int
    read_bytes: int
    survey: Survey
    counting: Counting
    warnings: tuple[str, ...]
    first: tuple[dict[str, Any], ...]
    sql: str

    def estimate(self, prices: PriceTable, order: Order, evidence: Evidence | None) -> Estimate:
        """Return what a job of it may cost at the prices of today, BigQuery's own part included; `pricing.priced`."""
        return self.estimate_of(self.survey, prices, order.model, order, evidence)

    def estimate_of(
        self, survey: Survey, prices: PriceTable, model: str, order: Order, evidence: Evidence | None
    ) -> Estimate:
        """Return the same of some of its rows."""
        priced = estimate(
            survey,
            self.counting,
            model=model,
            task=order.task,
            prices=prices,
            today=datetime.now(UTC).date(),
            evidence=evidence,
        )
        share = survey.rows / max(1, self.survey.rows)
        return with_bigquery(
            priced,
            round(self.read_bytes * share),
            survey.text_bytes,
            survey.most.output_tokens,
            longest_tokens=evidence.longest * survey.rows if evidence is not None else None,
        )

    def notes(self) -> tuple[str, ...]:
        """Return the statement that writes its requests."""
        return (
            f"Nothing of the rows passes through this machine: BigQuery writes the requests, with {_shown(self.sql)}",
        )


async def check_table(
    app: App, identified: IdentifiedOrder, prices: PriceTable, *, wait_seconds: float | None = None
) -> CheckedTable:
    """Have BigQuery count an order's rows and prove its keys, and look at a few requests; or return what is known.

    Raises:
        StillPreparing: it takes longer than `wait_seconds` (None: never), and goes on in the background.
        RequestProblems: requests are wrong.
        UsageError: the order does not fit the table, its keys are none, or to look at it would cost too much unasked.
        GeminiError: BigQuery could not be asked.
    """
    order = identified.order
    wanted = f"{__version__}\0{identified.sha256}\0{order.source}\0{app.settings.refuse_unknown}"
    directory = app.settings.home / "remote" / text_digest(wanted).rpartition(":")[2]
    if (known := await in_thread(found_before, directory, CheckedTable)) is not None:
        return known
    found: list[CheckedTable] = []

    async def look() -> None:
        found.append(await _check(app, order, prices))
        await in_thread(sweep_found, directory.parent)
        await in_thread(keep_found, directory, found[0])

    if not await app.run(f"look {directory.name}", look, wait_seconds=wait_seconds):
        raise StillPreparing("BigQuery is still counting the rows.", "Make the same call again in half a minute.")
    # It may have been begun by another call.
    known = found[0] if found else await in_thread(found_before, directory, CheckedTable)
    assert known is not None
    return known


async def _check(app: App, order: Order, prices: PriceTable) -> CheckedTable:
    warehouse, source = warehouse_of(app), await unchanged_source(app, order)
    table = source_table(order.source)
    plan = await in_thread(statements.plan_rows, order, table, columns_of(source.columns), app.world(order.model))
    looks = [statements.survey(plan), statements.sample(plan, _LOOKED_AT)]
    measured = [await warehouse.measure(Statement(sql, source.location, 0)) for sql in looks]
    _refuse_dear(app, sum(measured), order)
    figures, sampled = [
        await warehouse.ask(Statement(sql, source.location, allowed(size)), most_rows=_LOOKED_AT)
        for sql, size in zip(looks, measured, strict=True)
    ]
    counted = _first_row(figures)
    if (problem := statements.row_problem(plan, counted)) is not None:
        raise problem
    keep = statements.keep_rows(plan, table.beside("_rows"))
    read_bytes = await warehouse.measure(Statement(keep, source.location, 0))
    survey, requests, first, warnings = await in_thread(_look, app, order, prices, counted, sampled)
    counting = await ask_gemini(app, order, requests) if requests else Counting()
    return CheckedTable(
        count=int(counted["row_count"]),
        size_bytes=int(counted["request_bytes"] or 0),
        longest_bytes=int(counted["longest_bytes"] or 0),
        read_bytes=read_bytes,
        survey=survey,
        counting=counting,
        warnings=(*plan.warnings, *warnings),
        first=first,
        sql=statements.write_requests(plan, table.beside("_rows"), table.beside("_requests")),
    )


async def preview_table(app: App, order: Order, *, wait_seconds: float | None = None) -> Preview:
    """Check and price an order over a table in BigQuery; see `preparing.preview_order`.

    Raises:
        UsageError: the order is wrong as a whole; problems of single requests are in the preview.
        StillPreparing: BigQuery is still counting after `wait_seconds`; that goes on.
    """

    async def check(identified: IdentifiedOrder, prices: PriceTable) -> CheckedTable:
        return await check_table(app, identified, prices, wait_seconds=wait_seconds)

    return await preview_in_place(app, order, check)


def _refuse_dear(app: App, size_bytes: int, order: Order) -> None:
    """Refuse to look at a table where that alone costs more than may be spent without asking.

    Raises:
        UsageError: it does.
    """
    most = most_bytes_unasked(app.settings)
    if most is None or size_bytes <= most:
        return
    raise UsageError(
        f"To count the rows of {order.source.partition('#')[0]} BigQuery would read {bytes_words(size_bytes)}, for "
        f"{dollars(cost_of_bytes(size_bytes))}; without asking, {dollars(cost_of_bytes(most))} may be spent.",
        "Order from a smaller table (CREATE TABLE … AS SELECT the columns and rows that are wanted), or have the user "
        "raise GEMINI_BATCH_CONFIRM_ABOVE_USD.",
    )


def _first_row(rows: Rows) -> Mapping[str, Any]:
    names = [column.name for column in rows.columns]
    return dict(zip(names, rows.rows[0], strict=True))


def _look(
    app: App, order: Order, prices: PriceTable, counted: Mapping[str, Any], sampled: Rows
) -> tuple[Survey, Mapping[int, JsonObject], tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Check sampled requests by the rules for all lines, and bring what they came to to the size of the whole.

    Raises:
        RequestProblems: requests are wrong.
    """
    names = [column.name for column in sampled.columns]
    rows = [dict(zip(names, row, strict=True)) for row in sampled.rows]
    lines = [
        msgspec.json.encode({"key": str(row["key"]), "request": msgspec.Raw(str(row["request"]).encode())})
        for row in rows
    ]
    limits = limits_of(prices, order.model, datetime.now(UTC).date())
    surveyor, report = Surveyor(order.model, limits=limits), Report(unit="row")
    home = app.settings.home
    with (
        storage_errors(_NOT_WRITTEN),
        TemporaryDirectory(dir=home, ignore_cleanup_errors=True) as place,
        KeyLog(Path(place, "keys.jsonl")) as keys,
    ):
        file: Any = io.BytesIO(b"".join(line + b"\n" for line in lines))
        for _ in run(file, order.task, keys, report, onlooker=surveyor, world=app.world(order.model)):
            pass
    if report.problem_count:
        raise report.as_error(order.source.partition("#")[0])
    of_sample = surveyor.survey()
    first = tuple(msgspec.json.decode(line) for line in lines[:SHOWN_REQUESTS])
    warnings = report.warnings()
    return _of_all(of_sample, counted, len(lines)), surveyor.requests(), first, warnings


def _of_all(sample: Survey, counted: Mapping[str, Any], sampled_rows: int) -> Survey:
    """Return the survey of all rows: their number and their bytes are counted, what a byte comes to is the sample's.

    A text has at most a token for two bytes, and one for each digit (see `tokens.text_weight`); so a byte is taken for
    a token here, which no text passes.
    """
    rows, scale = int(counted["row_count"]), int(counted["row_count"]) / max(1, sampled_rows)
    text_bytes = int(counted["request_bytes"] or 0)
    of_prompts = int(counted["text_bytes"] or 0)
    schema = max((line.settings for line in sample.lines), default=0.0)
    return replace(
        sample,
        rows=rows,
        text_bytes=text_bytes,
        most=Load(
            rows=rows,
            text=of_prompts + schema * rows,
            media=_scaled(sample.most.media, scale),
            output_tokens=round(sample.most.output_tokens * scale),
        ),
        media=_scaled(sample.media, scale),
        uncapped_rows=round(sample.uncapped_rows * scale),
    )


def _scaled(tokens: Tokens, scale: float) -> Tokens:
    return Tokens(*(round(getattr(tokens, field.name) * scale) for field in fields(tokens)))


def _shown(sql: str) -> str:
    more = f"… ({count(len(sql), 'character')} in all)" if len(sql) > _SHOWN_SQL_CHARS else ""
    return f"{sql[:_SHOWN_SQL_CHARS]}{more}"
