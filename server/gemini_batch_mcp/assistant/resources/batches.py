"""Batches and their answers, as resources: the same views that the tools answer with, loaded when one is read."""

from collections.abc import Awaitable
from typing import Final, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.errors import BatchError, NotFound, UsageError

BATCH_URI: Final = "gemini-batch://batches/{+batch}"
RESULTS_URI: Final = "gemini-batch://batches/{+batch}/results{?cursor,limit}"
#: A read must not keep its client waiting: what is not here by then is told as such, and goes on.
_WAIT_SECONDS: Final = 45.0

#: Rows of one page at most, as get_results has it.
MAX_LIMIT: Final = 200

T = TypeVar("T")


def add_batches(server: MCPServer[LazyDesk]) -> None:
    """Register the status of a batch, and its rows by page."""

    # Before the batches themselves, whose pattern takes everything.
    @server.resource(
        RESULTS_URI,
        name="results",
        title="Rows of a batch",
        description="One page of a batch's answers as in get_results; next_cursor leads to the next.",
        mime_type="application/json",
    )
    async def results(ctx: Context[LazyDesk], batch: str, cursor: str = "", limit: str = "20") -> str:
        # A text, as the URI has it: what the SDK says of a wrong number is a traceback.
        if not limit.isdecimal() or not 1 <= int(limit[:4]) <= MAX_LIMIT:
            raise ResourceNotFoundError(f"limit={limit[:20]} is not a number from 1 to {MAX_LIMIT}.")
        from gemini_batch_mcp.assistant import render
        from gemini_batch_mcp.domain import ResultQuery

        desk = await _told(ctx.request_context.lifespan_context.get())
        query = ResultQuery(view="rows", limit=int(limit), cursor=cursor)
        read = await _told(desk.results(batch, query, wait_seconds=_WAIT_SECONDS))
        return render.results(read, await desk.cost(read.status.batch, read.summary), {}, ()).fitted().model_dump_json()

    @server.resource(
        BATCH_URI,
        name="batch",
        title="Status of a batch",
        description="State, counts, jobs and advice of a batch, as in check_status.",
        mime_type="application/json",
    )
    async def batch(ctx: Context[LazyDesk], batch: str) -> str:
        from gemini_batch_mcp.assistant import render

        desk = await _told(ctx.request_context.lifespan_context.get())
        return render.status(await _told(desk.status(batch))).fitted().model_dump_json()


async def _told(answer: Awaitable[T]) -> T:
    """Return what is awaited; what goes wrong is told in our own words, as resources tell it."""
    try:
        return await answer
    except (NotFound, UsageError) as error:
        raise ResourceNotFoundError(str(error)) from None
    except BatchError as error:
        raise ResourceError(str(error)) from None
