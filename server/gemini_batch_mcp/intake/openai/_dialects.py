"""Batch lines of OpenAI's Responses API and of Anthropic's Messages, as bodies of chat completions.

What has a meaning there goes on as that; all else is refused in one sentence that names the form.
"""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from gemini_batch_mcp.intake.openai._messages import refuse
from gemini_batch_mcp.intake.validator.corrections import shown

_RESPONSES: Final = "an OpenAI Responses line"
_ANTHROPIC: Final = "an Anthropic Message line"

#: Members that mean the same in a chat completion, by the name that they have there.
_OF_RESPONSES: Final[Mapping[str, str]] = {
    "model": "model",
    "max_output_tokens": "max_completion_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_logprobs": "top_logprobs",
    "user": "user",
    "metadata": "metadata",
    "store": "store",
    "service_tier": "service_tier",
    "safety_identifier": "safety_identifier",
    "prompt_cache_key": "prompt_cache_key",
}
_OF_ANTHROPIC: Final[Mapping[str, str]] = {
    "model": "model",
    "max_tokens": "max_completion_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop",
    "metadata": "metadata",
    "service_tier": "service_tier",
}


def chat_of_responses(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a Responses request as that of a chat completion. Raises `Unconvertible`."""
    form, chat, messages = _RESPONSES, dict[str, Any](), list[Any]()
    for name, value in body.items():
        if value is None or (name in ("stream", "background") and value is False):
            continue
        if name in _OF_RESPONSES:
            chat[_OF_RESPONSES[name]] = value
        elif name == "instructions" and isinstance(value, str):
            messages.insert(0, {"role": "system", "content": value})
        elif name == "input" and isinstance(value, str):
            messages.append({"role": "user", "content": value})
        elif name == "input" and isinstance(value, list):
            messages += [_message(item, form) for item in value]
        elif name == "reasoning" and isinstance(value, Mapping) and value.keys() <= {"effort"}:
            chat["reasoning_effort"] = value.get("effort")
        elif name == "text" and isinstance(value, Mapping) and value.keys() <= {"format"}:
            chat["response_format"] = _format(value.get("format"))
        else:
            _refuse(form, f"body.{shown(name)}")
    return {**chat, "messages": messages}


def chat_of_anthropic(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of an Anthropic request as the body of a chat completion. Raises `Unconvertible`."""
    form, chat, messages = _ANTHROPIC, dict[str, Any](), list[Any]()
    for name, value in params.items():
        if value is None or (name == "stream" and value is False):
            continue
        if name in _OF_ANTHROPIC:
            chat[_OF_ANTHROPIC[name]] = value
        elif name == "system":
            messages.insert(0, {"role": "system", "content": _content(value, form)})
        elif name == "messages" and isinstance(value, list):
            messages += [_message(item, form) for item in value]
        else:
            _refuse(form, f"params.{shown(name)}")
    return {**chat, "messages": messages}


def _message(item: Any, form: str) -> dict[str, Any]:
    if not isinstance(item, Mapping) or not item.keys() <= {"role", "content", "type", "id", "status"}:
        _refuse(form, "a message with other members than role and content")
    if item.get("type") not in (None, "message"):
        _refuse(form, f"an item of type {shown(str(item['type']))}")
    return {"role": item.get("role"), "content": _content(item.get("content"), form)}


def _content(content: Any, form: str) -> Any:
    return [_part(part, form) for part in content] if isinstance(content, list) else content


def _part(part: Any, form: str) -> dict[str, Any]:
    """Return a part as chat completions have it; what stands beside its content (a cache's marks) would be lost."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    source = part.get("source") if isinstance(part, Mapping) else None
    match kind:
        case "text" | "input_text" | "output_text" if part.keys() <= {"type", "text", "annotations", "logprobs"}:
            return {"type": "text", "text": part.get("text")}
        case "input_image" if isinstance(part.get("image_url"), str) and part.keys() <= {"type", "image_url", "detail"}:
            return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail")}}
        case "input_file" if isinstance(part.get("file_data"), str) and part.keys() <= {
            "type",
            "file_data",
            "filename",
        }:
            return {"type": "file", "file": {"file_data": part["file_data"], "filename": part.get("filename")}}
        case "image" | "document" if isinstance(source, Mapping) and part.keys() <= {"type", "source"}:
            if source.get("type") == "base64" and source.keys() <= {"type", "media_type", "data"}:
                url = f"data:{source.get('media_type')};base64,{source.get('data')}"
                return {"type": "image_url", "image_url": {"url": url}}
            if source.get("type") == "url" and kind == "image":
                return {"type": "image_url", "image_url": {"url": source.get("url")}}
    _refuse(form, f"a part of type {shown(str(kind))}" if kind is not None else "a part without a type")


def _format(form: Any) -> Any:
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {"schema": form.get("schema")}}
    return form


def _refuse(form: str, what: str) -> NoReturn:
    refuse(f"The line is {form} with {what}, which has no counterpart here.", "Leave that out, or the line.")
