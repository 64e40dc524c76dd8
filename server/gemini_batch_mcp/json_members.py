"""Members of JSON that may have any shape, read tolerantly: what is of a wrong type counts as absent, nothing raises.

What must be exact (request lines, replies that decide what is paid) is not read here but by `intake/validator`.
"""

import re
from collections.abc import Mapping
from typing import Any


def as_object(value: object) -> Mapping[str, Any]:
    """Return an object as it is, an empty one for all else."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[Any]:
    """Return a list as it is, an empty one for all else."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """Return a text as it is, an empty one for all else."""
    return value if isinstance(value, str) else ""


def member(holder: Mapping[str, Any], name: str) -> Any:
    """Return a member under its lowerCamel name or else its snake_case name, as proto-JSON allows; None when absent."""
    value = holder.get(name)
    return value if value is not None else holder.get(snake_case(name))


def snake_case(name: str) -> str:
    """Return the proto spelling of a lowerCamel name: `mimeType` → `mime_type`."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
