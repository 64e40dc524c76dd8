"""Orders that are sent from where their source lies: how they are previewed, and how long what was found there is kept.

An object in Cloud Storage and a table in BigQuery are looked at in ways of their own, and then shown alike.
"""

import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.orders.consent import quote_of, record_quote
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.models import check_model, check_thinking
from gemini_batch_mcp.batches.orders.preparing import Preview, identify_for, pilot_notes, standing_for
from gemini_batch_mcp.batches.orders.pricing import evidence_for, price_notes, read_prices
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import RequestProblems, storage_errors
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.prices.likely import Evidence
from gemini_batch_mcp.intake.prices.price_list import PriceTable
from gemini_batch_mcp.threads import in_thread

S = TypeVar("S", bound=msgspec.Struct)

#: How long it is kept what was found: an order mostly follows its preview within the hour.
_KEPT_SECONDS: Final = 7 * 24 * 3600.0
_FACTS: Final = "facts.json"
#: Requests that a preview shows.
SHOWN_REQUESTS: Final = 2


class Checked(Protocol):
    """What a look at a source found."""

    @property
    def count(self) -> int:
        """How many requests there are."""

    @property
    def size_bytes(self) -> int:
        """The size of all of them together."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was noticed in them."""

    @property
    def first(self) -> tuple[dict[str, Any], ...]:
        """A few of them."""

    def estimate(self, prices: PriceTable, order: Order, evidence: Evidence | None) -> Estimate:
        """Return what it may cost at the prices of today; with `evidence`, also what it will likely cost."""

    def notes(self) -> tuple[str, ...]:
        """Return what a preview says last: how its requests are made."""


async def preview_in_place(
    app: App, order: Order, check: Callable[[IdentifiedOrder, PriceTable], Awaitable[Checked]]
) -> Preview:
    """Check and price an order that is sent from where it is; see `preparing.preview_order`.

    Raises:
        UsageError: the order is wrong as a whole; problems of single requests are in the preview.
        StillPreparing: `check` takes longer than it may, and goes on.
    """
    identified = await in_thread(identify_for, app, order)
    prices = await read_prices(app)
    await check_model(app, prices, order.model, order.task, ask=True)
    check_thinking(prices, order)
    standing = await in_thread(standing_for, app, identified)
    try:
        found = await check(identified, prices)
    except RequestProblems as report:
        return Preview(order.model, problems=report.problems, problem_count=report.problem_count)
    figure = found.estimate(prices, order, await in_thread(evidence_for, app, identified))
    if standing is None:
        await record_quote(app, quote_of(identified, figure))
    elif standing.estimate is not None:
        # What was agreed to holds, whatever prices have become since.
        figure = standing.estimate
    return Preview(
        model=order.model,
        request_count=found.count,
        size_bytes=found.size_bytes,
        job_count=1,
        warnings=(
            *price_notes(app, prices),
            *found.warnings,
            *figure.warnings,
            *pilot_notes(app, identified, found.count, figure),
            *found.notes(),
        ),
        sample=found.first,
        estimate=figure,
        standing=standing.id if standing is not None else "",
    )


def found_before(directory: Path, kind: type[S]) -> S | None:
    """Return what was found earlier and kept in a directory, None where there is nothing that this version reads."""
    try:
        return msgspec.json.decode((directory / _FACTS).read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def keep_found(directory: Path, found: msgspec.Struct) -> None:
    """Keep in a directory what was found.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors("What was found in the source could not be written down"):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = directory / f"{_FACTS}.part"
        draft.write_bytes(msgspec.json.encode(found))
        draft.replace(directory / _FACTS)


def sweep_found(parent: Path) -> None:
    """Remove what was found more than a week ago, whatever it was an order of."""
    for old in parent.glob("*"):
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
