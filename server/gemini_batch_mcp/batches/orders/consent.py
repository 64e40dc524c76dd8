"""The user's consent: what they have to be asked before requests are sent, and whether they agreed to exactly these."""

from dataclasses import dataclass

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.prices.estimate import Estimate, over_cap
from gemini_batch_mcp.text import dollars
from gemini_batch_mcp.threads import in_thread


@dataclass(frozen=True, slots=True)
class Quote:
    """What the user is told before requests are sent. `question` is what they have to be asked, empty for nothing.

    `fingerprint` stands for exactly these requests, `source` for what they were made from: of one source the user may
    be quoted one selection, and then be sent another.
    """

    question: str
    fingerprint: str
    source: str


def quote_of(identified: IdentifiedOrder, question: str = "") -> Quote:
    """Return the quote of an order as a whole."""
    return Quote(question, identified.sha256, identified.source_name)


async def record_quote(app: App, quote: Quote) -> None:
    """Remember that the user is told this now."""
    await in_thread(app.ledger.record_quote, quote.fingerprint, quote.source)


async def refuse_unagreed(app: App, quote: Quote, *, confirm: bool) -> None:
    """Refuse what the user has to be asked about, unless they agreed (`confirm`) to these very requests.

    Raises:
        UsageError: says what to ask.
    """
    if not quote.question:
        return
    agreed = confirm and await in_thread(app.ledger.is_agreed, quote.fingerprint, quote.source)
    await record_quote(app, quote)
    if agreed:
        return
    if confirm:
        raise UsageError(
            f"This is not the order that was last priced for the user; it has changed since. {quote.question}",
            "Tell the user, then make the same call again with confirm=true.",
        )
    raise UsageError(
        quote.question, "Nothing was submitted. Ask the user, then make the same call again with confirm=true."
    )


def spend_notes(app: App, priced: Estimate) -> tuple[str, ...]:
    """Return what will stand between a previewed order and its submission: the cap, or a question to the user."""
    if (refusal := over_cap(priced, app.settings.max_cost_usd)) is not None:
        return (f"{refusal} create_batch will refuse it: set maxOutputTokens, or order fewer rows.",)
    if cost_question(app, priced, ""):
        return ("create_batch submits this only after the user agreed to the cost.",)
    return ()


def cost_question(app: App, priced: Estimate, requests: str) -> str:
    """Return what the user has to be asked before this is ordered, empty when it costs too little to ask.

    The same order gives the same words: a client may send them back with the answer.
    """
    threshold = app.settings.confirm_above_usd
    high, low = priced.cost_usd_high, priced.cost_usd_low
    if threshold is None or (high is not None and high <= threshold):
        return ""
    if high is None or low is None:
        return f"{requests}: their cost is not known. Submit them?"
    return (
        f"{requests} may cost from {dollars(low)} (input alone) up to {dollars(high)} (every answer at its longest), "
        f"by the prices of {priced.priced_on}; above {dollars(threshold)} you are asked. Submit them?"
    )
