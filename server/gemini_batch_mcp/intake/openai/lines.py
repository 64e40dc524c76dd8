"""Lines of an OpenAI batch as Gemini request lines, in a copy; what has no counterpart is refused with its line.

Chat completions become generateContent requests, embeddings become embedContent requests.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import Problem, UsageError
from gemini_batch_mcp.intake.openai._body import Notes, embedding, generation
from gemini_batch_mcp.intake.openai._dialects import chat_of_anthropic, chat_of_responses
from gemini_batch_mcp.intake.openai._messages import Unconvertible, refuse
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.prices.price_list import load_prices
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.copies import Draft
from gemini_batch_mcp.intake.requests.filling import Filling
from gemini_batch_mcp.intake.requests.keys import KeyLog, Keys
from gemini_batch_mcp.intake.requests.lines import (
    LineChecker,
    LongLine,
    Onlooker,
    is_blank,
    pieces,
    split_lines,
    without_marks,
)
from gemini_batch_mcp.intake.requests.mending import to_line
from gemini_batch_mcp.intake.requests.passes import (
    NO_LIMIT_BYTES,
    Report,
    check_size,
    no_requests,
    spread_lines,
    too_large,
)
from gemini_batch_mcp.intake.requests.skipping import LeftOut
from gemini_batch_mcp.intake.rows.spreading import Spread, has, told
from gemini_batch_mcp.intake.validator.corrections import kind, shown, shown_value
from gemini_batch_mcp.intake.validator.json_text import JsonFault, RepeatingObject, parse
from gemini_batch_mcp.intake.validator.validate import OPENAI_MEMBERS, CheckedLine, is_anthropic, long_line
from gemini_batch_mcp.intake.validator.world import CLOSED, World
from gemini_batch_mcp.settings import MAX_FILE_BYTES

_CHAT: Final = "/chat/completions"
_EMBEDDINGS: Final = "/embeddings"
_RESPONSES: Final = "/responses"


def write_converted(
    path: Path,
    destination: Path,
    *,
    task: Task = "generate",
    keys_path: Path,
    max_file_bytes: int = MAX_FILE_BYTES,
    limit_rows: int = 0,
    spread: Spread | None = None,
    world: World = CLOSED,
    onlooker: Onlooker | None = None,
    filling: Filling | None = None,
    left_out: LeftOut | None = None,
) -> RequestFile:
    """Write what the lines of an OpenAI batch ask for as Gemini request lines; `custom_id` becomes the key.

    With `limit_rows`, only the first so many lines are converted, blank ones not counted; with `spread`, those spread
    so. `world.model` is the
    one that will answer: how much it shall think is written in its own way. With `left_out`, lines that cannot be
    converted go there instead of refusing the file.

    Raises:
        RequestProblems: lines cannot be converted; carries the whole report.
        RepeatsFound: only with `left_out`.
        UsageError: the file is empty, or too many bytes come out.
        PathError: the file cannot be read.
        StorageError: the copy cannot be written.
    """
    # A converted line may be shorter or longer than its original; only the outcome is held to the limit.
    check_size(path, NO_LIMIT_BYTES)
    report, conversion = Report(), Conversion(task, world, onlooker, filling)
    with SourceFile(path) as source, KeyLog(keys_path) as keys, Draft(destination) as draft:
        converted = 0
        rows = spread_lines(source, spread) if spread else None
        if rows is not None:
            report.spread = told(rows, path.name, "request")
        if left_out is not None:
            left_out.begin()
        for number, line in enumerate(_lines(source), 1):
            if rows is not None and not has(rows, number):
                keys.skip_line()
                continue
            if not isinstance(line, LongLine) and is_blank(line):
                report.blank_lines += 1
                keys.skip_line()
                continue
            if left_out is not None and left_out.takes(number):
                keys.skip_line()
            else:
                written, checked = conversion.line(line, number)
                if left_out is not None and checked.problem_count:
                    left_out.add_checked(number, checked)
                    keys.skip_line()
                else:
                    report.add(checked)
                    report.add_notes(checked.notes, number)
                    if checked.key:
                        keys.extend(Keys([checked.key]))
                    else:
                        keys.skip_line()
                    draft.write(written + b"\n")
            converted += 1
            if converted == limit_rows:
                break
        if left_out is not None:
            left_out.refuse_repeats(keys)
        else:
            report.add_repeats(keys)
        if report.problem_count:
            raise report.as_error(path.name)
        if not keys.count:
            raise left_out.all_wrong(path.name) if left_out is not None and left_out.count else no_requests(path.name)
        if draft.size_bytes > max_file_bytes:
            raise too_large(path.name, draft.size_bytes, max_file_bytes)
        written_file = draft.keep(keys, report, mended=True)
    return replace(written_file, warnings=(*conversion.warnings(written_file.count), *written_file.warnings))


class Conversion:
    """Converts the lines of one file, and collects what got lost on the way."""

    def __init__(
        self, task: Task, world: World = CLOSED, onlooker: Onlooker | None = None, filling: Filling | None = None
    ) -> None:
        self._task = task
        self._notes = Notes(world.model, load_prices().thinking_levels(world.model))
        self._filling = filling
        self._vendor = "an OpenAI"
        self._checker = LineChecker(task, onlooker, world)

    def line(self, line: bytes | LongLine, number: int) -> tuple[bytes, CheckedLine]:
        """Return one line converted, and what the validator says about it."""
        if isinstance(line, LongLine):
            return b"", long_line(line.size_bytes, number)
        try:
            value = parse(line)
        except JsonFault as fault:
            return b"", _refused(number, "", f"The line {fault.message}", fault.fix)
        key = value.get("custom_id") if isinstance(value, dict) else None
        known = key if isinstance(key, str) else ""
        try:
            request = self._request(value)
            whole = {"key": known, "request": request}
            if self._filling is not None:
                self._filling.into(whole)
            written = to_line(whole)
        except Unconvertible as problem:
            return b"", _refused(number, known, problem.message, problem.fix)
        except UsageError as error:
            return b"", _refused(number, known, error.message, error.next_step)
        except (TypeError, ValueError, RecursionError):
            return b"", _refused(
                number, known, "The line holds a value that doesn't exist in JSON.", "Write plain JSON."
            )
        return written, self._checker.examine(written, number).checked

    def warnings(self, count: int) -> tuple[str, ...]:
        """Return what the user should know about `count` lines that were converted."""
        what = f"1 line of {self._vendor} batch was converted to a Gemini request."
        if count != 1:
            what = f"{count:,} lines of {self._vendor} batch were converted to Gemini requests."
        return (what, *self._notes.sentences())

    def _request(self, line: Any) -> dict[str, Any]:
        if not isinstance(line, dict):
            refuse(f"The line is {kind(line)}, not an object.", 'Write {"custom_id":"…","body":{…}}.')
        if "request" in line or ("custom_id" not in line and "key" in line):
            refuse(
                "The line isn't an OpenAI batch line, unlike others in this file.",
                "A file can hold only one format: put the lines of each format in a file of their own.",
            )
        if is_anthropic(line.keys()) and not isinstance(line, RepeatingObject):
            return self._of_anthropic(line)
        if isinstance(line, RepeatingObject):
            refuse(f"`{shown(line.repeated[0])}` is given more than once.", "Keep one of them.")
        for name, value in line.items():
            if name not in OPENAI_MEMBERS and value is not None:
                refuse(f"`{shown(name)}` doesn't belong in an OpenAI batch line.", "Leave it out.")
        _check_id(line.get("custom_id"))
        body = line.get("body")
        if not isinstance(body, dict):
            refuse("The line has no `body`.", 'Add `"body":{"messages":[…]}`.')
        if isinstance(body, RepeatingObject):
            refuse(f"`body.{shown(body.repeated[0])}` is given more than once.", "Keep one of them.")
        if _path(line.get("url")).endswith(_RESPONSES):
            body = chat_of_responses(body)
            line = {**line, "url": _CHAT}
        self._check_kind(line, body)
        return embedding(body, self._notes) if self._task == "embed" else generation(body, self._notes)

    def _of_anthropic(self, line: dict[str, Any]) -> dict[str, Any]:
        self._vendor = "an Anthropic"
        for name, value in line.items():
            if name not in ("custom_id", "params") and value is not None:
                refuse(f"`{shown(name)}` doesn't belong in an Anthropic batch line.", "Leave it out.")
        _check_id(line.get("custom_id"))
        params = line["params"]
        if self._task == "embed":
            refuse("The line is an Anthropic Message.", 'Give task "generate".')
        if not isinstance(params, dict) or isinstance(params, RepeatingObject):
            refuse("`params` isn't an object, or gives a name twice.", 'Write "params":{"messages":[…]}.')
        return generation(chat_of_anthropic(params), self._notes)

    def _check_kind(self, line: dict[str, Any], body: dict[str, Any]) -> None:
        """Refuse what is neither a chat completion nor an embedding, or not the one that was ordered."""
        method, url = line.get("method"), line.get("url")
        if method is not None and (not isinstance(method, str) or method.upper() != "POST"):
            refuse(f"`method` is {shown_value(method)}; it must be POST.", "Correct it.")
        if url is None:
            url = _EMBEDDINGS if "input" in body and "messages" not in body and self._task == "embed" else _CHAT
        path = _path(url)
        if not path.endswith((_CHAT, _EMBEDDINGS)):
            refuse(
                f"`url` is {shown_value(url)}; only chat completions, responses and embeddings can be converted.",
                "Leave these lines out.",
            )
        if path.endswith(_EMBEDDINGS) and self._task == "generate":
            refuse("The line asks for an embedding.", 'Give task "embed".')
        if path.endswith(_CHAT) and self._task == "embed":
            refuse("The line is a chat completion.", 'Give task "generate".')


def _lines(source: BinaryIO) -> Iterator[bytes | LongLine]:
    is_first = True
    for piece in pieces(source):
        for line in [piece] if isinstance(piece, LongLine) else split_lines(piece):
            yield without_marks(line) if is_first and isinstance(line, bytes) else line
            is_first = False


def _path(url: Any) -> str:
    return url.partition("?")[0].rstrip("/") if isinstance(url, str) else ""


def _check_id(custom_id: Any) -> None:
    if custom_id is None or custom_id == "":
        refuse("The line has no `custom_id`.", 'Add `"custom_id":"…"`, different on every line.')
    if not isinstance(custom_id, str):
        refuse(f"`custom_id` is {kind(custom_id)}; it must be text.", "Write it in quotes.")


def _refused(number: int, key: str, message: str, fix: str) -> CheckedLine:
    return CheckedLine(key, (Problem(number, shown(key), message, fix),), 1)
