"""Requests given in the call itself, as prompts or whole requests, written as a request file like any other."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.copies import Draft
from gemini_batch_mcp.intake.requests.keys import KeyLog, Keys
from gemini_batch_mcp.intake.requests.lines import Examined, LineChecker, Onlooker
from gemini_batch_mcp.intake.requests.passes import Report, too_large
from gemini_batch_mcp.intake.requests.skipping import LeftOut
from gemini_batch_mcp.intake.validator.corrections import kind, nearest, shown
from gemini_batch_mcp.intake.validator.validate import CheckedLine
from gemini_batch_mcp.intake.validator.wire_schema import Message, request_message
from gemini_batch_mcp.intake.validator.world import CLOSED, World
from gemini_batch_mcp.settings import MAX_FILE_BYTES

_MEMBERS: Final = ("key", "prompt", "request")
_FORM: Final = '{"key":"…","prompt":"…"} or {"key":"…","request":{…}}'


def write_requests(
    requests: Sequence[JsonObject],
    destination: Path,
    *,
    task: Task,
    keys_path: Path,
    max_file_bytes: int = MAX_FILE_BYTES,
    system_instruction: str = "",
    generation_config: JsonObject | None = None,
    onlooker: Onlooker | None = None,
    world: World = CLOSED,
    left_out: LeftOut | None = None,
) -> RequestFile:
    """Write items `{"key","prompt"}` or `{"key","request"}` to `destination`, one line each.

    An item without a key gets `row-<number>`, which stays the same when the same items are given again.
    `system_instruction` and `generation_config` go into every request that has none of its own; for embeddings,
    `generation_config` holds taskType, title or outputDimensionality. `Problem.line` is the number of the item.
    With `left_out`, wrong items go there instead of refusing all.

    Raises:
        RequestProblems: items have problems; carries the whole report.
        RepeatsFound: only with `left_out`.
        UsageError: there are no items, too many bytes, or a system instruction for embeddings.
        StorageError: the files cannot be written.
    """
    if not requests:
        raise UsageError("`requests` is empty.", f"Give items of the form {_FORM}.")
    if system_instruction and task == "embed":
        raise UsageError("Embeddings don't take a system instruction.", "Leave `system_instruction` out.")
    defaults = _defaults(task, system_instruction, generation_config, world)
    report = Report(unit="item")
    checker = LineChecker(task, onlooker, world)
    if left_out is not None:
        left_out.begin()
    with KeyLog(keys_path) as keys, Draft(destination) as draft:
        for number, (key, item) in enumerate(zip(_keys(requests), requests, strict=True), 1):
            if left_out is not None and left_out.takes(number):
                keys.skip_line()
                continue
            examined = _examine_item(item, key, number, checker, defaults)
            if left_out is not None and examined.checked.problem_count:
                left_out.add_checked(number, examined.checked)
                keys.skip_line()
                continue
            report.add(examined.checked)
            report.add_slips(examined.slips, number)
            report.add_notes(examined.checked.notes, number)
            if examined.checked.key:
                keys.extend(Keys([examined.checked.key]))
            else:
                keys.skip_line()
            draft.write(examined.line + b"\n")
        if left_out is not None:
            left_out.refuse_repeats(keys)
            if not keys.count:
                raise left_out.all_wrong("`requests`")
        else:
            report.add_repeats(keys)
        if report.problem_count:
            raise report.as_error("`requests`")
        if draft.size_bytes > max_file_bytes:
            raise too_large("`requests`", draft.size_bytes, max_file_bytes)
        return draft.keep(keys, report, mended=bool(report.slips))


def _keys(requests: Sequence[Any]) -> Iterator[Any]:
    """Yield each item's key as given, or one that no item has."""
    given = [item.get("key") if isinstance(item, Mapping) else None for item in requests]
    taken = {key for key in given if isinstance(key, str)}
    for number, key in enumerate(given, 1):
        if key is not None:
            yield key
            continue
        generated, again = f"row-{number}", 1
        while generated in taken:
            again += 1
            generated = f"row-{number}-{again}"
        taken.add(generated)
        yield generated


def _examine_item(item: Any, key: Any, number: int, checker: LineChecker, defaults: JsonObject) -> Examined:
    root = request_message(checker.task)
    if not isinstance(item, Mapping):
        return _refused(number, key, [(f"The item is {kind(item)}, not an object.", f"Write {_FORM}.")])
    if problems := list(_form_problems(item, root)):
        return _refused(number, key, problems)
    request = _request_of(item, checker.task)
    if isinstance(request, dict):
        own = {root.spellings[name].name for name in request if name in root.spellings and request[name] is not None}
        request = {**request, **{name: value for name, value in defaults.items() if name not in own}}
    try:
        line = _line({"key": key, "request": request})
    except (TypeError, ValueError, RecursionError):
        return _refused(number, key, [("The item cannot be written as JSON.", "Give plain JSON values only.")])
    return checker.examine(line, number)


def _form_problems(item: Mapping[str, Any], root: Message) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the item around its request."""
    for name in item:
        if name not in _MEMBERS:
            near = nearest(str(name), _MEMBERS)
            inside = f"`{shown(str(name))}` belongs inside `request`."
            other = f"Did you mean `{near}`?" if near else f"Write {_FORM}."
            yield f"`{shown(str(name))}` is not a member of an item.", inside if name in root.spellings else other
    prompt, request = item.get("prompt"), item.get("request")
    if prompt is not None and request is not None:
        yield "The item has both `prompt` and `request`.", "Keep one of them."
    elif prompt is None and request is None:
        yield "The item has neither `prompt` nor `request`.", f"Write {_FORM}."
    elif prompt is not None and not isinstance(prompt, str):
        yield f"`prompt` is {kind(prompt)}; it must be text.", "Write it in quotes."
    elif prompt is not None and not prompt.strip():
        yield "`prompt` is empty.", "Write the text to answer."


def _request_of(item: JsonObject, task: Task) -> Any:
    if item.get("request") is not None:
        return item["request"]
    prompt = item["prompt"]
    if task == "embed":
        return {"content": {"parts": [{"text": prompt}]}}
    return {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}


def _defaults(task: Task, system_instruction: str, generation_config: JsonObject | None, world: World) -> JsonObject:
    """Return the members that go into every request, checked once.

    Raises:
        RequestProblems: they are wrong by themselves; the problems have line 0.
    """
    defaults: dict[str, Any] = {}
    if system_instruction:
        defaults["systemInstruction"] = {"parts": [{"text": system_instruction}]}
    if generation_config and task == "generate":
        defaults["generationConfig"] = generation_config
    elif generation_config:
        spellings = request_message(task).spellings
        defaults |= {
            spellings[name].name if name in spellings else name: generation_config[name] for name in generation_config
        }
    probe = _examine_item({"prompt": "probe"}, "probe", 0, LineChecker(task, world=world), defaults)
    if probe.checked.problem_count:
        problems = [Problem(0, "", problem.message, problem.fix) for problem in probe.checked.problems]
        message = f"`generation_config` has {len(problems)} problem{'' if len(problems) == 1 else 's'}."
        raise RequestProblems(problems, len(problems), message, "Correct it, then submit the order again.")
    return defaults


def _line(value: JsonObject) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair: written as an escape, it is refused with that reason.
        return json.dumps(value, separators=(",", ":")).encode("utf-8")


def _refused(number: int, key: Any, problems: Sequence[tuple[str, str]]) -> Examined:
    known = key if isinstance(key, str) else ""
    described = tuple(Problem(number, shown(known), message, fix) for message, fix in problems)
    return Examined(CheckedLine(known, described, len(described)), b"")
