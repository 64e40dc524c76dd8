"""The user's consent: what they have to be asked before requests are sent, and whether they agreed to exactly these."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import QuoteEntry
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.prices.estimate import Estimate, over_cap
from gemini_batch_mcp.text import count, dollars, plain_text
from gemini_batch_mcp.threads import in_thread

#: For how long a figure counts as what the user has just been shown (our choice).
_QUOTE_LIFE: Final = timedelta(hours=24)
_NOT_KNOWN: Final = "not known"
#: Longest name of a source inside a question.
_SHOWN_NAME_CHARS: Final = 200
_SHOW_AND_CONFIRM: Final = (
    "Nothing was submitted. Show the user this, and once they agree make the same call again with confirm=true."
)


@dataclass(frozen=True, slots=True)
class Quote:
    """What the user is told before requests are sent. `question` is what they have to be asked, empty for nothing.

    `fingerprint` stands for exactly these requests, `source` for what they were made from: of one source the user may
    be quoted one selection, and then be sent another. `figure` is the most that they may cost, as it is shown.
    """

    question: str
    fingerprint: str
    source: str
    figure: str


def quote_of(identified: IdentifiedOrder, estimate: Estimate | None, question: str = "") -> Quote:
    """Return the quote of an order as a whole; `estimate` is None where its cost cannot be known."""
    return Quote(question, identified.sha256, identified.source_name, figure_of(estimate))


def figure_of(estimate: Estimate | None) -> str:
    """Return the most that requests may cost, as it is shown."""
    high = estimate.cost_usd_high if estimate is not None else None
    return dollars(high) if high is not None else _NOT_KNOWN


async def record_quote(app: App, quote: Quote) -> None:
    """Remember that the user is told this now."""
    await in_thread(app.ledger.quotes.record, quote.fingerprint, quote.source, quote.figure)


async def record_no(app: App, quote: Quote, *, has_declined: bool) -> None:
    """Remember that the user was asked and did not agree: nobody can say afterwards that they did.

    Whoever closed a question without an answer has not declined; what they were told before counts no more all the
    same.
    """
    if has_declined:
        await in_thread(app.ledger.quotes.decline, quote.fingerprint, quote.source, quote.figure)
    else:
        await in_thread(app.ledger.quotes.void, quote.fingerprint)


async def refuse_unagreed(app: App, quote: Quote, *, agreed_to: Quote | None, confirm: bool) -> bool:
    """Refuse what the user has to be asked about, unless they agreed to these very requests at this very figure.

    `agreed_to` is what they were asked and said yes to. `confirm` is somebody's word that they agreed: it counts for a
    figure that was shown before, and never against a no. Returns whether it is this word that is relied on.

    Raises:
        UsageError: says what to ask.
    """
    if not quote.question or agreed_to == quote:
        return False
    if agreed_to is not None:
        raise UsageError(
            "The order has changed since the user was asked about it, so their yes does not count. "
            "Nothing was submitted.",
            "Make the same call again: the user is asked about the current state.",
        )
    told = await in_thread(app.ledger.quotes.told, quote.fingerprint)
    no = declined(told)
    if not confirm:
        await record_quote(app, quote)
        raise UsageError(f"{no} {quote.question}".strip(), _SHOW_AND_CONFIRM)
    if no:
        raise UsageError(
            f"{no} Nothing was submitted: confirm=true does not override that.",
            "If they have since changed their mind, make the same call without confirm, show them the figure that it "
            "names, and call again with confirm=true once they agree.",
        )
    reason = await _not_shown(app, quote, told)
    if not reason:
        return True
    await record_quote(app, quote)
    raise UsageError(f"{reason} {quote.question}", _SHOW_AND_CONFIRM)


def declined(told: QuoteEntry | None) -> str:
    """Say when the user was asked about something and said no, empty when they did not."""
    if told is None or told.declined_at is None:
        return ""
    moment = told.declined_at.astimezone()
    day = "" if moment.date() == datetime.now(UTC).astimezone().date() else f" on {moment:%Y-%m-%d}"
    return f"The user was asked about this at {moment:%H:%M}{day}, and declined."


async def _not_shown(app: App, quote: Quote, told: QuoteEntry | None) -> str:
    """Say why somebody's word that the user agreed does not count, empty when it does."""
    if told is None:
        if await in_thread(app.ledger.quotes.was_quoted, quote.source):
            return (
                "The user has not been shown what this costs: it has changed since an order of the same source was "
                "priced, in its rows, prompt or settings."
            )
        return "The user cannot have agreed yet: the cost has not been shown to anyone."
    if told.paid_for:
        return f"The figure shown was used for {told.paid_for}; this would be charged again."
    if abs(datetime.now(UTC) - told.quoted_at) > _QUOTE_LIFE:
        return "The figure was last shown more than 24 hours ago."
    if told.figure != quote.figure:
        return f"The figure has changed since it was shown: it was {told.figure or _NOT_KNOWN}."
    return ""


def spend_notes(app: App, priced: Estimate) -> tuple[str, ...]:
    """Return what will stand between a previewed order and its submission: the cap, or a question to the user."""
    if (refusal := over_cap(priced, app.settings.max_cost_usd)) is not None:
        step = "leave it out" if priced.unbounded else "set maxOutputTokens, or order fewer rows"
        return (f"{refusal} create_batch will refuse it: {step}.",)
    if cost_question(app, priced, "Submit", ""):
        return ("create_batch submits this only once the user has agreed to the cost.",)
    return ()


def name_of_source(app: App, identified: IdentifiedOrder) -> str:
    """Return what an order's requests come from, as a person would name it, fit to stand inside a question."""
    name = identified.source_name
    if isinstance(identified.place, Path) and identified.place.is_relative_to(app.settings.working_directory):
        name = str(identified.place.relative_to(app.settings.working_directory))
    return plain_text(name, _SHOWN_NAME_CHARS)


def cost_question(app: App, priced: Estimate, wish: str, fingerprint: str) -> str:
    """Return what the user has to be asked before this is ordered, empty when it costs too little to ask.

    Where there are answers to the same prompt, the cost is what these let expect; otherwise what no bill passes.

    `wish` says what is to be done, to which rows of what. The same order gives the same words: a client may send them
    back with the answer.
    """
    threshold = app.settings.confirm_above_usd
    high, low, expected = priced.cost_usd_high, priced.cost_usd_low, priced.cost_usd_expected_high
    if threshold is None or (expected is not None and expected <= threshold):
        return ""
    order = f"(Order {fingerprint[:8]}.)"
    if high is None or low is None:
        return f"gemini-batch-mcp asks: {wish}? The cost is unknown: there is no price for this model here. {order}"
    longest = " if every answer reached its length limit" if priced.output_tokens_max else ""
    if priced.likely is not None:
        rows = f"the {count(priced.likely.rows, 'answer')} to the same prompt so far"
        rows = rows if priced.likely.batches else "the tokens that Gemini counted"
        return (
            f"gemini-batch-mcp asks: {wish}? By {rows} this will likely cost {dollars(priced.likely.usd)}, up to "
            f"{dollars(priced.likely.high_usd)} with 95 %; at most {dollars(high)}{longest}. Prices of "
            f"{priced.priced_on}. The server asks because it may be more than {dollars(threshold)}. {order}"
        )
    return (
        f"gemini-batch-mcp asks: {wish}? This may cost up to {dollars(high)}{longest}, and {dollars(low)} for the "
        f"input alone, at the prices of {priced.priced_on}. The server asks because it may be more than "
        f"{dollars(threshold)}. {order}"
    )


def unpriced_question(uploaded_file: str, to: str) -> str:
    """Return what the user has to be asked before a file is ordered that cannot be read back."""
    return (
        f"gemini-batch-mcp asks: submit {plain_text(uploaded_file, _SHOWN_NAME_CHARS)} to {to}? The file is at "
        "Google already and cannot be read back, so its requests are neither checked nor counted, and their cost is "
        "not known before it is charged."
    )
