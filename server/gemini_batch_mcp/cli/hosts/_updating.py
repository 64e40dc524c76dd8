"""Our entry over one that is there: what is ours is set, and whatever else people have added to it stays."""

from collections.abc import Mapping, Set
from typing import Any, Final

from gemini_batch_mcp.cli.hosts.known import HOSTS, Host

SANDBOX: Final = "--sandbox"
#: How a server is reached that is not started: an entry with one of these besides a command would be neither.
_ADDRESSES: Final = frozenset({"url", "httpUrl", "serverUrl"})
_OF_ADDRESSES: Final = _ADDRESSES | {"type", "transport", "headers", "http_headers", "env_http_headers"}
#: What is ours to say whenever an entry is written; every other member yields to what is there.
_OURS: Final = frozenset({"type", "command"})


def updated(host: Host, earlier: Mapping[str, Any], wanted: Mapping[str, Any], yielding: Set[str]) -> dict[str, Any]:
    """Return the entry that is there with ours laid over it.

    The variables in `yielding` were not asked for now: they are set only where the entry says nothing of them.
    """
    if _ADDRESSES & earlier.keys():
        earlier = {name: value for name, value in earlier.items() if name not in _OF_ADDRESSES}
    entry = dict(earlier)
    for name, value in wanted.items():
        if name in _OURS or name not in entry:
            entry[name] = value
    arguments = list(wanted.get("args", ()))
    if SANDBOX in _list(earlier.get("args")) and SANDBOX not in arguments:
        arguments.insert(0, SANDBOX)
    entry["args"] = arguments
    variables = _variables(host, _table(earlier.get("env")), _table(wanted.get("env")), yielding)
    if variables or "env" in entry:
        entry["env"] = variables
    if names := _handed_on(earlier, wanted, variables):
        entry["env_vars"] = names
    elif "env_vars" in entry:
        del entry["env_vars"]
    return entry


def _variables(host: Host, earlier: Mapping[str, Any], wanted: Mapping[str, Any], yielding: Set[str]) -> dict[str, Any]:
    variables = dict(earlier)
    for name, value in wanted.items():
        # A reference in another host's form was copied from there: it fills nothing in here.
        stays = name in yielding and earlier.get(name) and earlier[name] not in _references(host, name)
        if not stays:
            variables[name] = value
    return variables


def _references(host: Host, variable: str) -> set[str]:
    others = (other for other in HOSTS.values() if other.can_refer and not other.is_toml and other is not host)
    return {other.reference.format(variable) for other in others}


def _handed_on(earlier: Mapping[str, Any], wanted: Mapping[str, Any], variables: Mapping[str, Any]) -> list[Any]:
    """Return which variables the host hands on: a key that stands in the entry itself is not looked up as well."""
    ours, set_now = _list(wanted.get("env_vars")), _table(wanted.get("env"))
    names = [name for name in _list(earlier.get("env_vars")) if not (isinstance(name, str) and name in set_now)]
    return [*names, *(name for name in ours if name not in names and name not in variables)]


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
