"""What a person at a terminal sees: tables and progress on a terminal, plain lines in a pipe."""

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.cli.wording import as_commands
from gemini_batch_mcp.domain import ResultSummary, RowStatus, SavedFile
from gemini_batch_mcp.errors import StorageError, told
from gemini_batch_mcp.text import absent_keys, dollars, duration
from gemini_batch_mcp.text import count as number

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.advancing import Advanced
    from gemini_batch_mcp.batches.answers.reading import Results
    from gemini_batch_mcp.batches.desk import Desk
    from gemini_batch_mcp.batches.ending import Deletion
    from gemini_batch_mcp.batches.jobs.listing import JobList, ListedJob
    from gemini_batch_mcp.batches.jobs.tracking import BatchStatus
    from gemini_batch_mcp.batches.orders.preparing import Preview
    from gemini_batch_mcp.batches.orders.pricing import Cost
    from gemini_batch_mcp.batches.spending import Spending, SpentOn
    from gemini_batch_mcp.batches.submitting.ordering import Placement
    from gemini_batch_mcp.batches.trials.candidates import Trials
    from gemini_batch_mcp.cli.checks.finding import Report
    from gemini_batch_mcp.results.query.queries import QueryAnswer

#: A followed batch is looked at this often at the most; the bar moves then.
_FOLLOW_SECONDS = 1.0
#: Wide enough that nothing is cut in a pipe.
_PIPE_COLUMNS = 240
_JOB_COLUMNS = ("batch", "state", "ok", "failed", "rows", "model", "created", "cost", "name")
#: Of these, the words of which may stand in several lines; so wide such a column is at the least.
_FOLDING = ("model", "name")
_FOLDED_COLUMNS = 12
_STATUS_STYLE = {RowStatus.OK: "green", RowStatus.MISSING: "red", RowStatus.FAILED: "red"}


def output() -> Console:
    """The console for results."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False, emoji=False)


def notes() -> Console:
    """The console for everything else."""
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


class _Bars:
    """A bar for each stage of the work, read from its gauge whenever the bars are drawn.

    rich draws a progress display that is shown again for every bar that is added to it, so that to add one while
    drawing would never end. This one is not shown by itself: `Live` draws what it looks like.
    """

    def __init__(self, what: str, gauge: Gauge) -> None:
        self._gauge = gauge
        self._bars: dict[object, TaskID] = {}
        self._what = what
        # Only the description gives way where a terminal is narrow, and each bar keeps to one line.
        whole = Column(no_wrap=True)
        self._progress = Progress(
            _Description(),
            BarColumn(),
            _Amount(whole.copy()),
            _Rate(whole.copy()),
            TimeRemainingColumn(elapsed_when_finished=True, table_column=whole.copy()),
            auto_refresh=False,
        )

    def drawn(self) -> RenderableType:
        """Bring the bars up to date, and return them as they look now."""
        for reading in self._gauge.readings():
            place = (reading.doing, reading.part)
            if place not in self._bars:
                self._bars[place] = self._progress.add_task("", total=None, unit=reading.doing.unit)
            note = f" ({reading.note})" if reading.note else ""
            self._progress.update(
                self._bars[place], description=f"{reading.doing}{note}", total=reading.total, completed=reading.done
            )
        return self._progress.get_renderable() if self._bars else Text(f"{self._what} …")


class _Description(ProgressColumn):
    """What is being done."""

    def render(self, task: Task) -> Text:
        """Return as much of it as there is room for."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _Amount(ProgressColumn):
    """How much is done, of how much."""

    def render(self, task: Task) -> Text:
        """Return bytes in larger units, and everything else as it is counted."""
        unit = task.fields["unit"]
        if task.total is None:
            return Text(_amount(task.completed, unit), style="progress.download")
        # Bytes have units of their own: 900 kB of 1.2 MB.
        done = _amount(task.completed, unit) if unit == "bytes" else f"{task.completed:,.0f}"
        return Text(f"{done} of {_amount(task.total, unit)}", style="progress.download")


class _Rate(ProgressColumn):
    """How much is done in a second."""

    def render(self, task: Task) -> Text:
        """Return nothing where nothing has moved yet."""
        speed = task.finished_speed or task.speed
        return Text(f"{_amount(speed, task.fields['unit'])}/s" if speed else "", style="progress.data.speed")


def _amount(count: float, unit: str) -> str:
    return decimal(int(count)) if unit == "bytes" else f"{count:,.0f} {unit}".strip()


@contextmanager
def working(what: str) -> Iterator[Gauge]:
    """Show how far the work is that moves this gauge; silent in a pipe."""
    gauge, console = Gauge(), notes()
    if not console.is_terminal:
        yield gauge
        return
    with Live(get_renderable=_Bars(what, gauge).drawn, console=console):
        yield gauge


async def follow(desk: "Desk", reference: str) -> "BatchStatus":
    """Wait for the end of a batch behind a progress bar; silent in a pipe."""
    with working("Waiting") as gauge:
        desk = desk.watched_by(gauge)
        while True:
            status = await desk.status(reference, wait_seconds=max(_FOLLOW_SECONDS, desk.app.settings.poll_seconds))
            if status.done:
                return status


def _said(text: str) -> str:
    """Return a sentence of ours as a terminal shows it: with commands and flags, and no markup in it."""
    return escape(as_commands(text))


def show_placement(placement: "Placement") -> None:
    """Print the batch id on stdout, and what became of the order on stderr."""
    status = placement.status
    for warning in placement.warnings:
        notes().print(f"Warning: {_said(warning)}")
    notes().print(_said(f"{_what_was_placed(placement)}. {status.state}. {status.advice}"))
    try:
        output().print(status.batch.id)
    except StorageError as error:
        raise StorageError(error.message, f"The batch is {status.batch.id}.") from None


def _what_was_placed(placement: "Placement") -> str:
    count = placement.request_count
    requests = f"{count:,} request{'' if count == 1 else 's'}"
    if placement.send_count != count - placement.skipped_count:
        requests += f" ({placement.send_count:,} of them sent)"
    if placement.skipped_count:
        requests += f" ({placement.skipped_count:,} of them wrong and left out)"
    if placement.reused:
        doing = "already being resent" if placement.rows_again else "already ordered"
        return f"{requests} {doing}; nothing new was submitted"
    return f"{requests} {'resent' if placement.rows_again else 'ordered'}"


def show_preview(preview: "Preview") -> None:
    """Print what an order would send and cost, or what is wrong with it."""
    console = output()
    for problem in told(preview.problems):
        console.print(_said(problem), soft_wrap=True)
    if preview.estimate is None:
        return
    for request in preview.sample:
        console.print(escape(json.dumps(request, ensure_ascii=False)), soft_wrap=True)
    table = _facts()
    table.add_row("requests", f"{preview.send_count:,} ({preview.size_bytes:,} bytes) for {escape(preview.model)}")
    if preview.reused_count:
        table.add_row("not sent", f"{preview.reused_count:,} of {preview.request_count:,}, answered before")
    if preview.identical_count:
        table.add_row("not sent", f"{preview.identical_count:,} of {preview.request_count:,}, the same as another row")
    if preview.skipped_count:
        table.add_row("left out", f"{preview.skipped_count:,} of {preview.request_count:,}, wrong as told above")
    estimate = preview.estimate
    table.add_row("tokens", f"about {estimate.input_tokens:,} in, at most {estimate.output_tokens_max:,} out")
    if estimate.shown_cost:
        table.add_row("cost", f"{estimate.shown_cost}, at the prices of {estimate.priced_on}")
    table.add_row("basis", escape(estimate.basis))
    if preview.standing:
        table.add_row("ordered", f"already, as {escape(preview.standing)}")
    console.print(table)
    for warning in preview.warnings:
        notes().print(f"Warning: {_said(warning)}", soft_wrap=True)


def show_trials(trials: "Trials") -> None:
    """Print candidates side by side, and what their figures allow."""
    table = Table(box=None)
    for heading in ("candidate", "right", "95 % interval", "1,000 rows", "took", "batch"):
        table.add_column(heading, overflow="fold")
    for one in trials.candidates:
        price = one.per_thousand_usd
        is_compared = one.share is not None and one.share_low is not None and one.share_high is not None
        table.add_row(
            escape(one.name),
            f"{one.share:.1%} of {one.compared:,}" if is_compared else "none compared",
            f"{one.share_low:.1%} to {one.share_high:.1%}" if is_compared else "-",
            dollars(price) if price is not None else "-",
            duration(one.seconds),
            escape(one.batch_id),
        )
    output().print(table)
    output().print(escape(trials.verdict.said), soft_wrap=True)


def show_lines(lines: Iterable[str]) -> None:
    """Print what assistants read: our sentences with commands in them, data as it is."""
    for line in lines:
        is_data = line.startswith(("[", "prompt "))
        output().print(line if is_data else _said(line), markup=False, highlight=False, soft_wrap=True)


def show_status(status: "BatchStatus") -> None:
    """Print where a batch stands."""
    counts = status.counts
    table = _facts()
    table.add_row("batch", escape(status.batch.id))
    table.add_row("state", status.state)
    table.add_row(
        "rows", f"{counts.succeeded:,} ok, {counts.failed:,} failed, {counts.pending:,} pending of {counts.total:,}"
    )
    if status.rows is not None and status.rows.not_ok:
        names = ("failed", "blocked", "truncated", "empty", "missing")
        table.add_row("not ok", ", ".join(f"{getattr(status.rows, name):,} {name}" for name in names))
    if status.made_elsewhere:
        table.add_row("made", f"elsewhere, {status.created_at:%Y-%m-%d %H:%M} UTC")
    for job in status.batch.jobs:
        unnamed = "calls, one a row" if status.batch.is_now else "not at Gemini yet"
        name = job.name or ("unknown: the reply to its create call was lost" if job.is_unknown else unnamed)
        table.add_row("job", escape(f"{name} {job.shown_state}"))
        if job.error:
            table.add_row("error", escape(f"code {job.error.code}: {job.error.message}"))
    if status.expires_at:
        table.add_row("expires", f"{status.expires_at:%Y-%m-%d %H:%M} UTC")
    estimate = status.batch.estimate
    if estimate is not None and estimate.shown_cost:
        table.add_row("estimated", estimate.shown_cost)
    table.add_row("next", _said(status.advice))
    output().print(table)


def show_results(results: "Results", cost: "Cost") -> None:
    """Print the summary, the page if one was asked for, and where the file is."""
    console = output()
    table = summary_table(results.summary)
    table.add_row(
        "cost", f"{dollars(cost.usd)}, at the prices of {cost.priced_on}" if cost.usd is not None else "not known"
    )
    console.print(table)
    for warning in results.warnings:
        notes().print(f"Warning: {_said(warning)}")
    if results.page is not None:
        console.print(rows_table([(row.key, row.status, row.text or row.error) for row in results.page.rows]))
        if results.page.next_cursor:
            notes().print(f"More rows: --cursor {escape(results.page.next_cursor)}")
    if results.saved is not None:
        show_saved(results.saved)


def show_absent(keys: Sequence[str], like: str) -> None:
    """Say on stderr which keys no row has."""
    notes().print(escape(absent_keys(keys, like)))


def show_order(facts: Mapping[str, object]) -> None:
    """Print what a batch was asked, a fact a row."""
    table = _facts()
    for name, value in facts.items():
        table.add_row(name, escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    output().print(table)


def show_saved(saved: SavedFile) -> None:
    """Print where a file was written."""
    output().print(escape(f"{number(saved.rows, 'row')}, {saved.size_bytes:,} bytes: {saved.place}"), soft_wrap=True)


def _table(*names: str, folding: Collection[str] | None = None) -> Table:
    """A table with a frame on a terminal, and plain columns in a pipe.

    What is too long for its column continues below, as an id or an amount of which a part is missing is worth nothing.
    Columns that are not among `folding` keep to one line, unless all may fold.
    """
    columns = [Column(name, overflow="fold", no_wrap=folding is not None and name not in folding) for name in names]
    return Table(*columns) if sys.stdout.isatty() else Table(*columns, box=None, pad_edge=False)


def _facts(names: int = 1) -> Table:
    """A table of names, so many in a row, and what they stand for, of which nothing is cut."""
    return Table(*(Column() for _ in range(names)), Column(overflow="fold"), show_header=False, box=None)


def summary_table(summary: ResultSummary) -> Table:
    """Counts and tokens of a batch."""
    table = _facts()
    names = ("expected", "returned", "succeeded", "failed", "blocked", "truncated", "empty", "missing")
    table.add_row("rows", ", ".join(f"{getattr(summary, name):,} {name}" for name in names))
    strays = f"{summary.duplicate:,} duplicate, {summary.unexpected:,} unexpected"
    table.add_row("integrity", f"{'ok' if summary.integrity_ok else 'NOT ok'} ({strays})")
    usage = summary.usage
    table.add_row(
        "tokens", f"{usage.input_tokens:,} in, {usage.output_tokens:,} out, {usage.thoughts_tokens:,} thinking"
    )
    models = ", ".join(f"{escape(name)} ({count:,})" for name, count in summary.model_versions.items())
    table.add_row("models", models or "not stated")
    return table


def rows_table(rows: list[tuple[str, str, str]]) -> Table:
    """Rows of key, status and text."""
    table = _table("key", "status", "text")
    for key, status, text in rows:
        style = _STATUS_STYLE.get(RowStatus(status), "yellow")
        table.add_row(escape(key), f"[{style}]{status}[/]", escape(text))
    return table


def show_jobs(listed: "JobList") -> None:
    """Print a list of jobs, of which a row that a terminal has no room for is a few lines."""
    rows = [_job_cells(job) for job in listed.jobs]
    console = output()
    if sys.stdout.isatty() and _width_of_jobs(rows) > console.width:
        for row in rows:
            console.print(_job_lines(row), soft_wrap=True)
    else:
        table = _table(*_JOB_COLUMNS, folding=_FOLDING)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    if listed.note:
        notes().print(_said(listed.note))
    if listed.next_cursor:
        notes().print(f"More jobs: --cursor {escape(listed.next_cursor)}")


def _job_cells(job: "ListedJob") -> tuple[str, ...]:
    counts = (job.counts.succeeded, job.counts.failed, job.counts.total)
    return (
        job.batch_id or job.name,
        job.state,
        *(f"{count:,}" for count in counts),
        job.model,
        f"{job.created_at:%Y-%m-%d %H:%M}" if job.created_at else "-",
        dollars(job.cost_usd) if job.cost_usd is not None else "-",
        f"{job.display_name}{' (made elsewhere)' if job.made_elsewhere else ''}",
    )


def _width_of_jobs(rows: Sequence[tuple[str, ...]]) -> int:
    """Return how wide a terminal must be for a table of these, with what may fold folded."""
    widths = (
        min(max(map(cell_len, column)), _FOLDED_COLUMNS if column[0] in _FOLDING else sys.maxsize)
        for column in zip(_JOB_COLUMNS, *rows, strict=True)
    )
    # A cell has a blank on either side, and a line after it; one more line begins the table.
    return sum(width + 3 for width in widths) + 1


def _job_lines(row: tuple[str, ...]) -> Text:
    batch, state, succeeded, failed, total, model, created, cost, name = row
    outcome = f"{succeeded} ok, {failed} failed of {total} rows; cost {cost}; created {created}"
    return Text(f"{batch}  {state}\n  {outcome}\n  {model or '-'}  {name}".rstrip())


def show_spending(spending: "Spending", *, as_json: bool) -> None:
    """Print what was spent, a group a row and all of it last; what is in no figure on stderr."""
    if as_json:
        facts = {
            "total": _spent_facts(spending.total),
            "groups": [_spent_facts(group) for group in spending.groups],
            "since": spending.since,
            "priced_on": spending.priced_on,
            "notes": list(spending.notes),
        }
        output().print_json(json.dumps(facts))
        return
    table = _table("of", "batches", "cost", "for failed rows", "for retries")
    for group in (*spending.groups, spending.total):
        share = f" ({group.wasted_share:.1%})" if group.wasted_share is not None else ""
        table.add_row(
            escape(group.name),
            f"{group.batches:,}",
            dollars(group.cost_usd),
            f"{dollars(group.wasted_usd)}{share}",
            dollars(group.retries_usd),
        )
    output().print(table)
    if spending.since:
        notes().print(
            f"Since {spending.since}, at the prices of {spending.priced_on}. Batches that were deleted count."
        )
    for note in spending.notes:
        notes().print(_said(note), soft_wrap=True)


def _spent_facts(spent: "SpentOn") -> dict[str, object]:
    return {**asdict(spent), "wasted_share": spent.wasted_share}


def show_answer(answer: "QueryAnswer") -> None:
    """Print what a question in SQL was answered with."""
    table = _table(*(escape(name) for name in answer.columns))
    for row in answer.rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    output().print(table)
    if answer.truncated:
        notes().print("There are more rows: aggregate, or add LIMIT and OFFSET.")


def show_advanced(advanced: "tuple[Advanced, ...]") -> None:
    """Print how every unfinished batch stands now."""
    table = _table("batch", "state", "next")
    for entry in advanced:
        state = entry.status.state if entry.status is not None else "-"
        table.add_row(
            escape(entry.batch_id), state, _said(entry.failure or (entry.status.advice if entry.status else ""))
        )
    if advanced:
        output().print(table)
    else:
        notes().print("No batch is unfinished.")


def show_deletion(deletion: "Deletion") -> None:
    """Print what is gone and what is not."""
    for name in (*deletion.jobs, *deletion.files):
        output().print(escape(f"deleted {name}"))
    for entry in deletion.not_deleted:
        output().print(escape(f"kept {entry.name}: {entry.reason}"))
    output().print("local answers deleted" if deletion.local else "local answers kept")


def show_report(report: "Report", *, as_json: bool) -> None:
    """Print what doctor found."""
    if as_json:
        output().print_json(json.dumps({"ok": report.ok, "checks": [asdict(check) for check in report.checks]}))
        return
    table = _facts(names=2)
    for check in report.checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]not ok[/]", check.name, escape(check.finding))
    output().print(table)
