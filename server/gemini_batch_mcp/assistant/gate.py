"""The gate before money: asks the user where the client can ask, and says what to ask where it cannot.

Resolvers run before their tool, in both protocol eras: as a live question on the older one, as a question that the
client answers by calling again on the newer one. The question therefore has to be the same words for the same order.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from gemini_batch_mcp.assistant import arguments
from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.errors import BatchError

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk

#: The first protocol version on which a question needs no open channel to the client.
_ASKS_BY_RETURNING: Final = "2026-07-28"
#: Pricing an order may take so long; what is being written for it then goes on in the background.
_QUOTE_SECONDS: Final = 15.0

_REFUSED: Final = "The user was asked and did not agree: nothing was submitted."

Ctx = Context[LazyDesk]


class Agreement(BaseModel):
    """The form that the user fills in."""

    submit: bool = Field(title="Submit", description="Submit this order at the cost that was named.")


async def before_create(ctx: Ctx, order: arguments.Ordered, confirm: bool, resubmit: bool) -> Elicit[Agreement] | None:
    """Decide whether the user has to be asked before create_batch."""

    async def quote(desk: "Desk") -> str:
        return await desk.quote(order, resubmit=resubmit, wait_seconds=_QUOTE_SECONDS)

    return await _question(ctx, confirm, "the order", quote)


async def before_retry(ctx: Ctx, batch: str, include: list[str], model: str, confirm: bool) -> Elicit[Agreement] | None:
    """Decide whether the user has to be asked before retry_failed."""

    async def quote(desk: "Desk") -> str:
        return await desk.quote_retry(batch, include, model=model, wait_seconds=_QUOTE_SECONDS)

    return await _question(ctx, confirm, "the rows", quote)


async def _question(
    ctx: Ctx, confirm: bool, what: str, quote: "Callable[[Desk], Awaitable[str]]"
) -> Elicit[Agreement] | None:
    """Return the question that `quote` finds necessary, None for none or where the assistant has to ask it.

    Raises:
        ToolError: what was asked for is wrong, or pricing it takes too long.
    """
    if confirm or not _can_ask(ctx):
        return None
    try:
        with anyio.fail_after(_QUOTE_SECONDS + 3):
            question = await quote(await ctx.request_context.lifespan_context.get())
    except BatchError as error:
        raise ToolError(str(error)) from None
    except TimeoutError:
        raise ToolError(f"Pricing {what} takes too long; Gemini may be slow to answer. Try again.") from None
    return Elicit(question, Agreement) if question else None


def agreed(outcome: ElicitationResult[Any]) -> bool:
    """Return whether the user was asked and said yes; False where nothing had to be asked.

    Raises:
        ToolError: the user was asked and did not say yes.
    """
    if not isinstance(outcome, AcceptedElicitation):
        raise ToolError(_REFUSED)
    if outcome.data is None:
        return False
    if not outcome.data.submit:
        raise ToolError(_REFUSED)
    return True


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """End what takes longer, as `strict.py` does for tools without a gate; a person's time to answer does not count.

    Raises:
        ToolError: it took longer.
    """
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise ToolError(
            f"This took {seconds:.0f} seconds and was stopped; Gemini may be slow to answer. "
            "What was submitted or is under way goes on: call list_jobs or check_status."
        )


def _can_ask(ctx: Ctx) -> bool:
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities is not None else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return str(ctx.protocol_version) >= _ASKS_BY_RETURNING or ctx.session.can_send_request
