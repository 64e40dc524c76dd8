"""The JSON bodies of create and update calls: which members they may have, in both spellings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.json_members import snake_case
from gemini_batch_mcp.sandbox.lifecycle.lines import RequestProblem, check_request
from gemini_batch_mcp.sandbox.wire import ApiError, bad_request

_BATCH: Final = ("name", "model", "displayName", "inputConfig", "priority", "webhookConfig")
_UPDATABLE: Final = ("displayName", "priority")
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class BatchBody:
    """What a create says. Exactly one of `input_file` and `rows` is given; `rows` are the inlined requests as JSON."""

    display_name: str
    priority: int
    webhook: str
    input_file: str
    rows: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class BatchChanges:
    """What an update says; None leaves a member as it is."""

    display_name: str | None
    priority: int | None


def read_batch(body: dict[str, Any], task: Task) -> BatchBody:
    """Read the body of a create.

    Raises:
        ApiError: 400 for unknown members, wrong types, no input or two, and requests that Gemini would refuse.
    """
    batch = _members(_members(body, ("batch",), "").get("batch", {}), _BATCH, "batch")
    where = "batch.input_config"
    source = _members(batch.get("inputConfig", {}), ("fileName", "requests"), where)
    input_file = _string(source, "fileName", where)
    if ("requests" in source) == bool(input_file):
        raise bad_request(where, "[sandbox] batch.input_config needs one of file_name and requests.")
    webhook = _members(batch.get("webhookConfig", {}), ("uris", "userMetadata"), "batch.webhook_config")
    return BatchBody(
        display_name=_string(batch, "displayName", "batch"),
        priority=_priority(batch),
        webhook=msgspec.json.encode(webhook).decode() if webhook else "",
        input_file=input_file,
        rows=tuple(_inlined(source["requests"], task)) if "requests" in source else (),
    )


def read_update(body: dict[str, Any], update_mask: str) -> BatchChanges:
    """Return what an update changes: what the mask does not name stays as it is.

    Raises:
        ApiError: 400 for unknown members, and for a mask that is empty or names something else.
    """
    batch = _members(body, (*_BATCH, "batchStats", "state"), "batch")
    by_name = {name: name for name in _UPDATABLE} | {snake_case(name): name for name in _UPDATABLE}
    paths = [path.strip() for path in update_mask.split(",") if path.strip()]
    unknown = next((path for path in paths if path not in by_name), None)
    if unknown is not None or not paths:
        raise bad_request("update_mask", f"[sandbox] {unknown or 'Nothing'} cannot be updated here.")
    changed = {by_name[path] for path in paths}
    return BatchChanges(
        display_name=_string(batch, "displayName", "batch") if "displayName" in changed else None,
        priority=_priority(batch) if "priority" in changed else None,
    )


def _inlined(requests: object, task: Task) -> Iterable[bytes]:
    where = "batch.input_config.requests"
    items = _members(requests, ("requests",), where).get("requests", [])
    if not isinstance(items, list) or not items:
        raise bad_request(f"{where}.requests", "[sandbox] There must be at least one inlined request.")
    for index, item in enumerate(items):
        place = f"{where}.requests[{index}]"
        row = _members(item, ("request", "metadata"), place)
        if not isinstance(row.get("metadata", {}), dict):
            raise bad_request(f"{place}.metadata", f"[sandbox] Invalid value at '{place}.metadata'.")
        try:
            check_request(row.get("request"), task)
        except RequestProblem as problem:
            message = f"Invalid JSON payload received. {problem.text}, at '{place}.request'"
            raise bad_request(f"{place}.request", message) from None
        yield msgspec.json.encode(row)


def _members(value: object, names: tuple[str, ...], path: str) -> dict[str, Any]:
    """Return an object's members under their lowerCamel names; null is as good as absent."""
    if not isinstance(value, dict):
        raise bad_request(path, f"Invalid value at '{path}': an object was expected.")
    by_name = {name: name for name in names} | {snake_case(name): name for name in names}
    unknown = next((name for name in value if name not in by_name), None)
    if unknown is not None:
        at = f" at '{path}'" if path else ""
        raise bad_request(path, f'Invalid JSON payload received. Unknown name "{unknown}"{at}: Cannot find field.')
    return {by_name[name]: item for name, item in value.items() if item is not None}


def _string(members: dict[str, Any], name: str, path: str) -> str:
    value = members.get(name, "")
    if not isinstance(value, str):
        raise bad_request(f"{path}.{snake_case(name)}", f"Invalid value at '{path}.{snake_case(name)}' (TYPE_STRING).")
    return value


def _priority(members: dict[str, Any]) -> int:
    """Return an int64 that was given as a number or, as proto-JSON writes it, as a string."""
    value = members.get("priority", 0)
    try:
        if isinstance(value, bool | float) or int(value) not in _INT64:
            raise ValueError
        return int(value)
    except (ValueError, TypeError):
        raise ApiError(400, "Invalid value at 'batch.priority' (TYPE_INT64).") from None
