"""`generation_config` of an order: checked field by field, and written in one spelling, lowerCamel."""

from collections.abc import Mapping
from typing import Any, Final

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.response_schema import to_response_schema
from gemini_batch_mcp.intake.validator.corrections import nearest, shown
from gemini_batch_mcp.intake.validator.walk import Findings, RequestWalk
from gemini_batch_mcp.intake.validator.wire_schema import Field, Message, message, request_message
from gemini_batch_mcp.intake.validator.world import CLOSED, Note, World

_ARGUMENT: Final = "generation_config"
_JSON: Final = "application/json"
_MAX_REPORTED: Final = 20
#: Members of an embedding request that are no content.
_EMBED_MEMBERS: Final = ("taskType", "title", "outputDimensionality")


def request_members(
    task: Task,
    generation_config: JsonObject,
    response_schema: JsonObject,
    world: World = CLOSED,
    notes: set[Note] | None = None,
) -> dict[str, Any]:
    """Return what an order's `generation_config` and `response_schema` add to every request, in lowerCamel.

    For task "generate" that is `generationConfig`, for "embed" taskType, title and outputDimensionality. `notes` takes
    what is passed on although nobody here knows it.

    Raises:
        RequestProblems: members are wrong; the problems have line 0 and the JSON path.
        UsageError: the two say different things, or the schema has no form that Gemini's batch accepts.
    """
    if task == "embed":
        if response_schema:
            raise UsageError("Embeddings don't take a `response_schema`.", "Leave it out.")
        return _embed_members(generation_config)
    config = _canonical(dict(generation_config), message("GenerationConfig"))
    _check_placed(config)
    given = [name for name in ("responseSchema", "responseJsonSchema") if config.get(name) is not None]
    if response_schema and given:
        raise UsageError(f"Both `response_schema` and `{_ARGUMENT}.{given[0]}` are given.", "Keep one of them.")
    if len(given) == 2:
        raise UsageError(f"`{_ARGUMENT}` has both {' and '.join(given)}.", "Keep one of them.")
    schema = response_schema or (config.pop(given[0]) if given else None)
    if isinstance(schema, Mapping) and schema:
        where = "response_schema" if response_schema else f"{_ARGUMENT}.{given[0]}"
        # Batch answers degenerate with responseJsonSchema, so every schema goes out as responseSchema.
        config["responseSchema"] = to_response_schema(schema, where)
        if config.setdefault("responseMimeType", _JSON) not in (_JSON, "text/x.enum"):
            what = shown(str(config["responseMimeType"]))
            raise UsageError(f"`{_ARGUMENT}.responseMimeType` is {what}, with a schema.", f"Write {_JSON}.")
    elif schema is not None:
        config[given[0] if given else "responseSchema"] = schema
    _check(config, message("GenerationConfig"), world, notes)
    return {"generationConfig": config} if config else {}


def _check_placed(config: Mapping[str, Any]) -> None:
    """Refuse members of a request that people put here."""
    root = request_message("generate")
    for name in config:
        if name in root.spellings and name not in message("GenerationConfig").spellings:
            step = (
                "Give `system_instruction` beside it."
                if name.startswith("system")
                else "It isn't a generation setting."
            )
            raise UsageError(f"`{_ARGUMENT}.{shown(name)}` belongs directly inside a request.", step)


def _embed_members(config: JsonObject) -> dict[str, Any]:
    root = request_message("embed")
    spellings = {spelling: field.name for spelling, field in root.spellings.items() if field.name in _EMBED_MEMBERS}
    for name in config:
        if name not in spellings:
            near = nearest(str(name), spellings)
            step = f"Did you mean `{near}`? " if near else ""
            raise UsageError(
                f"`{_ARGUMENT}.{shown(str(name))}` is not a setting for embeddings.",
                f"{step}The settings are {', '.join(_EMBED_MEMBERS)}.",
            )
    members = _canonical(dict(config), root)
    probe = {**members, "content": {"parts": [{"text": "probe"}]}}
    _check(probe, root)
    return members


def _check(config: dict[str, Any], owner: Message, world: World = CLOSED, notes: set[Note] | None = None) -> None:
    findings = Findings()
    RequestWalk(findings, owner, world).request(config, _ARGUMENT)
    if notes is not None:
        notes |= findings.notes
    if findings.count:
        problems = [Problem(0, "", finding.message, finding.fix) for finding in findings.described[:_MAX_REPORTED]]
        plural = "" if findings.count == 1 else "s"
        text = f"`{_ARGUMENT}` has {findings.count:,} problem{plural}; nothing was submitted."
        raise RequestProblems(problems, findings.count, text, "Correct it, then submit the order again.")


def _canonical(config: dict[str, Any], owner: Message) -> dict[str, Any]:
    """Return an object with every known name in lowerCamel and null members left out; unknown names stay.

    Raises:
        UsageError: a member is given in both spellings.
    """
    written: dict[str, Any] = {}
    for name, value in config.items():
        field = owner.spellings.get(name)
        if field is None:
            written[name] = value
            continue
        if value is None:
            continue
        if field.name in written:
            raise UsageError(f"`{field.name}` is given twice, once in each spelling.", "Keep one of them.")
        written[field.name] = _value(value, field)
    return written


def _value(value: Any, field: Field) -> Any:
    # A schema may be JSON Schema here, whose names are its own.
    if not field.is_message or field.type == "Schema":
        return value
    owner = message(field.type)
    if field.shape == "list" and isinstance(value, list):
        return [_canonical(item, owner) if isinstance(item, dict) else item for item in value]
    if field.shape == "one" and isinstance(value, dict):
        return _canonical(value, owner)
    return value
