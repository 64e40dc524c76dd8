"""An earlier batch's order taken over: what is given replaces it, and whoever orders is told what differs."""

from dataclasses import replace
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.finding import known_batch, meant
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders._earlier import source_names
from gemini_batch_mcp.batches.orders.facts import PARTS, is_given
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import PathError, StorageError, UnknownBatch, UsageError
from gemini_batch_mcp.intake.tables.earlier import KEY_COLUMN
from gemini_batch_mcp.intake.tables.folders import find_source
from gemini_batch_mcp.intake.template import with_other_names
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.text import plain_text

#: All that may differ, in the order in which it is told.
_TOLD: Final = ("source", "requests", "model", "task", "delivery", *PARTS)
#: Parts that decide, beside the source itself, on what an order's content is.
_OF_CONTENT: Final = ("source", "attach", "limit_rows", "sample_rows", "where", "encoding")
_SHOWN_CHARS: Final = 80


def take_over(app: App, order: Order) -> Order:
    """Return the order with everything that it does not give itself as the batch `order.like` has it.

    Raises:
        UnknownBatch: there is no such batch, or more than one.
        UsageError: what it was asked is not known.
    """
    batch = known_batch(app, order.like)
    if batch is None:
        raise UnknownBatch(
            f"No batch {order.like[:_SHOWN_CHARS]!r} is known here, so its order cannot be taken over.",
            f"{meant(app, order.like)}Call list_jobs to see the batches.",
        )
    old = batch.order
    if old is None:
        raise UsageError(
            f"What {batch.id} was asked is not known here: it was created elsewhere, or by an older version.",
            "Give the order in full.",
        )
    has_own = bool(order.source or order.requests)
    old = _over_its_rows(app, order, old, batch)
    return replace(
        order,
        like=batch.id,
        source=order.source if has_own else old.source,
        requests=order.requests if has_own else old.requests,
        model=order.model or batch.model,
        task=old.task if order.task == "generate" else order.task,
        # What follows a trial is the bulk.
        delivery=old.delivery if order.delivery == "file" and old.delivery != "now" else order.delivery,
        **{name: getattr(order if is_given(name, getattr(order, name)) else old, name) for name in PARTS}
        | _limits(order, old),
    )


def _over_its_rows(app: App, order: Order, old: Order, batch: BatchEntry) -> Order:
    """Return a batch's order as it reads where the batch itself is the source; as it is for any other.

    Among the batch's columns an answer's may have the name of one of the source's, which then goes by another there:
    a prompt that said `{{text}}` would ask about the answers.
    """
    if not _is_source(app, batch, order.source):
        return old
    try:
        names = source_names(ResultTable.open(app.files(batch.id).table))
    except StorageError:
        # Whoever reads it as a source says why it cannot be one.
        return old
    return replace(
        old,
        prompt=with_other_names(old.prompt, names),
        system_instruction=with_other_names(old.system_instruction, names),
        # Where they were made for the rows, they stay the rows'.
        key_column=names.get(old.key_column, old.key_column) or KEY_COLUMN,
    )


def _is_source(app: App, batch: BatchEntry, source: str) -> bool:
    """True where a source is the batch of that id or name, and no file."""
    try:
        named = known_batch(app, source) if source else None
    except UnknownBatch:
        return False
    if named is None or named.id != batch.id:
        return False
    try:
        find_source(source, app.guard)
    except PathError:
        return True
    return False


def _limits(order: Order, old: Order) -> dict[str, int]:
    """Return which rows a pilot takes: of the two ways to say that, one that is given replaces either."""
    said = order if order.limit_rows or order.sample_rows else old
    return {"limit_rows": said.limit_rows, "sample_rows": said.sample_rows}


def likeness_notes(app: App, identified: IdentifiedOrder) -> tuple[str, ...]:
    """Return what differs between an order and the one that it takes over, in sentences; nothing without one."""
    order = identified.order
    batch = app.ledger.batch(order.like) if order.like else None
    if batch is None or batch.order is None:
        return ()
    old = batch.order
    differing = [_told(name, old, order) for name in _TOLD if getattr(order, name) != getattr(old, name)]
    notes = [
        f"As {batch.id}, but with another {', '.join(differing)}." if differing else f"As {batch.id} in everything."
    ]
    if order.limit_rows and order.limit_rows == old.limit_rows:
        notes.append(f"limit_rows={order.limit_rows} is taken over; give limit_rows=0 for all rows.")
    if order.sample_rows and order.sample_rows == old.sample_rows:
        notes.append(f"sample_rows={order.sample_rows} is taken over; give sample_rows=0 for all rows.")
    is_same_source = all(getattr(order, name) == getattr(old, name) for name in _OF_CONTENT)
    if is_same_source and batch.content_sha256 and identified.content_sha256 != batch.content_sha256:
        notes.append(f"{plain_text(batch.source, _SHOWN_CHARS)} has changed since {batch.id} was ordered.")
    return tuple(notes)


def _told(name: str, old: Order, new: Order) -> str:
    """Return the name of a part that differs, with both values where they are short and plain."""
    before, after = getattr(old, name), getattr(new, name)
    is_plain = all(isinstance(value, str | int) and len(str(value)) <= _SHOWN_CHARS for value in (before, after))
    return f"{name} ({after or 'none'} instead of {before or 'none'})" if is_plain and name != "prompt" else name
