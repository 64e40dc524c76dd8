"""The gate before money and before loss: the user is asked where the client can ask, whatever is said for them.

Resolvers run before their tool, in both protocol eras: as a live question on the older one, as a question that the
client answers by calling again on the newer one. The question therefore has to be the same words for the same order.
What goes wrong here is raised as it is anywhere else, so that it reads the same whether the client can ask or not.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeVar

from mcp.server.elicitation import render_elicitation_schema
from mcp.server.mcpserver import (
    AcceptedElicitation,
    CancelledElicitation,
    Context,
    DeclinedElicitation,
    Elicit,
    ElicitationResult,
    Resolve,
)
from mcp_types import ClientCapabilities, ElicitRequest, ElicitRequestFormParams, ElicitResult
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from gemini_batch_mcp.assistant import arguments
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.opening import WatchedDesk
from gemini_batch_mcp.batches.work import within
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.text import plain_text

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk
    from gemini_batch_mcp.batches.losses import Loss
    from gemini_batch_mcp.batches.orders.consent import Quote

    Asked = Quote | Loss

#: The first protocol version on which a question needs no open channel to the client.
_ASKS_BY_RETURNING: Final = "2026-07-28"
#: Pricing an order may take so long; what is being written for it then goes on in the background.
_QUOTE_SECONDS: Final = 15.0
#: Looking at the jobs of a batch may take so long.
_LOSS_SECONDS: Final = 8.0
#: What is told instead of a quote where the client cannot ask: nothing was priced, and nobody asked.
_CANNOT_ASK: Final = "this client cannot ask"
#: Of what a client says about a question that it did not put.
_SHOWN_REASON_CHARS: Final = 200

Ctx = Context[WatchedDesk]
F = TypeVar("F", bound="Form")


def _say_no_more(schema: dict[str, Any]) -> None:
    """Keep the name of the class and its docstring, which are for us, out of the form."""
    schema.pop("title", None)
    schema.pop("description", None)


class Form(BaseModel):
    """A form that the user fills in: one box to tick."""

    model_config = ConfigDict(json_schema_extra=_say_no_more)

    @model_validator(mode="wrap")
    @classmethod
    def _tolerant(cls, content: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Take what does not fill in the form, too: what that means is said where the answer is needed."""
        try:
            return read(content)
        except ValidationError:
            return cls.model_construct()

    @property
    def is_ticked(self) -> bool | None:
        """What the user said; None where the client sent something else."""
        ticked: bool | None = next(iter(self.__dict__.values()), None)
        return ticked


class Submit(Form):
    """Before money."""

    submit: bool = Field(title="Submit", description="Yes, submit it at up to the cost shown.")


class Stop(Form):
    """Before rows are lost. Not called "cancel", which is what the other button says."""

    stop: bool = Field(title="Stop the batch", description="Yes, cancel the batch and lose the rows described.")


class Delete(Form):
    """Before everything of a batch is lost."""

    delete: bool = Field(title="Delete", description="Yes, delete what is listed.")


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


async def cancel_loss(ctx: Ctx, batch: str) -> Any:
    """Find out what a cancel would lose; returns a Loss, or that the client cannot ask."""
    return await _quoted(ctx, lambda desk: desk.cancel_loss(batch), _LOSS_SECONDS)


async def delete_loss(ctx: Ctx, batch: str) -> Any:
    """Find out what a delete would lose; returns a Loss, or that the client cannot ask."""
    return await _quoted(ctx, lambda desk: desk.delete_loss(batch), _LOSS_SECONDS)


async def _quoted(
    ctx: Ctx, quote: "Callable[[Desk], Awaitable[Asked | None]]", longest_seconds: float = _QUOTE_SECONDS
) -> "Asked | Literal['this client cannot ask'] | None":
    """Return the quote where the client can ask the user about it.

    Raises:
        BatchError: what was asked for is wrong, or pricing it takes too long.
    """
    if not can_ask(ctx.client_capabilities, ctx.protocol_version, ctx.session):
        return _CANNOT_ASK
    with within(longest_seconds, ctx.request_context.lifespan_context.gauge):
        return await quote(await ctx.request_context.lifespan_context.get())


async def ask_order(ctx: Ctx, quoted: Annotated[Any, Resolve(order_quote)]) -> Elicit[Submit] | None:
    """Ask the user before create_batch, if there is anything to ask."""
    return _question(ctx, quoted, Submit)


async def ask_retry(ctx: Ctx, quoted: Annotated[Any, Resolve(retry_quote)]) -> Elicit[Submit] | None:
    """Ask the user before retry_failed, if there is anything to ask."""
    return _question(ctx, quoted, Submit)


async def ask_cancel(ctx: Ctx, lost: Annotated[Any, Resolve(cancel_loss)]) -> Elicit[Stop] | None:
    """Ask the user before cancel_batch, where something would be lost."""
    return _question(ctx, lost, Stop)


async def ask_delete(ctx: Ctx, lost: Annotated[Any, Resolve(delete_loss)]) -> Elicit[Delete] | None:
    """Ask the user before delete_batch."""
    return _question(ctx, lost, Delete)


def _question(ctx: Ctx, asked: Any, form: type[F]) -> Elicit[F] | None:
    if asked is None or asked == _CANNOT_ASK or not asked.question:
        return None
    ctx.request_context.lifespan_context.gauge.show(Progress(Doing.ASKING))
    return Elicit(asked.question, form)


async def agreed(desk: "Desk", asked: Any, answer: ElicitationResult[Any], done: str = "submitted") -> Any:
    """Return what the user was asked and said yes to, None where they were not asked.

    A no is remembered: nobody can say afterwards that they agreed. `done` is what then did not happen.

    Raises:
        UsageError: the user was asked and did not say yes.
    """
    if isinstance(answer, AcceptedElicitation) and answer.data is None:
        return None
    if isinstance(answer, AcceptedElicitation) and answer.data.is_ticked is None:
        raise UsageError(unanswered())
    if isinstance(answer, AcceptedElicitation) and answer.data.is_ticked:
        return asked
    has_declined = isinstance(answer, AcceptedElicitation | DeclinedElicitation)
    await desk.take_no(asked, has_declined=has_declined)
    if has_declined:
        raise UsageError(f"The user was asked and declined: nothing was {done}.")
    raise UsageError(f"The user closed the question without answering, which counts as no: nothing was {done}.")


def form_of(loss: "Loss") -> dict[str, Any]:
    """Return the question about a cancel as it is sent to a client that comes for it."""
    params = ElicitRequestFormParams(message=loss.question, requested_schema=render_elicitation_schema(Stop))
    return ElicitRequest(params=params).model_dump(mode="json", by_alias=True, exclude_none=True)


def read_answer(answer: Any) -> ElicitationResult[Stop]:
    """Read what such a client sends back.

    Raises:
        ValidationError: it is no answer of the protocol.
    """
    read = ElicitResult.model_validate(answer)
    if read.action == "accept":
        return AcceptedElicitation(data=Stop.model_validate(read.content))
    return DeclinedElicitation() if read.action == "decline" else CancelledElicitation()


def unanswered(reason: str = "") -> str:
    """Say that a client sent something else than an answer; `reason` is its word about that, which may be anything."""
    said = f" (it said: {plain_text(reason, _SHOWN_REASON_CHARS)})" if reason else ""
    return (
        f"The client did not come back with the user's answer to a question{said}: nothing was done. "
        "Make the same call again to ask once more."
    )


def counts(confirm: bool, quoted: Any) -> bool:
    """Return whether an assistant's word that the user agreed counts: only where the client cannot ask them."""
    return confirm and quoted == _CANNOT_ASK


def can_ask(capabilities: ClientCapabilities | None, protocol_version: object, session: Any) -> bool:
    """Return whether a client can put a question to its user, by what it declared and how it is connected."""
    elicitation = capabilities.elicitation if capabilities is not None else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return str(protocol_version) >= _ASKS_BY_RETURNING or bool(session.can_send_request)
