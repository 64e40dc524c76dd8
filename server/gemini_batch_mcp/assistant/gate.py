"""The gate before money: the user is asked where the client can ask, whatever an assistant says for them.

Resolvers run before their tool, in both protocol eras: as a live question on the older one, as a question that the
client answers by calling again on the newer one. The question therefore has to be the same words for the same order.
What goes wrong here is raised as it is anywhere else, so that it reads the same whether the client can ask or not.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from mcp.server.mcpserver import (
    AcceptedElicitation,
    Context,
    DeclinedElicitation,
    Elicit,
    ElicitationResult,
    Resolve,
)
from pydantic import BaseModel, ConfigDict, Field

from gemini_batch_mcp.assistant import arguments
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.opening import WatchedDesk
from gemini_batch_mcp.batches.work import within
from gemini_batch_mcp.errors import UsageError

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk
    from gemini_batch_mcp.batches.orders.consent import Quote

#: The first protocol version on which a question needs no open channel to the client.
_ASKS_BY_RETURNING: Final = "2026-07-28"
#: Pricing an order may take so long; what is being written for it then goes on in the background.
_QUOTE_SECONDS: Final = 15.0
#: What is told instead of a quote where the client cannot ask: nothing was priced, and nobody asked.
_CANNOT_ASK: Final = "this client cannot ask"

Ctx = Context[WatchedDesk]


def _say_no_more(schema: dict[str, Any]) -> None:
    """Keep the docstring, which is for us, out of the form."""
    schema.pop("description", None)


class Agreement(BaseModel):
    """The form that the user fills in."""

    model_config = ConfigDict(title="Submit", json_schema_extra=_say_no_more)

    submit: bool = Field(title="Submit", description="Yes, submit it at up to the cost that is named.")


async def order_quote(ctx: Ctx, order: arguments.Ordered, resubmit: bool) -> Any:
    """Price an order for the user who is going to be asked; returns a Quote, or that the client cannot ask."""

    async def quote(desk: "Desk") -> "Quote | None":
        return await desk.quote(order, resubmit=resubmit, wait_seconds=_QUOTE_SECONDS)

    return await _quoted(ctx, quote)


async def retry_quote(ctx: Ctx, batch: str, include: list[str], model: str) -> Any:
    """Price rows that are to be sent again; returns a Quote, None while they are, or that the client cannot ask."""

    async def quote(desk: "Desk") -> "Quote | None":
        return await desk.quote_retry(batch, include, model=model, wait_seconds=_QUOTE_SECONDS)

    return await _quoted(ctx, quote)


async def _quoted(
    ctx: Ctx, quote: "Callable[[Desk], Awaitable[Quote | None]]"
) -> "Quote | Literal['this client cannot ask'] | None":
    """Return the quote where the client can ask the user about it.

    Raises:
        BatchError: what was asked for is wrong, or pricing it takes too long.
    """
    if not _can_ask(ctx):
        return _CANNOT_ASK
    with within(_QUOTE_SECONDS):
        return await quote(await ctx.request_context.lifespan_context.get())


async def ask_order(ctx: Ctx, quoted: Annotated[Any, Resolve(order_quote)]) -> Elicit[Agreement] | None:
    """Ask the user before create_batch, if there is anything to ask."""
    return _question(ctx, quoted)


async def ask_retry(ctx: Ctx, quoted: Annotated[Any, Resolve(retry_quote)]) -> Elicit[Agreement] | None:
    """Ask the user before retry_failed, if there is anything to ask."""
    return _question(ctx, quoted)


def _question(ctx: Ctx, quoted: Any) -> Elicit[Agreement] | None:
    if quoted is None or quoted == _CANNOT_ASK or not quoted.question:
        return None
    ctx.request_context.lifespan_context.gauge.show(Progress(Doing.ASKING))
    return Elicit(quoted.question, Agreement)


async def agreed(desk: "Desk", quoted: Any, answer: ElicitationResult[Any]) -> "Quote | None":
    """Return what the user was asked and said yes to, None where they were not asked.

    A no is remembered: nobody can say afterwards that they agreed.

    Raises:
        UsageError: the user was asked and did not say yes.
    """
    if isinstance(answer, AcceptedElicitation) and answer.data is None:
        return None
    if isinstance(answer, AcceptedElicitation) and answer.data.submit:
        agreed_to: Quote = quoted
        return agreed_to
    has_declined = isinstance(answer, AcceptedElicitation | DeclinedElicitation)
    await desk.take_no(quoted, has_declined=has_declined)
    if has_declined:
        raise UsageError("The user was asked and did not agree: nothing was submitted.")
    raise UsageError("The user closed the question without an answer, and did not agree: nothing was submitted.")


def counts(confirm: bool, quoted: Any) -> bool:
    """Return whether an assistant's word that the user agreed counts: only where the client cannot ask them."""
    return confirm and quoted == _CANNOT_ASK


def _can_ask(ctx: Ctx) -> bool:
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities is not None else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return str(ctx.protocol_version) >= _ASKS_BY_RETURNING or ctx.session.can_send_request
