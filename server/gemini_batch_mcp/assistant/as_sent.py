"""Arguments as hosts really send them, read as what they mean: the one rule for every tool, by the schema it publishes.

Nothing is refused that has one meaning. Values are put right, and names are told: a name that resembles one of ours is
refused with the right one, because a wish that went unheard may cost money. What hosts add of their own is left out.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeGuard

from gemini_batch_mcp.domain import ALL_ROWS
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.text import plain_text


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


#: What hosts add to a call for themselves: Gemini CLI, n8n, Cline, and ids of the same kind, which may resemble our
#: own names (`requestId`).
_HOSTS_OWN: Final = frozenset(
    map(
        _plain,
        (
            *("wait_for_previous", "tool_call_id", "session_id", "action", "chat_input", "task_progress"),
            *("agent_id", "call_id", "chat_id", "client_id", "conversation_id", "correlation_id", "message_id"),
            *("request_id", "run_id", "task_id", "thread_id", "trace_id", "user_id", "workspace_id"),
        ),
    )
)
#: Leave that a user gave where none is needed.
_PERMISSIONS: Final = frozenset({"confirm", "resubmit"})
#: What others call what is ours.
_OTHER_NAMES: Final = {
    "source": frozenset({"path", "file", "filename", "filepath", "inputfile", "inputpath"}),
    "system_instruction": frozenset({"systemprompt", "systemmessage"}),
    "where": frozenset({"filter", "filters", "condition", "rowfilter"}),
    "limit_rows": frozenset({"maxrows", "nrows", "head", "first", "firstrows", "top", "maxitems", "n"}),
    "sample_rows": frozenset({"pilot", "pilotrows", "trialrows", "randomrows"}),
    "batch": frozenset({"job", "jobid", "jobname"}),
    "save_to": frozenset({"path", "output", "outputfile", "outputpath", "filename", "filepath"}),
    "sql": frozenset({"query", "statement"}),
    "other": frozenset({"expected", "reference", "baseline", "against", "compareto", "comparewith", "groundtruth"}),
}
#: Wishes that nothing be done yet. A tool that asks for leave would do it.
_ONLY_LOOKS: Final = frozenset(
    {"dryrun", "preview", "previewonly", "simulate", "validateonly", "whatif", "estimateonly"}
)
#: Members of an argument that are given beside it.
_MEMBERS: Final = {
    "generation_config": frozenset(
        map(
            _plain,
            (
                *("temperature", "top_p", "top_k", "max_output_tokens", "max_tokens", "seed", "stop_sequences"),
                *("thinking_config", "thinking_level", "thinking_budget", "response_mime_type", "candidate_count"),
            ),
        )
    )
}
#: From here on two names are alike (`save_path` and `save_to` are 0.71, `root` and `prompt` 0.60).
_ALIKE: Final = 0.7
#: What hosts and frameworks put all arguments into.
_WRAPPERS: Final = frozenset(
    {"arguments", "args", "kwargs", "params", "parameters", "input", "inputs", "toolinput", "toolarguments", "payload"}
)
#: Longer names are not compared: no name of ours is that long.
_LONGEST_COMPARED: Final = 64
_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}(?:\.0*)?", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_YES: Final = frozenset({"true", "yes", "y", "on", "1"})
_NO: Final = frozenset({"false", "no", "n", "off", "0"})
#: Texts that stand for a value that is not given, where a text cannot be meant.
_NOTHING: Final = frozenset({"", "null", "none", "undefined"})
#: Texts whose words are ours or Gemini's: none of those is nothing. A batch or a column may be called so.
_CODED: Final = frozenset({"cursor", "encoding", "model", "state"})
_SHOWN_CHARS: Final = 60
_SHOWN_NAMES: Final = 5

_ABSENT: Final = object()


class _Wrong(Exception):
    """A value that has no meaning here; says what would have one. `entry` is the one of a list that has none."""

    entry: Any = None
    is_entry = False


def read_arguments(
    tool: str, schema: Mapping[str, Any], sent: Mapping[str, Any], elsewhere: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Read arguments for a tool by its input schema. `elsewhere` says which other tools take a name.

    Raises:
        UsageError: a name resembles one of ours, a value has no meaning here, or a needed one is missing.
    """
    known: Mapping[str, Any] = schema["properties"]
    sent = _unwrapped(sent, known)
    problems: list[str] = []
    arguments: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in sent.items():
        if name in known:
            if name in _CODED and isinstance(value, str) and value.strip().lower() in _NOTHING:
                continue
            try:
                arguments[name] = _meant(value, known[name])
            except _Wrong as wrong:
                arguments[name] = value
                is_wrong = f"has {_shown(wrong.entry)}" if wrong.is_entry else f"is {_shown(value)}"
                problems.append(f"{name} {is_wrong}; {wrong}.")
        elif fix := _told(name, known, elsewhere):
            problems.append(f"{tool} has no argument {_shown(name)}. {fix}")
        elif not _is_hosts_own(name):
            ignored.append(_shown(name))
    arguments = {name: value for name, value in arguments.items() if value is not _ABSENT}
    missing = [name for name in schema.get("required", ()) if name not in arguments]
    problems += [f"{name} is missing: {known[name]['description']}" for name in missing]
    if problems:
        left_out = f" Ignored: {', '.join(ignored[:_SHOWN_NAMES])}." if ignored else ""
        raise UsageError(" ".join(problems), f"{tool} takes {', '.join(known)}.{left_out}")
    return _with_all_rows(arguments)


def _with_all_rows(arguments: dict[str, Any]) -> dict[str, Any]:
    """Read 0 rows of a pilot as all, where an order is taken over. Some hosts send every argument, wanted or not."""
    if not arguments.get("like") or any(value in ("", [], {}) for value in arguments.values()):
        return arguments
    limits = [arguments[name] for name in ("limit_rows", "sample_rows") if name in arguments]
    return {**arguments, "limit_rows": ALL_ROWS, "sample_rows": 0} if limits and not any(limits) else arguments


def _unwrapped(sent: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
    """Return the arguments of a call that holds all of them in one member, as if they stood beside it."""
    others = [name for name in sent if not _is_hosts_own(name)]
    if len(others) != 1 or others[0] in known or _plain(others[0]) not in _WRAPPERS:
        return sent
    inner = sent[others[0]]
    if isinstance(inner, str):
        with suppress(_Wrong):
            inner = _parsed_json(inner, "an object")
    return _unwrapped(inner, known) if isinstance(inner, dict) else sent


def _is_hosts_own(name: str) -> bool:
    return name.startswith("_") or _plain(name) in _HOSTS_OWN


def _told(name: str, known: Mapping[str, Any], elsewhere: Mapping[str, Sequence[str]]) -> str:
    """Return what to write instead of a name that the tool does not have; empty for one that means nothing to us."""
    if _is_hosts_own(name) or name in _PERMISSIONS or len(name) > _LONGEST_COMPARED:
        return ""
    if tools := elsewhere.get(name):
        return f"It is an argument of {', '.join(tools)}."
    if "confirm" in known and _plain(name) in _ONLY_LOOKS:
        return "This tool acts. preview_batch shows what an order would send and cost, and sends nothing."
    if right := _resembled(name, known):
        return f"Did you mean {right}?"
    for holder, members in _MEMBERS.items():
        if holder in known and _plain(name) in members:
            return f"Put it in {holder}."
    return ""


def _resembled(name: str, known: Collection[str]) -> str:
    """Return the name of ours that a name resembles, empty when none: by its words, its letters, or nearly all."""
    plain = _plain(name)
    for ours, others in _OTHER_NAMES.items():
        if ours in known and plain in others:
            return ours
    alike = sorted(((difflib.SequenceMatcher(None, plain, _plain(ours)).ratio(), ours) for ours in known), reverse=True)
    words = _words(name)
    for _, ours in alike:
        if words and (words <= _words(ours) or words >= _words(ours)):
            return ours
    return next((ours for share, ours in alike if share >= _ALIKE or sorted(plain) == sorted(_plain(ours))), "")


def _words(name: str) -> frozenset[str]:
    return frozenset(word.lower().removesuffix("s") for word in _WORD.findall(name))


def _meant(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return what a value means as what the schema asks for; `_ABSENT` for one that is not given.

    Raises:
        _Wrong: it means nothing, or more than one thing.
    """
    if value is None:
        return _ABSENT
    kind = schema.get("type")
    if kind not in ("array", "object") and isinstance(value, list) and len(value) == 1:
        return _meant(value[0], schema)
    if isinstance(value, str) and (value == "" or (_takes_no_text(schema) and value.strip().lower() in _NOTHING)):
        return _ABSENT
    return _READERS.get(str(kind), _as_it_is)(value, schema)


def _takes_no_text(schema: Mapping[str, Any]) -> bool:
    """True where a text is read as something else, an entry of a list being that text itself."""
    if schema.get("type") == "string":
        return "enum" in schema and not any(str(entry).lower() in _NOTHING for entry in schema["enum"])
    return schema.get("type") != "array" or _takes_no_text(schema.get("items", {}))


def _as_it_is(value: Any, schema: Mapping[str, Any]) -> Any:
    return value


def _text(value: Any, schema: Mapping[str, Any]) -> str:
    if _is_finite(value):
        # Some hosts have one kind of number only: 7 arrives as 7.0.
        value = str(int(value) if value == int(value) else value)
    if not isinstance(value, str):
        raise _Wrong("give a text")
    choices = schema.get("enum")
    return value if choices is None else _chosen(value, choices)


def _chosen(text: str, choices: Sequence[str]) -> str:
    same = [choice for choice in choices if choice.lower() == text.strip().lower()]
    if len(same) == 1:
        return same[0]
    near = difflib.get_close_matches(text.strip().lower()[:_LONGEST_COMPARED], choices, n=1, cutoff=_ALIKE)
    raise _Wrong(f"{f'did you mean {near[0]}? G' if near else 'g'}ive one of {', '.join(choices)}")


def _whole(value: Any, schema: Mapping[str, Any]) -> int:
    if isinstance(value, str):
        text = value.strip()
        value = int(text.split(".")[0]) if _WHOLE.fullmatch(text) else _parsed_number(text)
    if not _is_finite(value) or value != int(value):
        raise _Wrong(f"give a whole number{_bounds(schema)}")
    return int(_bounded(value, schema))


def _number(value: Any, schema: Mapping[str, Any]) -> float:
    if isinstance(value, str):
        value = _parsed_number(value.strip())
    if not _is_finite(value):
        raise _Wrong(f"give a number{_bounds(schema)}")
    return _bounded(value, schema)


def _is_finite(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parsed_number(text: str) -> float | None:
    return float(text) if len(text) <= _LONGEST_COMPARED and _NUMBER.fullmatch(text) else None


def _bounded(value: float, schema: Mapping[str, Any]) -> float:
    if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        raise _Wrong(f"give a number{_bounds(schema)}")
    return value


def _bounds(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if most is None:
        return "" if least is None else f" of at least {least}"
    return f" of at most {most}" if least is None else f" from {least} to {most}"


def _truth(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, bool):
        return value
    word = _text(value, {}).strip().lower() if isinstance(value, str | int | float) else ""
    if word in _YES or word in _NO:
        return word in _YES
    raise _Wrong("give true or false")


def _list(value: Any, schema: Mapping[str, Any]) -> Any:
    """One entry for a list is a list of one. A text that begins as a JSON list does is one, else it is an entry."""
    entries = schema.get("items", {})
    if isinstance(value, str):
        if entries.get("type") == "object":
            value = _parsed_json(value, "a list")
        elif value.lstrip().startswith("["):
            with suppress(_Wrong):
                value = _parsed_json(value, "a list")
        elif "enum" in entries:
            # None of the words that can be chosen holds a comma.
            value = [word for word in value.split(",") if word.strip()]
        if value is None:
            return _ABSENT
    found = value if isinstance(value, list) else [value]
    read: list[Any] = []
    for entry in found:
        try:
            meant = _meant(entry, entries)
        except _Wrong as wrong:
            wrong.entry, wrong.is_entry = entry, isinstance(value, list)
            raise
        if meant is not _ABSENT:
            read.append(meant)
    return read


def _object(value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        value = _parsed_json(value, "an object")
        if value is None:
            return _ABSENT
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise _Wrong('give an object, such as {"name": "value"}')
    return value


def _parsed_json(text: str, wanted: str) -> Any:
    """Return what a JSON text holds, which may be a JSON text once more."""
    try:
        # Line breaks inside of texts are let through: they can mean one thing only.
        value = json.loads(text, strict=False, parse_constant=_refuse_constant)
        return json.loads(value, strict=False, parse_constant=_refuse_constant) if isinstance(value, str) else value
    except RecursionError:
        raise _Wrong("it is nested too deeply to be read as JSON") from None
    except ValueError as error:
        place = ""
        if isinstance(error, json.JSONDecodeError) and text.lstrip()[:1] in ("{", "[", '"'):
            place = f" (the JSON breaks off at character {error.pos + 1})"
        raise _Wrong(f"give {wanted}, or the JSON text of one{place}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_READERS: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "string": _text,
    "integer": _whole,
    "number": _number,
    "boolean": _truth,
    "array": _list,
    "object": _object,
}


def _shown(value: Any) -> str:
    """Return a value, shortened, as a person would write it."""
    if isinstance(value, str):
        return repr(plain_text(value, _SHOWN_CHARS))
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value)


def takers(schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return which tools take each argument, by the input schemas of the tools."""
    names: dict[str, list[str]] = {}
    for tool, name in _arguments(schemas):
        names.setdefault(name, []).append(tool)
    return names


def _arguments(schemas: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    return ((tool, name) for tool, schema in schemas.items() for name in schema["properties"])
