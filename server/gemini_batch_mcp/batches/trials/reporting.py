"""Candidates on the same rows as a page, or as a part of the page about one of them."""

from datetime import UTC, datetime

from gemini_batch_mcp.batches.answers.reporting import page_place, publish_page
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.trials.candidates import Trials
from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.results.report.trials import TrialFacts, TriedFacts, write_trials
from gemini_batch_mcp.threads import in_thread


async def write_trials_report(app: App, trials: Trials, save_to: str) -> SavedFile:
    """Write a page about candidates; what may be replaced is as for reports.

    Raises:
        PathError, UsageError: as `page_place`.
        StorageError: the page cannot be written.
    """
    batch_id, facts = trials.candidates[0].batch_id, trial_facts(trials)
    destination = page_place(app, save_to, f"{batch_id}-tried.html")
    return await in_thread(publish_page, app, batch_id, destination, lambda draft: write_trials(facts, draft))


def trial_facts(trials: Trials) -> TrialFacts:
    """Return candidates as a page shows them."""
    return TrialFacts(
        other=trials.other,
        field=trials.field,
        candidates=tuple(
            TriedFacts(
                batch_id=one.batch_id,
                number=one.number,
                prompt=one.prompt,
                model=one.model,
                rows=one.rows,
                compared=one.compared,
                equal=one.equal,
                share_low=one.share_low,
                share_high=one.share_high,
                per_thousand_usd=one.per_thousand_usd,
                seconds=one.seconds,
            )
            for one in trials.candidates
        ),
        verdict=trials.verdict.said,
        written_at=datetime.now(UTC),
    )
