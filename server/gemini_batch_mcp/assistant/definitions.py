"""What clients are told of the tools, and the tools behind it.

A definition is made from a function of `tools.py`: its signature becomes the schema of the arguments, the view in its
return type the schema of the result, its docstring the description. For that, all views have to be loaded, and pydantic
has to build a model for every tool: 8 % of what a server takes until it answers `tools/list`, and the same each time.
So definitions are made once, by `make manifests`, into `definitions.json` beside this module; `make check` compares
them. A server reads the file, and makes a tool at its first call.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any, Final

import mcp_types
from mcp.server.mcpserver.tools import Tool
from pydantic import TypeAdapter

DEFINITIONS_FILE: Final = "definitions.json"
#: What an assistant pays for in every conversation and learns nothing from, and what some hosts cannot read: Google's
#: own SDK fails on `additionalProperties`. Output members are always all there.
_INPUT_NOISE: Final = frozenset({"title", "additionalProperties"})
_OUTPUT_NOISE: Final = frozenset({*_INPUT_NOISE, "default", "required"})


def read_definitions() -> list[mcp_types.Tool]:
    """Return the definitions of all tools as they were written."""
    return _definitions().validate_json(files(__package__).joinpath(DEFINITIONS_FILE).read_bytes())


def written(definitions: Iterable[mcp_types.Tool]) -> str:
    """Return what the file holds."""
    text = _definitions().dump_json(list(definitions), by_alias=True, exclude_none=True, indent=2)
    return f"{text.decode()}\n"


def _definitions() -> TypeAdapter[list[mcp_types.Tool]]:
    return TypeAdapter(list[mcp_types.Tool])


def made_definitions() -> list[mcp_types.Tool]:
    """Make the definitions of all tools, with schemas that carry neither titles nor prose of outputs."""
    return [_definition(tool) for tool in made_tools().values()]


@cache
def made_tools() -> dict[str, Tool]:
    """Make the tools that do the work, by their names.

    Once for all servers of a process: they hold nothing of a server or a call.
    """
    from gemini_batch_mcp.assistant.tools import TOOLS

    return {
        spec.function.__name__: Tool.from_function(
            spec.function,
            title=spec.title,
            description=" ".join((spec.function.__doc__ or "").split()),
            annotations=spec.annotations,
            meta={"ui": {"resourceUri": spec.page_uri}} if spec.page_uri else None,
        )
        for spec in TOOLS
    }


def _definition(tool: Tool) -> mcp_types.Tool:
    return mcp_types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=_slim(tool.parameters, drop=_INPUT_NOISE),
        output_schema=_published_output(tool.output_schema or {}),
        annotations=tool.annotations,
        _meta=tool.meta,
    )


def _published_output(schema: dict[str, Any]) -> dict[str, Any]:
    outline = _slim(_outline(_inlined(schema, schema.get("$defs", {}))), drop=_OUTPUT_NOISE)
    return {name: value for name, value in outline.items() if name != "description"}


def _slim(schema: Any, *, drop: frozenset[str]) -> Any:
    """Return a JSON Schema without the keywords in `drop` and without empty defaults, which say nothing."""
    if isinstance(schema, list):
        return [_slim(item, drop=drop) for item in schema]
    if not isinstance(schema, dict):
        return schema
    slim: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "properties":
            slim[name] = {member: _slim(member_schema, drop=drop) for member, member_schema in value.items()}
        elif name not in drop and not (name == "default" and not value):
            slim[name] = _slim(value, drop=drop)
    return slim


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a JSON Schema with every reference replaced by what it refers to; our views do not contain themselves."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if (reference := schema.get("$ref")) is not None:
        return _inlined(definitions[reference.removeprefix("#/$defs/")], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items() if name != "$defs"}


def _outline(schema: Any, *, is_whole: bool = True) -> Any:
    """Return an output schema without the members of objects inside objects: a result shows them, in every call.

    "This or null" is said in words: hosts know neither unions nor lists of types, and with either type alone a client
    that checks what it gets would refuse the other.
    """
    if isinstance(schema, list):
        return [_outline(item, is_whole=False) for item in schema]
    if not isinstance(schema, dict):
        return schema
    match schema.get("anyOf"):
        case [{"type": str(kind)}, {"type": "null"}]:
            return {"description": f"{kind} or null"}
    if is_whole:
        members = {name: _outline(member, is_whole=False) for name, member in schema.get("properties", {}).items()}
        return {**schema, "properties": members}
    dropped = ("properties", "description")
    return {name: _outline(value, is_whole=False) for name, value in schema.items() if name not in dropped}
