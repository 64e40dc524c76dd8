"""A picture of a batch: one self-contained HTML page with its facts, its answers, charts, and a list of rows to search.

The page loads nothing: style and script stand in it and are allowed by their hashes alone, charts are SVG drawn when it
is written, rows are JSON that the script shows as text. A million rows make no larger page than a few thousand.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemini_batch_mcp.domain import ResultSummary, RowStatus, SavedFile
from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.results.engine import connect, table_errors
from gemini_batch_mcp.results.profile.fields import Answers, read_answers
from gemini_batch_mcp.results.profile.retries import Retries, read_retries
from gemini_batch_mcp.results.report import _sections as sections
from gemini_batch_mcp.results.report._answer_cards import answer_section, charts_of, retry_section
from gemini_batch_mcp.results.report._charts import Part, columns, cost_range, histogram, status_parts, strip
from gemini_batch_mcp.results.report._drawing import Chart, draw, require_charts
from gemini_batch_mcp.results.report._facts import ReportCost, ReportFacts
from gemini_batch_mcp.results.report._figures import Figures, read_figures
from gemini_batch_mcp.results.report._page import page, rows_section
from gemini_batch_mcp.results.report._rows import ShownRows, shown_rows

__all__ = ["ReportCost", "ReportFacts", "write_report"]

#: A bound, not a need: wide rows take some hundred megabytes, a million ordinary ones less.
_MEMORY_LIMIT_BYTES: Final = 1 << 30
#: Fewer rows than this are seen whole in the list; pieces of them would say nothing.
_LEAST_ROWS_FOR_COLUMNS: Final = 100


@dataclass(frozen=True, slots=True)
class _Content:
    """What was read of a table."""

    figures: Figures
    answers: Answers
    retries: Retries | None
    shown: ShownRows


def write_report(facts: ReportFacts, table: Path | None, destination: Path) -> SavedFile:
    """Write the report of a batch to `destination` and return how many rows stand in its list.

    `table` is the batch's result table (see `store`), None while there is none. Columns that this module does not know
    are listed like the others, except for media and vectors. The file is written in one go, not atomically: give a
    draft, and move it.

    Raises:
        ConfigurationError: the extra `report` is not installed.
        StorageError: the table cannot be read, the charts cannot be drawn, or the page cannot be written.
    """
    require_charts()
    content = None if table is None else _read(table)
    figures = content.figures if content is not None else None
    shown = content.shown if content is not None else None
    charts = _charts(facts, figures) | (charts_of(content.answers) if content is not None else {})
    pictures = dict(zip(charts, draw(list(charts.values())), strict=True))
    statuses = _statuses(facts.summary, figures)
    body = [sections.head(facts), sections.tiles(facts, statuses)]
    if "outcomes" in pictures:
        body.append(sections.outcomes(statuses, pictures, has_rows=shown is not None))
    if content is not None and content.answers.fields:
        body.append(answer_section(content.answers, pictures))
    if content is not None and content.retries is not None:
        body.append(retry_section(content.retries))
    if facts.jobs:
        body.append(sections.jobs(facts, pictures))
    if figures is not None and figures.reasons:
        body.append(sections.reasons(figures, pictures))
    body.append(sections.cards(facts, figures, pictures))
    if figures is not None and shown is not None:
        body.append(rows_section(shown, figures.rows))
    text = page(facts.display_name or facts.batch_id, body, shown, facts.written_at)
    with storage_errors(f"{destination} could not be written", "Give another path."):
        destination.write_text(text, encoding="utf-8", newline="\n")
    return SavedFile(destination, "html", shown.rows if shown is not None else 0, destination.stat().st_size)


def _read(table: Path) -> _Content:
    with table_errors(f"The result table {table} could not be read"):
        connection = connect(_MEMORY_LIMIT_BYTES, Path(tempfile.gettempdir()))
        try:
            return _Content(
                figures=read_figures(connection, table),
                answers=read_answers(connection, table),
                retries=read_retries(connection, table),
                shown=shown_rows(connection, table),
            )
        finally:
            connection.close()


def _statuses(summary: ResultSummary | None, figures: Figures | None) -> dict[RowStatus, int]:
    """Return the counts by status: those of the summary, which knows of rows that the table does not."""
    if summary is None:
        return dict(figures.statuses) if figures is not None else {}
    return {
        RowStatus.OK: summary.succeeded,
        RowStatus.FAILED: summary.failed,
        RowStatus.BLOCKED: summary.blocked,
        RowStatus.TRUNCATED: summary.truncated,
        RowStatus.EMPTY: summary.empty,
        RowStatus.MISSING: summary.missing,
    }


def _charts(facts: ReportFacts, figures: Figures | None) -> dict[str, Chart]:
    """Return all charts by the names under which the sections look for them."""
    charts: dict[str, Chart] = {}
    statuses = _statuses(facts.summary, figures)
    if any(statuses.values()):
        charts["outcomes"] = strip("Rows by outcome", status_parts(statuses))
    for place, job in enumerate(sections.shown_jobs(facts)):
        counts = job.counts
        parts = [Part("Succeeded", counts.succeeded, "ok"), Part("Failed", counts.failed, "failed")]
        charts[f"job {place}"] = strip("Rows of the job", parts, whole=counts.total)
    if facts.summary is not None:
        usage = facts.summary.usage
        kinds = [Part("Input", usage.input_tokens, "input"), Part("Output", usage.output_tokens, "output")]
        kinds.append(Part("Thinking", usage.thoughts_tokens, "thoughts"))
        if any(kind.amount for kind in kinds):
            charts["tokens"] = strip("Tokens by kind", kinds, noun="token")
    cost = facts.cost
    if cost.low_usd is not None and cost.high_usd is not None:
        charts["cost"] = cost_range("Estimated and actual cost", cost.low_usd, cost.high_usd, cost.actual_usd)
    return charts | (_figure_charts(figures) if figures is not None else {})


def _figure_charts(figures: Figures) -> dict[str, Chart]:
    charts: dict[str, Chart] = {}
    troubled = figures.rows - figures.statuses.get(RowStatus.OK, 0)
    if troubled and figures.rows >= _LEAST_ROWS_FOR_COLUMNS:
        charts["columns"] = columns("Outcomes in request order", figures.stretches)
    for place, reason in enumerate(figures.reasons):
        parts = [Part("This reason", reason.rows, reason.status.value)]
        charts[f"reason {place}"] = strip("Part of the rows that are not OK", parts, whole=troubled)
    for name, found in figures.distributions.items():
        title, noun = sections.MEASURES[name]
        if len(found.bins) > 1:
            charts[name] = histogram(title, found, noun=noun)
    for name, counts in (("finish", figures.finish_reasons), ("version", figures.model_versions)):
        for place, (key, number) in enumerate(counts.items()):
            charts[f"{name} {place}"] = strip("Part of the rows", [Part(key, number, "bar")], whole=figures.rows)
    return charts
