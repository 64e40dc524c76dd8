"""Is this line a request that Gemini would take? The whole answer for one line, whatever the line is.

`check_line` is exact and finds every problem; `requests/lines.py` puts the fast decoders in front of it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import Problem
from gemini_batch_mcp.intake.validator import corrections
from gemini_batch_mcp.intake.validator.corrections import kind, shown
from gemini_batch_mcp.intake.validator.decoders import MAX_KEY_CHARACTERS
from gemini_batch_mcp.intake.validator.json_text import BadNumber, JsonFault, RepeatingObject, parse
from gemini_batch_mcp.intake.validator.together import check_together
from gemini_batch_mcp.intake.validator.walk import Findings, RequestWalk
from gemini_batch_mcp.intake.validator.wire_schema import request_message
from gemini_batch_mcp.intake.validator.world import CLOSED, Note, World
from gemini_batch_mcp.settings import MAX_LINE_BYTES

LINE_FORM: Final = '{"key":"…","request":{…}}'

OPENAI_MEMBERS: Final = ("custom_id", "method", "url", "body")
_OPENAI_FIX: Final = (
    "A file with only such lines is converted: put them in a file of their own. "
    'Or write {"key":"…","request":{"contents":[{"role":"user","parts":[{"text":"…"}]}]}}.'
)


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """What a line is: its key (empty when it has none that can be used) and its problems, none when it is right.

    `problem_count` counts all of them; `problems` describes the first ones (`walk.MAX_DESCRIBED`). `notes` say what is
    passed on unknown.
    """

    key: str
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0
    notes: frozenset[Note] = frozenset()


def check_line(line: bytes, line_number: int, task: Task, world: World = CLOSED) -> CheckedLine:
    """Check one line, without its line end. Whether its key is used elsewhere is not this function's matter."""
    value, checked = parse_line(line, line_number)
    return checked or check_parsed(value, line_number, task, world)


def parse_line(line: bytes, line_number: int) -> tuple[Any, CheckedLine | None]:
    """Return the JSON value of a line, or why it has none that can be checked."""
    if len(line) > MAX_LINE_BYTES:
        return None, long_line(len(line), line_number)
    try:
        return parse(line), None
    except JsonFault as fault:
        return None, _refused(line_number, f"The line {fault.message}", fault.fix)


def check_parsed(value: Any, line_number: int, task: Task, world: World = CLOSED) -> CheckedLine:
    """Check the JSON value of a line, as `json_text.parse` returned it."""
    findings = Findings()
    key = _check_value(value, task, findings, world)
    if world.model and task == "generate" and not findings.count:
        check_together(value["request"], world.model, findings, is_cloud=world.is_cloud)
    problems = tuple(Problem(line_number, shown(key), *finding) for finding in findings.described)
    return CheckedLine(key, problems, findings.count, frozenset(findings.notes))


def is_openai(names: Collection[str], *, body_is_object: bool) -> bool:
    """True for a line with these members that belongs to an OpenAI batch; rows of a table may have a url and a body."""
    if "request" in names or "custom_id" not in names:
        return False
    return body_is_object or ("method" in names and "url" in names)


def is_anthropic(names: Collection[str]) -> bool:
    """True for a line with these members that belongs to an Anthropic batch."""
    return "custom_id" in names and "params" in names and not {"request", "body"} & set(names)


def long_line(size_bytes: int, line_number: int) -> CheckedLine:
    """Return the answer for a line over `MAX_LINE_BYTES`, of which only the size is known."""
    return _refused(
        line_number,
        f"The line has {size_bytes:,} bytes, more than {MAX_LINE_BYTES:,}.",
        "Upload large media first and refer to it with fileData.",
    )


def _refused(line_number: int, message: str, fix: str) -> CheckedLine:
    return CheckedLine("", (Problem(line_number, "", message, fix),), 1)


def _check_value(value: Any, task: Task, findings: Findings, world: World) -> str:
    """Check the JSON value of a line; return its key."""
    if not isinstance(value, dict):
        what = "a number" if isinstance(value, BadNumber) else kind(value)
        fix = f"Write {LINE_FORM}."
        if value == [] or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
            fix = "JSONL isn't a JSON list: write each object on its own line."
        findings.add(lambda: (f"The line is {what}, not an object.", fix))
        return ""
    if is_openai(value.keys(), body_is_object=isinstance(value.get("body"), dict)):
        names = ", ".join(name for name in OPENAI_MEMBERS if name in value)
        findings.add(lambda: (f"The line is in OpenAI's batch format ({names}).", _OPENAI_FIX))
        custom_id = value.get("custom_id")
        return custom_id if isinstance(custom_id, str) else ""
    if is_anthropic(value.keys()):
        findings.add(lambda: ("The line is in Anthropic's batch format (custom_id, params).", _OPENAI_FIX))
        custom_id = value.get("custom_id")
        return custom_id if isinstance(custom_id, str) else ""
    if other := _other_form(value):
        findings.add(lambda: other)
        key = value.get("key", value.get("custom_id"))
        return key if isinstance(key, str) else ""
    for name in value.repeated if isinstance(value, RepeatingObject) else ():
        findings.add(partial(_text, f"`{shown(name)}` is given more than once.", "Keep one of them."))
    key = _check_key(value, findings)
    _check_request(value, task, findings, world)
    return key


def _other_form(line: dict[str, Any]) -> tuple[str, str] | None:
    """Return what a line is that is whole in another form, and what to do; None for a request, be it wrong."""
    if "request" in line:
        return None
    if "modelInput" in line:
        return (
            "The line is in Amazon Bedrock's batch format (recordId, modelInput).",
            f"Write {LINE_FORM}, or give a table with a prompt.",
        )
    answer = line.get("response", line.get("result"))
    if isinstance(answer, dict) and "contents" not in answer and any(name in line for name in ("key", "custom_id")):
        return (
            "The line is an answer, not a request: this looks like a file of results.",
            "Give the file of requests; get_results reads the answers of a batch.",
        )
    return None


def _check_key(line: dict[str, Any], findings: Findings) -> str:
    key = line.get("key")
    if isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARACTERS:
        return key
    if key is None:
        metadata = line.get("metadata")
        if isinstance(metadata, dict) and isinstance(metadata.get("key"), str):
            fix = "Move it out of `metadata`: in a file it goes next to `request`."
        else:
            fix = 'Add `"key":"…"`, different on every line: results are matched by it.'
        findings.add(lambda: ("The line has no `key`.", fix))
    elif key == "":
        findings.add(lambda: ("`key` is empty.", "Write a key that no other line has."))
    elif isinstance(key, str):
        findings.add(
            lambda: (
                f"`key` has {len(key)} characters.",
                f"Write at most {MAX_KEY_CHARACTERS}: a limit of this server.",
            )
        )
    else:
        what = f"`key` is {'a number' if isinstance(key, BadNumber) else kind(key)}; it must be text."
        quoted = isinstance(key, int | float) and not isinstance(key, bool)
        findings.add(lambda: (what, f'Write "{corrections.shown_value(key)}".' if quoted else "Write it in quotes."))
    return ""


def _check_request(line: dict[str, Any], task: Task, findings: Findings, world: World) -> None:
    root = request_message(task)
    walk = RequestWalk(findings, root, world)
    if line.get("request") is None:
        bare = {name: member for name, member in line.items() if name not in ("key", "metadata", "request")}
        if any(name in root.spellings for name in bare):
            findings.add(
                lambda: (f"The line is a bare {root.name}, without `request` around it.", f"Write {LINE_FORM}.")
            )
            walk.request(bare, "request")
        else:
            findings.add(lambda: ("The line has no `request`.", f"Write {LINE_FORM}."))
            _check_other_members(line, task, findings)
        return
    request = line["request"]
    if isinstance(request, str) and request.lstrip().startswith("{"):
        findings.add(
            lambda: ("`request` is JSON inside a string.", "Write the object itself, without quotes around it.")
        )
    else:
        walk.request(request, "request")
    _check_other_members(line, task, findings)


def _check_other_members(line: dict[str, Any], task: Task, findings: Findings) -> None:
    # `metadata` is already named in the problem of a missing key.
    known = {"key", "request"} if line.get("key") is not None else {"key", "request", "metadata"}
    for name in line:
        if name not in known:
            findings.add(partial(_other_member, name, task))


def _other_member(name: str, task: Task) -> tuple[str, str]:
    what = f"`{shown(name)}` doesn't belong in a line."
    if place := corrections.member_of_request(name, request_message(task)):
        return what, place
    if near := corrections.nearest(name, ("key", "request")):
        return what, f"Did you mean `{near}`?"
    return what, "Leave it out; a line has only `key` and `request`."


def _text(message: str, fix: str) -> tuple[str, str]:
    return message, fix
