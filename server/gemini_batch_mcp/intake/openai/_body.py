"""The body of a chat completion or of an embedding as a Gemini request: settings, answer format, tools."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gemini_batch_mcp.intake.openai._messages import contents_of, refuse
from gemini_batch_mcp.intake.response_schema import to_response_schema
from gemini_batch_mcp.intake.validator.corrections import kind, nearest, shown, shown_value

#: Members of a body that are plain generation settings.
_SETTINGS: Final[Mapping[str, str]] = {
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "top_logprobs": "logprobs",
    "logprobs": "responseLogprobs",
}
#: Members that say nothing about the answer itself.
_LEFT_OUT: Final = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "stream", "stream_options", "prediction"}
    | {"prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"}
)
#: Members that may be left out with just these values.
_HARMLESS: Final[Mapping[str, Any]] = {"modalities": ["text"], "verbosity": "medium", "logit_bias": {}}
_CONVERTED: Final = frozenset(
    {"model", "messages", "stop", "response_format", "reasoning_effort"}
    | {"tools", "tool_choice", "functions", "function_call"}
)
_FIXES: Final[Mapping[str, str]] = {
    "verbosity": "Leave it out, and ask for a short or a long answer in the messages.",
    "modalities": 'Leave it out; ["text"] is what is converted.',
    "web_search_options": "Leave it out; Gemini's own search is a tool, googleSearch, of requests in its own form.",
}

#: How much to think, as models from Gemini 3 on take it.
_LEVELS: Final[Mapping[str, str]] = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
}
#: The next level for models that do not have one; XHIGH is only for those that are known to have it.
_NEAREST: Final[Mapping[str, str]] = {"MINIMAL": "LOW", "XHIGH": "HIGH"}
#: What a model takes of which nothing is known.
_USUAL_LEVELS: Final = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
#: The same for Gemini 2.5, in tokens; the numbers of Google's own OpenAI-compatible endpoint (docs/openai, 2026).
_BUDGETS: Final[Mapping[str, int]] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
}
_BUDGET_MODELS: Final = "gemini-2.5"
_MODES: Final[Mapping[str, str]] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

_EMBEDDING_LEFT_OUT: Final = ("user", "encoding_format")
_SHOWN_MODELS: Final = 3


@dataclass(slots=True)
class Notes:
    """What a conversion for `model` left out or only came near to, over all lines.

    `thinking_levels` are those that the model takes, empty where that is not known.
    """

    model: str = ""
    thinking_levels: tuple[str, ...] = ()
    left_out: set[str] = field(default_factory=set)
    #: The models that the lines name, in order; one more than are shown at most.
    models: dict[str, None] = field(default_factory=dict)
    remarks: set[str] = field(default_factory=set)

    def add_model(self, name: Any) -> None:
        """Note the model that a line names."""
        if isinstance(name, str) and len(self.models) <= _SHOWN_MODELS:
            self.models[shown(name, 40)] = None

    def sentences(self) -> list[str]:
        """Return what the user should know."""
        said = []
        if self.models:
            names = ", ".join(list(self.models)[:_SHOWN_MODELS]) + (", …" if len(self.models) > _SHOWN_MODELS else "")
            said.append(f"The model named in the lines ({names}) is not used: the order's model answers.")
        if self.left_out:
            said.append(f"Left out because Gemini has no counterpart: {', '.join(sorted(self.left_out))}.")
        return said + sorted(self.remarks)


def generation(body: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Return the body of a chat completion as a GenerateContentRequest.

    Raises:
        Unconvertible: something in it has no counterpart.
        UsageError: a schema in it has none.
    """
    request = contents_of(body.get("messages"), notes.left_out)
    _check_members(body, notes)
    config = _settings(body)
    if (effort := body.get("reasoning_effort")) is not None:
        config["thinkingConfig"] = _thinking(effort, notes)
    config |= _response_format(body.get("response_format"))
    if config:
        request["generationConfig"] = config
    tools = _tools(body.get("tools")) + _functions(body.get("functions"), "body.functions")
    if tools:
        request["tools"] = [{"functionDeclarations": tools}]
    for name in ("tool_choice", "function_call"):
        if (choice := body.get(name)) is not None:
            request["toolConfig"] = {"functionCallingConfig": _tool_choice(choice, name)}
    return request


def embedding(body: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Return the body of an embedding as an EmbedContentRequest. Raises `Unconvertible`."""
    text = body.get("input")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if isinstance(text, list) and text and isinstance(text[0], str):
        refuse(f"`body.input` has {len(text):,} texts.", "Write one line per text: each line gets one vector.")
    if isinstance(text, int | list):
        refuse("`body.input` holds token numbers.", "Write the text itself.")
    if not isinstance(text, str):
        refuse(f"`body.input` is {kind(text)}; it must be text.", "Write the text to embed.")
    for name, value in body.items():
        if value is not None and name not in ("input", "model", "dimensions", *_EMBEDDING_LEFT_OUT):
            refuse(f"`body.{shown(name)}` has no counterpart in Gemini's embeddings.", "Leave it out.")
    notes.left_out.update(name for name in _EMBEDDING_LEFT_OUT if body.get(name) not in (None, "float"))
    notes.add_model(body.get("model"))
    request: dict[str, Any] = {"content": {"parts": [{"text": text}]}}
    if body.get("dimensions") is not None:
        request["outputDimensionality"] = body["dimensions"]
    return request


def _check_members(body: dict[str, Any], notes: Notes) -> None:
    for name, value in body.items():
        if value is None or name in _SETTINGS or name in _CONVERTED:
            continue
        if name in _LEFT_OUT:
            notes.left_out.add(name)
        elif name not in _HARMLESS or value != _HARMLESS[name]:
            near = "" if name in _FIXES else nearest(name, (*_SETTINGS, *_CONVERTED))
            fix = f"Did you mean `{near}`?" if near else _FIXES.get(name, "Leave it out.")
            refuse(f"`body.{shown(name)}` has no counterpart in Gemini.", fix)
    notes.add_model(body.get("model"))


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, gemini in _SETTINGS.items():
        if (value := body.get(name)) is not None:
            if config.get(gemini, value) != value:
                refuse("`body` has both `max_tokens` and `max_completion_tokens`.", "Keep one of them.")
            config[gemini] = value
    if (stop := body.get("stop")) is not None:
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    return config


def _thinking(effort: Any, notes: Notes) -> dict[str, Any]:
    if not isinstance(effort, str) or effort not in _LEVELS:
        refuse(f"`body.reasoning_effort` is {shown_value(effort)}.", f"Write one of {', '.join(_LEVELS)}.")
    if notes.model.removeprefix("models/").startswith(_BUDGET_MODELS):
        return {"thinkingBudget": _BUDGETS[effort]}
    level = _LEVELS[effort]
    if level not in (notes.thinking_levels or _USUAL_LEVELS):
        level = _NEAREST.get(level, level)
    if effort.upper() != level:
        notes.remarks.add(f"reasoning_effort {effort} was converted to the nearest level that Gemini has, {level}.")
    return {"thinkingLevel": level}


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
            "`body.response_format` is of a type that cannot be converted.",
            "Write json_schema with a `schema`, or leave it out.",
        )
    path = "body.response_format.json_schema.schema"
    return {"responseMimeType": "application/json", "responseSchema": to_response_schema(schema, path)}


def _tools(tools: Any) -> list[dict[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, list):
        refuse(f"`body.tools` is {kind(tools)}; it must be a list.", "Write a list of functions.")
    functions = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            refuse(f"`body.tools[{index}]` is not a function.", "Only functions can be converted.")
        functions.append(_declaration(tool.get("function"), f"body.tools[{index}].function"))
    return functions


def _functions(functions: Any, path: str) -> list[dict[str, Any]]:
    if functions is None:
        return []
    if not isinstance(functions, list):
        refuse(f"`{path}` is {kind(functions)}; it must be a list.", "Write a list of functions.")
    return [_declaration(function, f"{path}[{index}]") for index, function in enumerate(functions)]


def _declaration(function: Any, path: str) -> dict[str, Any]:
    if not isinstance(function, dict):
        refuse(f"`{path}` is not a function.", "Write its name, description and parameters.")
    declaration = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    parameters = function.get("parameters")
    # A function without parameters has none at Gemini; an object without members is refused there.
    if isinstance(parameters, dict) and parameters.get("properties"):
        declaration["parameters"] = to_response_schema(parameters, f"{path}.parameters")
    return declaration


def _tool_choice(choice: Any, name: str) -> dict[str, Any]:
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    function = choice.get("function", choice) if isinstance(choice, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return {"mode": "ANY", "allowedFunctionNames": [function["name"]]}
    refuse(f"`body.{name}` cannot be converted.", f"Write one of {', '.join(_MODES)}, or one function.")
