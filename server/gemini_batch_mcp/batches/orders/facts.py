"""What was ordered, for whoever comes back to it: the parts that were given, and whether the source is still that."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders._earlier import earlier_rows
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import BatchError, PathError
from gemini_batch_mcp.intake.tables.folders import Folder, find_source, read_folder, source_stamp

#: Parts of an order in the order in which people read them. What was left to its default is left out.
PARTS: Final = (
    "prompt",
    "system_instruction",
    "response_schema",
    "generation_config",
    "attach",
    "key_column",
    "limit_rows",
    "sample_rows",
    "where",
    "encoding",
    "skip_invalid",
    "reuse",
)
#: Requests given in the call that are shown.
_SHOWN_REQUESTS: Final = 3


def order_facts(order: Order) -> dict[str, Any]:
    """Return what an order asked for, by the names of its arguments."""
    facts: dict[str, Any] = {"source": order.source}
    if order.requests:
        facts = {
            "source": f"{len(order.requests)} given in the call",
            "requests": list(order.requests[:_SHOWN_REQUESTS]),
        }
    facts |= {name: value for name in (*PARTS, "like") if is_given(name, value := _plain(getattr(order, name)))}
    return facts | {"task": order.task, "model": order.model, "delivery": order.delivery}


def is_given(name: str, value: Any) -> bool:
    """True for a part that is not left to its default."""
    return bool(value) and (name, value) != ("reuse", "auto")


def source_now(app: App, batch: BatchEntry) -> str:
    """Say how a batch's source stands against the time of its order, empty where that is not known. Reads all of it."""
    order = batch.order
    if order is None or not order.source or order.source.startswith(("files/", "s3://", "gs://", "bq://")):
        return ""
    try:
        content = _content(app, order.source)
    except BatchError:
        return "gone"
    if order.attach:
        return "still there"
    return "unchanged" if content == batch.content_sha256 else "changed since"


def _content(app: App, source: str) -> str:
    try:
        place = find_source(source, app.guard)
    except PathError:
        if (rows := earlier_rows(app, source)) is None:
            raise
        return rows.content_sha256
    if isinstance(place, Folder):
        return app.hashes.of_folder(place.root, source_stamp(place), partial(read_folder, place)).sha256
    return app.hashes.of(place)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
