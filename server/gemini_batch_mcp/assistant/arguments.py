"""The arguments that tools share: their types, their bounds, and the words that describe them to an assistant."""

from typing import Annotated, Any

from mcp.server.mcpserver import Resolve
from pydantic import Field

from gemini_batch_mcp.domain import Delivery, JsonObject, Order, Task

Batch = Annotated[str, Field(description="Batch id, Gemini job name, or unique display name.")]
Cursor = Annotated[str, Field(description="next_cursor of the previous page.")]
Confirm = Annotated[bool, Field(description="The user agreed to the cost or risk that was named.")]

Source = Annotated[
    str,
    Field(description="Path (.jsonl .csv .tsv .json .parquet .txt), directory, glob, or files/<id>."),
]
Requests = Annotated[
    list[dict[str, Any]],
    Field(description="Instead of source: [{key, prompt}] or [{key, request: GenerateContentRequest}]."),
]
Prompt = Annotated[str, Field(description="Template for each row: text with {{column}}.")]
SystemInstruction = Annotated[str, Field(description="Template, too.")]
ResponseSchema = Annotated[dict[str, Any], Field(description="JSON Schema of each answer.")]
GenerationConfig = Annotated[dict[str, Any], Field(description="E.g. maxOutputTokens, temperature.")]
Attach = Annotated[str, Field(description="Column of file paths to attach; path for a directory or glob.")]
KeyColumn = Annotated[str, Field(description="Column with unique keys.")]
Model = Annotated[str, Field(description="Empty for the configured one.")]
TaskName = Annotated[Task, Field(description="embed makes embeddings.")]
DeliveryName = Annotated[Delivery, Field(description="inline only below 20 MB.")]
DisplayName = Annotated[str, Field(description="Name shown in lists.")]
LimitRows = Annotated[int, Field(ge=0, description="Pilot: only the first N rows.")]


def order(
    source: str,
    requests: list[dict[str, Any]],
    prompt: str,
    system_instruction: str,
    response_schema: JsonObject,
    generation_config: JsonObject,
    attach: str,
    key_column: str,
    model: str,
    task: Task,
    delivery: Delivery,
    display_name: str,
    limit_rows: int,
) -> Order:
    """Return the order that the arguments of a tool describe. A resolver: it is given those of its names."""
    return Order(
        source=source,
        requests=tuple(requests),
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
    )


#: The order itself, for every function that takes its arguments; no client sees it.
Ordered = Annotated[Order, Resolve(order)]
