"""What Gemini refuses together, or for one model, though each member by itself is right.

Sources, all read in 2026-11: what users reported of whole batches that failed a day later. What they agree on is
refused; what is open is warned of.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from gemini_batch_mcp.intake.validator.corrections import shown, shown_value
from gemini_batch_mcp.intake.validator.walk import Findings
from gemini_batch_mcp.intake.validator.wire_schema import message
from gemini_batch_mcp.intake.validator.world import noted

#: The documented stand-in for the signature of a call that Gemini did not make itself.
STAND_IN: Final = "skip_thought_signature_validator"

_VERSION: Final = re.compile(r"(?:models/)?gemini-(\d{1,3})(?:\.(\d{1,3}))?(?![\d.])")
_FUNCTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_JSON: Final = "application/json"
_SEARCHES: Final = ("googleSearch", "googleSearchRetrieval")
#: Values of `format`, by type, that are known to be taken.
_FORMATS: Final[Mapping[str, frozenset[str]]] = {
    "STRING": frozenset({"enum", "date-time"}),
    "NUMBER": frozenset({"float", "double"}),
    "INTEGER": frozenset({"int32", "int64"}),
}
_MAX_DEPTH: Final = 60


def check_together(request: Mapping[str, Any], model: str, findings: Findings, *, is_cloud: bool = False) -> None:
    """Add to `findings` what a generate request that is right by itself holds and `model` does not take."""
    if is_cloud and get(request, "GenerateContentRequest", "cachedContent"):
        findings.add(
            lambda: (
                "`request.cachedContent` cannot be used in batches on Google Cloud.",
                "Leave the cache out, and write what it holds into the request.",
            )
        )
    _Check(_version(model), model, findings).request(request)


def _version(model: str) -> tuple[int, int]:
    """Return the version that a model's name tells, (0, 0) for none."""
    found = _VERSION.match(model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def get(value: Any, owner: str, name: str) -> Any:
    """Return a member in either spelling; None where there is none."""
    if not isinstance(value, Mapping):
        return None
    found = value.get(name)
    return found if found is not None else value.get(message(owner).fields[name].snake_name)


class _Check:
    def __init__(self, version: tuple[int, int], model: str, findings: Findings) -> None:
        self.version = version
        self.model = model
        self.findings = findings

    def request(self, request: Mapping[str, Any]) -> None:
        def member(name: str) -> Any:
            return get(request, "GenerateContentRequest", name)

        config, tools = member("generationConfig"), member("tools") or []
        system = member("systemInstruction")
        if member("cachedContent"):
            beside = [name for name in ("systemInstruction", "tools", "toolConfig") if member(name)]
            if beside:
                self._refuse(
                    f"`request.cachedContent` stands beside {' and '.join(beside)}, which Gemini refuses together.",
                    "Put them into the cache when you create it, or leave the cache out.",
                )
        for index, part in enumerate(get(system, "Instruction", "parts") or []):
            if get(part, "Part", "text") == "":
                self._refuse(
                    f"`request.systemInstruction.parts[{index}].text` is empty, which Gemini refuses.",
                    "Write the instruction, or leave `systemInstruction` out.",
                )
        self._config(config, tools)
        self._functions(tools)
        self._calls(member("contents"))

    def _config(self, config: Any, tools: Sequence[Any]) -> None:
        schema = get(config, "GenerationConfig", "responseSchema")
        form = get(config, "GenerationConfig", "responseMimeType")
        here = "request.generationConfig"
        wants_json = schema is not None or form == _JSON
        if wants_json and (0, 0) < self.version < (3, 0):
            for tool in tools:
                for name in _SEARCHES:
                    if get(tool, "Tool", name) is not None:
                        self._refuse(
                            f"`request.tools` has {name} together with an answer in JSON, which {self.model} refuses.",
                            "Leave one of them out, or give a model from Gemini 3 on.",
                        )
        if schema is not None and form is None:
            self._warn(
                f"`{here}.responseSchema` stands without `responseMimeType`",
                ': Gemini may ignore or refuse it. Write "application/json".',
            )
        if schema is not None:
            self._schema(schema, f"{here}.responseSchema")
        self._thinking(get(config, "GenerationConfig", "thinkingConfig"), f"{here}.thinkingConfig")

    def _thinking(self, thinking: Any, here: str) -> None:
        level = get(thinking, "ThinkingConfig", "thinkingLevel")
        budget = get(thinking, "ThinkingConfig", "thinkingBudget")
        refused = False
        if level is not None and (0, 0) < self.version < (3, 0):
            refused = True
            self._refuse(
                f"`{here}.thinkingLevel` is not taken by {self.model}.",
                "Write `thinkingBudget`, a number of tokens, or give a model from Gemini 3 on.",
            )
        if budget is not None and self.version >= (3, 6):
            refused = True
            self._refuse(f"`{here}.thinkingBudget` is not taken by {self.model}.", "Write `thinkingLevel`.")
        if level is not None and budget is not None and not refused:
            self._warn(f"`{here}` has both thinkingLevel and thinkingBudget", ": Gemini may refuse that. Keep one.")

    def _functions(self, tools: Sequence[Any]) -> None:
        for at, tool in enumerate(tools):
            for index, function in enumerate(get(tool, "Tool", "functionDeclarations") or []):
                here = f"request.tools[{at}].functionDeclarations[{index}]"
                name = get(function, "FunctionDeclaration", "name")
                if isinstance(name, str) and not _FUNCTION_NAME.fullmatch(name):
                    self._warn(
                        f"`{here}.name` is {shown_value(name)}",
                        ": Gemini may refuse it. Write letters, digits, _ . : - only, with a letter or _ first.",
                    )
                if (parameters := get(function, "FunctionDeclaration", "parameters")) is not None:
                    self._schema(parameters, f"{here}.parameters")

    def _schema(self, schema: Any, here: str, depth: int = 0) -> None:
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return
        kind, form = get(schema, "Schema", "type"), get(schema, "Schema", "format")
        items, members = get(schema, "Schema", "items"), get(schema, "Schema", "properties")
        if kind == "ARRAY" and items is None:
            self._refuse(f"`{here}` is an ARRAY without `items`, which Gemini refuses.", 'Add "items":{"type":"…"}.')
        if isinstance(form, str) and isinstance(kind, str) and form not in _FORMATS.get(kind, {form}):
            takes = ", ".join(sorted(_FORMATS[kind]))
            self._refuse(
                f"`{here}.format` is {shown_value(form)}, which Gemini refuses for {kind}.",
                f"Leave it out, or write one of {takes}; say in `description` what form the value has.",
            )
        if kind in ("INTEGER", "NUMBER") and get(schema, "Schema", "enum"):
            self._refuse(
                f"`{here}.enum` stands with the type {kind}; Gemini takes it for STRING only.",
                'Write the type "STRING", or `minimum` and `maximum`.',
            )
        required = get(schema, "Schema", "required")
        if isinstance(required, list) and isinstance(members, Mapping):
            for name in required:
                if name not in members:
                    self._warn(
                        f"`{here}.required` names {shown_value(name)}, which `properties` does not have",
                        ": Gemini may refuse that.",
                    )
        self._schema(items, f"{here}.items", depth + 1)
        for name, member in members.items() if isinstance(members, Mapping) else ():
            self._schema(member, f"{here}.properties.{shown(name, 40)}", depth + 1)
        for index, other in enumerate(get(schema, "Schema", "anyOf") or []):
            self._schema(other, f"{here}.anyOf[{index}]", depth + 1)

    def _calls(self, contents: Any) -> None:
        turns = [content for content in contents or [] if isinstance(content, Mapping)]
        for index, content in enumerate(turns):
            here = f"request.contents[{index}]"
            parts = get(content, "Content", "parts") or []
            calls = [part for part in parts if get(part, "Part", "functionCall") is not None]
            if not calls:
                continue
            # Of calls made at once, only the first carries a signature.
            if self.version >= (3, 0) and not get(calls[0], "Part", "thoughtSignature"):
                self._warn(
                    f"`{here}` has a functionCall without its `thoughtSignature`",
                    f", which {self.model} may refuse. Write the signature that came with the call, or, for one that "
                    f'Gemini did not make, "thoughtSignature":"{STAND_IN}".',
                )
            if index + 1 == len(turns):
                continue
            answers = sum(
                get(part, "Part", "functionResponse") is not None
                for turn in takewhile(lambda turn: get(turn, "Content", "role") != "model", turns[index + 1 :])
                for part in get(turn, "Content", "parts") or []
            )
            if answers != len(calls):
                self._refuse(
                    f"`{here}` has {len(calls)} functionCall part{'' if len(calls) == 1 else 's'}, and the turn after "
                    f"it {answers} functionResponse part{'' if answers == 1 else 's'}; Gemini wants one for each.",
                    "Answer every call in the next turn.",
                )

    def _refuse(self, text: str, fix: str) -> None:
        self.findings.add(lambda: (text, fix))

    def _warn(self, before: str, after: str) -> None:
        self.findings.note(noted(before, after))
