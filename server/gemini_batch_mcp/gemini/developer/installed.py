"""What the types of the installed google-genai know of requests: it may be younger than our table of them."""

from enum import Enum
from functools import cache

from gemini_batch_mcp.domain import InstalledTypes

#: Messages and enums of the wire that the SDK has under other names.
_OTHER_NAMES = {
    "FunctionCallingMode": "FunctionCallingConfigMode",
    "DynamicRetrievalMode": "DynamicRetrievalConfigMode",
    "Scheduling": "FunctionResponseScheduling",
}


@cache
def installed_types() -> InstalledTypes:
    """Return the members and values of every type, each once. Loading the types takes seconds where nobody has yet."""
    from google.genai import types
    from pydantic import BaseModel

    members: dict[str, frozenset[str]] = {}
    values: dict[str, frozenset[str]] = {}
    for name, kind in vars(types).items():
        if not isinstance(kind, type):
            continue
        if issubclass(kind, Enum):
            values[name] = frozenset(str(entry.value) for entry in kind)
        elif issubclass(kind, BaseModel):
            fields = kind.model_fields
            members[name] = frozenset(fields) | {field.alias for field in fields.values() if field.alias}
    values |= {name: values[other] for name, other in _OTHER_NAMES.items() if other in values}
    return InstalledTypes(members, values)
