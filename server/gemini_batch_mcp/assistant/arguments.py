"""The arguments that tools share: their types, their bounds, and the words that describe them to an assistant."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from mcp.server.mcpserver import Resolve
from mcp_types import CallToolResult
from pydantic import Field

from gemini_batch_mcp.domain import Delivery, Order, Reuse, Task

Batch = Annotated[str, Field(description="Batch id, job name, or unique name.")]
Also = Annotated[list[str], Field(description="Batches to join: tables by id, _ for -.")]
Cursor = Annotated[str, Field(description="next_cursor of the last page.")]
Confirm = Annotated[bool, Field(description="The user agreed to what was shown.")]


def order(
    source: Annotated[
        str,
        Field(
            description="Path (.jsonl .csv .tsv .json .parquet .txt .xlsx book.xlsx#Sheet; packed too), "
            "directory, glob, batch (its rows), files/<id>."
        ),
    ] = "",
    requests: Annotated[
        list[dict[str, Any]],
        Field(description="Or rows for prompt, [{key, prompt}], [{key, request}]."),
    ] = [],  # noqa: B006 - pydantic copies it; null would be a union
    prompt: Annotated[str, Field(description="Row template with {{column}}.")] = "",
    system_instruction: Annotated[str, Field(description="Also a template.")] = "",
    response_schema: Annotated[dict[str, Any], Field(description="JSON Schema of answers.")] = {},  # noqa: B006 - as above
    generation_config: Annotated[dict[str, Any], Field(description="E.g. maxOutputTokens.")] = {},  # noqa: B006 - as above
    attach: Annotated[str, Field(description="Column of files (path for a directory).")] = "",
    key_column: Annotated[str, Field(description="Column of keys.")] = "",
    model: Annotated[str, Field(description="Empty: the default.")] = "",
    task: Annotated[Task, Field(description="embed makes embeddings.")] = "generate",
    delivery: Annotated[Delivery, Field(description="now: up to 200 rows, in minutes.")] = "file",
    display_name: Annotated[str, Field(description="Name in lists.")] = "",
    limit_rows: Annotated[int, Field(ge=0, description="Pilot: first rows (0: all).")] = 0,
    sample_rows: Annotated[int, Field(ge=0, description="Rows spread over all.")] = 0,
    like: Annotated[str, Field(description="Batch to repeat with these changes.")] = "",
    where: Annotated[str, Field(description="Only rows meeting this SQL.")] = "",
    encoding: Annotated[str, Field(description="When asked for it.")] = "",
    skip_invalid: Annotated[bool, Field(description="Leave wrong lines out.")] = False,
    reuse: Annotated[Reuse, Field(description="Pay once for equal rows.")] = "auto",
) -> Order:
    """Return the order that the arguments of a tool describe. A resolver: it is given those of its names."""
    return Order(
        source=source,
        requests=tuple(map(_item, requests)),
        model=model,
        task=task,
        delivery=delivery,
        display_name=display_name,
        prompt=prompt,
        system_instruction=system_instruction,
        response_schema=response_schema,
        generation_config=generation_config,
        attach=attach,
        key_column=key_column,
        limit_rows=limit_rows,
        sample_rows=sample_rows,
        where=where,
        encoding=encoding,
        skip_invalid=skip_invalid,
        reuse=reuse,
        like=like,
    )


def _item(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item of `requests` as its sender means it: what is empty is not given, and a number is a key's text."""
    if not item.keys() <= {"key", "prompt", "request"}:
        return item
    optional = ("key", "prompt") if item.get("request") else ("key",)
    given = {name: value for name, value in item.items() if value != "" or name not in optional}
    key = given.get("key")
    if isinstance(key, int | float) and not isinstance(key, bool):
        given["key"] = f"{key:.0f}" if key == key // 1 else str(key)
    return given


#: The order itself, for every function that takes its arguments; no client sees it.
Ordered = Annotated[Order, Resolve(order)]

Tool = Callable[..., Awaitable[CallToolResult]]


def with_order(tool: Tool) -> Tool:
    """Publish the arguments of `order` as arguments of a tool, before its own optional ones.

    The SDK reads a tool's arguments from its signature, and hands the tool all of them. The tool itself wants the
    order that was made of them, as a parameter of the type `Ordered`.
    """
    own = inspect.signature(tool)
    needed = [parameter for parameter in own.parameters.values() if parameter.default is parameter.empty]
    optional = [parameter for parameter in own.parameters.values() if parameter.default is not parameter.empty]

    @functools.wraps(tool)
    async def with_its_own(**arguments: Any) -> CallToolResult:
        return await tool(**{name: arguments[name] for name in own.parameters})

    shown = [*needed, *inspect.signature(order).parameters.values(), *optional]
    with_its_own.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]  # what inspect looks for
    return with_its_own
