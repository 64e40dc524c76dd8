"""What every request of an order over rows looks like: JSON as it stands, with places for the cells of a row.

Whoever writes the requests fills the same form, be it the engine of this machine or a warehouse that holds the rows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gemini_batch_mcp.domain import Order, Task
from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.files.planning import columns_of
from gemini_batch_mcp.intake.tables.sql import LineForm, Marked, Piece
from gemini_batch_mcp.intake.template import Template, compile_template, example_place, listed
from gemini_batch_mcp.intake.validator.validate import check_line
from gemini_batch_mcp.intake.validator.world import World

#: Columns that are looked for in a prompt that names none.
_LOOKED_FOR: Final = 100


@dataclass(frozen=True, slots=True)
class RequestForm:
    """The JSON of a request. `empty_text` is what only a request without any text holds.

    `columns` are those that it takes cells from, each once; `asks` those that make a request another one than all
    others, of the prompt and of attached files, none where the prompt names none. `prompt` and `system` are its texts.
    """

    request: LineForm
    empty_text: bytes
    columns: tuple[str, ...]
    asks: tuple[str, ...]
    prompt: Template
    system: Template


def request_form(order: Order, name: str, columns: Sequence[str], members: Mapping[str, Any]) -> RequestForm:
    """Put the form of an order's requests together. `name` is that of the table, which has these columns.

    `members` are what the order's settings add to each request (see `generation_config`).

    Raises:
        UsageError: the order has no prompt, or one that names no column or a wrong one.
    """
    if not order.prompt.strip():
        place = example_place(columns)
        what = "Embed each text" if order.task == "embed" else "Answer this"
        example = place if order.task == "embed" else f"{what}: {place}"
        raise UsageError(
            f"{name} is a table, which needs a `prompt`.",
            f'Give a prompt that names its columns, such as "{example}". Its columns are: {listed(columns)}.',
        )
    prompt = compile_template(order.prompt, columns, "prompt")
    system = compile_template(order.system_instruction, columns, "system_instruction")
    if order.task == "embed" and order.system_instruction:
        raise UsageError("Embeddings don't take a `system_instruction`.", "Leave it out, or write it into the prompt.")
    used = tuple(dict.fromkeys((*prompt.columns, *system.columns)))
    if not used and not order.attach:
        meant = next((column for column in columns[:_LOOKED_FOR] if f"{{{column}}}" in order.prompt), None)
        fix = f"Put a column in it, such as {example_place(columns)}"
        if meant is not None:
            fix = f"Write {example_place([meant])}, with two braces on each side"
        raise UsageError(
            "The prompt names no column, so every row would ask the same question and its values would be lost.",
            f"{fix}. Its columns are: {listed(columns)}.",
        )
    attached = tuple(map(Marked, columns_of(order.attach, columns))) if order.attach else ()
    named = tuple(place.column for place in attached)
    return RequestForm(
        request=_request(order.task, attached, prompt, system, members),
        empty_text=_empty_text(order.task) if prompt.columns and not prompt.without_values.strip() else b"",
        columns=(*used, *(column for column in named if column not in used)),
        asks=tuple(dict.fromkeys((*prompt.columns, *named))) if prompt.columns else (),
        prompt=prompt,
        system=system,
    )


def check_form(form: RequestForm, task: Task, world: World) -> None:
    """Check a request as it comes out for a sample row; all rows differ in texts only.

    Raises:
        RequestProblems: the members that all rows share are wrong.
    """
    sample = '{"key":"sample","request":' + "".join(map(_sample, form.request)) + "}"
    checked = check_line(sample.encode("utf-8", "surrogatepass"), 0, task, world)
    if checked.problem_count:
        problems = [Problem(0, "", problem.message, problem.fix) for problem in checked.problems]
        message = "Every request of this order would have a problem; nothing was submitted."
        raise RequestProblems(problems, checked.problem_count, message, "Correct it, then submit the order again.")


def _request(
    task: Task, attached: LineForm, prompt: Template, system: Template, members: Mapping[str, Any]
) -> LineForm:
    rest = "".join(f",{_json(name)}:{_json(value)}" for name, value in members.items())
    if task == "embed":
        return ('{"content":{"parts":[{"text":', prompt, "}]}", rest, "}")
    instruction: LineForm = (',"systemInstruction":{"parts":[{"text":', system, "}]}") if system.pieces else ()
    # A file goes before the text that asks about it, as Google's guides on images, documents and video have it.
    parts: LineForm = (*attached, '{"text":', prompt, "}")
    return ('{"contents":[{"role":"user","parts":[', *parts, "]}]", *instruction, rest, "}")


def _empty_text(task: Task) -> bytes:
    """Return how a request looks whose own text is empty; quotes in a text are escaped, so no cell looks like it."""
    return b'"parts":[{"text":""}]}' + (b"]" if task == "generate" else b"")


def _sample(piece: Piece) -> str:
    if isinstance(piece, str | Marked):
        return piece if isinstance(piece, str) else ""
    # Escaped, so that half a surrogate pair is named as such.
    return json.dumps(piece.without_values + "sample") if isinstance(piece, Template) else '"sample"'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
