"""What a batch was asked, who answered, and what it cost: from what is kept here, without fetching anything."""

from dataclasses import dataclass
from typing import Any

from gemini_batch_mcp.batches.answers.collecting import opened_table, schema_of
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.finding import find_batch
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, describe, refresh
from gemini_batch_mcp.batches.orders.facts import order_facts, source_now
from gemini_batch_mcp.batches.orders.pricing import Cost, actual_cost, read_prices
from gemini_batch_mcp.batches.remote.kept_facts import read_remote
from gemini_batch_mcp.batches.remote.places import is_remote
from gemini_batch_mcp.domain import JsonObject, ResultSummary
from gemini_batch_mcp.threads import in_thread


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch as it was ordered. `summary` and `cost` are None until answers are here; `order` goes by argument names.

    `source_now` says how the source stands by now, empty where that is not known.
    """

    status: BatchStatus
    summary: ResultSummary | None
    cost: Cost | None
    source_now: str
    #: What its answers are held against, be it that its lines ask for it themselves; empty where there is none.
    schema: JsonObject

    @property
    def order(self) -> dict[str, Any]:
        """What was asked, and what is known of how it went, each fact under its name; what is not known is left out."""
        batch, summary, estimate = self.status.batch, self.summary, self.status.batch.estimate
        if batch.order is None:
            facts: dict[str, Any] = {
                "source": batch.source or "not known",
                "prompt": "not known here: the job was made elsewhere, or by an older version",
                "task": batch.task,
                "model": batch.model,
            }
        else:
            facts = order_facts(batch.order)
        if self.schema:
            facts.setdefault("response_schema", dict(self.schema))
        if self.source_now:
            facts["source_now"] = self.source_now
        facts["rows"] = batch.row_count or self.status.counts.total
        if batch.reused_count or batch.identical_count:
            facts["rows_not_sent"] = {
                name: count
                for name, count in (("answered_before", batch.reused_count), ("identical", batch.identical_count))
                if count
            }
        if batch.donors:
            facts["answers_taken_from"] = {donor.batch_id: donor.rows for donor in batch.donors}
        facts["ordered_at"] = f"{self.status.created_at:%Y-%m-%d %H:%M} UTC"
        if estimate is not None:
            facts["estimate_usd"] = [estimate.cost_usd_low, estimate.cost_usd_high]
            if estimate.likely is not None:
                facts["likely_usd"] = [estimate.likely.low_usd, estimate.likely.usd, estimate.likely.high_usd]
        if summary is not None:
            facts["answered_by"] = dict(summary.model_versions)
            facts["outcomes"] = {name: count for name, count in _outcomes(summary).items() if count}
        if self.cost is not None:
            facts["cost_usd"] = self.cost.usd
        if batch.attempts > 1:
            facts["retries"] = batch.attempts - 1
        return facts


def _outcomes(summary: ResultSummary) -> dict[str, int]:
    rows = summary.outcomes
    names = ("ok", "failed", "blocked", "truncated", "empty", "missing", "pending")
    return {name: getattr(rows, name) for name in names}


async def read_asked(app: App, reference: str) -> Asked:
    """Return what a batch was asked.

    Raises:
        UnknownBatch: there is no such batch.
        GeminiError: Gemini had to be asked for it and could not be.
    """
    batch = await refresh(app, await find_batch(app, reference))
    table = await in_thread(opened_table, app, batch)
    summary = table.summary() if table is not None else None
    if is_remote(batch) and (facts := await in_thread(read_remote, app, batch)) is not None:
        summary = facts.summary
    cost = actual_cost(await read_prices(app), batch, summary) if summary is not None else None
    schema = await in_thread(schema_of, app, batch)
    return Asked(describe(batch), summary, cost, await in_thread(source_now, app, batch), schema)
