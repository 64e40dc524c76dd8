"""The messages of a chat completion as Gemini's contents and system instruction."""

import json
import mimetypes
import re
from typing import Any, Final, NoReturn

from gemini_batch_mcp.intake.validator.corrections import kind, shown
from gemini_batch_mcp.intake.validator.together import STAND_IN

#: Media inside a message: its type, and its bytes as base64. Both writers and readers are lenient about case.
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[^;,]*)*;base64,(.*)", re.DOTALL | re.IGNORECASE)
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_MEMBERS: Final = frozenset({"role", "content", "tool_calls", "function_call", "tool_call_id", "name", "refusal"})
#: Members that say nothing to a model; SDKs write them back into a history.
_LEFT_OUT: Final = frozenset({"annotations", "weight"})
_AUDIO: Final = {"wav": "audio/wav", "mp3": "audio/mp3"}
#: Not the name that is registered, but a common one.
_SPELLINGS: Final = {"image/jpg": "image/jpeg"}


class Unconvertible(Exception):
    """Something in a line that Gemini has no counterpart for."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def refuse(message: str, fix: str) -> NoReturn:
    """Raise `Unconvertible`."""
    raise Unconvertible(message, fix)


def contents_of(messages: Any, left_out: set[str]) -> dict[str, Any]:
    """Return `contents`, and `systemInstruction` when there are system messages.

    Neighbouring messages of one role become one content, as Gemini wants the roles to take turns. `left_out` collects
    members that got lost.

    Raises:
        Unconvertible: a message has no counterpart.
    """
    if not isinstance(messages, list) or not messages:
        refuse("`body.messages` isn't a list of messages.", 'Write [{"role":"user","content":"…"}].')
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    calls: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"body.messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            refuse(f"`{path}.role` must be one of {', '.join(_ROLES)}.", "Correct it.")
        _check_members(message, path, left_out)
        parts = _parts_of(message, path, calls, left_out)
        if role in ("system", "developer"):
            if contents:
                refuse(
                    f"`{path}` is a {role} message that comes after others.",
                    "Put it first: Gemini has one instruction.",
                )
            if not all("text" in part for part in parts):
                refuse(f"`{path}` holds something other than text.", "Move it into a user message.")
            system += parts
            continue
        gemini = "model" if role == "assistant" else "user"
        if contents and contents[-1]["role"] == gemini:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": gemini, "parts": parts})
    if not contents:
        refuse("`body.messages` has only system messages.", "Add a user message.")
    request: dict[str, Any] = {"contents": contents}
    if system:
        request["systemInstruction"] = {"parts": system}
    return request


def _check_members(message: dict[str, Any], path: str, left_out: set[str]) -> None:
    for name, value in message.items():
        if value is None or name in _MEMBERS:
            continue
        if name not in _LEFT_OUT:
            refuse(f"`{path}.{shown(name)}` has no counterpart in Gemini.", "Leave it out.")
        if value != []:
            left_out.add(f"{name} of messages")
    if message.get("name") is not None and message["role"] not in ("tool", "function"):
        left_out.add("name of messages")


def _parts_of(message: dict[str, Any], path: str, calls: dict[str, str], left_out: set[str]) -> list[dict[str, Any]]:
    if message["role"] in ("tool", "function"):
        return [_tool_answer(message, path, calls, left_out)]
    given = message.get("tool_calls") or []
    if not isinstance(given, list):
        refuse(f"`{path}.tool_calls` is {kind(given)}; it must be a list.", "Write a list of calls.")
    called = [_call(call, f"{path}.tool_calls[{index}]", calls) for index, call in enumerate(given)]
    if (function := message.get("function_call")) is not None:
        called.append(_call({"function": function}, f"{path}.function_call", calls))
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    # Beside calls, SDKs write a text of "" that was never there.
    parts = [] if called and content == "" else _content_parts(content, path, left_out)
    if not parts and not called:
        refuse(f"`{path}` has no content.", "Add its text, or leave the message out.")
    if called:
        # Gemini 3 wants a signature with each step's first call, and only its own calls have one.
        called[0]["thoughtSignature"] = STAND_IN
    return parts + called


def _content_parts(content: Any, path: str, left_out: set[str]) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list):
        refuse(f"`{path}.content` is {kind(content)}.", "Write text, or a list of parts.")
    return [_part(part, f"{path}.content[{index}]", left_out) for index, part in enumerate(content)]


def _part(part: Any, path: str, left_out: set[str]) -> dict[str, Any]:
    form = part.get("type") if isinstance(part, dict) else None
    given = part.get(form) if isinstance(form, str) else None
    match form:
        case "text" | "refusal" if isinstance(given, str):
            return {"text": given}
        case "image_url" if isinstance(given, dict | str):
            return _image(given, path, left_out)
        case "input_audio" if isinstance(given, dict):
            return _audio(given, path)
        case "file" if isinstance(given, dict):
            return _file(given, path)
    what = "without a type" if form is None else f"of type {shown(str(form))} that cannot be converted"
    refuse(f"`{path}` is a part {what}.", "Write a part of type text, image_url, input_audio or file.")


def _image(image: dict[str, Any] | str, path: str, left_out: set[str]) -> dict[str, Any]:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        refuse(f"`{path}.image_url` has no `url`.", 'Write {"url":"data:image/png;base64,…"}.')
    if isinstance(image, dict) and image.get("detail") not in (None, "auto"):
        left_out.add("detail of images")
    return _media(url, path)


def _audio(audio: dict[str, Any], path: str) -> dict[str, Any]:
    form, data = audio.get("format"), audio.get("data")
    if not isinstance(form, str) or form not in _AUDIO:
        refuse(f"`{path}.input_audio.format` must be one of {', '.join(_AUDIO)}.", "Correct it.")
    if not isinstance(data, str):
        refuse(f"`{path}.input_audio` has no `data`.", "Write the sound's bytes as base64.")
    return _inline(_AUDIO[form], data)


def _file(file: dict[str, Any], path: str) -> dict[str, Any]:
    data, name = file.get("file_data"), file.get("filename")
    if not isinstance(data, str):
        what = "names a file at OpenAI" if file.get("file_id") is not None else "has no `file_data`"
        refuse(f"`{path}.file` {what}.", 'Write {"file_data":"data:application/pdf;base64,…"}.')
    if data[:5].lower() != "data:" and isinstance(name, str) and (guessed := mimetypes.guess_type(name)[0]):
        return _inline(guessed, data)
    return _media(data, path)


def _media(url: str, path: str) -> dict[str, Any]:
    """Return data as inline data, and a link as a file."""
    if match := _DATA_URL.fullmatch(url):
        return _inline(match[1].lower(), match[2])
    if not url.startswith(("https://", "gs://")):
        refuse(f"`{path}` holds neither an https link nor a data: URL with base64.", "Write data:image/png;base64,….")
    guessed = mimetypes.guess_type(url.partition("?")[0])[0]
    if not guessed:
        refuse(f"`{path}` holds a link whose media type can't be told.", "Write a data: URL with base64.")
    return {"fileData": {"fileUri": url, "mimeType": guessed}}


def _inline(mime_type: str, data: str) -> dict[str, Any]:
    # Line ends inside base64, as e-mail has them, are none of its letters at Gemini.
    return {"inlineData": {"mimeType": _SPELLINGS.get(mime_type, mime_type), "data": "".join(data.split())}}


def _call(call: Any, path: str, calls: dict[str, str]) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        refuse(f"`{path}` is not a function call.", "Write its name and arguments.")
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        refuse(f"`{path}.function.arguments` is not a string with a JSON object.", "Correct it.")
    if isinstance(call.get("id"), str):
        calls[call["id"]] = function["name"]
    return {"functionCall": {"name": function["name"], "args": arguments}}


def _tool_answer(message: dict[str, Any], path: str, calls: dict[str, str], left_out: set[str]) -> dict[str, Any]:
    name = message.get("name") or calls.get(str(message.get("tool_call_id")))
    if not isinstance(name, str):
        refuse(
            f"`{path}` answers a call that isn't in the messages.",
            "Add the assistant message with its `tool_calls` before it.",
        )
    texts = [part.get("text") for part in _content_parts(message.get("content"), path, left_out)]
    if not all(isinstance(text, str) for text in texts):
        refuse(f"`{path}` holds something other than text.", "Write the function's answer as text.")
    return {"functionResponse": {"name": name, "response": {"result": "".join(map(str, texts))}}}
