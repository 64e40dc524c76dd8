"""Rows of an order that need not be sent: answered in an earlier batch, or the same as another row of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder, reuses_by_itself
from gemini_batch_mcp.domain import Spared
from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.intake.apart.surveyed import Surveyed
from gemini_batch_mcp.intake.prices.survey import Limits, Surveyor
from gemini_batch_mcp.intake.requests.selection import write_numbered
from gemini_batch_mcp.results.reuse.matching import Answered, answers_stamp, matching
from gemini_batch_mcp.results.reuse.spared_files import SparedFiles

#: Of these, a warning names so many.
_NAMED_DONORS: Final = 3
_FAILED: Final = "The requests could not be staged"


def may_spare(identified: IdentifiedOrder, found: Surveyed) -> bool:
    """True where rows of an order that are known are not sent. Of ready lines, all have to ask for a schema."""
    if identified.order.reuse == "auto":
        return reuses_by_itself(identified.order) or found.have_schema
    return identified.order.reuse == "always"


def answers_now(app: App, identified: IdentifiedOrder) -> str:
    """Return a text that changes whenever earlier batches have other answers to give to an order."""
    return answers_stamp(_donors(app, identified))


def without_known_rows(
    app: App, identified: IdentifiedOrder, directory: Path, found: Surveyed, limits: Limits
) -> Surveyed:
    """Leave rows out that are known; what is written of the others takes the place of all lines.

    Raises:
        StorageError: files cannot be read or written.
    """
    order, lines = identified.order, found.lines
    assert lines.identities_path is not None, "every pass takes them"
    surveyor = Surveyor(order.model, order.task, limits=limits)
    requests, keys = directory / "sent.jsonl", directory / "sent-keys.jsonl"
    with matching(lines.identities_path, directory) as rows:
        spared = rows.take_from(_donors(app, identified)).spared(directory)
        if spared is None:
            return found
        sent = write_numbered(
            lines.path,
            lines.keys_path,
            rows.sent(),
            requests,
            keys,
            task=order.task,
            onlooker=surveyor,
            terms=found.terms,
        )
    with storage_errors(_FAILED):
        lines.keys_path.replace(SparedFiles(directory).keys_path)
        keys.replace(lines.keys_path)
        requests.replace(directory / "requests.jsonl")
    sent = replace(
        sent,
        path=directory / "requests.jsonl",
        keys_path=lines.keys_path,
        warnings=(*lines.warnings, _warning(spared, sent.count + spared.count)),
        columns_path=lines.columns_path,
        skipped=lines.skipped,
        identities_path=lines.identities_path,
        asked_schema=lines.asked_schema,
        spared=spared,
    )
    return replace(found, lines=sent, survey=surveyor.survey(), sample=surveyor.requests())


def _donors(app: App, identified: IdentifiedOrder) -> Sequence[Answered]:
    if identified.is_anew:
        return ()
    order = identified.order
    return [Answered(batch_id, app.files(batch_id).table) for batch_id in app.ledger.donors.of(order.model, order.task)]


def _warning(spared: Spared, total: int) -> str:
    reasons: list[str] = []
    if spared.reused_count:
        named = [donor.batch_id for donor in spared.donors[:_NAMED_DONORS]]
        more = len(spared.donors) - len(named)
        batches = ", ".join(named) + (f" and {more:,} more" if more else "")
        reasons.append(f"{spared.reused_count:,} were answered in {batches}, and get these answers")
    if spared.identical_count:
        reasons.append(f"{spared.identical_count:,} ask exactly what another row asks, and get its answer")
    return f"{spared.count:,} of {total:,} rows are not sent: {'; '.join(reasons)}. reuse='never' sends every row."
