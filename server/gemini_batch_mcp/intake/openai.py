"""Lines of an OpenAI batch as Gemini request lines, in a copy; what has no counterpart is refused with its line.

Chat completions become generateContent requests, embeddings become embedContent requests.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.domain import RequestFile, Task
from gemini_batch_mcp.errors import Problem, UsageError
from gemini_batch_mcp.intake.advice import kind, nearest, shown
from gemini_batch_mcp.intake.copies import Draft
from gemini_batch_mcp.intake.json_text import JsonFault, RepeatingObject, parse
from gemini_batch_mcp.intake.keys import KeyLog, Keys
from gemini_batch_mcp.intake.lines import BOM, LongLine, pieces, split_lines
from gemini_batch_mcp.intake.openai_messages import Unconvertible, contents_of, refuse
from gemini_batch_mcp.intake.passes import Report, check_size, no_requests, too_large, unreadable
from gemini_batch_mcp.intake.response_schema import to_response_schema
from gemini_batch_mcp.intake.validate import CheckedLine, check_line, long_line
from gemini_batch_mcp.settings import MAX_FILE_BYTES

#: Members of a body that are plain generation settings.
_SETTINGS: Final[Mapping[str, str]] = {
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "top_logprobs": "logprobs",
    "logprobs": "responseLogprobs",
}
#: Members that say nothing about the answer; the model is that of the job.
_LEFT_OUT: Final = frozenset({"model", "user", "metadata", "store", "service_tier", "safety_identifier", "stream"})
_EFFORTS: Final[Mapping[str, str]] = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_MODES: Final[Mapping[str, str]] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_OTHER: Final = frozenset(
    {"messages", "stop", "response_format", "tools", "tool_choice", "reasoning_effort", "parallel_tool_calls"}
)


def write_converted(
    path: Path,
    destination: Path,
    *,
    task: Task = "generate",
    keys_path: Path,
    max_file_bytes: int = MAX_FILE_BYTES,
    limit_rows: int = 0,
) -> RequestFile:
    """Write what the lines of an OpenAI batch ask for as Gemini request lines; `custom_id` becomes the key.

    Raises:
        RequestProblems: lines cannot be converted; carries the whole report.
        UsageError: the file is empty, or too many bytes come out.
        PathError: the file cannot be read.
        StorageError: the copy cannot be written.
    """
    # A converted line may be shorter or longer than its original; only the outcome is held to the limit.
    check_size(path, 1 << 62)
    report = Report()
    left_out: set[str] = set()
    number = 0
    try:
        source = path.open("rb", buffering=0)
    except OSError as error:
        raise unreadable(path, error) from None
    with source, KeyLog(keys_path) as keys, Draft(destination) as draft:
        for piece in pieces(source):
            if limit_rows and keys.count >= limit_rows:
                break
            lines = [piece] if isinstance(piece, LongLine) else split_lines(piece)
            for line in lines:
                number += 1
                if isinstance(line, LongLine):
                    keys.skip_line()
                    report.add(long_line(line.size_bytes, number))
                    continue
                line = line.removeprefix(BOM) if number == 1 else line
                if not line.strip():
                    report.blank_lines += 1
                    keys.skip_line()
                    continue
                if limit_rows and keys.count >= limit_rows:
                    break
                converted, checked = convert_line(line, number, task, left_out)
                report.add(checked)
                if checked.key:
                    keys.extend(Keys([checked.key]))
                else:
                    keys.skip_line()
                draft.write(converted + b"\n")
        report.add_repeats(keys)
        if report.problem_count:
            raise report.as_error(path.name)
        if not keys.count:
            raise no_requests(path.name)
        if draft.size_bytes > max_file_bytes:
            raise too_large(path.name, draft.size_bytes, max_file_bytes)
        written = draft.keep(keys, report, mended=True)
    sentences = [f"{written.count:,} lines of an OpenAI batch were converted to Gemini requests."]
    if written.count == 1:
        sentences = ["1 line of an OpenAI batch was converted to a Gemini request."]
    if left_out:
        sentences.append(f"Left out, as it means nothing here: {', '.join(sorted(left_out))}.")
    return replace(written, warnings=(*sentences, *written.warnings))


def convert_line(line: bytes, number: int, task: Task, left_out: set[str]) -> tuple[bytes, CheckedLine]:
    """Return one line converted, and what the validator says about it. `left_out` collects members that got lost."""
    try:
        value = parse(line)
    except JsonFault as fault:
        return b"", _refused(number, "", f"The line {fault.message}", fault.fix)
    key = value.get("custom_id") if isinstance(value, dict) else None
    known = key if isinstance(key, str) else ""
    try:
        request = _request(value, task, left_out)
    except Unconvertible as problem:
        return b"", _refused(number, known, problem.message, problem.fix)
    except UsageError as error:
        return b"", _refused(number, known, error.message, error.next_step)
    converted = json.dumps({"key": key, "request": request}, ensure_ascii=False, separators=(",", ":"))
    written = converted.encode("utf-8", "surrogatepass")
    checked = check_line(written, number, task)
    return written, checked


def _request(line: Any, task: Task, left_out: set[str]) -> dict[str, Any]:
    if not isinstance(line, dict):
        refuse(f"The line is {kind(line)}, not an object.", 'Write {"custom_id":"…","body":{…}}.')
    if isinstance(line, RepeatingObject):
        refuse(f"`{shown(line.repeated[0])}` is given more than once.", "Keep one of them.")
    for name in line:
        if name not in ("custom_id", "method", "url", "body"):
            refuse(f"`{shown(name)}` is no member of an OpenAI batch line.", "Leave it out.")
    if not isinstance(line.get("custom_id"), str) or not line["custom_id"]:
        refuse("The line has no `custom_id`.", 'Add `"custom_id":"…"`, different on every line.')
    body = line.get("body")
    if not isinstance(body, dict):
        refuse("The line has no `body`.", 'Add `"body":{"messages":[…]}`.')
    if isinstance(body, RepeatingObject):
        refuse(f"`body.{shown(body.repeated[0])}` is given more than once.", "Keep one of them.")
    url = line.get("url")
    if task == "embed":
        return _embedding(body, left_out)
    if "messages" not in body:
        what = f" ({shown(url, 40)})" if isinstance(url, str) else ""
        fix = 'Give task "embed".' if "input" in body and "embeddings" in str(url) else "Write `body.messages`."
        refuse(f"`body` has no `messages`{what}; only chat completions can be converted.", fix)
    return _generation(body, left_out)


def _generation(body: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    for name, value in body.items():
        if value is not None and name not in _SETTINGS and name not in _LEFT_OUT and name not in _OTHER:
            near = nearest(name, (*_SETTINGS, *_OTHER))
            refuse(
                f"`body.{shown(name)}` has no counterpart at Gemini.",
                f"Did you mean `{near}`?" if near else "Leave it out.",
            )
    left_out.update(name for name in _LEFT_OUT | {"parallel_tool_calls"} if body.get(name) is not None)
    request = contents_of(body["messages"])
    config: dict[str, Any] = {}
    for name, gemini in _SETTINGS.items():
        if (value := body.get(name)) is not None:
            if config.get(gemini, value) != value:
                refuse("`body` has both `max_tokens` and `max_completion_tokens`.", "Keep one of them.")
            config[gemini] = value
    if (stop := body.get("stop")) is not None:
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    if (effort := body.get("reasoning_effort")) is not None:
        if effort not in _EFFORTS:
            refuse(f"`body.reasoning_effort` is {shown(str(effort))}.", f"Write one of {', '.join(_EFFORTS)}.")
        config["thinkingConfig"] = {"thinkingLevel": _EFFORTS[effort]}
    config |= _response_format(body.get("response_format"))
    if config:
        request["generationConfig"] = config
    if (tools := body.get("tools")) is not None:
        request["tools"] = [{"functionDeclarations": _declarations(tools)}]
    if (choice := body.get("tool_choice")) is not None:
        request["toolConfig"] = {"functionCallingConfig": _tool_choice(choice)}
    return request


def _embedding(body: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    text = body.get("input")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str):
        refuse("`body.input` is no single text.", "Write one line for each text.")
    for name, value in body.items():
        if name not in ("input", "model", "user", "dimensions", "encoding_format"):
            refuse(f"`body.{shown(name)}` has no counterpart in Gemini's embeddings.", "Leave it out.")
        if name == "encoding_format" and value not in (None, "float"):
            refuse("`body.encoding_format` is not float.", "Leave it out: Gemini returns numbers.")
    left_out.update(name for name in ("model", "user") if body.get(name) is not None)
    request: dict[str, Any] = {"content": {"parts": [{"text": text}]}}
    if body.get("dimensions") is not None:
        request["outputDimensionality"] = body["dimensions"]
    return request


def _response_format(form: Any) -> dict[str, Any]:
    if form is None or form == {"type": "text"}:
        return {}
    kind_of_form = form.get("type") if isinstance(form, dict) else None
    if kind_of_form == "json_object":
        return {"responseMimeType": "application/json"}
    described = form.get("json_schema") if kind_of_form == "json_schema" else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        refuse(
            "`body.response_format` is none that can be converted.",
            "Write json_schema with a `schema`, or leave it out.",
        )
    path = "body.response_format.json_schema.schema"
    return {"responseMimeType": "application/json", "responseSchema": to_response_schema(schema, path)}


def _declarations(tools: Any) -> list[dict[str, Any]]:
    if not isinstance(tools, list):
        refuse(f"`body.tools` is {kind(tools)}; it must be a list.", "Write a list of functions.")
    declarations = []
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict):
            refuse(f"`body.tools[{index}]` is no function.", "Gemini takes over functions only.")
        declaration = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
        parameters = function.get("parameters")
        # A function without parameters has none at Gemini; an object without members is refused there.
        if isinstance(parameters, dict) and parameters.get("properties"):
            declaration["parameters"] = to_response_schema(parameters, f"body.tools[{index}].function.parameters")
        declarations.append(declaration)
    return declarations


def _tool_choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return {"mode": "ANY", "allowedFunctionNames": [function["name"]]}
    refuse("`body.tool_choice` is none that can be converted.", f"Write one of {', '.join(_MODES)}, or one function.")


def _refused(number: int, key: str, message: str, fix: str) -> CheckedLine:
    return CheckedLine(key, (Problem(number, shown(key), message, fix),), 1)
