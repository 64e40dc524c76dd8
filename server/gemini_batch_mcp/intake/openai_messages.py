"""The messages of a chat completion as Gemini's contents and system instruction."""

import json
import mimetypes
import re
from typing import Any, Final, NoReturn

from gemini_batch_mcp.intake.advice import kind, shown

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


class Unconvertible(Exception):
    """Something in a line that Gemini has no counterpart for."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def refuse(message: str, fix: str) -> NoReturn:
    """Raise `Unconvertible`."""
    raise Unconvertible(message, fix)


def contents_of(messages: Any) -> dict[str, Any]:
    """Return `contents`, and `systemInstruction` when there are system messages.

    Neighbouring messages of one role become one content, as Gemini wants the roles to take turns.

    Raises:
        Unconvertible: a message has no counterpart.
    """
    if not isinstance(messages, list) or not messages:
        refuse("`body.messages` is no list of messages.", 'Write [{"role":"user","content":"…"}].')
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    calls: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"body.messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            refuse(f"`{path}.role` is none of {', '.join(_ROLES)}.", "Correct it.")
        parts = _parts_of(message, path, calls)
        if role in ("system", "developer"):
            if contents:
                refuse(f"`{path}` is a {role} message after others.", "Put it first: Gemini has one instruction.")
            system += parts
            continue
        gemini = "model" if role == "assistant" else "user"
        if contents and contents[-1]["role"] == gemini:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": gemini, "parts": parts})
    if not contents:
        refuse("`body.messages` has system messages only.", "Add a user message.")
    request: dict[str, Any] = {"contents": contents}
    if system:
        request["systemInstruction"] = {"parts": system}
    return request


def _parts_of(message: dict[str, Any], path: str, calls: dict[str, str]) -> list[dict[str, Any]]:
    if message["role"] in ("tool", "function"):
        return [_tool_answer(message, path, calls)]
    parts = _content_parts(message.get("content"), path)
    parts += [
        _call(call, f"{path}.tool_calls[{index}]", calls) for index, call in enumerate(message.get("tool_calls") or [])
    ]
    if not parts:
        refuse(f"`{path}` has no content.", "Write its text, or leave the message out.")
    return parts


def _content_parts(content: Any, path: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list):
        refuse(f"`{path}.content` is {kind(content)}.", "Write text, or a list of parts.")
    return [_part(part, f"{path}.content[{index}]") for index, part in enumerate(content)]


def _part(part: Any, path: str) -> dict[str, Any]:
    form = part.get("type") if isinstance(part, dict) else None
    if form == "text" and isinstance(part.get("text"), str):
        return {"text": part["text"]}
    if form == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str):
            return _media(url, path)
    if form == "input_audio" and isinstance(audio := part.get("input_audio"), dict):
        return {"inlineData": {"mimeType": f"audio/{audio.get('format')}", "data": audio.get("data")}}
    if form == "file" and isinstance(file := part.get("file"), dict) and isinstance(file.get("file_data"), str):
        return _media(file["file_data"], path)
    refuse(f"`{path}` is a part of type {shown(str(form))} that cannot be converted.", "Write text or image_url parts.")


def _media(url: str, path: str) -> dict[str, Any]:
    """Return data as inline data, and a link as a file."""
    if match := _DATA_URL.fullmatch(url):
        return {"inlineData": {"mimeType": match[1], "data": match[2]}}
    if not url.startswith(("https://", "gs://")):
        refuse(f"`{path}` holds a link that is neither https nor data.", "Write a data: URL with base64.")
    guessed = mimetypes.guess_type(url.partition("?")[0])[0]
    if not guessed:
        refuse(f"`{path}` holds a link that does not tell its media type.", "Write a data: URL with base64.")
    return {"fileData": {"fileUri": url, "mimeType": guessed}}


def _call(call: Any, path: str, calls: dict[str, str]) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        refuse(f"`{path}` is no function call.", "Write its name and arguments.")
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        refuse(f"`{path}.function.arguments` is no JSON object in a text.", "Correct it.")
    if isinstance(call.get("id"), str):
        calls[call["id"]] = function["name"]
    return {"functionCall": {"name": function["name"], "args": arguments}}


def _tool_answer(message: dict[str, Any], path: str, calls: dict[str, str]) -> dict[str, Any]:
    name = message.get("name") or calls.get(str(message.get("tool_call_id")))
    if not isinstance(name, str):
        refuse(f"`{path}` answers a call that is not there.", "Give the assistant message with `tool_calls` before it.")
    texts = [part.get("text") for part in _content_parts(message.get("content"), path)]
    if not all(isinstance(text, str) for text in texts):
        refuse(f"`{path}` holds something else than text.", "Write the function's answer as text.")
    return {"functionResponse": {"name": name, "response": {"result": "".join(map(str, texts))}}}
